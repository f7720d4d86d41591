"""The loader of batches: torch's, with workers that leave Ctrl-C to the process that started them."""

from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import DataLoader

from utils.errors import killed_worker
from utils.interrupts import hidden_from_children
from utils.workers import leave_interrupts_to_the_parent

GRACE_S = 0.5


class Loader(DataLoader):
    """A DataLoader; Ctrl-C reaches all processes of a terminal, but its workers and threads from their start ignore it.

    Workers start at the first iteration. Takes the arguments of a DataLoader, but worker_init_fn.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, worker_init_fn=leave_interrupts_to_the_parent, **kwargs)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches; RunError where a worker was killed."""
        with hidden_from_children():
            batches = super().__iter__()
        return _from_living_workers(batches)


def _from_living_workers(batches: Any) -> Iterator[Any]:
    try:
        yield from batches
    except Exception as error:  # a killed worker's is nearly anything: it also ends in the middle of handing over
        if str(error).startswith("Caught "):  # torch's words for one that a worker reports
            raise
        killed = [worker.pid for worker in getattr(batches, "_workers", ()) if _has_been_killed(worker)]
        if not killed:
            raise
        raise killed_worker(killed[0]) from error


def _has_been_killed(worker: BaseProcess) -> bool:
    worker.join(GRACE_S)  # its pipes break before its end is known
    return worker.exitcode is not None and worker.exitcode < 0
