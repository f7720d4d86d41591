"""Synthetic VeRi: drawn once, deterministically, in VeRi-776's exact layout, then read by the ordinary VeRi loader.

It proves mechanics and lets an ablation show a difference on any computer; it says nothing about real vehicles.
"""

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from datasets.archives.veri import load_veri_folder
from datasets.bases import ReIDDataset
from datasets.synthetic import FOLDER
from datasets.synthetic.looks import COLOUR_NAMES, TYPE_NAMES, Look
from datasets.synthetic.once import ensure_drawn, write_lines
from datasets.synthetic.plan import Shot, look_of, plan_identities, plan_shots, take_shots
from utils.errors import DataError
from utils.paths import user_path
from utils.progress import over

VERSION = "1"  # of the drawing: a folder of another version is drawn again
NUM_TRAIN_IDS, NUM_TEST_IDS = 180, 70
JPEG_QUALITY = 92


class Drawn(NamedTuple):
    """What the lists say about an image in image_train or image_test."""

    shot: Shot
    look: Look
    keypoints: np.ndarray  # int [20, 2]
    orientation: int


def load_synthetic(root_dir: str | Path, unlabelled_view: str = "drop", require_views: bool = True) -> ReIDDataset:
    """Load `<root_dir>/synthetic_veri`, drawing it first if it is not there or was not finished.

    The remaining arguments are those of `load_veri_folder`. Several processes may call this at once. Raises DataError
    when the folder cannot be written, RunError when the disk is full.
    """
    folder = user_path(root_dir, "DATASETS.ROOT_DIR", DataError) / FOLDER
    ensure_drawn(folder, "synthetic VeRi", draw_synthetic_veri, VERSION)
    return load_veri_folder(folder, (), unlabelled_view, require_views, name="synthetic")


def draw_synthetic_veri(
    folder: str | Path, seed: int = 0, num_train_ids: int = NUM_TRAIN_IDS, num_test_ids: int = NUM_TEST_IDS
) -> None:
    """Draw the set into a new folder in VeRi's layout.

    The same arguments give the same files. Each image has a random generator of its own, seeded by (seed, identity,
    index), so neither the order nor the number of images changes any of them.
    """
    folder = Path(folder)
    for name in ("image_train", "image_query", "image_test"):
        (folder / name).mkdir(parents=True)
    drawn = {"train": [], "test": []}
    for identity in over(plan_identities(seed, num_train_ids, num_test_ids), "draw synthetic VeRi", "vehicle"):
        look = look_of(seed, identity)
        for shot, photo in take_shots(look, plan_shots(seed, identity), seed):
            path = folder / f"image_{identity.split}" / shot.name
            Image.fromarray(photo.pixels).save(path, quality=JPEG_QUALITY)
            if shot.is_query:
                shutil.copyfile(path, folder / "image_query" / shot.name)
            drawn[identity.split].append(Drawn(shot, look, photo.keypoints, photo.orientation))
    for rows in drawn.values():
        rows.sort(key=lambda row: row.shot.name)
    _write_lists(folder, drawn["train"], drawn["test"])


def _write_lists(folder: Path, train: list[Drawn], test: list[Drawn]) -> None:
    """Write the name lists, labels, key points and the right and junk answers of each query."""
    query = [row for row in test if row.shot.is_query]
    for split, rows in (("train", train), ("query", query), ("test", test)):
        write_lines(folder / f"name_{split}.txt", (row.shot.name for row in rows))
    _write_labels(folder / "train_label.xml", "TrainingImages", train)
    _write_labels(folder / "test_label.xml", "TestImages", test)
    write_lines(folder / "keypoint_train.txt", (_keypoint_line("image_train", row) for row in train))
    lines = [_keypoint_line(name, row) for name, rows in (("image_query", query), ("image_test", test)) for row in rows]
    write_lines(folder / "keypoint_test.txt", lines)
    write_lines(folder / "list_color.txt", (f"{number} {name}" for number, name in enumerate(COLOUR_NAMES, start=1)))
    write_lines(folder / "list_type.txt", (f"{number} {name}" for number, name in enumerate(TYPE_NAMES, start=1)))
    for name, same_camera in (("gt_image.txt", False), ("jk_image.txt", True)):
        write_lines(folder / name, (_answers(row.shot, test, same_camera) for row in query))


def _write_labels(path: Path, root: str, rows: list[Drawn]) -> None:
    items = (
        f'<Item imageName="{shot.name}" vehicleID="{shot.pid:04d}" cameraID="c{shot.camera + 1:03d}" '
        f'colorID="{COLOUR_NAMES.index(look.colour_name) + 1}" typeID="{TYPE_NAMES.index(look.type_name) + 1}" />'
        for shot, look, *_ in rows
    )
    header = ('<?xml version="1.0" encoding="gb2312"?>', f'<{root} Version="1.0">', f'<Items number="{len(rows)}">')
    write_lines(path, (*header, *items, "</Items>", f"</{root}>"))


def _keypoint_line(image_folder: str, row: Drawn) -> str:
    numbers = " ".join(str(number) for number in row.keypoints.ravel())
    return f"VeRi/{image_folder}/{row.shot.name} {numbers} {row.orientation}"


def _answers(query: Shot, test: list[Drawn], same_camera: bool) -> str:
    """Return the 1-based positions in name_test.txt of the query's identity under the same or under other cameras."""
    hits = [
        str(position)
        for position, row in enumerate(test, start=1)
        if row.shot.pid == query.pid and (row.shot.camera == query.camera) == same_camera
    ]
    return " ".join(hits)
