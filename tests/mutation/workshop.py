"""A copy of the project in which one file at a time is replaced, and the tests run on it in a process of its own."""

import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import hypothesis
import pytest

NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "data", "logs", "pretrained")
TIMEOUT_FACTOR, TIMEOUT_EXTRA = 4, 30  # of the time that the tests take without a fault; seconds
SURVIVED, KILLED, TIMED_OUT = "survived", "killed", "timed out"


class Workshop:
    """The copy of the project `root` in the empty folder `place`. Each test run is a fork of this process, in which the
    packages that the project imports are already loaded, the project itself is not.
    """

    def __init__(self, root: Path, place: Path) -> None:
        self.place = place
        shutil.copytree(root, place, ignore=NOT_COPIED, dirs_exist_ok=True)
        os.chdir(place)
        os.environ["PYTHONPATH"] = str(place)  # for what tests start
        sys.path[:] = [str(place), *(entry for entry in sys.path if entry not in ("", str(root)))]
        self._own = {path.stem for path in place.glob("*.py")} | {path.parent.name for path in place.glob("*/*.py")}
        self._forget_the_project()
        __import__("tests.conftest")
        self._forget_the_project()
        self._seconds: dict[tuple[str, ...], float] = {}
        self._writes = 0

    def check(self, tests: Sequence[str]) -> None:
        """Run `tests` without a fault, once; RuntimeError unless they pass."""
        tests = tuple(tests)
        if tests not in self._seconds:
            start = time.monotonic()
            if self._run(tests, None) != SURVIVED:
                raise RuntimeError(f"{' '.join(tests)} fail without any fault, so they cannot judge one")
            self._seconds[tests] = time.monotonic() - start

    def try_text(self, file: str, text: str, tests: Sequence[str]) -> str:
        """Return what becomes of the fault in the `text` of `file`: survived, killed or timed out."""
        self.check(tests)
        sound = (self.place / file).read_text(encoding="utf-8")
        self._write(file, text)
        try:
            return self._run(tests, TIMEOUT_EXTRA + TIMEOUT_FACTOR * self._seconds[tuple(tests)])
        finally:
            self._write(file, sound)

    def _write(self, file: str, text: str) -> None:
        """A text of equal length, written in the same second, would find the bytecode of the one before it."""
        (self.place / file).write_text(text, encoding="utf-8")
        self._writes += 1
        os.utime(self.place / file, times=(self._writes, self._writes))

    def _run(self, tests: Sequence[str], seconds: float | None) -> str:
        process = multiprocessing.get_context("fork").Process(target=_run_pytest, args=(list(tests),))
        process.start()
        try:
            process.join(seconds)
            code = process.exitcode
        finally:  # at Ctrl-C too
            if process.is_alive():
                os.killpg(process.pid, signal.SIGKILL)  # with what the tests started
                process.join()
        return TIMED_OUT if code is None else SURVIVED if code == 0 else KILLED

    def _forget_the_project(self) -> None:
        for name in list(sys.modules):
            if name.partition(".")[0] in self._own:
                del sys.modules[name]


class _NoShrinking:
    """A failure is all that counts here, not the smallest example of it; the same examples are tried each time."""

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Load the profile after that of tests/conftest.py."""
        hypothesis.settings.register_profile(
            "mutation",
            deadline=None,
            phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),  # a slow machine notices no fault
        )
        hypothesis.settings.load_profile("mutation")


def _run_pytest(tests: list[str]) -> None:
    os.setsid()
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1), os.dup2(silence, 2)
    os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests], plugins=[_NoShrinking()]))
