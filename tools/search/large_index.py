"""The index of a large gallery: made in parts, so that an interrupted build goes on, and brought up to date with files.

A search of an index that is up to date looks at the times of the gallery's folders alone: a file that is new, gone or
renamed changes that of its folder. Files that changed in place show when all are looked at, with --update.
"""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tools.loose_images import image_folders, no_image
from tools.search.lists import LEAST_TRAINED, add_to_lists, has_faiss, has_whole_lists, make_lists
from tools.search.shards import (
    KIND,
    MANIFEST,
    OWN_FILE,
    Part,
    Shards,
    new_meta,
    read_meta,
    remove_unnamed,
    write_gone,
    write_meta,
)
from tools.search.writer import PART_BYTES, Writer
from utils.digest import SETTLED_NS
from utils.errors import ConfigError, DataError
from utils.file_lock import locked
from utils.interrupts import check, deferred
from utils.progress import over
from utils.run_folder import make_folder

if TYPE_CHECKING:
    from tools.feature_extractor import FeatureExtractor
    from tools.search.index import Index

logger = logging.getLogger(__name__)

MOST_GONE = 0.25  # share of the rows; beyond it the others are written anew
MOST_PARTS = 4  # times those that the rows would fill, beyond a few
GROWN = 2.0  # rows over those that the lists were learnt of; beyond it they are learnt anew
UNSURE = -1  # time of a folder that may have changed again without a new time
OWN = ("schema", "fingerprint", "precision", "width")  # entries that all indexes of a model share
NO_FILE = (-1, -1)  # stamp of a link that leads nowhere, or to itself
LOCK = "lock"
TAKEN_AT_ONCE = 10_000  # rows of a small index


class Listed(NamedTuple):
    """The images of a gallery, sorted, and the time of the last change (ns) of each of its folders."""

    names: list[str]
    folders: dict[str, int]


def list_gallery(gallery: Path) -> Listed:
    """Return what lies below a gallery; errors as `list_images`."""
    begun, names, folders = time.time_ns(), [], {}
    for parent, below in image_folders(gallery, "--gallery"):
        names += below
        stamp = _folder_stamp(parent)
        folders[os.path.relpath(parent, gallery)] = stamp if stamp < begun - SETTLED_NS else UNSURE
    if not names:
        raise no_image(gallery, "--gallery")
    return Listed(sorted(names), folders)


def stamp_of(path: Path) -> tuple[int, int]:
    """Return bytes and time of the last change (ns) of a file."""
    try:
        status = os.stat(path)
    except OSError:
        return NO_FILE
    return status.st_size, status.st_mtime_ns


def is_fresh(index: Shards, gallery: Path) -> bool:
    """Return whether an index was finished, and no folder of its gallery has changed since; no file is looked at."""
    folders = index.meta["folders"]
    return index.meta["whole"] and all(_folder_stamp(gallery / below) == stamp for below, stamp in folders.items())


class _DamagedError(Exception):
    """A manifest that is none."""


def read_large(folder: Path) -> Shards | None:
    """Return the index in a folder, whole or not; None where there is none or, with a warning, a damaged one.

    Raises ConfigError where the folder is another one.
    """
    try:
        return _present(folder)
    except _DamagedError as error:
        logger.warning("index '%s' is damaged (%s) and is made again", folder / MANIFEST, error)
        return None


def _present(folder: Path) -> Shards | None:
    """Return what `read_large` does; _DamagedError for a damaged index."""
    try:
        meta = read_meta(folder)
        index = None if meta is None or meta.get("kind") != KIND else Shards(folder, meta)
    except (ValueError, KeyError, TypeError) as error:
        raise _DamagedError(error) from error
    is_strange = index is None and folder.is_dir() and not all(map(_is_own, os.listdir(folder)))
    if is_strange or (meta is not None and index is None):
        raise ConfigError(f"--index: '{folder}' is another folder than an index; name a place that does not exist yet")
    return index


class Update(NamedTuple):
    """How an index is brought up to date."""

    skip_broken: bool = False  # leave out images that cannot be read, with a log line, instead of an error
    checked: bool = False  # read all that is kept, and embed again what is damaged


def update_large(
    extractor: "FeatureExtractor",
    gallery: Path,
    folder: Path,
    listed: Listed,
    old: "Shards | Index | None",
    how: Update,
) -> Shards:
    """Return the index of the `listed` images, kept in `folder`; what `old` knows is taken from there.

    `old` is what the folder holds, or the index of a time when the gallery was small.

    Images of the same name, size and time are known, others are embedded and written part by part: whatever happens,
    the next call goes on from the last one. Until all is done the index says that it is unfinished. One process at a
    time. Raises DataError when no image can be read, ConfigError while another process updates it, RunError when the
    disk refuses.
    """
    make_folder(str(folder), "--index")
    with locked(folder / LOCK, f"index '{folder}'"):
        index = _begun(extractor, gallery, folder, old)
        index = _without_damage(index) if how.checked else index
        stamps = np.array([stamp_of(gallery / name) for name in listed.names], dtype=np.int64)  # before reading
        done, gone = _known(index, listed.names, stamps)
        new = np.flatnonzero(~done)
        logger.info(
            "%d images in '%s': %d known, %d to embed in %s; index '%s'",
            *(len(done), gallery, len(done) - len(new), len(new), extractor.precision, folder),
        )
        index = _with_gone(index, gone)
        index = _embed(extractor, gallery, index, [listed.names[row] for row in new], stamps[new], how.skip_broken)
        if len(index) == len(index.gone):
            raise DataError(f"--gallery '{gallery}': none of its {len(done)} images can be read")
        index = _with_lists(_compact(index))
        finished = index.meta | {"whole": True, "folders": listed.folders}
        if finished != index.meta:
            index = write_meta(folder, finished)
        remove_unnamed(index)
        return index


def _begun(extractor: "FeatureExtractor", gallery: Path, folder: Path, old: "Shards | Index | None") -> Shards:
    """Return the index to go on from; another process may have changed the one that was read before the lock."""
    index = Shards(folder, new_meta(extractor.fingerprint, gallery, extractor.precision, extractor.feat_dim))
    try:
        there = _present(folder)
    except _DamagedError:  # `read_large` has said so
        there = None
    remove_unnamed(index if there is None else there)  # what a killed process or a full disk left
    equal = (*OWN, *(() if isinstance(old, Shards) else ("gallery",)))  # one that moved with its folder has another
    if there is not None and all(there.meta[key] == index.meta[key] for key in equal):
        return there
    if old is None or isinstance(old, Shards):
        return index
    writer = Writer(index)
    for row in range(0, len(old.names), TAKEN_AT_ONCE):
        rows = slice(row, row + TAKEN_AT_ONCE)
        writer.add(old.names[rows].tolist(), old.stamps[rows], old.feat[rows])
    return writer.flush()


def _embed(
    extractor: "FeatureExtractor",
    gallery: Path,
    index: Shards,
    names: Sequence[str],
    stamps: np.ndarray,
    skip_broken: bool,
) -> Shards:
    """Return the index with the images `names`; what was embedded before an error, or Ctrl-C, is written, too."""
    writer = Writer(index)
    with deferred():
        try:
            paths = [str(gallery / name) for name in names]
            for rows, feat in extractor.stream(paths, skip_broken=skip_broken):
                writer.add([names[row] for row in rows], stamps[rows], feat.numpy())
                check()  # Ctrl-C, between two batches
        finally:
            index = writer.flush()
    return index


def _known(index: Shards, names: Sequence[str], stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the images [N] an index holds as they are, bool [N], and which of its rows are none of these."""
    gone = np.ones(len(index), dtype=bool)
    if not len(index):
        return np.zeros(len(names), dtype=bool), np.flatnonzero(gone)
    lost = np.zeros(len(index), dtype=bool)
    lost[index.gone] = True
    row_of = {name: row for row, name in enumerate(index.all_names()) if not lost[row]}
    rows = np.array([row_of.get(name, -1) for name in names])
    done = (rows >= 0) & (index.stamps()[rows] == stamps).all(1)
    gone[rows[done]] = False
    return done, np.flatnonzero(gone)


def _with_gone(index: Shards, gone: np.ndarray) -> Shards:
    """Return the index, of which the rows `gone`, rising, are not to be found; all that were gone are among them."""
    if len(gone) == len(index.gone):
        return index
    return write_meta(index.folder, index.meta | {"gone": write_gone(index.folder, gone), "whole": False})


def _without_damage(index: Shards) -> Shards:
    """Return the index without parts and lists whose files are not what was written."""
    meta = dict(index.meta)
    if not index.has_whole_gone():
        meta |= {"gone": None, "whole": False}  # of two rows of a name the later one counts
        index = Shards(index.folder, meta)
    broken = index.broken_parts()
    if broken:
        logger.warning(
            "index '%s': %d of its %d parts are damaged and embedded again",
            *(index.folder, len(broken), len(index.parts)),
        )
        return write_meta(index.folder, _rewritten(index, broken).meta)
    if meta["lists"] is not None and not has_whole_lists(index):
        logger.warning("index '%s': its lists are damaged and made again", index.folder)
        meta |= {"lists": None, "whole": False}
    return Shards(index.folder, meta)


def _compact(index: Shards) -> Shards:
    """Return the index, written anew where many of its rows are gone or its parts are small."""
    needed = 8 + MOST_PARTS * 2 * index.width * len(index) // PART_BYTES
    if len(index.gone) <= MOST_GONE * len(index) and len(index.parts) <= needed:
        return index
    return write_meta(index.folder, _rewritten(index, ()).meta)


def _rewritten(index: Shards, broken: Sequence[Part]) -> Shards:
    """Return an index, unnamed as yet, of the rows that are not gone and in none of the parts `broken`."""
    meta = index.meta | {"parts": [], "gone": None, "lists": None, "whole": False}
    writer = Writer(Shards(index.folder, meta), named=False)
    alive = np.ones(len(index), dtype=bool)
    alive[index.gone] = False
    for part, start in over([*zip(index.parts, index.starts.tolist(), strict=False)], "write the index anew", "part"):
        rows = start + np.flatnonzero(alive[start : start + part.rows])
        if part not in broken and len(rows):
            writer.add(index.names(rows), index.array(part, "stamp")[rows - start], index.take(rows))
    return writer.flush()


def _with_lists(index: Shards) -> Shards:
    """Return the index with lists of all its rows, where FAISS is installed and they are enough to learn from."""
    if not has_faiss():
        logger.warning("FAISS is not installed: each search compares with all images; pip install faiss-cpu")
        return index
    entry = index.meta["lists"]
    if len(index) - len(index.gone) < LEAST_TRAINED or (entry and entry["rows"] == len(index)):
        return index
    grown = entry is None or len(index) > GROWN * entry["learnt_at"]
    made = make_lists(index) if grown else add_to_lists(index)
    return write_meta(index.folder, index.meta | {"lists": made, "whole": False})


def _folder_stamp(folder: Path) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return UNSURE - 1


def _is_own(name: str) -> bool:
    return bool(OWN_FILE.fullmatch(name)) or name.startswith((LOCK, MANIFEST))
