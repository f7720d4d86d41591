"""The seeds of a launch in their order: which runs next where, and what has come of each experiment."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from enum import Enum
from typing import Any, NamedTuple

from tools.launch.places import Place
from tools.study.experiment import Experiment
from utils.interrupts import check

POLL_S = 0.2  # between two looks at Ctrl-C


FailedTest = dict[str, Any]  # seed, epoch, exit_code and folder, as the summary tells it


class Ended(NamedTuple):
    """How one seed ended."""

    exit_code: int  # of its training
    failed_tests: Sequence[FailedTest] = ()
    errors: Sequence[str] = ()  # of what failed


class ToTest(Enum):
    """Which checkpoints of a seed are tested after its training."""

    EVERY = "every"
    LAST = "last"  # of the last epoch alone
    NONE = "none"


class Progress:
    """How far an experiment has come: the seeds that wait, run and have ended."""

    def __init__(self, experiment: Experiment, seeds: Sequence[int], tests: ToTest = ToTest.EVERY) -> None:
        self.experiment, self.seeds, self.tests = experiment, seeds, tests
        self.running: set[int] = set()
        self.ended: dict[int, Ended] = {}
        self._waiting = deque(seeds)

    def take(self) -> int | None:
        """Return the next seed, which runs from here on; None when there is none, or a training failed."""
        if self.training_code or not self._waiting:
            return None
        seed = self._waiting.popleft()
        self.running.add(seed)
        return seed

    def end(self, seed: int, ended: Ended) -> None:
        self.running.remove(seed)
        self.ended[seed] = ended

    @property
    def started(self) -> bool:
        return bool(self.running or self.ended)

    @property
    def over(self) -> bool:
        return not self.running and (not self._waiting or self.training_code != 0)

    @property
    def training_code(self) -> int:
        """Exit code of the first seed whose training failed, 0 = none did."""
        return next((ended.exit_code for ended in self._in_order() if ended.exit_code), 0)

    @property
    def failed_tests(self) -> list[FailedTest]:
        return [test for ended in self._in_order() for test in ended.failed_tests]

    @property
    def errors(self) -> list[str]:
        """What the children that failed said, each once."""
        return [*dict.fromkeys(error for ended in self._in_order() for error in ended.errors)]

    @property
    def exit_code(self) -> int:
        """That of the training that failed, 1 when only a test did."""
        return self.training_code or int(bool(self.failed_tests))

    def _in_order(self) -> list[Ended]:
        return [self.ended[seed] for seed in self.seeds if seed in self.ended]


Unit = tuple[Progress, int]  # a seed of an experiment


def run_units(
    take: Callable[[], Unit | None], places: Sequence[Place], start: Callable[[Unit, Place], Future]
) -> Iterator[tuple[Unit, Ended]]:
    """Yield each unit that `take` gives with its end, in the order of the ends.

    Every place has one unit at a time. An end reaches the caller before its place takes the next unit, so `take` knows
    what came of it.
    """
    free, running = list(places), {}
    while True:
        while free and (unit := take()) is not None:
            place = free.pop(0)
            running[start(unit, place)] = (unit, place)
        if not running:
            return
        ended = wait(running, POLL_S, FIRST_COMPLETED).done
        check()
        for future in ended:
            unit, place = running.pop(future)
            free.append(place)
            yield unit, future.result()
