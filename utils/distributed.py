"""One process per GPU, started by torchrun; a single process needs none of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from utils.errors import ConfigError

COLLECTIVE_TIMEOUT = timedelta(hours=3)  # the other processes wait while rank 0 evaluates
TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


class Ranks(NamedTuple):
    """This process among all: global rank, number of processes, rank on this machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0


def find_ranks(dist_train: bool) -> Ranks:
    """Return this process's ranks; with MODEL.DIST_TRAIN they come from torchrun's environment.

    Raises ConfigError with the right command when DIST_TRAIN is on but torchrun did not start the process.
    """
    if not dist_train:
        return Ranks()
    if any(name not in os.environ for name in TORCHRUN_VARIABLES):
        raise ConfigError(
            "MODEL.DIST_TRAIN True needs one process per GPU: start it with 'torchrun --nproc_per_node=<GPUs> train.py "
            "--config_file ...', or set MODEL.DIST_TRAIN False for a single process"
        )
    return Ranks(*(int(os.environ[name]) for name in TORCHRUN_VARIABLES))


@contextmanager
def joined(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Be part of torchrun's process group (NCCL on CUDA, gloo elsewhere); nothing to do for a single process."""
    if ranks.world_size == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", init_method="env://", timeout=COLLECTIVE_TIMEOUT
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def num_processes() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait() -> None:
    """Return when every process has arrived here."""
    if dist.is_initialized():
        dist.barrier()


def mean_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Return the mean of `tensor` over all processes."""
    if not dist.is_initialized():
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total / num_processes()


def gather_objects(value: Any) -> list[Any]:
    """Return the values of all processes in rank order."""
    if not dist.is_initialized():
        return [value]
    values = [None] * num_processes()
    dist.all_gather_object(values, value)
    return values
