"""Files that are replaced whole: a reader sees the old or the new content, never a part.

All that is written goes through here, so that a disk which refuses is one error that names the file and the way out.
"""

import errno
import glob
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import ConfigError, RunError
from utils.interrupts import at_end
from utils.paths import what_is_at
from utils.workers import is_alive

if TYPE_CHECKING:
    import numpy as np

DEVICES = Path("/dev")  # of its links, as /dev/stdout, the target may be a file
NOT_FOR_ROOM = (  # of a place that more room does not help
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ENODEV, errno.ENOSYS),
)


def is_full(error: OSError) -> bool:
    """Return whether more room may help: the place is there and may be written to."""
    return error.errno not in NOT_FOR_ROOM


def cannot_write(path: str | Path, error: OSError) -> RunError | ConfigError:
    """Return the error of a file that the disk refuses: RunError where room may help or the folder
    has gone, ConfigError for a wrong place.
    """
    start = f"cannot write '{path}' ({error.strerror or error})"
    if isinstance(error, FileNotFoundError):  # also while a folder is being emptied
        return RunError(f"cannot write '{path}': its folder is not there, or was removed meanwhile; start again")
    if is_full(error):
        return RunError(f"{start}; make room, then the same command continues")
    return ConfigError(f"{start}; choose another place")


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn an OSError of the block, which writes `path`, into the error of `cannot_write`."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the name of a file to write beside `path`; it becomes `path` when the block ends, on disk and whole.

    On any error, and on Ctrl-C, the temporary file goes and what was at `path` stays. An OSError becomes the error of
    `cannot_write`, and nothing but a file is replaced. The name holds the process, so several may write one file; what
    a killed one left goes.
    """
    _refuse_device(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")

    def remove() -> None:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)

    with at_end(remove), writing(path):
        remove_left(path.parent, f"{glob.escape(path.name)}.*.tmp")
        try:
            yield temporary
            with open(temporary, "rb+") as stream:  # Windows syncs only what is open for writing
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            remove()
            raise


def _refuse_device(path: Path) -> None:
    """Raise ConfigError where `path` is a device, a pipe or a socket: root's file would replace /dev/null for all."""
    with suppress(OSError):  # what cannot be looked at cannot be replaced either
        kind = "a device" if path.absolute().parent == DEVICES else what_is_at(path)
        if kind not in ("", "a folder"):
            raise ConfigError(f"cannot write '{path}', which is {kind}; choose another place")


def remove_left(folder: Path, pattern: str) -> None:
    """Remove the temporary files of `replacing` in a folder whose processes were killed; another user's may stay."""
    for left in folder.glob(pattern):
        pid = left.name.split(".")[-2]
        if pid.isdecimal() and not is_alive(int(pid)):
            with suppress(OSError):
                left.unlink()


def write_text_atomic(path: Path, text: str) -> None:
    """Replace a text file so that it always holds the old or the whole new content, in UTF-8; errors as `replacing`.

    A file name that is no UTF-8 stands in it with backslash escapes.
    """
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(text)


def save_arrays(file: Path, arrays: dict[str, "np.ndarray"], meta: dict[str, Any]) -> None:
    """Write arrays and, as JSON under the name meta, plain values as npz, so that the old or the whole new file exists.

    Read it with allow_pickle=False. Raises RunError when the disk refuses; the old file stays.
    """
    import numpy as np

    with replacing(file) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **arrays, meta=np.array(json.dumps(meta)))
