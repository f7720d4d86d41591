"""A file that one process at a time holds, and beside it which process that is."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from utils.atomic import cannot_write, is_full
from utils.errors import ConfigError
from utils.interrupts import at_end
from utils.workers import is_alive

if TYPE_CHECKING:  # imported where a file is locked: --help does without
    from filelock import FileLock

LAUNCHER = "REID_LAUNCHER"  # variable by which a launcher tells its children its process id
LAUNCH = "REID_LAUNCH"  # variable by which it tells them the name of the launch
CHILDREN_GRACE_S = 10.0  # the workers of a killed process, which may share its lock, end within this
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL)  # the disk has no locks: there the process id decides


class Holder(NamedTuple):
    """The process that holds a file, its machine, and the launcher that started it, if one did."""

    pid: int
    host: str
    launcher: int | None

    @property
    def runs(self) -> bool:
        """Whether it may still run: on another machine it may."""
        return self.host != this_host() or is_alive(self.pid)

    def describe(self) -> str:
        """Return which process it is and what to do about it."""
        here = self.host == this_host()
        who = f"process {self.pid}" if here else f"process {self.pid} of the machine '{self.host}'"
        if self.launcher is not None and here and not is_alive(self.launcher):
            return (
                f"{who}, the orphaned child of a launcher (process {self.launcher}) that was killed; it goes on alone: "
                f"wait for its end or stop it (`kill {self.pid}`), then the same command continues"
            )
        of = "" if self.launcher is None else f", a child of the launcher (process {self.launcher})"
        return f"{who}{of}; wait for it, stop it, or choose another folder"


class LockHeldError(Exception):
    """Another process holds the file; the message is its process id, as far as it is known."""

    def __init__(self, holder: Holder | None) -> None:
        super().__init__("unknown" if holder is None else str(holder.pid))
        self.holder = holder


@contextmanager
def hold(path: Path) -> Iterator[int | None]:
    """Hold the file until the block ends; yields the id of a process that was killed while it held it, else None.

    What stands in the file, or in the one beside it that names the holder, decides nothing: the kernel drops a lock
    with its process, also after SIGKILL. Raises LockHeldError where another process holds it, and OSError where the
    file cannot be locked.
    """
    from filelock import FileLock

    place = path.with_name(path.name + ".pid")
    left, lock = _read(place), FileLock(path)
    if not _take(lock, left):
        raise LockHeldError(left if left and left.runs else None)
    try:
        launcher = os.environ.get(LAUNCHER, "")
        holder = Holder(os.getpid(), this_host(), int(launcher) if launcher.isdecimal() else None)
        with suppress(OSError):  # the lock counts without it
            place.write_text(json.dumps(holder._asdict()), encoding="utf-8")
        with at_end(partial(_forget, place)):
            yield left.pid if left else None
    finally:
        _forget(place)
        lock.release()


def _forget(place: Path) -> None:
    with suppress(OSError):  # the folder may be gone
        place.unlink()


@contextmanager
def locked(path: Path, what: str) -> Iterator[int | None]:
    """Hold the file as `hold` does; `what` opens the ConfigError that says who has it, or why nobody can.

    Raises RunError on a full disk.
    """
    with ExitStack() as stack:
        try:
            left = stack.enter_context(hold(path))
        except LockHeldError as held:
            who = held.holder.describe() if held.holder else "another process; wait for it or choose another folder"
            raise ConfigError(f"{what} is in use by {who}") from held
        except OSError as error:
            if is_full(error):
                raise cannot_write(path, error) from error
            raise ConfigError(f"{what}: '{path}' cannot be locked ({error.strerror}); move it away") from error
        yield left


def this_host() -> str:
    """Return the name of this machine."""
    import socket  # which --help does without

    return socket.gethostname()


def _take(lock: "FileLock", left: Holder | None) -> bool:
    """Acquire the lock; False where another process has it."""
    from filelock import Timeout

    runs = left is not None and left.pid != os.getpid() and left.runs
    try:
        lock.acquire(timeout=CHILDREN_GRACE_S if left is not None and not runs else 0)
    except Timeout:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return not runs
    return True


def _read(place: Path) -> Holder | None:
    """Return what the last holder left; None where it let go, or where the file is damaged."""
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
        holder = Holder(content["pid"], content["host"], content["launcher"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    numbers = [holder.pid] if holder.launcher is None else [holder.pid, holder.launcher]
    is_whole = all(type(number) is int and number > 0 for number in numbers) and isinstance(holder.host, str)
    return holder if is_whole else None
