"""What a file holds, as its SHA-256."""

import os
import time
from pathlib import Path

SETTLED_NS = 2 * 10**9  # a file changed this recently may change again without a new time of change

_known: dict[tuple, str] = {}


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    import hashlib  # which --help does without

    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remembered_sha256(path: Path) -> str:
    """Return `sha256_of` a file, read once in this process while it stays the same file.

    Inode, size and both times decide, for the time of the last status change (ctime) is the kernel's: no tool sets it
    back, as `cp -p` and `rsync -a` do with the other one. A file that changed just now is always read.
    """
    status = os.stat(path)
    key = (str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if key in _known:
        return _known[key]
    digest = sha256_of(path)
    if os.name == "posix" and time.time_ns() - status.st_ctime_ns > SETTLED_NS:  # elsewhere ctime is the creation
        _known[key] = digest
    return digest
