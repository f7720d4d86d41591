"""What the terminal shows of a launch: lines, and for each child a bar or, without a terminal, now and then a line.

A child's log is in its file. Of what it prints, warnings are shown at once; what it says on stderr is kept until it is
known whether it failed, for an error is shown last.
"""

import sys
import threading
from collections import deque
from contextlib import suppress
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, TextIO

from utils.errors import printable
from utils.progress import QUIET, VERBOSE, Told, above_bars, told_by

if TYPE_CHECKING:
    from tqdm import tqdm

LINES_A_WORK = 10  # at most, without a terminal
LEAST_GAP_S = 30  # between two of them
MOST_LINES = 400  # of stderr that are kept of a child
BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"

_printing = threading.RLock()


def say(text: str, prefix: str = "", stream: TextIO | None = None) -> None:
    """Print the lines of `text`, each after `prefix`, to stdout unless another stream is given; nothing is buffered."""
    lines = [f"{prefix}{line}".rstrip() if prefix else line for line in text.split("\n")]
    # a terminal that is gone, or a full disk behind it, ends no launch
    with _printing, suppress(OSError), above_bars():
        print("\n".join(lines), file=stream or sys.stdout, flush=True)


class Screen:
    """The terminal of a launch; `verbose` shows all that children print."""

    def __init__(self, verbose: bool = False) -> None:
        self.verbose = verbose
        self._shown: set[str] = set()

    def listen(self, name: str, prefix: str = "") -> "Listener":
        """Return what hears one child, which stands under `name` beside its progress and prints after `prefix`."""
        return Listener(self, name, prefix)

    def is_new(self, line: str) -> bool:
        """Return whether a child's line is to be shown: a warning that many print is, once."""
        with _printing:
            is_new = self.verbose or line not in self._shown
            self._shown.add(line)
        return is_new


class Listener:
    """Hears what one child prints, line by line, in any thread; `close` takes its bar away."""

    def __init__(self, screen: Screen, name: str, prefix: str) -> None:
        self._screen, self._name, self._prefix = screen, name, prefix
        self._kept: deque[str] = deque(maxlen=MOST_LINES)
        self._bar: tqdm | None = None
        self._work = ("", 0)  # what the last line was about: its first word, and units in all
        self._done = 0  # of these units
        self._begun = self._shown_at = monotonic()  # of that work, and of its last line
        self._begun_with = self._shares = 0

    @property
    def shows(self) -> str:
        """What the child's own terminal is to show, a value of `utils.progress.SHOWS`."""
        return VERBOSE if self._screen.verbose else QUIET

    @property
    def said(self) -> str:
        """What the child said on stderr, its progress left out."""
        return "\n".join(self._kept)

    def hear(self, line: str) -> None:
        """Take a line of stdout."""
        if self._screen.is_new(line):
            say(line, self._prefix)

    def hear_error(self, line: str) -> None:
        """Take a line of stderr."""
        told = told_by(line)
        if told is None:
            self._kept.append(line)
            if self._screen.verbose:
                say(line, self._prefix, sys.stderr)
        elif told.total > 0:
            with _printing, suppress(Exception):  # whatever a terminal does to a bar, the child's pipe is read on
                self._show(told)

    def close(self) -> None:
        """Take the bar away."""
        with _printing, suppress(Exception):
            if self._bar is not None:
                self._bar.close()
                self._bar = None

    def _show(self, told: Told) -> None:
        work = (told.what.partition(" ")[0], told.total)
        is_new = work != self._work or told.done < self._done
        self._work, self._done = work, told.done
        if is_new:
            self._begun = self._shown_at = monotonic()
            self._begun_with = told.done
            self._shares = LINES_A_WORK * told.done // told.total
        if sys.stderr.isatty():
            self._draw(told, is_new)
        else:
            self._tell(told)

    def _draw(self, told: Told, is_new: bool) -> None:
        name = f"{self._name}, {printable(told.what)}"
        if self._bar is None or is_new:
            from tqdm import tqdm  # which a launch without a terminal does without

            self.close()
            place = {"total": told.total, "initial": told.done}
            self._bar = tqdm(desc=name, **place, leave=False, dynamic_ncols=True, bar_format=BAR)
        self._bar.set_description_str(name, refresh=False)
        if told.more:
            self._bar.set_postfix_str(printable(told.more), refresh=False)
        self._bar.n = told.done
        self._bar.refresh()

    def _tell(self, told: Told) -> None:
        """Print a line when another share is done, but none of a work that is short, and none soon after another."""
        shares, now = LINES_A_WORK * told.done // told.total, monotonic()
        if not self._shares < shares < LINES_A_WORK or now - self._shown_at < LEAST_GAP_S:  # its end has its own line
            return
        self._shares, self._shown_at = shares, now
        rate = (now - self._begun) / max(1, told.done - self._begun_with)
        left = timedelta(seconds=round(rate * (told.total - told.done)))
        parts = [f"{100 * told.done // told.total} %", told.more, f"about {left} left"]
        say(printable(f"{self._name}, {told.what}: {', '.join(filter(None, parts))}"))
