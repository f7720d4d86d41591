"""Archives whose folders are the splits and whose file names are the labels: what one consists of, and its loader."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from datasets.archives.common import MARKET_NAMES, Naming, read_named_images, read_training_images
from datasets.archives.find import find_folder, has_entries
from datasets.bases import SPLITS, Published, ReIDDataset, Sample
from datasets.labels import junk_notes
from datasets.test_set import same_camera
from utils.errors import DataError
from utils.paths import user_path

Layout = Mapping[str, tuple[str, ...]]  # split -> folders whose images are the split together; of a test set no "train"

MARKET_LAYOUT: Layout = {"train": ("bounding_box_train",), "query": ("query",), "gallery": ("bounding_box_test",)}
QUERY_CAMID, GALLERY_CAMID = 0, 1  # where names tell no camera


class Archive(NamedTuple):
    """One archive as it was published. Same identity and camera are junk; where names tell no camera, nothing is."""

    name: str  # of DATASETS.NAMES, where errors and notes begin with it
    folders: tuple[str, ...]  # below DATASETS.ROOT_DIR, as it unpacks, the usual one first
    published: Mapping[str, Published]
    num_cameras: int = 0  # 0 = not known, or none
    layouts: tuple[Layout, ...] = (MARKET_LAYOUT,)  # the published one first, then those of usual copies
    naming: Naming = MARKET_NAMES
    nested: bool = False  # images lie in folders by identity
    notes: tuple[str, ...] = ()  # on its protocol, said with every result


def load_archive(root_dir: str | Path, archive: Archive) -> ReIDDataset:
    """Load `<root_dir>/<one of the archive's folders>`; junk (pid -1) is left out, distractors stay as pid 0.

    Raises DataError where folders are absent or a file is named otherwise. A test set has no training images, an
    archive may lack its own.
    """
    folder, layout = _find(root_dir, archive)
    has_cameras = "camera" in archive.naming.pattern.groupindex
    samples: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    notes, no_train = [], "" if "train" in layout else "it has no training images, it tests models of other sets"
    for split, places in layout.items():
        for place in places:
            if split == "train":
                own, junk, absent = read_training_images(folder / place, archive.naming, archive.nested)
                no_train = no_train or absent
            else:
                camid = GALLERY_CAMID if split == "gallery" else QUERY_CAMID
                own, junk = read_named_images(folder / place, archive.naming, camid, archive.nested)
            samples[split] += own
            notes += junk_notes(f"{archive.name} {split}", junk)
    if no_train:
        samples["train"] = []
    return ReIDDataset(
        name=archive.name,
        **samples,
        published=dict(archive.published),
        notes=(*notes, *archive.notes),
        junk=same_camera if has_cameras else None,
        has_cameras=has_cameras,
        tests_new_ids=True,
        num_cameras=archive.num_cameras,
        no_train=no_train,
    )


def _find(root_dir: str | Path, archive: Archive) -> tuple[Path, Layout]:
    """Return the folder and the layout in which an archive lies there; DataError as `find_folder` for the first."""
    root = user_path(root_dir, "DATASETS.ROOT_DIR", DataError)
    present = [
        layout
        for layout in archive.layouts
        if any(has_entries(root / name, (*layout["query"], *layout["gallery"])) for name in archive.folders)
    ]
    layout = (*present, *archive.layouts)[0]
    needed = [place for places in layout.values() for place in places]
    return find_folder(root, archive.folders, needed, spare=layout.get("train", ())), layout
