"""The errors that a user's mistake raises, and the one place that turns them into a line and exit code 2."""

import re
import sys
from collections.abc import Callable

USER_ERROR_CODE = 2
MAX_WORD = 200  # characters of a word (a path, a value) that a message shows whole
MAX_LINE = 2000  # characters of one line of a message


class ConfigError(ValueError):
    """A key, a value, a path or a command line that cannot work; the message names it and the way out."""


class RunError(RuntimeError):
    """A run that cannot go on although its input was sound (a NaN loss, a full disk); the message says why."""


class DataError(ValueError):
    """A file or data set that is missing, unreadable or inconsistent; the message names it and the way out."""


def one_line(error: BaseException) -> str:
    """Return the message of `error` without the traceback that a DataLoader worker wraps around it."""
    text = str(error)
    if not text.startswith("Caught "):
        return text
    last_line = text.strip().splitlines()[-1]
    return last_line.split("Error: ", 1)[-1]


def shown(text: str) -> str:
    """Return `text` fit for a terminal: over-long words and lines cut in the middle, control characters escaped."""
    text = re.sub(rf"\S{{{MAX_WORD + 1},}}", lambda word: _cut(word[0], MAX_WORD), text)
    lines = [_cut(line, MAX_LINE) for line in text.split("\n")]
    printable = ["".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in lines]
    return "\n".join(printable)


def print_error(message: str) -> None:
    """Print one `error: ...` to stderr, whatever `message` quotes."""
    print(f"error: {shown(message)}", file=sys.stderr)


def escape_what_cannot_be_printed() -> None:
    """Let stdout and stderr write a backslash escape for a character that their code page lacks."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a test's or notebook's stream may be of another kind
            stream.reconfigure(errors="backslashreplace")


def run_command(main: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> int:
    """Run `main(argv)`: a user's mistake becomes one line and exit code 2, a failed run one line and 1, Ctrl-C 130."""
    escape_what_cannot_be_printed()
    try:
        return main(argv) or 0
    except (ConfigError, DataError) as error:
        print_error(one_line(error))
        return USER_ERROR_CODE
    except RunError as error:
        print_error(str(error))
        return 1
    except OSError as error:
        print_error(f"{error.filename or 'a file'}: {error.strerror or error}")
        return 1
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        print_error(f"{one_line(error)}; memory or /dev/shm may be too small: lower DATALOADER.NUM_WORKERS")
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command continues with what was kept", file=sys.stderr)
        return 130


def _cut(text: str, most: int) -> str:
    """Return `text`, or its start and end around the number of characters between them."""
    if len(text) <= most:
        return text
    keep = most // 2
    return f"{text[:keep]}...({len(text) - 2 * keep:,} more characters)...{text[-keep:]}"
