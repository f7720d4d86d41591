"""Commands as real processes that tests kill, starve of room, or run beside each other."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
LINES = ("error: ", "warning: ")  # how a line on stderr that a user reads begins
LONGEST = 2100  # characters of one line


class Ended(NamedTuple):
    """How a process ended."""

    code: int  # -n: by signal n
    output: str  # stdout and stderr

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def error(self) -> str:
        """The line of the error, the last that was printed."""
        lines = [line for line in self.output.splitlines() if line.startswith("error: ")]
        return lines[-1] if lines else ""

    def check_refusal(self, *words: str, code: int = 1) -> None:
        """Assert that the process ended with one readable error line that holds `words`."""
        assert self.code == code, self.output[-3000:]
        self.check_readable()
        assert self.output.count("error: ") == 1 and self.error, self.output[-3000:]
        assert all(word in self.error for word in words), self.error
        assert len(self.error) <= LONGEST and self.error.isprintable()

    def check_readable(self) -> None:
        """Assert that no traceback of any kind was printed."""
        for word in ("Traceback", "Exception ignored", "--- Logging error", "terminate called", "Fatal Python"):
            assert word not in self.output, self.output[-3000:]


class Processes:
    """Starts commands as children of one server, or, `fresh`, each with an interpreter of its own."""

    def __init__(self) -> None:
        self._server: subprocess.Popen | None = None
        self._fresh: dict[int, subprocess.Popen] = {}

    def start(
        self,
        module: str,
        argv: list[object],
        before: str = "",
        limit: int | None = None,
        stdout: str = "",
        fresh: bool = False,
    ) -> int:
        """Start `module`.main(argv) after the code `before`; return its pid.

        No file of it may exceed `limit` bytes; `stdout` names a file in place of what `wait` returns.
        """
        request = {"module": module, "argv": [str(word) for word in argv], "before": before}
        request |= {"limit": limit, "stdout": stdout}
        if not fresh:
            return self._ask(request)
        command = [sys.executable, "-m", "tests.faults.server", json.dumps(request)]
        process = subprocess.Popen(
            command, cwd=ROOT, env=_environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._fresh[process.pid] = process
        return process.pid

    def wait(self, pid: int) -> Ended:
        """Return how a started process ended."""
        if pid in self._fresh:
            process = self._fresh.pop(pid)
            output = process.communicate()[0]
            return Ended(process.returncode, output)
        return Ended(*self._ask({"wait": pid}))

    def run(self, module: str, argv: list[object], **how: object) -> Ended:
        """Start a command and wait for its end."""
        return self.wait(self.start(module, argv, **how))

    def close(self) -> None:
        """End the server and what still runs."""
        for process in self._fresh.values():
            process.kill()
            process.communicate()
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server.stdin.close()
            self._server.stdout.close()

    def _ask(self, request: dict) -> object:
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.server"],
                cwd=ROOT,
                env=_environment(),
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert json.loads(self._server.stdout.readline()) == "ready"
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
