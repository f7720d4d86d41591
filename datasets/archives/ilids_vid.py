"""iLIDS-VID: 300 persons, a sequence of each by two cameras; ten splits, each with 150 persons to train and to test on.

Every sequence of camera 1 searches those of camera 2, one match each. Training takes single frames.
Reference: Wang et al., Person Re-identification by Video Ranking, ECCV 2014.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from datasets.archives.common import list_images
from datasets.archives.find import find_folder, folders_in
from datasets.archives.matlab import read_whole_numbers
from datasets.bases import Published, ReIDDataset, Sample
from datasets.labels import MAX_PID, whole_number
from utils.errors import DataError

NAME, FOLDERS = "ilids_vid", ("ilids-vid", "iLIDS-VID")
SEQUENCES = "i-LIDS-VID/sequences"
SPLITS = "train-test people splits/train_test_splits_ilidsvid.mat"
CAMERAS = ("cam1", "cam2")
TRIALS, PERSONS, TESTED = 10, 300, 150
SIDE = Published(images=(TESTED,), ids=(TESTED,), per_id=1)


def load_ilids_vid(root_dir: str | Path, trial: int = 1) -> ReIDDataset:
    """Load `<root_dir>/ilids-vid` in one of its ten splits, `trial`, from 1: row `trial` of ls_set in the MATLAB file.

    A row holds places, from 1, in the sorted list of person folders: 150 to test with, then 150 to train on. Raises
    DataError for another table, and where the two cameras show other persons.
    """
    if not 1 <= trial <= TRIALS:
        raise DataError(f"DATASETS.TRIAL got {trial}, {NAME} has the trials 1 to {TRIALS}")
    folder = find_folder(root_dir, FOLDERS, (*(f"{SEQUENCES}/{camera}" for camera in CAMERAS), SPLITS))
    persons = _persons(folder / SEQUENCES)
    order = read_splits(folder / SPLITS, len(persons))[trial - 1]
    tested, trained = ([persons[place] for place in sorted(part)] for part in (order[:TESTED], order[TESTED:]))
    query, gallery, train = (
        _sequences(folder / SEQUENCES, cameras, part)
        for cameras, part in (((0,), tested), ((1,), tested), ((0, 1), trained))
    )
    return ReIDDataset(
        name=NAME,
        train=[sample._replace(path=path) for sample, paths in train for path in paths],
        query=[sample for sample, _ in query],
        gallery=[sample for sample, _ in gallery],
        published={"train": Published(images=(), ids=(PERSONS - TESTED,)), "query": SIDE, "gallery": SIDE},
        notes=(
            f"{NAME}: trial {trial} of {TRIALS}; published scores are means over a model for each (DATASETS.TRIAL)",
        ),
        junk=None,
        tests_new_ids=True,
        num_cameras=len(CAMERAS),
        frames={sample.path: paths for sample, paths in (*query, *gallery)},
    )


def read_splits(file: Path, persons: int) -> np.ndarray:
    """Return the order of the persons in each trial, places from 0: int64 [10, persons]; DataError for other tables."""
    order = read_whole_numbers(file, "ls_set")
    if order.shape != (TRIALS, persons) or (np.sort(order, axis=1) != np.arange(1, persons + 1)).any():
        raise DataError(
            f"'{file}': ls_set {list(order.shape)} is no order of {persons} persons in each of {TRIALS} trials; get it "
            "or the sequences again"
        )
    return order - 1


def _persons(folder: Path) -> list[str]:
    """Return the sorted names of the persons' folders, which both cameras have alike."""
    found = [folders_in(folder / camera) for camera in CAMERAS]
    odd = sorted({*found[0]} ^ {*found[1]})
    if odd or len(found[0]) <= TESTED:
        why = f"one camera lacks {odd[0]}" if odd else f"there are {len(found[0])} persons, expected {PERSONS}"
        raise DataError(f"'{folder}': {why}; unpack the archive again")
    return found[0]


def _sequences(folder: Path, cameras: Iterable[int], persons: Iterable[str]) -> list[tuple[Sample, tuple[str, ...]]]:
    """Return the sequences of some persons by their first frames, each with all its frames by name."""
    sequences = []
    for person in persons:
        pid = whole_number(person.removeprefix("person"), MAX_PID, f"'{folder}': folder '{person}': person")
        for camera in cameras:
            place = folder / CAMERAS[camera] / person
            paths = tuple(f"{place}/{name}" for name in list_images(place))
            sequences.append((Sample(paths[0], pid, camera, 0), paths))
    return sequences
