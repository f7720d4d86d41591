"""Places take the next seed when they are free; a failed training keeps the waiting seeds of its experiment back."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tools.launch.places import Place
from tools.launch.queue import Ended, Progress, run_units


def run_all(units: Iterable[int], places: Sequence[Place], work: Callable[[int, Place], object]) -> list[int]:
    """Return the units in the order of their ends; `work(unit, place)` runs in threads."""
    waiting = deque(units)
    with ThreadPoolExecutor(len(places)) as pool:
        return [
            unit
            for unit, _ in run_units(
                lambda: waiting.popleft() if waiting else None,
                places,
                lambda unit, place: pool.submit(work, unit, place),
            )
        ]


def test_units_on_several_places_run_at_once_and_one_at_a_time_on_each():
    together, busy, lock, seen = threading.Barrier(3), set(), threading.Lock(), []

    def work(unit: int, place: Place) -> None:
        with lock:
            assert place not in busy
            busy.add(place)
            seen.append(place.gpu)
        if unit < 3:
            together.wait(20)  # only three at once get past it
        with lock:
            busy.remove(place)

    assert sorted(run_all(range(9), [Place(gpu) for gpu in range(3)], work)) == list(range(9))
    assert set(seen) == {0, 1, 2}


def test_more_places_than_units_are_no_problem():
    assert run_all([7], [Place(gpu) for gpu in range(4)], lambda unit, place: None) == [7]


def test_on_one_place_each_end_is_handled_before_the_next_start():
    events = []
    waiting = deque("abc")
    with ThreadPoolExecutor(1) as pool:
        for unit, result in run_units(
            lambda: waiting.popleft() if waiting else None,
            [Place()],
            lambda unit, place: pool.submit(lambda: events.append(f"ran {unit}") or unit.upper()),
        ):
            events.append(f"handled {unit} {result}")
    assert events == [f"{word}" for unit in "abc" for word in (f"ran {unit}", f"handled {unit} {unit.upper()}")]


def test_an_error_in_a_unit_reaches_the_caller():
    def work(unit: int, place: Place) -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        run_all([1, 2], [Place(0), Place(1)], work)


def test_a_place_that_is_free_first_takes_more():
    done = threading.Event()
    seen = []

    def work(unit: int, place: Place) -> None:
        seen.append((unit, place.gpu))
        if unit == 0:
            assert done.wait(20)
        if unit == 4:
            done.set()

    assert run_all(range(5), [Place(0), Place(1)], work)[-1] in (0, 4)
    assert sorted(seen) == [(0, 0), (1, 1), (2, 1), (3, 1), (4, 1)]


def test_a_failed_training_keeps_waiting_seeds_back_and_lets_running_ones_end():
    progress = Progress(None, [5, 6, 7, 8])
    assert not progress.started and [progress.take(), progress.take()] == [5, 6] and progress.started
    progress.end(6, Ended(3))
    assert progress.take() is None and not progress.over
    progress.end(5, Ended(0))
    assert progress.over and progress.take() is None and progress.exit_code == 3


def test_the_exit_code_is_that_of_the_first_failed_seed_in_order_whichever_ended_first():
    progress = Progress(None, [1, 0])
    progress.take(), progress.take()
    progress.end(0, Ended(9))
    progress.end(1, Ended(4))
    assert progress.exit_code == progress.training_code == 4


def test_failed_tests_are_in_the_order_of_the_seeds_and_count_as_1():
    progress = Progress(None, [0, 1])
    progress.take(), progress.take()
    progress.end(1, Ended(0, [{"seed": 1}]))
    assert not progress.over
    progress.end(0, Ended(0, [{"seed": 0, "epoch": 1}, {"seed": 0, "epoch": 2}]))
    assert [test["seed"] for test in progress.failed_tests] == [0, 0, 1]
    assert progress.over and progress.exit_code == 1 and progress.training_code == 0
