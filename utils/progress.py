"""Progress of what takes long: a bar on a terminal, lines for the launcher that asked for them, and nothing elsewhere.

Only the first of several processes shows any. A bar is gone when its work is done, and before an error is printed.
"""

import json
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from time import monotonic
from typing import NamedTuple, Protocol, TypeVar

SHOWS = "REID_TERMINAL"  # variable by which a launcher tells its children what their terminal shows of the log
QUIET, VERBOSE = "quiet", "verbose"  # its values: warnings alone; everything
MARK = "\x02"  # begins a line on stderr that tells of progress
PERIOD_S = 0.5  # between two lines to a launcher

Item = TypeVar("Item")


class Bar(Protocol):
    """How far a work is."""

    def update(self, n: int = 1) -> object:
        """Count `n` more as done."""

    def set_postfix_str(self, s: str = "") -> object:
        """Say what stands behind the bar."""

    def close(self) -> None:
        """Take it away."""


class Told(NamedTuple):
    """What a line to a launcher says."""

    what: str
    done: int
    total: int
    more: str = ""


@contextmanager
def progress(what: str, total: int, unit: str = "it", start: int = 0) -> Iterator[Bar]:
    """Yield the bar of a work of `total` units of which `start` are done."""
    bar = _make_bar(what, total, unit, start)
    try:
        yield bar
    finally:
        bar.close()


def over(items: Collection[Item], what: str, unit: str = "batch") -> Iterator[Item]:
    """Yield the items and count each when the next one is asked for."""
    with progress(what, len(items), unit) as bar:
        for item in items:
            yield item
            bar.update()


def told_by(line: str) -> Told | None:
    """Return what a line that a child printed to stderr tells of its progress, None for any other line."""
    if not line.startswith(MARK):
        return None
    with suppress(ValueError, TypeError):
        return Told(*json.loads(line.removeprefix(MARK)))
    return None


def above_bars() -> AbstractContextManager[None]:
    """Around what prints a line: the bars on the terminal make room for it."""
    tqdm = sys.modules.get("tqdm")
    # without its lock, which forks share: one that is killed with it would stop every line of the others
    return nullcontext() if tqdm is None else tqdm.tqdm.external_write_mode(nolock=True)


def clear_bars() -> None:
    """Take all bars off the terminal for good: what is printed next is the last thing on it."""
    if "tqdm" in sys.modules:
        for bar in [*sys.modules["tqdm"].tqdm._instances]:
            bar.close()


class _Silent:
    def update(self, n: int = 1) -> None:
        pass

    def set_postfix_str(self, s: str = "") -> None:
        pass

    def close(self) -> None:
        pass


class _Reporter(_Silent):
    """Tells a launcher, at the start, every PERIOD_S and at the end."""

    def __init__(self, told: Told) -> None:
        self._told, self._said = told, None
        self._tell()

    def update(self, n: int = 1) -> None:
        self._told = self._told._replace(done=self._told.done + n)
        if monotonic() >= self._due:
            self._tell()

    def set_postfix_str(self, s: str = "") -> None:
        self._told = self._told._replace(more=s)

    def close(self) -> None:
        if self._told != self._said:
            self._tell()

    def _tell(self) -> None:
        self._said, self._due = self._told, monotonic() + PERIOD_S
        with suppress(OSError, ValueError):  # a launcher that was killed
            print(f"{MARK}{json.dumps(self._told)}\n", end="", file=sys.stderr, flush=True)


def _make_bar(what: str, total: int, unit: str, start: int) -> Bar:
    if os.environ.get("RANK", "0") != "0":
        return _Silent()
    if SHOWS in os.environ:
        return _Reporter(Told(what, start, total))
    if not sys.stderr.isatty():
        return _Silent()
    from tqdm import tqdm

    return tqdm(desc=what, total=total, initial=start, unit=unit, leave=False, dynamic_ncols=True)
