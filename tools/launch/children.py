"""The child processes of a launch: started by its threads, heard line by line, ended together."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, NoReturn

from tools.launch.places import Place
from tools.launch.screen import Listener
from utils import interrupts
from utils.file_lock import LAUNCH, LAUNCHER
from utils.progress import SHOWS

CHILD_GRACE_S = 30
LAST_GRACE_S = 2  # after a second Ctrl-C
DRAIN_S = 10  # for the last lines of a child; a process that it left behind may hold its pipe open


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in a child, or the launch is ending: its threads start nothing more."""


class Children:
    """Runs commands in `folder`, any number at once; an error that leaves its `with` block ends them.

    They are told the name of their `launch`. The block belongs to the main thread: SIGTERM becomes SystemExit in it.
    """

    def __init__(self, folder: Path, launch: str = "") -> None:
        self.folder, self.launch = folder, launch
        self._lock = threading.Lock()
        self._running: list[subprocess.Popen] = []
        self._ending = False

    def __enter__(self) -> "Children":
        self._previous = signal.signal(signal.SIGTERM, _exit)
        self._at_end = interrupts.at_end(self._end_now)
        self._at_end.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                # the terminal's Ctrl-C reached them too
                self._end(told=kind is KeyboardInterrupt or interrupts.asked())
        finally:
            self._at_end.__exit__(None, None, None)
            signal.signal(signal.SIGTERM, self._previous)

    def run(self, command: Sequence[str], place: Place, listener: Listener) -> int:
        """Run a command to its end; returns its exit code (-n: signal n).

        The listener hears each line of its output. Raises Interrupted when the launch is ending.
        """
        with self._lock:
            if self._ending:
                raise Interrupted
            own = {LAUNCHER: str(os.getpid()), LAUNCH: self.launch, SHOWS: listener.shows}
            # unbuffered: what a killed process printed last would be lost in its pipe's buffer
            environment = {**place.environment(), **own, "PYTHONUNBUFFERED": "1"}
            pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdin=nothing, stdout=pipe, stderr=pipe
            )
            self._running.append(process)
        hearing = ((process.stdout, listener.hear), (process.stderr, listener.hear_error))
        readers = [threading.Thread(target=forward, args=pair, daemon=True) for pair in hearing]
        for reader in readers:
            reader.start()
        exit_code = process.wait()
        for reader in readers:
            reader.join(DRAIN_S)
        with self._lock:
            self._running.remove(process)
        if self._ending:
            raise Interrupted
        return exit_code

    def _end_now(self) -> None:
        """End the children with this process, told by the same second Ctrl-C; waits for no lock."""
        deadline = time.monotonic() + LAST_GRACE_S
        while time.monotonic() < deadline and any(process.returncode is None for process in self._running):
            time.sleep(0.05)
        for process in self._running:
            process.kill()

    def _end(self, told: bool) -> None:
        """Let the running children end in CHILD_GRACE_S (told: they know already), then kill; a second signal kills."""
        with self._lock:
            self._ending = True
            running = list(self._running)
        try:
            for process in [] if told else running:
                process.terminate()
            deadline = time.monotonic() + CHILD_GRACE_S
            for process in running:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            for process in running:
                process.kill()


def forward(source: IO[bytes], hear: Callable[[str], None]) -> None:
    """Hand each line of a pipe over until its end; of a progress bar's states only the last."""
    with source:
        for line in source:
            # an odd byte comes as \x.. rather than as an error that would stop the child's pipe
            text = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
            states = [state for state in text.split("\r") if state.strip()]
            hear(states[-1] if states else "")


def _exit(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)
