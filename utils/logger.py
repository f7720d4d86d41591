"""One log for the terminal and the run folder, in TransReID's line format."""

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

import torch

from utils.atomic import writing
from utils.errors import NO_ROOM, printable, shown
from utils.progress import QUIET, SHOWS, above_bars

LINE_FORMAT = "%(asctime)s %(name)s %(levelname)s: %(message)s"
SHORT_FORMAT = "%(levelname)s: %(message)s"  # of the tools that print to stderr alone
HANDLER_MARK = "reid"  # tells our handlers from those of the host program


class _Told:
    """Of a handler: a line that cannot be written is told once, on stderr, and never ends or floods a run."""

    told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # a mistake in our own call
            super().handleError(record)
        elif not self.told:
            self.told = True
            where = getattr(self, "baseFilename", "the output")
            reason = f"({error.strerror or error}){'; make room' if error.errno in NO_ROOM else ''}"
            with suppress(OSError):
                print(f"warning: {shown(str(where))}: lines of the log are lost {reason}", file=sys.stderr)

    def close(self) -> None:
        with suppress(OSError):  # what could not be written before is lost now
            super().close()


class _Terminal(_Told, logging.StreamHandler):
    def emit(self, record: logging.LogRecord) -> None:
        with above_bars():
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        super().handleError(record)
        if self.told:  # nothing more goes there, or the end of the run would fail over what waits to be written
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


class _File(_Told, logging.FileHandler):
    pass


class _Formatter(logging.Formatter):
    """Escapes what a name that a line quotes (of a file, say) would make a terminal do."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def log_to_stderr() -> None:
    """Log INFO and above to stderr, where the root logger has no handler yet."""
    handler = _Terminal(sys.stderr)
    handler.setFormatter(_Formatter(SHORT_FORMAT))
    logging.basicConfig(handlers=[handler], level=logging.INFO)


def setup_logger(log_file: Path | None, rank: int = 0) -> None:
    """Log INFO and above to stdout and to `log_file` (appended to); ranks above 0 log warnings only, to stdout.

    Where a launcher wants a quiet terminal, warnings alone go to stdout.
    Raises RunError or ConfigError, see `utils.atomic.cannot_write`, when the file cannot be opened.
    """
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if handler.name == HANDLER_MARK]:
        root.removeHandler(handler)
        handler.close()
    handlers: list[logging.Handler] = [_Terminal(sys.stdout)]
    if rank == 0 and log_file is not None:
        with writing(log_file):
            handlers.append(_File(log_file, encoding="utf-8", errors="backslashreplace"))
    for handler in handlers:
        handler.name = HANDLER_MARK
        handler.setFormatter(_Formatter(LINE_FORMAT))
        root.addHandler(handler)
    if os.environ.get(SHOWS) == QUIET:
        handlers[0].setLevel(logging.WARNING)
        handlers[0].setFormatter(_Formatter(SHORT_FORMAT))
    root.setLevel(logging.INFO if rank == 0 else logging.WARNING)


def log_start(command: str, config: str, device: str, notices: list[str]) -> None:
    """Log what runs: command line, device, the configuration, and what the user should hear about it."""
    logger = logging.getLogger("reid")
    logger.info("%s on %s, torch %s", command, device, torch.__version__)
    logger.info("configuration\n%s", config)
    for notice in notices:
        logger.info("%s", notice)
