"""The clock of an epoch, against times summed by hand."""

from collections.abc import Container, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from processor.step import clock as clock_module
from processor.step.clock import READINGS, Clock, max_memory

CPU = torch.device("cpu")
STATUS = Path("/proc/self/status")
STARTING = 5.0  # seconds until a loader gives its first batch


class Time:
    """The host's clock, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(clock_module, "perf_counter", lambda: self.now)

    def loader(self, *seconds: float) -> Iterator[dict]:
        """Yield a batch after each of so many seconds."""
        self.now += STARTING
        for wait in seconds:
            self.now += wait
            yield {}


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def run(
    time: Time,
    clock: Clock,
    loads: Sequence[float],
    steps: Sequence[float],
    read_after: Container[int],
    peak_images: float = 0.0,
) -> list[dict[str, float]]:
    """Return the readings after the iterations in `read_after`; `steps` are the seconds of work in each."""
    readings = []
    for number, _ in enumerate(clock.waiting(time.loader(*loads)), start=1):
        clock.count(8)
        time.now += steps[number - 1]
        if number in read_after:
            readings.append(clock.read(peak_images))
            time.now += 0.25  # the log is written
    return readings


def test_waits_and_steps_are_means_over_the_window(time):
    first, second = run(time, Clock(CPU), [1, 2, 4], [10, 20, 30], (2, 3))
    assert first["data_time"] == pytest.approx((STARTING + 1 + 2) / 2)  # the loader's start is time of the data
    assert first["step_time"] == pytest.approx((STARTING + 1 + 10 + 2 + 20) / 2)
    assert first["data_share"] == pytest.approx(8 / 38)
    assert first["images_per_s"] == pytest.approx(16 / 38)
    assert second["data_time"] == pytest.approx(4)
    assert second["step_time"] == pytest.approx(0.25 + 4 + 30)  # writing the log is part of the loop
    assert second["images_per_s"] == pytest.approx(8 / 34.25)


def test_mfu_is_the_own_rate_over_that_of_the_peak(time, monkeypatch):
    monkeypatch.setattr(clock_module, "num_processes", lambda: 3)
    (reading,) = run(time, Clock(CPU), [1, 1], [4, 5], (2,), peak_images=8.0)
    assert reading["images_per_s"] == pytest.approx(3 * 1.0)  # 16 images in 16 s by each of three processes
    assert reading["mfu"] == pytest.approx(1.0 / 8.0)


def test_without_a_peak_there_is_no_mfu(time):
    (reading,) = run(time, Clock(CPU), [1], [1], (1,))
    assert reading.keys() == set(READINGS) - {"mfu"}


def test_what_happens_between_two_epochs_does_not_count(time):
    run(time, Clock(CPU), [1], [1], (1,))
    time.now += 1000  # an evaluation
    (reading,) = run(time, Clock(CPU), [1], [2], (1,))
    assert reading["step_time"] == pytest.approx(STARTING + 1 + 2)


@pytest.mark.skipif(not STATUS.is_file(), reason="needs Linux")
def test_memory_of_a_cpu_is_the_peak_of_the_process_in_mib():
    (kib,) = (int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    assert 0.99 < max_memory(CPU)["max_memory"] / (kib / 1024) < 4  # a process begins with the peak of its parent


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_of_a_gpu_is_the_peak_since_the_clock_was_made():
    device = torch.device("cuda")
    block = torch.empty(300 * 2**20, dtype=torch.uint8, device=device)
    del block
    Clock(device)
    held = max_memory(device)["max_memory"]
    block = torch.empty(100 * 2**20, dtype=torch.uint8, device=device)
    del block
    assert max_memory(device)["max_memory"] == pytest.approx(held + 100, abs=3)
