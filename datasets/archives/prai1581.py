"""PRAI-1581: persons seen by two drones; 1,580 of them have images.

The archive tells its parts in a pickle, which runs whatever code it holds and so is never opened here: the same lists
as partitions.json serve (docs/datasets.md says how to write it), or a copy with a folder for each part.
Reference: Zhang et al., Person Re-Identification in Aerial Imagery, TMM 2020.
"""

import os
import re
from pathlib import Path
from typing import Any

from datasets.archives.annotation import read_json
from datasets.archives.common import Naming, camid_of, check_listed
from datasets.archives.find import find_folder, has_entries
from datasets.archives.folders import MARKET_LAYOUT, Archive, load_archive
from datasets.bases import SPLITS, Published, ReIDDataset, Sample
from datasets.labels import MAX_PID, whole_number
from utils.errors import DataError
from utils.paths import user_path

IMAGES, PICKLE, LISTS = "images", "partitions.pkl", "partitions.json"
ARCHIVE = Archive(
    name="prai1581",
    folders=("PRAI-1581", "PRAI1581"),
    published={
        "train": Published(images=(19_523,), ids=(781,)),
        "query": Published(images=(4_680,), ids=(799,)),
        "gallery": Published(images=(15_258,), ids=(799,)),
    },
    num_cameras=2,
    layouts=(MARKET_LAYOUT, {**MARKET_LAYOUT, "gallery": ("gallery",)}),
    naming=Naming(
        re.compile(r"(?P<pid>\d+)_(?P<camera>\d+)_", re.ASCII),
        "<pid>_<camera>_<index>, e.g. 00000003_0002_00000007.jpg",
    ),
)


def load_prai1581(root_dir: str | Path) -> ReIDDataset:
    """Load `<root_dir>/PRAI-1581`: images and partitions.json, or the folders bounding_box_train, query and gallery.

    Raises DataError where neither lies there, saying how to write the lists, and for lists that do not fit.
    """
    root = user_path(root_dir, "DATASETS.ROOT_DIR", DataError)
    for folder in (root / name for name in ARCHIVE.folders if not (root / name / LISTS).exists()):
        if has_entries(folder, (IMAGES, PICKLE)):
            raise DataError(
                f"'{folder}' tells its parts in {PICKLE}, which is never opened: a pickle runs whatever code it holds; "
                f"write its lists to {LISTS} (docs/datasets.md, PRAI-1581)"
            )
        if has_entries(folder, MARKET_LAYOUT["query"]):
            return load_archive(root_dir, ARCHIVE)
    return _load_lists(root_dir)


def _load_lists(root_dir: str | Path) -> ReIDDataset:
    folder = find_folder(root_dir, ARCHIVE.folders, (IMAGES, LISTS))
    content = read_json(folder / LISTS)
    samples = {split: _samples(content, split, folder) for split in SPLITS}
    return ReIDDataset(
        ARCHIVE.name,
        **samples,
        published=dict(ARCHIVE.published),
        tests_new_ids=True,
        num_cameras=ARCHIVE.num_cameras,
    )


def _samples(content: Any, split: str, folder: Path) -> list[Sample]:
    """Return the samples of one list of names; DataError where it is none."""
    names = content.get(split) if isinstance(content, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f'\'{folder / LISTS}\': expected {{"train": [names], "query": ..., "gallery": ...}}; {split} is none'
        )
    samples = []
    for name in names:
        match = ARCHIVE.naming.pattern.match(name)
        if match is None or os.path.basename(name) != name:
            raise DataError(
                f"'{folder / LISTS}': {split} names '{name}', which is not {ARCHIVE.naming.form}; correct it"
            )
        pid = whole_number(match["pid"], MAX_PID, f"'{folder / LISTS}': '{name}': pid")
        samples.append(Sample(f"{folder / IMAGES}/{name}", pid, camid_of(match["camera"], name), 0))
    check_listed(samples, folder / LISTS)
    return samples
