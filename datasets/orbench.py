"""ORBench on disk: RGB, infrared, sketch and coloured pencil images of persons, and a caption of each RGB image.

Reference: Zuo et al., ReID5o: Achieving Omni Multi-modal Person Re-identification in a Single Model, NeurIPS 2025. The
layout of the PRCV 2025 competition, which has training persons alone, is read too.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from configs.modalities import IMAGES, TEXT, VIS
from datasets.archives.annotation import is_text, kind_of, read_json
from datasets.archives.common import missing_files, quoted
from datasets.archives.find import does_not_exist, find_folder, folders_in, has_entries, is_image_name, names_in
from datasets.labels import MAX_PID, whole_number
from datasets.multimodal import IDS, MultiModalDataset, Record
from datasets.orbench_queries import Persons, Searched, place_of, read_queries
from utils.errors import DataError
from utils.paths import user_path

NAME = "orbench"
FOLDER = "ORBench"
TRAIN_FILE, TEST_FILE = "train_annos.json", "test_gallery_and_queries.json"
COMPETITION, COMPETITION_FILE = "train", "text_annos.json"
PUBLISHED = {
    "train": {IDS: (600,)},
    "test": {IDS: (400,)},
    "on disk": {IDS: (1_000,), VIS: (45_113,), "nir": (26_071,), "sk": (18_000,), "cp": (18_000,)},
}
PUBLISHED_COMPETITION = {"train": {IDS: (400,), VIS: (18_420,), TEXT: (18_420,)}}
INSTEAD = "so tested are the persons that DATASETS.VAL_IDS holds out, or another of DATASETS.TESTS"
EXAMPLE = '[{"id": 1, "file_path": "vis/0001/a.jpg", "caption": "A man ...", "split": "train"}, ...]'


class Annotated(NamedTuple):
    """One RGB image that a list names, with its caption."""

    where: str  # file and entry
    folder: int  # of the person
    path: str  # below the data set's folder
    caption: str
    split: str


def load_orbench(root_dir: str | Path) -> MultiModalDataset:
    """Load `<root_dir>/ORBench`, or, where there is none, the competition's `<root_dir>/train`.

    Persons have the numbers of their folders in `train`, those of the test file in `gallery` and `queries`. A person
    may lack a modality; of each modality there are notes on it. Raises DataError naming file, entry and way out for
    lists that do not fit, images that are absent, and person folders whose names are no numbers.
    """
    root = user_path(root_dir, "DATASETS.ROOT_DIR", DataError)
    own = root / COMPETITION
    if has_entries(own, (COMPETITION_FILE, VIS)) and not has_entries(root / FOLDER, (VIS,)):
        return load_competition_folder(own)
    folder = find_folder(root, (FOLDER,), (TRAIN_FILE, VIS))
    return load_orbench_folder(folder)._replace(published=PUBLISHED)


def load_orbench_folder(folder: str | Path) -> MultiModalDataset:
    """Load a folder of any name that has ORBench's layout; errors as `load_orbench`.

    Without a test file there are no gallery and no queries.
    """
    folder = Path(folder)
    images = {modality: images_of_persons(folder / modality) for modality in IMAGES}
    persons = Persons(f"{folder / TRAIN_FILE}: folders and ids")
    annotated, notes = read_annotated(folder / TRAIN_FILE, folder, persons)
    searched = Searched([], {}, set(), ())
    if (folder / TEST_FILE).exists():
        searched = read_queries(folder / TEST_FILE, folder)
        both = searched.folders.intersection(entry.folder for entry in annotated)
        if both:
            notes.append(
                f"{len(both):,} of the {len(searched.folders):,} persons that are tested are trained on too, e.g. "
                f"folder {min(both):04d}, so the scores say little about new persons"
            )
    else:
        notes.append(f"no '{folder / TEST_FILE}', {INSTEAD}")
    return _dataset(folder / TRAIN_FILE, annotated, images, [*notes, *searched.notes])._replace(
        gallery=searched.gallery, queries=searched.queries
    )


def load_competition_folder(folder: str | Path) -> MultiModalDataset:
    """Load the competition's folder `train`, whose ids number the annotations: a person is a folder; errors as above.

    There are no gallery and no queries.
    """
    folder = Path(folder)
    images = {modality: images_of_persons(folder / modality) for modality in IMAGES}
    annotated, notes = read_annotated(folder / COMPETITION_FILE, folder, None)
    notes.append(f"the competition's layout has no test file, {INSTEAD}")
    dataset = _dataset(folder / COMPETITION_FILE, annotated, images, notes)
    return dataset._replace(published=PUBLISHED_COMPETITION)


def images_of_persons(folder: Path) -> dict[int, tuple[str, ...]]:
    """Return the paths of the images in each person's folder, by its number; {} where `folder` is not there.

    Files beside the folders do not count. Raises DataError for a folder whose name is no number, or two of one number.
    """
    if not folder.is_dir():
        return {}
    found: dict[int, tuple[str, ...]] = {}
    for name in folders_in(folder):
        place = os.path.join(folder, name)
        person = whole_number(name, MAX_PID, f"'{folder}': the person folder")
        if person in found:
            raise DataError(f"'{folder}' has two folders of person {person}; join them in '{person:04d}'")
        found[person] = tuple(os.path.join(place, image) for image in names_in(Path(place)) if is_image_name(image))
    return found


def read_annotated(file: Path, folder: Path, persons: Persons | None) -> tuple[list[Annotated], list[str]]:
    """Return the RGB images of split train that a JSON list names, all of which exist, and notes on the others.

    `persons` takes the ids, which are one to one with the folders; None: ids say nothing. Errors as `load_orbench`.
    """
    if not file.exists():
        raise DataError(f"annotation {does_not_exist(file)}")
    content = read_json(file)
    if not isinstance(content, list) or not content:
        raise DataError(
            f"{file}: holds {kind_of(content)}, expected a list with an object for each RGB image: {EXAMPLE}"
        )
    annotated = [_check_entry(item, f"{file}: entry {row}", persons) for row, item in enumerate(content)]
    trained = [entry for entry in annotated if entry.split == "train"]
    missing = missing_files([os.path.join(folder, entry.path) for entry in trained])
    if missing:
        first = next(entry for entry in trained if os.path.join(folder, entry.path) == missing[0])
        raise DataError(
            f"{first.where}: {len(missing):,} of {len(trained):,} images do not exist: {quoted(missing)}; unpack the "
            "images again, or take their entries out"
        )
    other = len(annotated) - len(trained)
    return trained, [f"{other:,} images of other splits than train are not trained on"] * (other > 0)


def _check_entry(item: Any, where: str, persons: Persons | None) -> Annotated:
    if not isinstance(item, dict):
        raise DataError(f"{where} is {kind_of(item)}, expected an object; {EXAMPLE}")
    needed = ("file_path", "caption", "split") if persons is None else ("id", "file_path", "caption", "split")
    absent = [key for key in needed if key not in item]
    if absent:
        raise DataError(f"{where} has no {' and no '.join(absent)}; e.g. {EXAMPLE}")
    path, caption, split = item["file_path"], item["caption"], item["split"]
    folder = place_of(path, VIS, f"{where}: file_path")
    where = f"{where} ('{path}')"
    for key, value in (("caption", caption), ("split", split)):
        if not is_text(value):
            raise DataError(f"{where}: {key} is {kind_of(value)}, expected a text")
    if persons is not None:
        persons.add(item["id"], folder, where)
    return Annotated(where, folder, path, caption, split)


def _dataset(
    file: Path, annotated: Sequence[Annotated], images: Mapping[str, Mapping[int, tuple[str, ...]]], notes: list[str]
) -> MultiModalDataset:
    """Return the data set of what a list names and the folders hold, without its test."""
    others = [modality for modality in IMAGES if modality != VIS]
    partners = {
        person: {modality: images[modality].get(person, ()) for modality in others}
        for person in {entry.folder for entry in annotated}
    }
    train = [
        Record(entry.folder, os.path.join(file.parent, entry.path), entry.caption, partners[entry.folder])
        for entry in annotated
    ]
    persons = {person for of_modality in images.values() for person in of_modality}
    return MultiModalDataset(
        name=NAME,
        train=train,
        notes=tuple(f"{NAME}: {note}" for note in [*notes, *_train_notes(train, partners, images[VIS])]),
        no_train="" if train else f"no entry of '{file}' has split train",
        on_disk={IDS: len(persons)} | {name: sum(map(len, found.values())) for name, found in images.items()},
    )


def _train_notes(
    train: Sequence[Record], partners: Mapping[int, Mapping[str, Sequence[str]]], visible: Mapping[int, Iterable[str]]
) -> list[str]:
    """Return what a reader has to know: persons that lack a modality, images and captions that are not there."""
    notes = []
    for modality in next(iter(partners.values()), {}):
        lacking = sum(not found[modality] for found in partners.values())
        if lacking:
            notes.append(f"{lacking:,} of {len(partners):,} persons to train on have no {modality} image")
    empty = sum(not record.caption.strip() for record in train)
    if empty:
        notes.append(f"{empty:,} of {len(train):,} RGB images to train on have an empty caption, and count without one")
    named = {record.vis for record in train}
    unnamed = sum(path not in named for person in partners for path in visible.get(person, ()))
    if unnamed:
        notes.append(f"{unnamed:,} RGB images of persons to train on stand in no entry and are not trained on")
    return notes
