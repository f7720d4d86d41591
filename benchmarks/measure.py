"""What the benchmarks share: seconds and peak extra memory of a call, and the line that compares two of them."""

import argparse
import os
import time
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from utils.commands import OneLineParser
from utils.errors import ConfigError

MIB = 2**20


class Cost(NamedTuple):
    """Best wall time of the repeats and the peak of what Python and numpy allocated in one more, traced, call."""

    seconds: float
    peak_bytes: int


class Bar(NamedTuple):
    """What a figure must not exceed."""

    title: str
    must: float
    goal: float
    unit: str

    def judge(self, value: float) -> str:
        """Return a line that says whether `value` meets the bar."""
        verdict = "pass, goal met" if value <= self.goal else "pass" if value <= self.must else "MISS"
        return f"  bar: {self.title} {value:.3g} {self.unit}, must {self.must:g}, goal {self.goal:g}: {verdict}"


def read_size(
    argv: list[str] | None, prog: str, description: str, sizes: Mapping[str, tuple[int, ...]], meaning: str
) -> tuple[int, ...]:
    """Return the size that the command line names: a preset of `sizes`, or numbers, of which `meaning` says what."""
    parser = OneLineParser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--size", choices=sizes, default="small", help="preset (default: small)")
    parser.add_argument("numbers", nargs="*", type=int, metavar="N", help=meaning)
    args = parser.parse_args(argv)
    count = len(sizes["small"])
    if args.numbers and (len(args.numbers) != count or min(args.numbers) < 1):
        raise ConfigError(f"got the numbers {args.numbers}; give {count}, each at least 1: {meaning}")
    return tuple(args.numbers) or sizes[args.size]


def cores() -> str:
    """Return how many cores this process may use, as text."""
    return f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"


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
