"""What the archives of visible and infrared images share: lists, folders by camera and person, galleries drawn anew."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from configs.modalities import VIS
from datasets.archives.common import LINES_OF_LABELS, NUM_EXAMPLES, check_listed, list_images, read_labelled_list
from datasets.archives.find import does_not_exist
from datasets.bases import Sample
from datasets.labels import MAX_PID, whole_number
from datasets.multimodal import Item, Record
from utils.errors import DataError
from utils.text_files import numbered_lines

NIR = "nir"
DRAWS = 10  # of the gallery, as published scores are means over them

LabelsOf = Callable[[str, str], tuple[int, int]]  # (path below the archive, words that open an error) -> pid, camid


def read_ids(id_list: Path) -> list[int]:
    """Return the identities, ascending, of a text file that separates them by commas.

    Raises DataError, with the line, for what is no whole number, and where there is no file or no identity.
    """
    if not id_list.exists():
        raise DataError(f"list {does_not_exist(id_list)}")
    parts = ((where, part.strip()) for where, line in numbered_lines(id_list) for part in line.split(","))
    ids = {whole_number(part, MAX_PID, f"{where}: identity") for where, part in parts if part}
    if not ids:
        raise DataError(f"'{id_list}' names no identity; unpack the archive again")
    return sorted(ids)


def images_by_camera(folder: Path, cameras: Iterable[int], pids: Sequence[int]) -> list[Sample]:
    """Return the images `cam<camera>/<pid, 4 digits>/*` below `folder`, by pid, then camera, then name.

    `cameras` count from 1, camids from 0. A person whom a camera never saw has no folder there. Raises DataError for a
    camera without a folder, and a folder without an image.
    """
    places = {camera: folder / f"cam{camera}" for camera in cameras}
    for place in places.values():
        if not place.is_dir():
            raise DataError(f"image folder {does_not_exist(place)}")
    samples = []
    for pid in pids:
        for camera, place in places.items():
            own = place / f"{pid:04d}"
            if own.is_dir():
                samples += [Sample(f"{own}/{name}", pid, camera - 1, 0) for name in list_images(own)]
    return samples


def check_shown(samples: Iterable[Sample], pids: Sequence[int], id_list: Path) -> None:
    """Raise DataError where `id_list` names persons, `pids`, whom no image shows."""
    absent = sorted({*pids} - {sample.pid for sample in samples})
    if absent:
        named = ", ".join(f"{pid:04d}" for pid in absent[:NUM_EXAMPLES]) + ", ..." * (len(absent) > NUM_EXAMPLES)
        raise DataError(
            f"'{id_list}': {len(absent):,} of {len(pids):,} persons have no image in any camera's folder: {named}; "
            "unpack the images again, or correct the list"
        )


def check_apart(parts: Mapping[str, Iterable[int]], name: str) -> None:
    """Raise DataError where two parts, e.g. {"train list": pids}, share an identity: scores would be of training."""
    first: dict[int, str] = {}
    for part, pids in parts.items():
        for pid in pids:
            other = first.setdefault(pid, part)
            if other != part:
                raise DataError(
                    f"{name}: person {pid} stands in {other} and in {part}, which are to have none in common; get the "
                    "lists again"
                )


def read_image_list(folder: Path, list_file: Path, below: str, labels_of: LabelsOf) -> list[Sample]:
    """Return the images of lines `<below>/.../<image> <label>` in their order, labelled by `labels_of` their path.

    The list's label numbers the persons of that list alone, so it serves as a check: it and the pid are one to one.
    Raises DataError as `read_labelled_list` and `check_listed`, for a line without a label, a path that leads
    elsewhere, and a label of two persons or a person of two labels, naming both.
    """
    rows, unlabelled = read_labelled_list(list_file)
    if unlabelled:
        raise DataError(f"'{list_file}': {unlabelled.total():,} images have no label; get the list again")
    samples: list[Sample] = []
    person_of: dict[int, tuple[int, str]] = {}
    label_of: dict[int, tuple[int, str]] = {}
    for image, label in rows:
        parts = PurePosixPath(image).parts
        if parts[:1] != (below,) or ".." in parts or len(parts) < 2:
            raise DataError(f"'{list_file}': '{image}' is no path {below}/.../<image>; get the list again")
        pid, camid = labels_of(image, f"'{list_file}': image '{image}'")
        known_pid, shown = person_of.setdefault(label, (pid, image))
        known_label, named = label_of.setdefault(pid, (label, image))
        if (known_pid, known_label) != (pid, label):
            other, other_label = (shown, label) if known_pid != pid else (named, known_label)
            raise DataError(
                f"'{list_file}': '{other}' has label {other_label} and '{image}' has label {label}, but labels and "
                "persons are to be one to one; get the list again"
            )
        samples.append(Sample(f"{folder}/{image}", pid, camid, 0))
    check_listed(samples, list_file, LINES_OF_LABELS)
    return samples


def paired_records(vis: Iterable[Sample], nir: Iterable[Sample]) -> list[Record]:
    """Return a training record for each visible image, with all infrared images of its person as partners."""
    partners: dict[int, list[str]] = defaultdict(list)
    for sample in nir:
        partners[sample.pid].append(sample.path)
    others = {pid: {NIR: tuple(paths)} for pid, paths in partners.items()}  # shared by the records of a person
    return [Record(sample.pid, sample.path, "", others.get(sample.pid, {NIR: ()}), sample.camid) for sample in vis]


def unpaired_notes(vis: Iterable[Sample], nir: Iterable[Sample], what: str) -> list[str]:
    """Return notes on the persons of a training set, `what`, who lack visible or infrared images."""
    seen, warm = {sample.pid for sample in vis}, {sample.pid for sample in nir}
    notes = []
    if warm - seen:
        notes.append(f"{what}: {len(warm - seen):,} persons have no visible image and are not trained on")
    if seen - warm:
        notes.append(f"{what}: {len(seen - warm):,} persons have no infrared image")
    return notes


def as_items(vis: Iterable[Sample], nir: Iterable[Sample]) -> tuple[list[Item], list[int], list[int]]:
    """Return the items of a test, the visible ones first, and the rows of both kinds among them."""
    items = [
        Item(modality, sample.path, sample.pid, sample.camid)
        for modality, samples in ((VIS, vis), (NIR, nir))
        for sample in samples
    ]
    rows = {modality: [row for row, item in enumerate(items) if item.modality == modality] for modality in (VIS, NIR)}
    return items, rows[VIS], rows[NIR]


def rows_by_camera(items: Sequence[Item], rows: Iterable[int]) -> dict[tuple[int, int], list[int]]:
    """Return {(pid, camid): those of `rows` whose item has them}, in the order of the first of each."""
    groups = defaultdict(list)
    for row in rows:
        groups[items[row].pid, items[row].camid].append(row)
    return dict(groups)


def draw_rows(groups: Iterable[Sequence[int]], draw: int, shots: int = 1) -> list[int]:
    """Return `shots` rows of each group, or all that it has, drawn by Python's own generator with the seed `draw`.

    For one shot these are the draws of AGW's code, where the groups are the images of a person and camera by name, in
    ascending order of persons, then cameras.

    Reference: Ye et al., Deep Learning for Person Re-identification: A Survey and Outlook, TPAMI 2021.
    """
    generator = random.Random(draw)
    rows = []
    for group in groups:
        rows += [generator.choice(group)] if shots == 1 else generator.sample(group, min(shots, len(group)))
    return rows


def column(rows: Sequence[int]) -> np.ndarray:
    """Return rows of one item each, int64 [N, 1], as a `Trial` has them."""
    return np.array(rows, dtype=np.int64).reshape(-1, 1)
