"""The clock of an epoch: how long the loop waited for data, how fast it went, how much memory it took."""

import sys
from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import Any

import torch

from utils.distributed import num_processes

try:
    import resource
except ImportError:  # Windows
    resource = None

READINGS = ("data_time", "step_time", "data_share", "images_per_s", "mfu", "max_memory")
MIB = 2**20
KIB_PER_MIB = 2**10


class Clock:
    """Times the iterations of this process since the last reading; it starts when it is made.

    It only looks at the host's clock and never waits for the device. Over a window that is right, because a window ends
    where the meters have just been read, and that waits for the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._restart(perf_counter())

    def _restart(self, now: float) -> None:
        self._started = now
        self._waited = 0.0
        self._steps = self._images = 0

    def waiting(self, loader: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the batches of `loader`; what it takes to get them, its start included, is the time of the data."""
        asked = perf_counter()
        for batch in loader:
            self._waited += perf_counter() - asked
            yield batch
            asked = perf_counter()

    def count(self, images: int) -> None:
        """Count one iteration over so many images."""
        self._steps += 1
        self._images += images

    def read(self, peak_images: float) -> dict[str, float]:
        """Return the READINGS since the last reading, at least one iteration ago, and start anew.

        data_time and step_time are seconds per iteration on the wall, data_share their ratio; while the loop waits for
        data, a GPU may still be busy with what is queued. images_per_s is over all processes, two views of an image
        count twice. mfu, the share of the device's peak, is there where `peak_images` (images/s of one device at its
        peak) is not 0. max_memory [MiB] is the peak since the clock was made on CUDA, what the driver holds on MPS, and
        the peak of the process on a CPU, where the system tells it.
        """
        now = perf_counter()
        seconds = now - self._started
        own_rate = self._images / seconds
        readings = {
            "data_time": self._waited / self._steps,
            "step_time": seconds / self._steps,
            "data_share": self._waited / seconds,
            "images_per_s": own_rate * num_processes(),
        }
        if peak_images:
            readings["mfu"] = own_rate / peak_images
        self._restart(now)
        return readings | max_memory(self._device)


def max_memory(device: torch.device) -> dict[str, float]:
    """Return max_memory in MiB, see `Clock.read`; nothing on a CPU under Windows."""
    if device.type == "cuda":
        return {"max_memory": torch.cuda.max_memory_allocated(device) / MIB}
    if device.type == "mps":
        return {"max_memory": torch.mps.driver_allocated_memory() / MIB}
    if resource is None:
        return {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return {"max_memory": peak / (MIB if sys.platform == "darwin" else KIB_PER_MIB)}
