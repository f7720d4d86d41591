"""MSMT17: persons, 15 cameras. V2 masks the faces and renames the image folders; its scores differ from V1's.

Reference: Wei et al., Person Transfer GAN to Bridge Domain Gap for Person Re-Identification, CVPR 2018.
"""

import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from datasets.archives.common import LINES_OF_LABELS, camid_of, check_listed, read_labelled_list
from datasets.archives.find import find_folder, has_entries, renaming
from datasets.bases import Published, ReIDDataset, Sample
from datasets.labels import junk_notes
from utils.errors import DataError
from utils.paths import user_path

LISTS = {"train": ("list_train.txt", "list_val.txt"), "query": ("list_query.txt",), "gallery": ("list_gallery.txt",)}
NAME_PATTERN = re.compile(r"[^_]+_[^_]+_(\d+)_", re.ASCII)
NUM_CAMERAS = 15
PUBLISHED = {
    "train": Published(images=(32_621,), ids=(1_041,)),
    "query": Published(images=(11_659,), ids=(3_060,)),
    "gallery": Published(images=(82_161,), ids=(3_060,)),
}


class Version(NamedTuple):
    """One release: its name in DATASETS.NAMES, the folders it unpacks to, and where the images lie."""

    name: str
    folders: tuple[str, ...]
    train: str
    test: str

    @property
    def needed(self) -> tuple[str, ...]:
        return (self.train, self.test, *(name for names in LISTS.values() for name in names))

    @property
    def spare(self) -> tuple[str, ...]:
        return (self.train, *LISTS["train"])


V1 = Version("msmt17", ("MSMT17", "MSMT17_V1"), "train", "test")
V2 = Version("msmt17_v2", ("MSMT17_V2", "MSMT17"), "mask_train_v2", "mask_test_v2")


def load_msmt17(root_dir: str | Path) -> ReIDDataset:
    """Load V1 from `<root_dir>/MSMT17`; list_train and list_val together are the training set."""
    return _load(root_dir, asked=V1, other=V2)


def load_msmt17_v2(root_dir: str | Path) -> ReIDDataset:
    """Load V2 from `<root_dir>/MSMT17_V2`; list_train and list_val together are the training set."""
    return _load(root_dir, asked=V2, other=V1)


def _load(root_dir: str | Path, asked: Version, other: Version) -> ReIDDataset:
    folder = _find_version(root_dir, asked, other)
    absent = [entry for entry in asked.spare if not (folder / entry).exists()]
    samples, notes = {}, []
    for split, lists in LISTS.items():
        image_folder = asked.train if split == "train" else asked.test
        read = [] if split == "train" and absent else [_read_list(folder, image_folder, name) for name in lists]
        samples[split] = sorted(sample for listed, _ in read for sample in listed)
        notes += junk_notes(f"{asked.name} {split}", sum((junk for _, junk in read), Counter()))
    hints = filter(None, (", ".join(absent), renaming(folder, absent)))
    no_train = f"'{folder}' has no {'; '.join(hints)}" if absent else ""
    return ReIDDataset(
        asked.name, **samples, published=PUBLISHED, notes=tuple(notes), num_cameras=NUM_CAMERAS, no_train=no_train
    )


def _find_version(root_dir: str | Path, asked: Version, other: Version) -> Path:
    root = user_path(root_dir, "DATASETS.ROOT_DIR", DataError)
    try:
        return find_folder(root, asked.folders, asked.needed, asked.spare)
    except DataError as error:
        for name in dict.fromkeys(asked.folders + other.folders):
            folder = root / name
            if has_entries(folder, (other.train, other.test)):
                raise DataError(
                    f"DATASETS.NAMES {asked.name}: '{os.path.abspath(folder)}' holds {other.train} and {other.test}, "
                    f"so it is MSMT17 {'V1' if other is V1 else 'V2'}; set DATASETS.NAMES {other.name}"
                ) from error
        raise


def _read_list(folder: Path, image_folder: str, list_name: str) -> tuple[list[Sample], Counter[str]]:
    """Return the samples and the junk of lines such as "0000/0000_000_01_0303morning_0015_0.jpg 0"; 01 = the camera."""
    samples = []
    rows, junk = read_labelled_list(folder / list_name)
    for image, pid in rows:
        match = NAME_PATTERN.match(image.rsplit("/", 1)[-1])
        if match is None:
            raise DataError(
                f"'{folder / list_name}': image '{image}' is not named <pid>_<number>_<camera>_...; correct the line"
            )
        path = os.path.join(folder, image_folder, image)
        samples.append(Sample(path, pid, camid_of(match[1], path), 0))
    check_listed(samples, folder / list_name, LINES_OF_LABELS)
    return samples, junk
