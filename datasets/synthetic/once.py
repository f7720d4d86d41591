"""Data sets that draw themselves on first use: several processes may ask for one at once, and one draws it whole."""

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from utils.atomic import is_full
from utils.errors import DataError, RunError
from utils.interrupts import at_end

VERSION_FILE = "drawing_version.txt"  # in a finished folder; written last
ABANDONED_SECONDS = 3600

logger = logging.getLogger(__name__)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write ASCII lines with the same ends on every system."""
    path.write_bytes("".join(f"{line}\n" for line in lines).encode("ascii"))


def ensure_drawn(folder: Path, title: str, draw: Callable[[Path], None], version: str) -> None:
    """Let `draw` make `folder`, unless a finished drawing of this version is there.

    `title` names the set in messages. Raises DataError when the folder cannot be written, RunError when the disk is
    full.
    """
    if is_complete(folder, version):
        return
    try:
        _draw_into_place(folder, title, draw, version)
    except OSError as error:
        kind = RunError if is_full(error) else DataError
        raise kind(
            f"{title} cannot be drawn into '{folder.absolute()}' ({error.strerror or error}); make room "
            "there, or set DATASETS.ROOT_DIR to a folder that can be written"
        ) from error


def is_complete(folder: Path, version: str) -> bool:
    """Return whether the folder holds a finished drawing of this version."""
    try:
        return (folder / VERSION_FILE).read_bytes().strip() == version.encode("ascii")
    except (FileNotFoundError, NotADirectoryError):
        return False


def _draw_into_place(folder: Path, title: str, draw: Callable[[Path], None], version: str) -> None:
    """Draw beside `folder`, then rename: nobody ever sees a half-drawn folder, and the first of several wins."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    with _scratch_beside(folder) as scratch:
        # Put aside before drawing, not after: then a folder that another process completes meanwhile stays.
        if folder.exists() and not is_complete(folder, version):
            logger.warning("'%s' is unfinished or of another version and is drawn again", folder)
            with suppress(FileNotFoundError):  # another process was faster
                folder.rename(scratch / "stale")
        logger.info("drawing %s into '%s' (once, about a minute)", title, folder)
        draw(scratch / folder.name)
        (scratch / folder.name / VERSION_FILE).write_text(f"{version}\n", encoding="ascii")
        try:
            (scratch / folder.name).rename(folder)
        except OSError:
            if not is_complete(folder, version):
                raise


def _scratch_prefix(folder: Path) -> str:
    return f".{folder.name}_"


@contextmanager
def _scratch_beside(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside, which goes with all in it when the block ends, or Ctrl-C ends the process."""
    scratch = Path(tempfile.mkdtemp(prefix=_scratch_prefix(folder), dir=folder.parent))
    remove = partial(shutil.rmtree, scratch, ignore_errors=True)
    with at_end(remove):
        try:
            yield scratch
        finally:
            remove()


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left behind long ago."""
    for scratch in folder.parent.glob(f"{_scratch_prefix(folder)}*"):
        with suppress(FileNotFoundError):
            if time.time() - scratch.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(scratch, ignore_errors=True)
