"""Work beside the training: one act at a time in a thread, and no error of it is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from utils.interrupts import hidden_from_children

logger = logging.getLogger(__name__)


class Background:
    """Acts that run beside the caller, one after the other, at most one at a time.

    What an act raises is raised to the caller by the next `check`, `start` or `wait`.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=1)
        self._pending: Future | None = None

    def start(self, act: Callable[[], object]) -> None:
        """Wait for the act before, then let this one run and return at once."""
        self.wait()
        with hidden_from_children():  # the thread starts here, and Ctrl-C is the main thread's
            self._pending = self._threads.submit(act)

    def wait(self) -> None:
        """Return when nothing runs any more; raises what the last act did, once."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def check(self) -> None:
        """Raise what the last act did where it has ended by an error; waits for nothing."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def close(self) -> None:
        """Wait as `wait` does, and end the thread."""
        try:
            self.wait()
        finally:
            self._threads.shutdown()

    def __enter__(self) -> Background:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        """Close; where the block ended by an error, that one goes on and the act's is logged."""
        try:
            self.close()
        except Exception as error:
            if kind is None:
                raise
            logger.error("%s", error)
