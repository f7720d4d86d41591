"""The gallery of the page: the index of `tools.search`, searched as that does, and the files that may be read.

All calls to the index and to the search stand here.
"""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.archives.common import NAME_PATTERN
from datasets.labels import MAX_LABEL
from tools.feature_extractor import BrokenImageError, FeatureExtractor
from tools.loose_images import SKIP_HINT
from tools.search.index import choose_file, read_kept, up_to_date
from tools.search.large_index import Update
from tools.search.nearest import nearest
from tools.search.shards import Shards
from utils.errors import DataError

logger = logging.getLogger(__name__)

FOLDER_PATTERN = re.compile(r"(?:c|cam|camera)[ _-]?(\d+)", re.ASCII | re.IGNORECASE)
UNKNOWN = -1  # camera of an image whose name tells none


class Gallery(NamedTuple):
    """The images of a folder that the page may show, in the order of their names."""

    root: Path  # of the folder, links resolved
    names: np.ndarray  # [N] unicode: path below the folder, with / between names
    feat: np.ndarray  # float32 [N, D], L2-normalised
    cameras: np.ndarray  # int64 [N], as the names count them, UNKNOWN = -1


class Hit(NamedTuple):
    """One image that was found."""

    row: int
    name: str
    camera: int
    similarity: float  # cosine, -1..1


def open_gallery(
    extractor: FeatureExtractor, folder: Path, index_file: str | None = None, skip_broken: bool = False
) -> Gallery:
    """Return the gallery of a folder; only new and changed images are embedded.

    Links that lead out of the folder are left out, and counted in a warning. Raises ConfigError and DataError as
    `tools.search.index` does, and DataError where no image is left.
    """
    file = choose_file(folder, extractor, index_file)
    old = read_kept(file, folder, extractor)
    try:
        index = up_to_date(extractor, folder, file, old, Update(skip_broken, checked=False))
    except BrokenImageError as error:
        raise DataError(f"{error}; {SKIP_HINT}") from error
    names, feat = _read_whole(index) if isinstance(index, Shards) else (index.names, index.feat)
    root = Path(os.path.realpath(folder))
    kept = stays_inside(root, names)
    if not kept.any():
        raise DataError(
            f"--gallery '{folder}': all of its {len(kept)} images are links that lead out of it, and the page reads "
            "nothing outside; name the folder that holds the files"
        )
    if not kept.all():
        logger.warning("left out: %d images are links that lead out of '%s'", int((~kept).sum()), folder)
        names, feat = names[kept], feat[kept]
    return Gallery(root, names, feat, np.array([camera_of(name) for name in names.tolist()], dtype=np.int64))


def _read_whole(index: Shards) -> tuple[np.ndarray, np.ndarray]:
    """Return the paths [N] of the images of a large index in their order, and their embeddings, float32 [N, D]."""
    names, feat = np.array([*index.all_names()]), np.empty((len(index), index.width), dtype=np.float32)
    for start, rows in index.blocks("read the index"):
        feat[start : start + len(rows)] = rows
    order = np.delete(np.arange(len(names)), index.gone)
    order = order[np.argsort(names[order], kind="stable")]
    return names[order], feat[order]


def find(gallery: Gallery, query: np.ndarray, topk: int, cameras: Sequence[int] = ()) -> list[Hit]:
    """Return the `topk` images of `cameras`, () = of all, most similar to a query float32 [D], nearest first.

    The ranking is that of `tools.search.nearest.nearest` among these images; fewer are returned where there are fewer.
    """
    rows = np.flatnonzero(np.isin(gallery.cameras, cameras)) if cameras else np.arange(len(gallery.names))
    if not len(rows):
        return []
    feat = gallery.feat[rows] if cameras else gallery.feat  # no copy of the whole
    places, similarity = nearest(query[None], feat, topk)
    return [
        Hit(row, str(gallery.names[row]), int(gallery.cameras[row]), value)
        for row, value in zip(rows[places[0]].tolist(), similarity[0].tolist(), strict=True)
    ]


def camera_of(name: str) -> int:
    """Return the camera that the path of an image below its folder tells, UNKNOWN where it tells none.

    By the file as in Market-1501, DukeMTMC-reID and VeRi (`0002_c1s1_000451_03.jpg`), else by the nearest folder that
    is called `cam3`, `camera_3` or `c3`. Numbers are those of the names.
    """
    *folders, file = name.split("/")
    match = NAME_PATTERN.match(file)
    numbers = [match["camera"]] if match else []
    numbers += [match[1] for folder in reversed(folders) if (match := FOLDER_PATTERN.fullmatch(folder))]
    return next((int(number) for number in numbers if len(number) < 10 and int(number) <= MAX_LABEL), UNKNOWN)


def cameras_in(gallery: Gallery) -> dict[int, int]:
    """Return how many images each camera has, ascending, UNKNOWN last."""
    cameras, counts = np.unique(gallery.cameras, return_counts=True)
    found = dict(zip(cameras.tolist(), counts.tolist(), strict=True))
    return {camera: found[camera] for camera in sorted(found, key=lambda camera: (camera == UNKNOWN, camera))}


def file_inside(root: Path, name: str) -> Path:
    """Return the file of a name below `root`, a folder without links in its path; all links in the name are resolved.

    Raises DataError for one that leads out of it: by "..", as an absolute path, or through a link.
    """
    try:
        place = os.path.realpath(os.path.join(root, name))
    except (OSError, ValueError) as error:  # a NUL character, a name that is too long
        raise DataError(f"{name!r} is no path of this system") from error
    if not _is_below(root, place):
        raise DataError(f"{name!r} leads out of the gallery, and the page reads nothing outside")
    return Path(place)


def stays_inside(root: Path, names: Sequence[str] | np.ndarray) -> np.ndarray:
    """Return bool [N]: whether `file_inside` accepts each name. Folders are resolved once."""
    folders: dict[str, str] = {}
    kept = np.zeros(len(names), dtype=bool)
    for row, name in enumerate(map(str, names)):
        folder, _, file = name.rpartition("/")
        if folder not in folders:
            folders[folder] = os.path.realpath(os.path.join(root, folder))
        place = os.path.join(folders[folder], file)
        kept[row] = _is_below(root, os.path.realpath(place) if os.path.islink(place) else place)
    return kept


def _is_below(root: Path, place: str) -> bool:
    return place.startswith(os.path.join(root, ""))
