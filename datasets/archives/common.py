"""What the loaders share: listing images, reading labels from names and lists."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.archives.find import (
    IMAGE_SUFFIXES,
    OWN_LAYOUT,
    does_not_exist,
    entries,
    folders_in,
    folders_of_images,
    is_image_name,
    names_in,
    packed_in,
    renaming,
)
from datasets.bases import Sample
from datasets.labels import JUNK_PID, MAX_LABEL, identity_of, is_no_label, junk_notes, whole_number
from utils.errors import DataError
from utils.text_files import numbered_lines

NAME_PATTERN = re.compile(r"(?P<pid>-?\d+)_c(?P<camera>\d+)", re.ASCII)
LINES_OF_LABELS = "the image stands first in a line, then its label"  # of what `read_labelled_list` reads
NUM_EXAMPLES = 3  # missing images that an error names


class Naming(NamedTuple):
    """How the names of files label their images."""

    pattern: re.Pattern[str]  # of how a name begins: group pid, and camera (from 1) where names tell it
    form: str  # the same in words, with an example


MARKET_NAMES = Naming(NAME_PATTERN, "<pid>_c<camera>..., e.g. 0002_c1s1_000451_03.jpg")


def list_images(folder: Path) -> list[str]:
    """Return the sorted names of the images in `folder`; hidden files do not count, nor folders and pipes.

    A link that leads nowhere does, as a broken image. Raises DataError where there is no folder or no image.
    """
    if not folder.is_dir():
        raise DataError(f"image folder {does_not_exist(folder)}")
    try:
        with os.scandir(folder) as found:
            names = sorted(entry.name for entry in found if is_image_name(entry.name) and _may_be_read(entry))
    except OSError as error:
        raise DataError(f"folder '{folder}' cannot be read ({error.strerror}); check its permissions") from error
    if names:
        return names
    way_out = "unpack the archive again"
    if folders_of_images(folder):
        way_out = f"the images are to lie in it, not in folders by identity; {OWN_LAYOUT}"
    elif packed_in(folder):
        way_out = f"unpack {packed_in(folder)} there"
    raise DataError(f"no image ({', '.join(IMAGE_SUFFIXES)}) in '{folder}', found: {entries(folder)}; {way_out}")


def list_nested_images(folder: Path) -> list[str]:
    """Return the sorted names of the images in `folder` and in the folders in it, these as "folder/name".

    Which folders count: `folders_in`. Raises DataError as `list_images`, where neither holds an image.
    """
    if not folder.is_dir():
        raise DataError(f"image folder {does_not_exist(folder)}")
    nested = [f"{name}/{image}" for name in folders_in(folder) for image in list_images(folder / name)]
    own = any(is_image_name(name) for name in names_in(folder)) or not nested
    return sorted(nested + (list_images(folder) if own else []))


def read_named_images(
    folder: Path, naming: Naming = MARKET_NAMES, camid: int = 0, nested: bool = False
) -> tuple[list[Sample], Counter[str]]:
    """Return the images of a folder labelled by their names, and the junk images by their pid.

    Cameras count from 1 in the names and from 0 in the samples, all are `camid` where names tell none; viewid is 0.
    Junk (pid -1) is left out. `nested`: images lie in folders in it, whose names say nothing. Raises DataError for a
    name of another form.
    """
    samples = []
    junk: Counter[str] = Counter()
    tells_camera = "camera" in naming.pattern.groupindex
    for name in list_nested_images(folder) if nested else list_images(folder):
        path = os.path.join(folder, name)
        match = naming.pattern.match(os.path.basename(name))
        if match is None:
            raise DataError(f"image '{path}' is not named {naming.form}; rename it; {OWN_LAYOUT}")
        pid = identity_of(match["pid"], f"image '{path}': pid")
        if pid == JUNK_PID:
            junk[str(JUNK_PID)] += 1
            continue
        samples.append(Sample(path, pid, camid_of(match["camera"], path) if tells_camera else camid, 0))
    return samples, junk


def read_training_images(
    folder: Path, naming: Naming = MARKET_NAMES, nested: bool = False
) -> tuple[list[Sample], Counter[str], str]:
    """Return what `read_named_images` does and '', or nothing and why there is nothing to train on."""
    try:
        samples, junk = read_named_images(folder, naming, nested=nested)
    except DataError as error:
        if folder.is_dir() and any(is_image_name(name) for name in names_in(folder)):
            raise
        if nested and folder.is_dir() and folders_of_images(folder):
            raise
        return [], Counter(), str(error)
    return samples, junk, "" if samples else f"'{folder}' holds junk images alone"


def camid_of(camera: str, path: str) -> int:
    """Return the camera number of a file name, which counts from 1, as a camid, which counts from 0."""
    number = whole_number(camera, MAX_LABEL + 1, f"image '{path}': camera")
    if number < 1:
        raise DataError(f"image '{path}' names camera {camera}, but cameras count from 1; rename it")
    return number - 1


def read_splits(folder: Path, name: str, folders: dict[str, str]) -> tuple[dict[str, list[Sample]], list[str], str]:
    """Return the samples of train, query and gallery, the notes on junk, and why there is nothing to train on."""
    samples, notes, no_train = {}, [], ""
    for split, sub_folder in folders.items():
        if split == "train":
            samples[split], junk, no_train = read_training_images(folder / sub_folder)
        else:
            samples[split], junk = read_named_images(folder / sub_folder)
        notes += junk_notes(f"{name} {split}", junk)
    return samples, notes, no_train


def read_labelled_list(list_file: Path) -> tuple[list[tuple[str, int]], Counter[str]]:
    """Return (image name, identity) of every line "<image name> <whole number>", and the junk by what stood there.

    Empty lines are skipped, junk (-1, nan, None, ...) is left out. Raises DataError naming the file and the line that
    does not fit, or that gives an image another identity than an earlier line.
    """
    if not list_file.exists():
        raise DataError(f"list {does_not_exist(list_file)}")
    rows: list[tuple[str, int]] = []
    first: dict[str, tuple[int, str]] = {}
    junk: Counter[str] = Counter()
    for where, line in numbered_lines(list_file):
        fields = line.split()
        if len(fields) != 2 or not _is_label(fields[1]):
            raise DataError(f"{where}: expected '<image name> <label>', got '{line.strip()}'; {_way_out(fields)}")
        image, label = fields
        pid = identity_of(label, f"{where}: label")
        if pid == JUNK_PID:
            junk[label] += 1
            continue
        known, place = first.setdefault(image, (pid, where))
        if known != pid:
            raise DataError(f"{where}: image '{image}' has label {pid}, but {known} in {place}; correct one of them")
        rows.append((image, pid))
    return rows, junk


def check_listed(samples: Sequence[Sample], list_file: Path, form: str = "") -> None:
    """Raise DataError where a list names no image, images that are missing, or an image under two identities.

    `form` tells how its lines are to be read.
    """
    if not samples:
        raise DataError(f"'{list_file}' names no image; unpack the archive again")
    pids: dict[str, int] = {}
    for sample in samples:
        if pids.setdefault(sample.path, sample.pid) != sample.pid:
            raise DataError(
                f"'{list_file}': image '{sample.path}' has label {sample.pid}, but {pids[sample.path]} earlier; get "
                "the list again"
            )
    missing = missing_files([sample.path for sample in samples])
    if missing:
        first = Path(missing[0])
        raise DataError(
            f"'{list_file}': {len(missing):,} of {len(samples):,} images do not exist: {quoted(missing)}; "
            f"{renaming(first.parent, (first.name,)) or 'unpack the images again'}, or correct the "
            f"list{f' ({form})' * bool(form)}"
        )


def missing_files(paths: Iterable[str]) -> list[str]:
    """Return those paths at which nothing lies, each once; every folder is read once, which is faster than each file.

    A link that leads nowhere lies there.
    """
    names: dict[str, set[str]] = {}
    missing = []
    for path in dict.fromkeys(paths):
        folder, name = os.path.split(path)
        if folder not in names:
            names[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in names[folder] and not os.path.lexists(path):  # a disk may take case for nothing
            missing.append(path)
    return missing


def quoted(paths: Sequence[str]) -> str:
    """Return the first of some paths in quotes, for an error, and dots where there are more."""
    return ", ".join(f"'{path}'" for path in paths[:NUM_EXAMPLES]) + ", ..." * (len(paths) > NUM_EXAMPLES)


def _way_out(fields: Sequence[str]) -> str:
    if len(fields) == 2 and ("/" in fields[1] or fields[1].lower().endswith(IMAGE_SUFFIXES)):
        return "its columns are swapped, the image stands first"
    if len(fields) > 2 and _is_label(fields[-1]):
        return "no name may hold spaces: rename the image, or correct the line"
    return "correct it"


def _is_label(text: str) -> bool:
    return (text.isascii() and text.isdigit()) or is_no_label(text)


def _may_be_read(entry: os.DirEntry) -> bool:
    """Return False for folders and for what might block whoever reads it; True for a dangling link."""
    return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
