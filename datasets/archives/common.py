"""What the loaders share: finding the data set's folder, listing images, reading labels from names and lists."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from datasets.bases import Published, ReIDDataset, Sample
from utils.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
NAME_PATTERN = re.compile(r"(-?\d+)_c(\d+)")
JUNK_PID = -1
MAX_NAMES = 10  # entries of a folder that an error quotes


def find_folder(root_dir: str | Path, names: Sequence[str], needed: Sequence[str]) -> Path:
    """Return the first `<root_dir>/<name>` that holds every entry of `needed`.

    Raises DataError saying what was expected and what was found, with a hint when `root_dir` is itself the data set.
    """
    root = Path(root_dir).expanduser()
    for name in names:
        if has_entries(root / name, needed):
            return root / name
    shown = os.path.abspath(root)
    if not root.is_dir():
        raise DataError(f"folder '{shown}' does not exist; set DATASETS.ROOT_DIR to the folder that holds '{names[0]}'")
    expected = f"expected folder '{os.path.join(shown, names[0])}' with {_join(needed)}"
    if has_entries(root, needed):
        parent = os.path.dirname(shown)
        rename = "" if os.path.basename(shown) in names else f" and name the folder '{names[0]}'"
        raise DataError(
            f"{expected}; '{shown}' is the data set itself: set DATASETS.ROOT_DIR to its parent '{parent}'{rename}"
        )
    present = next((root / name for name in names if (root / name).is_dir()), root)
    raise DataError(f"{expected}; found in '{os.path.abspath(present)}': {_entries(present)}")


def has_entries(folder: Path, needed: Sequence[str]) -> bool:
    """Return whether `folder` holds every file and folder in `needed`."""
    return all((folder / entry).exists() for entry in needed)


def list_images(folder: Path) -> list[str]:
    """Return the sorted names of the images in `folder`; hidden files do not count. Raises DataError for none."""
    if not folder.is_dir():
        raise DataError(f"image folder '{folder}' does not exist; unpack the archive again")
    names = sorted(
        name for name in os.listdir(folder) if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
    )
    if not names:
        raise DataError(
            f"no image ({_join(IMAGE_SUFFIXES)}) in '{folder}', found: {_entries(folder)}; unpack the archive again"
        )
    return names


def read_named_images(folder: Path) -> tuple[list[Sample], int]:
    """Return the images of a folder labelled by their names, "<pid>_c<camera>...", and the number of junk images.

    Cameras count from 1 in the names and from 0 in the samples; viewid is 0. Junk (pid -1) is left out.
    """
    samples = []
    num_junk = 0
    for name in list_images(folder):
        path = os.path.join(folder, name)
        match = NAME_PATTERN.match(name)
        if match is None:
            raise DataError(f"image '{path}' is not named <pid>_c<camera>..., e.g. 0002_c1s1_000451_03.jpg; rename it")
        pid, camera = int(match[1]), int(match[2])
        if pid == JUNK_PID:
            num_junk += 1
            continue
        samples.append(Sample(path, pid, camid_of(camera, path), 0))
    return samples, num_junk


def camid_of(camera: int, path: str) -> int:
    """Return the camera number of a file name, which counts from 1, as a camid, which counts from 0."""
    if camera < 1:
        raise DataError(f"image '{path}' names camera {camera}, but cameras count from 1; rename it")
    return camera - 1


def load_person_archive(
    root_dir: str | Path, name: str, folder_names: Sequence[str], published: dict[str, Published], num_cameras: int
) -> ReIDDataset:
    """Load Market-1501's layout: bounding_box_train, query, bounding_box_test with <pid>_c<camera>... images."""
    folders = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
    folder = find_folder(root_dir, folder_names, tuple(folders.values()))
    samples = {}
    notes = []
    for split, sub_folder in folders.items():
        samples[split], num_junk = read_named_images(folder / sub_folder)
        if num_junk:
            notes.append(f"{name} {split}: {num_junk:,} junk images (pid -1) are ignored")
    return ReIDDataset(name=name, **samples, published=published, notes=tuple(notes), num_cameras=num_cameras)


def read_labelled_list(list_file: Path) -> list[tuple[str, int]]:
    """Return (image name, label) of every line "<image name> <whole number>"; empty lines are skipped.

    Raises DataError naming the file and the line that does not fit.
    """
    if not list_file.is_file():
        raise DataError(f"list '{list_file}' does not exist; unpack the archive again")
    rows = []
    for number, line in enumerate(list_file.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2 or not fields[1].isdecimal():
            raise DataError(f"{list_file}:{number}: expected '<image name> <label>', got '{line.strip()}'; correct it")
        rows.append((fields[0], int(fields[1])))
    return rows


def _join(names: Sequence[str]) -> str:
    return ", ".join(names)


def _entries(folder: Path) -> str:
    """Return the first entries of a folder in one line."""
    names = sorted(os.listdir(folder))
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return (_join(names[:MAX_NAMES]) or "nothing") + more
