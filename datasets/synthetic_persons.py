"""Synthetic persons: drawn once, deterministically, in Market-1501's exact layout, then read by its ordinary loader.

They prove mechanics and let an ablation show a difference on any computer: unlike vehicles from many viewpoints, the
figures have their parts at fixed heights. They say nothing about real persons.
"""

from dataclasses import replace
from pathlib import Path

from PIL import Image

from datasets.archives.folders import Archive, load_archive
from datasets.bases import SPLITS, ReIDDataset
from datasets.synthetic import PERSON_FOLDER
from datasets.synthetic.once import ensure_drawn, write_lines
from datasets.synthetic.persons.places import CAMERAS
from datasets.synthetic.persons.plan import (
    NUM_TEST_IDS,
    NUM_TRAIN_IDS,
    person_of,
    plan_person_shots,
    plan_persons,
    take_person_shots,
)
from utils.errors import DataError
from utils.paths import user_path
from utils.progress import over
from utils.test_folder import OCCLUDED
from utils.text_files import numbered_lines

NAME = "synthetic_persons"
VERSION = "1"  # of the drawing: a folder of another version is drawn again
FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
OCCLUDED_FILE = "occluded.txt"
JPEG_QUALITY = 92


def load_synthetic_persons(root_dir: str | Path) -> ReIDDataset:
    """Load `<root_dir>/synthetic_persons`, drawing it first if it is not there or was not finished.

    The data set's `more` says of each image whether the person is occluded. Several processes may call this at once.
    Raises DataError when the folder cannot be written or its occluded.txt does not fit the images, RunError when the
    disk is full.
    """
    folder = user_path(root_dir, "DATASETS.ROOT_DIR", DataError) / PERSON_FOLDER
    ensure_drawn(folder, "the synthetic persons", draw_synthetic_persons, VERSION)
    dataset = load_archive(root_dir, Archive(NAME, (PERSON_FOLDER,), {}, len(CAMERAS)))
    occluded = read_occluded(folder / OCCLUDED_FILE)
    paths = [sample.path for split in SPLITS for sample in getattr(dataset, split)]
    missing = next((path for path in paths if path not in occluded), None)
    if missing is not None:
        raise DataError(f"'{folder / OCCLUDED_FILE}' does not name '{missing}'; {_draw_anew(folder)}")
    return replace(dataset, more={OCCLUDED: {path: occluded[path] for path in paths}})


def draw_synthetic_persons(
    folder: str | Path, seed: int = 0, num_train_ids: int = NUM_TRAIN_IDS, num_test_ids: int = NUM_TEST_IDS
) -> None:
    """Draw the set into a new folder in Market-1501's layout.

    The same arguments give the same files. Each image has a random generator of its own, seeded by (seed, identity,
    index), so neither the order nor the number of images changes any of them.
    """
    folder = Path(folder)
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
    occluded = []
    for person in over(plan_persons(seed, num_train_ids, num_test_ids), "draw synthetic persons", "person"):
        look = person_of(seed, person)
        for shot, photo in take_person_shots(look, plan_person_shots(seed, person), seed):
            Image.fromarray(photo.pixels).save(folder / shot.folder / shot.name, quality=JPEG_QUALITY)
            occluded.append(f"{shot.folder}/{shot.name} {int(photo.occluded)}")
    write_lines(folder / OCCLUDED_FILE, sorted(occluded))


def read_occluded(path: Path) -> dict[str, int]:
    """Return {path of an image: 1 = something stands before the person, 0 = nothing} of lines "<image> <0 or 1>".

    The images are relative to the file. Raises DataError naming the file, and the line that does not fit.
    """
    occluded = {}
    if not path.is_file():
        raise DataError(f"'{path}' does not exist; {_draw_anew(path.parent)}")
    for where, line in numbered_lines(path):
        fields = line.split()
        if len(fields) != 2 or fields[1] not in ("0", "1"):
            raise DataError(f"{where}: expected '<image> <0 or 1>', got '{line.strip()}'; {_draw_anew(path.parent)}")
        occluded[str(path.parent / fields[0])] = int(fields[1])
    return occluded


def _draw_anew(folder: Path) -> str:
    return f"remove the folder '{folder}', and it is drawn again"
