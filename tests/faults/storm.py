"""Ctrl-C as a terminal sends it, to a command and all its processes, and what it must leave."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from utils.interrupts import EXIT_CODE, MESSAGE

ROOT = Path(__file__).parents[2]
STARTED_S = 0.06  # CPU seconds after which a command's own first lines have run, not only the interpreter's
POLL_S = 0.01
LONGEST_S = 120.0  # on the clock; nothing here takes as long
GONE_S = 10.0  # for the last process of a group to vanish
UNTIDY = ("Traceback", "Exception ignored", "Error", "leaked", "make room", "core dumped")


class Stopped(NamedTuple):
    """How a command met Ctrl-C."""

    exit_code: int
    out: str
    err: str
    left: bool  # a process of it outlived it
    seconds: float = 0.0  # from the signal to its end

    def faults(self) -> list[str]:
        """Return what is not as it must be."""
        text = self.out + self.err
        faults = [f"'{word}' in its output" for word in UNTIDY if word in text]
        faults += [f"exit code {self.exit_code}"] if self.exit_code != EXIT_CODE else []
        last = (self.err.strip().splitlines() or [""])[-1]
        faults += [f"last line {last!r}"] if last != MESSAGE else []
        return faults + (["a process is left"] if self.left else [])


def interrupt(command: Sequence[object], after: float, folder: Path, again: float | None = None) -> Stopped | None:
    """Run `python *command`, send Ctrl-C once all of it has used `after` CPU seconds; None where it ended before.

    `again`: a second Ctrl-C so many seconds after the first one. What it prints goes through files in `folder`.
    """
    with open(folder / "out.txt", "wb") as out, open(folder / "err.txt", "wb") as err:
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
        )
    deadline = time.monotonic() + LONGEST_S
    try:
        while _cpu_seconds(process.pid) < max(after, STARTED_S):
            if process.poll() is not None or time.monotonic() > deadline:
                return None
            time.sleep(POLL_S)
        os.killpg(process.pid, signal.SIGINT)
        sent = time.monotonic()
        if again is not None:
            time.sleep(again)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
        exit_code = process.wait(LONGEST_S)
        seconds = time.monotonic() - sent
        left = _is_left(process.pid)
    finally:
        if process.poll() is None or _exists(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    texts = [(folder / name).read_text(encoding="utf-8", errors="replace") for name in ("out.txt", "err.txt")]
    return Stopped(exit_code, *texts, left, seconds)


def _cpu_seconds(group: int) -> float:
    """Return the CPU time of all processes of a group, and of their children that have ended."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        ticks += sum(map(int, fields[11:15])) if int(fields[2]) == group else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _is_left(group: int) -> bool:
    """Return whether a process of the group is there when it should have gone."""
    deadline = time.monotonic() + GONE_S
    while _exists(group):
        if time.monotonic() > deadline:
            return True
        time.sleep(POLL_S)
    return False
