"""The embeddings of a folder of images, kept on disk so that the next search embeds only what is new or changed.

Those of fewer than LARGE_FROM images are one file of float32 values, of more a folder beside it, see `shards`.
"""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tools.search import shards
from tools.search.large_index import Listed, Update, is_fresh, list_gallery, read_large, stamp_of, update_large
from tools.search.shards import SHARDS_SUFFIX, Shards
from utils.atomic import save_arrays, writing
from utils.errors import ConfigError, DataError
from utils.interrupts import check, deferred
from utils.paths import check_readable
from utils.run_folder import make_folder

if TYPE_CHECKING:
    from tools.feature_extractor import FeatureExtractor

logger = logging.getLogger(__name__)

KIND = "index of a gallery"
SCHEMA = 1
KEY_LENGTH = 16  # hex digits of the model's fingerprint in a file name
UNSAID = "float32"  # precision of an index that names none
LARGE_FROM = 100_000  # images


class Index(NamedTuple):
    """Images of a folder in the order of their names, each with the stamp of its file and its embedding."""

    names: np.ndarray  # [N] unicode: path below the folder, with / between names
    stamps: np.ndarray  # int64 [N, 2]: bytes, time of the last change in ns
    feat: np.ndarray  # float32 [N, D], L2-normalised
    precision: str  # in which the model made them, all in the same


def check_file(wanted: str) -> Path:
    """Return the file that --index names, in a folder that exists; ConfigError for one that cannot be an index."""
    file = Path(wanted)
    if not wanted.endswith(".npz") or file.is_dir():
        raise ConfigError(f"--index '{wanted}' must end in .npz and be no folder")
    make_folder(str(file.parent), "--index")
    return file


def choose_file(gallery: Path, extractor: "FeatureExtractor", wanted: str | None) -> Path | None:
    """Return the file of a folder's index: the `wanted` one, else a hidden one in the folder, else beside the weights.

    Each model has its own. None when neither place can be written to. Raises ConfigError as `check_file`.
    """
    if wanted is not None:
        return check_file(wanted)
    name = f".reid_index_{extractor.fingerprint[:KEY_LENGTH]}"
    if os.access(gallery, os.W_OK):
        return gallery / f"{name}.npz"
    if os.access(extractor.weight.parent, os.W_OK):
        place = hashlib.sha256(os.fsencode(os.path.realpath(gallery))).hexdigest()[:KEY_LENGTH]
        return extractor.weight.parent / f"{name}_{place}.npz"
    logger.warning(
        "no index is kept: '%s' and '%s' cannot be written to; name a file with --index",
        gallery,
        extractor.weight.parent,
    )
    return None


def read_kept(file: Path | None, gallery: Path, extractor: "FeatureExtractor") -> Index | Shards | None:
    """Return the index that is kept in `file`, or in the folder beside it; errors and warnings as `read_index`."""
    folder = None if file is None else file.with_suffix(SHARDS_SUFFIX)
    large = None if folder is None or not folder.exists() else read_large(folder)
    if large is None:
        return read_index(file, gallery, extractor)
    reason = _why_other(large.meta, folder, gallery, extractor, shards.SCHEMA)
    if reason or large.width != extractor.feat_dim:
        logger.warning("index '%s' %s, so it is not used and is made again", folder, reason or "has another width")
        return None
    return large


def up_to_date(
    extractor: "FeatureExtractor", gallery: Path, file: Path | None, old: Index | Shards | None, how: Update
) -> Index | Shards:
    """Return the index of all images below `gallery`, from `old`, what `read_kept` gave, and kept in its place.

    No file of a large gallery is looked at where its folders have not changed and `how` does not ask for it. Errors as
    `update_index` and `update_large`; ConfigError for a large gallery whose index has no place.
    """
    if isinstance(old, Shards) and not how.checked and is_fresh(old, gallery):
        logger.info("%d images in '%s': no folder has changed; --update looks at every file", len(old), gallery)
        return old
    listed = list_gallery(gallery)
    if not isinstance(old, Shards) and len(listed.names) < LARGE_FROM:
        return update_index(extractor, gallery, file, old, how.skip_broken, listed)
    if file is None:
        raise ConfigError(f"--gallery '{gallery}' has {len(listed.names)} images, whose index needs a place: --index")
    index = update_large(extractor, gallery, file.with_suffix(SHARDS_SUFFIX), listed, old, how)
    if is_index(file):  # of a time when there were fewer
        with writing(file):
            file.unlink()
    return index


def update_index(
    extractor: "FeatureExtractor",
    gallery: Path,
    file: Path | None,
    old: Index | None,
    skip_broken: bool = False,
    listed: Listed | None = None,
) -> Index:
    """Return the index of all images below `gallery` and keep it in `file` (None: keep nothing).

    What `old`, see `read_index`, knows is taken from there where name, size and time of change are equal; images that
    are gone are dropped. When an image cannot be read, or on Ctrl-C, what was embedded until then is kept. With
    `skip_broken` such images are left out and logged. Raises DataError when no image can be read.
    """
    names = np.array((listed or list_gallery(gallery)).names)
    stamps = np.array([stamp_of(gallery / name) for name in names], dtype=np.int64)  # before reading: a change shows
    feat = np.zeros((len(names), extractor.feat_dim), dtype=np.float32)
    done = np.zeros(len(names), dtype=bool)
    if old is not None and len(old.names):
        row_of = {name: row for row, name in enumerate(old.names)}
        old_rows = np.array([row_of.get(name, -1) for name in names])
        done = (old_rows >= 0) & (old.stamps[old_rows] == stamps).all(1)
        feat[done] = old.feat[old_rows[done]]
    new = np.flatnonzero(~done)
    num_old = 0 if old is None else len(old.names)
    logger.info(
        "%d images in '%s': %d known, %d to embed in %s; index %s",
        *(len(names), gallery, len(names) - len(new), len(new), extractor.precision),
        f"'{file}'" if file else "not kept",
    )
    with deferred():
        try:
            paths = [str(gallery / name) for name in names[new]]
            for rows, values in extractor.stream(paths, skip_broken=skip_broken):
                feat[new[rows]] = values.numpy()
                done[new[rows]] = True
                check()  # Ctrl-C, between two batches
        finally:
            kept = slice(None) if done.all() else done  # no copy of the whole
            index = Index(names[kept], stamps[kept], feat[kept], extractor.precision)
            if file is not None and (done[new].any() or done.sum() != num_old):
                save_index(index, file, gallery, extractor.fingerprint)
    if not done.any():
        raise DataError(f"--gallery '{gallery}': none of its {len(names)} images can be read")
    return index


def save_index(index: Index, file: Path, gallery: Path, fingerprint: str) -> None:
    """Write an index as npz (name, stamp, feat, meta); the file is never half there. RunError when the disk refuses."""
    meta = {"kind": KIND, "schema": SCHEMA, "fingerprint": fingerprint, "gallery": os.path.realpath(gallery)}
    meta["precision"] = index.precision
    save_arrays(file, {"name": index.names, "stamp": index.stamps, "feat": index.feat}, meta)


def is_index(file: Path) -> bool:
    """Return whether a file is there and is the index of a small gallery."""
    try:
        with np.load(file, allow_pickle=False) as content:
            return json.loads(str(content["meta"])).get("kind") == KIND
    except Exception:  # a damaged archive raises nearly anything, and what is no archive is no index
        return False


def read_index(file: Path | None, gallery: Path, extractor: "FeatureExtractor") -> Index | None:
    """Return the index in `file`; None, with a warning, when it is damaged, of another model or of another folder.

    `extractor` embeds in the precision of the index from here on, so that all similarities compare; an index whose
    precision TEST.AMP or the device forbids is not used either. An index that lies within its folder may have moved
    with it. Raises ConfigError when the file is something else, or may not be read.
    """
    if file is None or not file.is_file():
        return None
    check_readable(file, "--index")
    try:
        with np.load(file, allow_pickle=False) as content:
            meta = json.loads(str(content["meta"])) if "meta" in content else {}
            meta = meta if isinstance(meta, dict) else {}
            precision = str(meta.get("precision", UNSAID))
            is_index = meta.get("kind") == KIND
            index = Index(content["name"], content["stamp"], content["feat"], precision) if is_index else None
    except Exception as error:  # a damaged archive raises nearly anything
        logger.warning("index '%s' is damaged (%s) and is made again", file, error)
        return None
    if index is None:
        raise ConfigError(f"--index '{file}' is another file than an index; name one that does not exist yet")
    reason = _why_unusable(index, extractor) or _why_other(meta, file, gallery, extractor, SCHEMA)
    if reason:
        logger.warning("index '%s' %s, so it is not used and is made again", file, reason)
        return None
    return index


def _why_unusable(index: Index, extractor: "FeatureExtractor") -> str | None:
    shapes, number = [part.shape for part in index[:3]], index.names.size
    if shapes != [(number,), (number, 2), (number, extractor.feat_dim)] or index.feat.dtype != np.float32:
        return f"has parts of shapes {', '.join(map(str, shapes))}, in {index.feat.dtype}"
    if index.names.dtype.kind != "U" or index.stamps.dtype.kind != "i" or not np.isfinite(index.feat).all():
        return "has names, times or embeddings that are none"
    return None


def _why_other(
    meta: dict[str, Any], place: Path, gallery: Path, extractor: "FeatureExtractor", schema: int
) -> str | None:
    """Return why an index at `place` is none of this gallery and model; `extractor` takes over its precision."""
    if meta.get("schema") != schema:
        return f"has schema {meta.get('schema')}, this version reads {schema}"
    if meta.get("fingerprint") != extractor.fingerprint:
        return "is of another model, or of other settings of this one"
    folder = os.path.realpath(gallery)
    if meta.get("gallery") != folder and Path(os.path.realpath(place)).parent != Path(folder):
        return f"is of the folder '{meta.get('gallery')}'"
    precision = str(meta.get("precision", UNSAID))
    if not extractor.adopt_precision(precision):
        return f"was embedded in {precision}, this search embeds in {extractor.precision} (TEST.AMP, device)"
    return None
