"""What the benchmarks share: time and memory of calls, the bars they are judged by, and the JSON that keeps figures."""

import argparse
import ctypes
import json
import os
import platform
import shlex
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch

from utils.commands import OneLineParser
from utils.errors import ConfigError
from utils.workers import usable_cores

MIB = 2**20
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
LARGEST_INT = 2**31 - 1
RESULTS = Path(__file__).resolve().parent / "results"  # of the commands' default sizes, kept with the code


class Cost(NamedTuple):
    """Best wall time of the repeats and the peak of what Python and numpy allocated in one more, traced, call."""

    seconds: float
    peak_bytes: int


class Bar(NamedTuple):
    """What a figure must not exceed or, with `at_least`, must reach."""

    title: str
    must: float
    goal: float
    unit: str
    at_least: bool = False

    def judge(self, value: float) -> str:
        """Return a line that says whether `value` meets the bar."""
        return (
            f"  bar: {self.title} {value:.3g} {self.unit}, must {self.must:g}, goal {self.goal:g}: "
            f"{self.verdict(value)}"
        )

    def verdict(self, value: float) -> str:
        """Return "pass, goal met", "pass" or "MISS"."""
        met = [value >= bound if self.at_least else value <= bound for bound in (self.must, self.goal)]
        return "pass, goal met" if all(met) else "pass" if met[0] else "MISS"

    def facts(self, value: float) -> dict[str, Any]:
        """Return what `keep` writes of the bar and its `value`, an entry of the list "bars"."""
        return {"value": value, **self._asdict(), "verdict": self.verdict(value)}


def make_parser(prog: str, description: str) -> OneLineParser:
    """Return a benchmark's parser; `description` is its docstring, shown as it stands."""
    layout = argparse.RawDescriptionHelpFormatter
    return OneLineParser(prog=prog, description=description, formatter_class=layout)


def read_size(
    argv: list[str] | None, prog: str, description: str, sizes: Mapping[str, tuple[int, ...]], meaning: str
) -> tuple[int, ...]:
    """Return the size that the command line names: a preset of `sizes`, or numbers, of which `meaning` says what."""
    parser = make_parser(prog, description)
    parser.add_argument("--size", choices=sizes, help="preset (default: small)")
    parser.add_argument("numbers", nargs="*", type=int, metavar="N", help=meaning)
    args = parser.parse_args(argv)
    count = len(sizes["small"])
    if args.numbers and (len(args.numbers) != count or min(args.numbers) < 1):
        raise ConfigError(f"got the numbers {args.numbers}; give {count}, each at least 1: {meaning}")
    if args.numbers and args.size:
        raise ConfigError(f"got --size {args.size} and the numbers {args.numbers}; give one of the two")
    return tuple(args.numbers) or sizes[args.size or "small"]


def cores() -> str:
    """Return how many cores this process may use, as text."""
    return f"{usable_cores()} cores"


def measure(function: Callable[[], Any], repeats: int) -> tuple[Any, Cost]:
    """Return the result of `function()` and its cost; memory is traced in a call of its own because tracing is slow."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    tracemalloc.start()
    try:
        result = function()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return result, Cost(min(times), peak)


def compare(title: str, baseline: Cost, ours: Cost) -> str:
    """Return a line with both costs and how many times faster and smaller ours is."""
    return (
        f"{title}: baseline {baseline.seconds:.2f} s, {baseline.peak_bytes / MIB:.0f} MiB | "
        f"ours {ours.seconds:.2f} s, {ours.peak_bytes / MIB:.0f} MiB | "
        f"{baseline.seconds / ours.seconds:.1f}x faster, {baseline.peak_bytes / ours.peak_bytes:.1f}x less memory"
    )


def alternate(
    functions: Mapping[str, Callable[[], Any]],
    repeats: int,
    threads: int | None = 1,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Return the seconds of each function's `repeats` runs, after a warm-up run of each, and print a line for each.

    The functions take turns, so that a busy machine slows all of them alike. The default clock is the CPU time of this
    process; `threads` limits torch's, None leaves them as they are.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    with limited_threads(threads):
        for function in functions.values():
            function()
        for _ in range(repeats):
            for name, function in functions.items():
                start = clock()
                function()
                times[name].append(clock() - start)
    for name, seconds in times.items():
        print(f"{name}: {describe_seconds(seconds)}")
    return times


@contextmanager
def limited_threads(threads: int | None) -> Iterator[None]:
    """Let torch compute in so many threads in this context; None changes nothing."""
    if threads is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def describe_seconds(seconds: list[float]) -> str:
    """Return median, minimum and maximum as text, in seconds or milliseconds."""
    values = [statistics.median(seconds), min(seconds), max(seconds)]
    scale, unit = (1, "s") if values[0] >= 1 else (1e3, "ms")
    middle, least, most = (f"{value * scale:.2f}" for value in values)
    return f"median {middle} {unit} ({least} to {most}, {len(seconds)} runs)"


def ratio(baseline: list[float], ours: list[float]) -> float:
    """Return how many times faster ours is, by the medians."""
    return statistics.median(baseline) / statistics.median(ours)


def summary(seconds: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum, entries of a row that `keep` writes."""
    return {"seconds": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}


def keep(name: str, facts: Mapping[str, Any], variant: str = "") -> Path:
    """Write `facts` with hardware, versions, date and command line to results/<name>[-<variant>].json; return its path.

    `variant` names a size or device other than the default one, whose file stays as it is. `facts` holds what JSON can
    hold; benchmarks/tables.py shows its entries "rows" (a list of dicts with the same keys: one table), "bars" (a list
    of `Bar.facts`) and every plain number or text.
    """
    path = RESULTS / f"{name}{'-' + variant if variant else ''}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_result(path, {"benchmark": name, "variant": variant, **_circumstances(), "facts": dict(facts)})
    return path


def write_result(path: Path, kept: Mapping[str, Any]) -> None:
    """Write what is kept of a benchmark and say where."""
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(f"kept in {path}", flush=True)


def keep_size(name: str, facts: Mapping[str, Any], size: tuple[int, ...], sizes: Mapping[str, tuple[int, ...]]) -> None:
    """Keep `facts` under the name of the preset that `size` is, and nothing of other numbers."""
    for preset, numbers in sizes.items():
        if numbers == size:
            keep(name, facts, "" if preset == "small" else preset)


def _circumstances() -> dict[str, Any]:
    """Return when, with which command and on what a benchmark runs."""
    script = Path(sys.argv[0])
    command = ["python", f"{script.parent.name}/{script.name}", *sys.argv[1:]]
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    hardware = {"cpu": cpu_model(), "cores": cores(), "gpu": gpu, "load": _load()}
    return {
        "date": date.today().isoformat(),
        "command": shlex.join(command),
        "hardware": hardware,
        "versions": versions,
    }


def keep_freed_memory() -> None:
    """Let this process keep memory that it frees, where the C library is glibc; elsewhere nothing happens.

    Otherwise a CPU run of large tensors returns them to the system and gets them back as fresh pages, at its own cost:
    a baseline with larger tensors would look slower than its arithmetic is.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_INT)
        libc.mallopt(M_TRIM_THRESHOLD, LARGEST_INT)


def cpu_model() -> str:
    """Return the name of the processor, with its vector instructions as torch sees them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def _load() -> float | None:
    """Return how many processes waited for a core in the last minute, where the system says it."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
