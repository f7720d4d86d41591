"""Paths that a user names: what stands there is what is meant, or one clear error says so."""

import errno
import os
import stat
from pathlib import Path

from utils.errors import ConfigError

_MISSING = (errno.ENOENT, errno.ENOTDIR)
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def user_path(text: str | Path, what: str = "", error: type[ValueError] = ConfigError) -> Path:
    """Return the path of `text` with ~ expanded. `what` (a key, a flag) opens errors.

    Raises `error` for a name that no file system takes: NUL characters, an unknown ~user, a component over 255 bytes.
    """
    of = f"{what}: " if what else ""
    text = os.fspath(text)
    if "\0" in text:
        raise error(f"{of}the path {text!r} holds a NUL character; correct it")
    try:
        path = Path(text).expanduser()
        path.stat()
    except RuntimeError as unknown:  # ~nobody
        raise error(f"{of}'{text}' names a home folder that does not exist; write the path in full") from unknown
    except OSError as refused:
        if refused.errno in _MISSING:
            return path
        raise error(f"{of}'{text}' cannot be used ({refused.strerror}); correct the path") from refused
    except ValueError as refused:  # a character that the file system's encoding lacks
        raise error(f"{of}{text!r} is no path of this system ({refused}); correct it") from refused
    return path


def existing_file(text: str | Path, what: str = "", error: type[ValueError] = ConfigError) -> Path:
    """Return the path of a regular file; raises `error` that says what stands there instead."""
    of = f"{what}: " if what else ""
    path = user_path(text, what, error)
    if not path.exists():
        raise error(f"{of}no file '{path}'; correct the path")
    kind = what_is_at(path)
    if kind:
        raise error(f"{of}'{path}' is {kind}, expected a file; correct the path")
    check_readable(path, what, error)
    return path


def check_readable(path: Path, what: str = "", error: type[ValueError] = ConfigError) -> None:
    """Raise `error` where a file may not be read: it is neither absent nor damaged, and nothing is to replace it."""
    try:
        open(path, "rb").close()
    except PermissionError as refused:
        of = f"{what}: " if what else ""
        raise error(f"{of}'{path}' cannot be read ({refused.strerror}); check its permissions") from refused
    except OSError:  # whoever reads it says what it is
        return


def what_is_at(path: Path) -> str:
    """Return what stands at an existing path where it is no regular file ("a folder", "a pipe", ...), else ''."""
    mode = path.stat().st_mode
    return next((kind for test, kind in KINDS if test(mode)), "")
