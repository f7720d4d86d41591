"""Person images with captions, from disk: CUHK-PEDES, ICFG-PEDES and RSTPReid, each one JSON beside a folder imgs.

References: Li et al., Person Search with Natural Language Description, CVPR 2017; Ding et al., Semantically
Self-Aligned Network for Text-to-Image Part-aware Person Re-identification, arXiv 2107.12666; Zhu et al., DSSL: Deep
Surroundings-person Separation Learning for Text-based Person Retrieval, ACM MM 2021.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.archives.annotation import IMAGES, SPLITS, Entry, read_annotation
from datasets.archives.find import does_not_exist, find_folder, has_entries
from utils.errors import DataError
from utils.paths import user_path, what_is_at


class Pair(NamedTuple):
    """One training sample: an image and one of its captions."""

    path: str
    pid: int  # from 0, in the order of the archive's identities
    image_id: int  # from 0, in the order of the annotation; equal for the captions of one image
    caption: str


class CaptionTest(NamedTuple):
    """What a test looks at: all images are the gallery, each caption is a query; pids are the archive's own."""

    paths: list[str]  # [G]
    pids: np.ndarray  # int64 [G]
    captions: list[str]  # [Q]
    caption_pids: np.ndarray  # int64 [Q]
    caption_images: np.ndarray  # int64 [Q]: place in `paths` of the caption's own image, -1 where it is not there


class Figures(NamedTuple):
    """Published counts of a split; several where sources differ."""

    ids: tuple[int, ...]
    images: tuple[int, ...]
    captions: tuple[int, ...]


class Published(NamedTuple):
    """What is known of a whole archive."""

    splits: Mapping[str, Figures] = {}
    images_per_id: int = 0  # of every identity, as captions of every image; 0 = they differ
    captions_per_image: int = 0


class CaptionDataset(NamedTuple):
    """A data set of images with captions as it lies on disk."""

    name: str
    train: list[Pair]
    val: CaptionTest | None  # None: the data set has none
    test: CaptionTest | None
    notes: tuple[str, ...] = ()
    published: Published = Published()
    no_train: str = ""  # why `train` is empty; '' = it is not. Such a data set serves tests alone


class Layout(NamedTuple):
    """How an archive lies on disk."""

    name: str  # in DATASETS.NAMES, and of the folder below DATASETS.ROOT_DIR
    annotations: tuple[str, ...]  # names that the JSON may have
    path_key: str  # of an entry: the image, below imgs
    published: Published


CUHK_PEDES = Layout(
    "CUHK-PEDES",
    ("reid_raw.json",),
    "file_path",
    Published(
        {
            "train": Figures((11_003,), (34_054,), (68_126, 68_108)),
            "val": Figures((1_000,), (3_078,), (6_158,)),
            "test": Figures((1_000,), (3_074,), (6_156,)),
        },
    ),
)
ICFG_PEDES = Layout(
    "ICFG-PEDES",
    ("ICFG-PEDES.json", "ICFG_PEDES.json"),
    "file_path",
    Published(
        {
            "train": Figures((3_102,), (34_674,), (34_674,)),
            "test": Figures((1_000,), (19_848,), (19_848,)),
        },
        captions_per_image=1,
    ),
)
RSTP_REID = Layout(
    "RSTPReid",
    ("data_captions.json",),
    "img_path",
    Published(
        {
            "train": Figures((3_701,), (18_505,), (37_010,)),
            "val": Figures((200,), (1_000,), (2_000,)),
            "test": Figures((200,), (1_000,), (2_000,)),
        },
        images_per_id=5,
        captions_per_image=2,
    ),
)


def load_cuhk_pedes(root_dir: str | Path) -> CaptionDataset:
    """Load `<root_dir>/CUHK-PEDES`; errors as `read_annotation`."""
    return _load(root_dir, CUHK_PEDES)


def load_icfg_pedes(root_dir: str | Path) -> CaptionDataset:
    """Load `<root_dir>/ICFG-PEDES`, which has no val split; errors as `read_annotation`."""
    return _load(root_dir, ICFG_PEDES)


def load_rstp_reid(root_dir: str | Path) -> CaptionDataset:
    """Load `<root_dir>/RSTPReid`; errors as `read_annotation`."""
    return _load(root_dir, RSTP_REID)


def _load(root_dir: str | Path, layout: Layout) -> CaptionDataset:
    root = user_path(root_dir, "DATASETS.ROOT_DIR", DataError)
    forms = [(IMAGES, annotation) for annotation in layout.annotations]
    needed = next((form for form in forms if has_entries(root / layout.name, form)), forms[0])
    try:
        folder = find_folder(root, (layout.name,), needed)
    except DataError as error:
        expected = root / layout.name
        absent = next((path for path in (expected, expected / IMAGES) if not path.exists()), expected / needed[1])
        raise DataError(f"{layout.name}: '{os.path.abspath(absent)}' does not exist: {error}") from error
    return load_caption_folder(folder, layout)


def load_caption_folder(folder: str | Path, layout: Layout) -> CaptionDataset:
    """Load a folder of any name that has the `layout` of an archive; errors as `read_annotation`."""
    folder = Path(folder)
    images, annotation = folder / IMAGES, folder / layout.annotations[0]
    annotation = next((folder / name for name in layout.annotations if (folder / name).exists()), annotation)
    if not images.is_dir():
        what = f"'{images}' is {what_is_at(images) or 'a file'}, expected a folder" if images.exists() else ""
        raise DataError(f"{layout.name}: images: {what or does_not_exist(images)}")
    if not annotation.exists():
        raise DataError(f"{layout.name}: annotation {does_not_exist(annotation)}")
    entries, notes = read_annotation(annotation, layout.path_key)
    placed = [entry._replace(path=os.path.join(images, entry.path)) for entry in entries]
    by_split = {split: [entry for entry in placed if entry.split == split] for split in SPLITS}
    train = training_pairs(by_split["train"])
    return CaptionDataset(
        name=layout.name,
        train=train,
        val=caption_test(by_split["val"], by_split["val"]) if by_split["val"] else None,
        test=caption_test(by_split["test"], by_split["test"]) if by_split["test"] else None,
        notes=tuple(f"{layout.name}: {note}" for note in notes),
        published=layout.published,
        no_train="" if train else f"no entry of '{annotation}' has split train and a caption",
    )


def training_pairs(entries: Sequence[Entry]) -> list[Pair]:
    """Return all (image, caption) of the entries, identities numbered in ascending order, images in their order."""
    label = {pid: row for row, pid in enumerate(sorted({entry.pid for entry in entries if entry.captions}))}
    return [
        Pair(entry.path, label[entry.pid], image_id, caption)
        for image_id, entry in enumerate(entries)
        for caption in entry.captions
    ]


def caption_test(gallery: Sequence[Entry], query: Sequence[Entry]) -> CaptionTest:
    """Return the test of the captions of `query` on the images of `gallery`, both in their order."""
    place: dict[str, int] = {}
    for row, entry in enumerate(gallery):
        place.setdefault(entry.path, row)
    captions = [(caption, entry.pid, place.get(entry.path, -1)) for entry in query for caption in entry.captions]
    numbers = np.array([row[1:] for row in captions], dtype=np.int64).reshape(-1, 2)  # [Q, 2]
    return CaptionTest(
        [entry.path for entry in gallery],
        np.array([entry.pid for entry in gallery], dtype=np.int64),
        [caption for caption, *_ in captions],
        *np.ascontiguousarray(numbers.T),
    )
