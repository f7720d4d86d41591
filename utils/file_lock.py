"""A file that one process at a time holds, with its process id inside."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows has no POSIX locks; there the pid in the lock file decides
    fcntl = None

HELD = (errno.EACCES, errno.EAGAIN)  # any other error: the disk has no locks, and the pid decides


class LockHeldError(Exception):
    """Another process holds the file; the message is its process id, as far as it is known."""


@contextmanager
def hold(path: Path) -> Iterator[str]:
    """Hold the file until the block ends; yields what the last holder left in it, its pid if it was killed, else ''.

    The kernel drops a POSIX lock with its process, even after SIGKILL. Raises LockHeldError at once when another
    process holds it, and OSError where the file cannot be written.
    """
    with open(path, "a+", encoding="utf-8") as stream:
        stream.seek(0)
        holder = stream.read().strip()
        if _is_held(stream, holder):
            raise LockHeldError(holder or "unknown")
        _overwrite(stream, str(os.getpid()))
        try:
            yield holder
        finally:
            _overwrite(stream, "")


def is_alive(pid: int) -> bool:
    """Return whether a process of this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except PermissionError:  # somebody else's
        return True
    except OSError:
        return False
    return True


def _overwrite(stream: TextIO, text: str) -> None:
    stream.seek(0)
    stream.truncate()
    stream.write(text)
    stream.flush()


def _is_held(stream: TextIO, holder: str) -> bool:
    if fcntl is not None:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except OSError as error:
            if error.errno in HELD:
                return True
    return holder.isdigit() and int(holder) != os.getpid() and is_alive(int(holder))
