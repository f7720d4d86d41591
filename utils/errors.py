"""The errors that a user's mistake raises, and the one place that turns them into a line and exit code 2."""

import errno
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from utils import interrupts
from utils.progress import clear_bars

ROOT = Path(__file__).parents[1]  # of the packages that are ours
USER_ERROR_CODE = 2
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ENDED_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? (\d+)")  # torch's words
MAX_WORD = 200  # characters of a word (a path, a value) that a message shows whole
MAX_LINE = 2000  # characters of one line of a message


class ConfigError(ValueError):
    """A key, a value, a path or a command line that cannot work; the message names it and the way out."""


class RunError(RuntimeError):
    """A run that cannot go on although its input was sound (a NaN loss, a full disk); the message says why."""


class DataError(ValueError):
    """A file or data set that is missing, unreadable or inconsistent; the message names it and the way out."""


def killed_worker(pid: int | str) -> RunError:
    """Return the error of a loader's worker process that ended before its work did."""
    return RunError(
        f"worker process {pid} of a loader was killed; memory or /dev/shm may be too small: lower "
        "DATALOADER.NUM_WORKERS, then the same command continues"
    )


def one_line(error: BaseException) -> str:
    """Return the message of `error` without the traceback that a DataLoader worker wraps around it."""
    text = str(error)
    if not text.startswith("Caught "):
        return text
    last_line = text.strip().splitlines()[-1]
    return last_line.split("Error: ", 1)[-1]


def shown(text: str) -> str:
    """Return `text` fit for a terminal: over-long words and lines cut in the middle, control characters escaped.

    Our own messages of several lines indent all but the first; any other line break is that of a quoted value.
    """
    text = re.sub(r"\n(?!  )", r"\\n", text)
    text = re.sub(rf"\S{{{MAX_WORD + 1},}}", lambda word: _cut(word[0], MAX_WORD), text)
    return printable("\n".join(_cut(line, MAX_LINE) for line in text.split("\n")))


def printable(text: str) -> str:
    """Return `text` with escapes for what a terminal would obey rather than show; line ends stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def print_error(message: str) -> None:
    """Print one `error: ...` to stderr, whatever `message` quotes; no bar is left beside it."""
    clear_bars()
    with suppress(OSError):  # stderr may lie on the disk that is full
        print(f"error: {shown(message)}", file=sys.stderr)


def escape_what_cannot_be_printed() -> None:
    """Let stdout and stderr write a backslash escape for a character that their code page lacks."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a test's or notebook's stream may be of another kind
            stream.reconfigure(errors="backslashreplace")


def run_command(main: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> int:
    """Run `main(argv)`: a user's mistake becomes one line and exit code 2, a failed run one line and 1, Ctrl-C 130."""
    escape_what_cannot_be_printed()
    code = _outcome(main, argv)
    try:
        print(end="", flush=True)
    except OSError as error:  # or the interpreter would end with a traceback of its own, and code 120
        _write_nowhere(sys.stdout)
        if not isinstance(error, BrokenPipeError):  # `| head` has read what it wanted
            print_error(f"the output cannot be written ({error.strerror or error}); make room")
            return code or 1
    return code


def _outcome(main: Callable[[list[str] | None], int | None], argv: list[str] | None) -> int:
    try:
        with interrupts.whole_command():
            return main(argv) or 0
    except (ConfigError, DataError) as error:
        print_error(one_line(error))
        return USER_ERROR_CODE
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or (ROOT / package).exists():
            raise
        print_error(f"no package '{package}' here; activate the environment, or pip install -r requirements.txt")
        return USER_ERROR_CODE
    except RunError as error:
        print_error(one_line(error))
        return 1
    except BrokenPipeError:
        _write_nowhere(sys.stdout)
        print_error("what reads the output has ended (a pipe was closed), so the command ended too")
        return 1
    except OSError as error:
        way_out = "; make room" if error.errno in NO_ROOM else ""
        print_error(f"{error.filename or 'a file or the output'}: {error.strerror or error}{way_out}")
        return 1
    except RuntimeError as error:
        ended = ENDED_WORKER.search(str(error))  # torch's handler raises it anywhere, not only in a loader
        if ended is None:
            clear_bars()
            raise
        print_error(str(killed_worker(ended[1])))
        return 1
    except KeyboardInterrupt:
        return interrupts.stop()
    except Exception:  # a mistake of ours: its traceback comes last
        clear_bars()
        raise


def _write_nowhere(stream: TextIO) -> None:
    """Let a stream whose reader has gone lose what it still holds: the interpreter's end would print another error."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _cut(text: str, most: int) -> str:
    """Return `text`, or its start and end around the number of characters between them."""
    if len(text) <= most:
        return text
    keep = most // 2
    return f"{text[:keep]}...({len(text) - 2 * keep:,} more characters)...{text[-keep:]}"
