"""Files that are replaced whole: a reader sees the old or the new content, never a part."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import RunError

if TYPE_CHECKING:
    import numpy as np


@contextmanager
def replacing(path: Path, suffix: str = ".tmp") -> Iterator[Path]:
    """Yield the name, `path` + `suffix`, of a file to write; it becomes `path` when the block ends, on disk and whole.

    On any error the temporary file goes and what was at `path` stays.
    """
    temporary = path.with_name(path.name + suffix)
    try:
        yield temporary
        with open(temporary, "rb+") as stream:  # Windows syncs only what is open for writing
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:  # Ctrl-C too
        temporary.unlink(missing_ok=True)
        raise


def write_text_atomic(path: Path, text: str) -> None:
    """Replace a text file so that it always holds the old or the whole new content."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.write(text)


def save_arrays(file: Path, arrays: dict[str, "np.ndarray"], meta: dict[str, Any]) -> None:
    """Write arrays and, as JSON under the name meta, plain values as npz, so that the old or the whole new file exists.

    Read it with allow_pickle=False. Raises RunError when the disk refuses; the old file stays.
    """
    import numpy as np

    try:
        # the process in the name: two searches may make the index of one folder
        with replacing(file, f".{os.getpid()}.tmp") as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **arrays, meta=np.array(json.dumps(meta)))
    except OSError as error:
        raise RunError(f"cannot write '{file}' ({error.strerror}); choose another place or make room") from error
