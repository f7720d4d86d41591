"""The errors that a user's mistake raises, and the one place that turns them into a line and exit code 2."""

import sys
from collections.abc import Callable

USER_ERROR_CODE = 2


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


def run_command(main: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> int:
    """Run `main(argv)`: a user's mistake becomes one line and exit code 2, a failed run one line and 1, Ctrl-C 130."""
    try:
        return main(argv) or 0
    except (ConfigError, DataError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return USER_ERROR_CODE
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        print(
            f"error: {one_line(error)}; memory or /dev/shm may be too small: lower DATALOADER.NUM_WORKERS",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command continues with what was kept", file=sys.stderr)
        return 130
