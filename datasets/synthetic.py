"""Synthetic VeRi: drawn once, deterministically, in VeRi-776's exact layout, then read by the ordinary VeRi loader.

It proves mechanics and lets an ablation show a difference on any computer; it says nothing about real vehicles.
"""

import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from datasets.bases import ReIDDataset
from datasets.drawing.looks import COLOUR_NAMES, TYPE_NAMES, Look, make_look
from datasets.drawing.photos import Photo, photograph
from datasets.drawing.scenes import CAMERAS
from datasets.drawing.vehicles import make_vehicle
from datasets.veri import load_veri_folder
from utils.commands import OneLineParser
from utils.errors import DataError, run_command

FOLDER = "synthetic_veri"
VERSION = "1"  # of the drawing: a folder of another version is drawn again
VERSION_FILE = "drawing_version.txt"
HIGHEST_PID = 776
CAMERAS_PER_ID = (6, 9)
MAX_FAMILY = 3
MAX_QUERIES_PER_ID = 3
JPEG_QUALITY = 92
ABANDONED_SECONDS = 3600
SHEET_ROWS, SHEET_CELL = 6, 90

logger = logging.getLogger(__name__)


class Vehicle(NamedTuple):
    """One identity of the plan."""

    pid: int
    split: str  # "train" or "test"
    family: int
    member: int


class Shot(NamedTuple):
    """One image of the plan; `index` counts the shots of the identity."""

    pid: int
    camera: int  # 0-based
    frame: int
    index: int
    is_query: bool

    @property
    def name(self) -> str:
        """VeRi's file name: identity, camera counted from 1, frame."""
        return f"{self.pid:04d}_c{self.camera + 1:03d}_{self.frame:08d}_0.jpg"


class Drawn(NamedTuple):
    """What the lists say about an image in image_train or image_test."""

    shot: Shot
    look: Look
    keypoints: np.ndarray  # int [20, 2]
    orientation: int


def load_synthetic(root_dir: str | Path, unlabelled_view: str = "drop", require_views: bool = True) -> ReIDDataset:
    """Load `<root_dir>/synthetic_veri`, drawing it first if it is not there or was not finished.

    The remaining arguments are those of `load_veri_folder`. Several processes may call this at once. Raises DataError
    when the folder cannot be written.
    """
    folder = Path(root_dir).expanduser() / FOLDER
    if not is_complete(folder):
        try:
            _draw_into_place(folder)
        except OSError as error:
            raise DataError(
                f"synthetic VeRi cannot be drawn into '{folder.absolute()}' ({error.strerror}); make room there, or "
                "set DATASETS.ROOT_DIR to a folder that can be written"
            ) from error
    return load_veri_folder(folder, (), unlabelled_view, require_views, name="synthetic")


def is_complete(folder: Path) -> bool:
    """Return whether the folder holds a finished drawing of the current version."""
    marker = folder / VERSION_FILE
    return marker.is_file() and marker.read_text(encoding="ascii").strip() == VERSION


def _draw_into_place(folder: Path) -> None:
    """Draw beside `folder`, then rename: nobody ever sees a half-drawn folder, and the first of several wins."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for sibling in folder.parent.glob(f".{FOLDER}_*"):
        if time.time() - sibling.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(sibling, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{FOLDER}_", dir=folder.parent))
    try:
        # Put aside before drawing, not after: then a folder that another process completes meanwhile stays.
        if folder.exists() and not is_complete(folder):
            logger.warning("'%s' is unfinished or of another version and is drawn again", folder)
            folder.rename(scratch / "stale")
        logger.info("drawing synthetic VeRi into '%s' (once, less than a minute)", folder)
        draw_synthetic_veri(scratch / FOLDER)
        _rename_unless_complete(scratch / FOLDER, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _rename_unless_complete(source: Path, folder: Path) -> None:
    try:
        source.rename(folder)
    except OSError:
        if not is_complete(folder):
            raise


def draw_synthetic_veri(folder: str | Path, seed: int = 0, num_train_ids: int = 180, num_test_ids: int = 70) -> None:
    """Draw the set into a new folder in VeRi's layout; the version file is written last.

    The same arguments give the same files. Each image has a random generator of its own, seeded by (seed, identity,
    index), so neither the order nor the number of images changes any of them.
    """
    folder = Path(folder)
    for name in ("image_train", "image_query", "image_test"):
        (folder / name).mkdir(parents=True)
    drawn = {"train": [], "test": []}
    for vehicle in plan_vehicles(seed, num_train_ids, num_test_ids):
        look = make_look(seed, vehicle.pid, vehicle.family, vehicle.member)
        for shot, photo in draw_vehicle(look, plan_shots(seed, vehicle), seed):
            path = folder / f"image_{vehicle.split}" / shot.name
            Image.fromarray(photo.pixels).save(path, quality=JPEG_QUALITY)
            if shot.is_query:
                shutil.copyfile(path, folder / "image_query" / shot.name)
            drawn[vehicle.split].append(Drawn(shot, look, photo.keypoints, photo.orientation))
    for rows in drawn.values():
        rows.sort(key=lambda row: row.shot.name)
    _write_lists(folder, drawn["train"], drawn["test"])
    (folder / VERSION_FILE).write_text(f"{VERSION}\n", encoding="ascii")


def plan_vehicles(seed: int, num_train_ids: int, num_test_ids: int) -> list[Vehicle]:
    """Return the identities, ascending; the families (hard negatives) never span both splits."""
    rng = np.random.default_rng((seed, 0))
    pids = 1 + rng.permutation(HIGHEST_PID)[: num_train_ids + num_test_ids]
    vehicles, family = [], 0
    for split, rest in (("train", pids[:num_train_ids]), ("test", pids[num_train_ids:])):
        while len(rest):
            size = rng.integers(1, MAX_FAMILY + 1)
            vehicles += [Vehicle(int(pid), split, family, member) for member, pid in enumerate(rest[:size])]
            rest, family = rest[size:], family + 1
    return sorted(vehicles)


def plan_shots(seed: int, vehicle: Vehicle) -> list[Shot]:
    """Return when and where a vehicle is photographed: one or two shots by each of several cameras."""
    rng = np.random.default_rng((seed, 3, vehicle.pid))
    low, high = CAMERAS_PER_ID
    cameras = rng.permutation(len(CAMERAS))[: rng.integers(low, high + 1)]
    num_queries = MAX_QUERIES_PER_ID if vehicle.split == "test" else 0
    frame = int(rng.integers(1_000, 90_000))
    shots = []
    for rank, camera in enumerate(cameras):
        for repeat in range(rng.integers(1, 3)):
            frame += int(rng.integers(5, 60))
            is_query = rank < num_queries and repeat == 0
            shots.append(Shot(vehicle.pid, int(camera), frame, len(shots), is_query))
    return shots


def draw_vehicle(look: Look, shots: Iterable[Shot], seed: int) -> Iterable[tuple[Shot, Photo]]:
    """Yield each shot of a vehicle with its photograph."""
    vehicle = make_vehicle(look)
    for shot in shots:
        yield shot, photograph(vehicle, shot.camera, seed, np.random.default_rng((seed, shot.pid, shot.index)))


def _write_lists(folder: Path, train: list[Drawn], test: list[Drawn]) -> None:
    """Write the name lists, labels, key points and the right and junk answers of each query."""
    query = [row for row in test if row.shot.is_query]
    for split, rows in (("train", train), ("query", query), ("test", test)):
        _write(folder / f"name_{split}.txt", (row.shot.name for row in rows))
    _write_labels(folder / "train_label.xml", "TrainingImages", train)
    _write_labels(folder / "test_label.xml", "TestImages", test)
    _write(folder / "keypoint_train.txt", (_keypoint_line("image_train", row) for row in train))
    lines = [_keypoint_line(name, row) for name, rows in (("image_query", query), ("image_test", test)) for row in rows]
    _write(folder / "keypoint_test.txt", lines)
    _write(folder / "list_color.txt", (f"{number} {name}" for number, name in enumerate(COLOUR_NAMES, start=1)))
    _write(folder / "list_type.txt", (f"{number} {name}" for number, name in enumerate(TYPE_NAMES, start=1)))
    for name, same_camera in (("gt_image.txt", False), ("jk_image.txt", True)):
        _write(folder / name, (_answers(row.shot, test, same_camera) for row in query))


def _write(path: Path, lines: Iterable[str]) -> None:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode("ascii"))


def _write_labels(path: Path, root: str, rows: list[Drawn]) -> None:
    items = (
        f'<Item imageName="{shot.name}" vehicleID="{shot.pid:04d}" cameraID="c{shot.camera + 1:03d}" '
        f'colorID="{COLOUR_NAMES.index(look.colour_name) + 1}" typeID="{TYPE_NAMES.index(look.type_name) + 1}" />'
        for shot, look, *_ in rows
    )
    header = ('<?xml version="1.0" encoding="gb2312"?>', f'<{root} Version="1.0">', f'<Items number="{len(rows)}">')
    _write(path, (*header, *items, "</Items>", f"</{root}>"))


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


def contact_sheet(seed: int = 0, num_rows: int = SHEET_ROWS) -> Image.Image:
    """Return one row for each of the first test identities, twins below each other, and one column for each camera."""
    vehicles = [vehicle for vehicle in plan_vehicles(seed, 180, 70) if vehicle.split == "test"]
    vehicles.sort(key=lambda vehicle: (vehicle.family, vehicle.member))
    sheet = Image.new("RGB", (SHEET_CELL * len(CAMERAS), SHEET_CELL * num_rows), "white")
    for row, vehicle in enumerate(vehicles[:num_rows]):
        look = make_look(seed, vehicle.pid, vehicle.family, vehicle.member)
        shots = [Shot(vehicle.pid, camera, 0, camera, False) for camera in range(len(CAMERAS))]
        for shot, photo in draw_vehicle(look, shots, seed):
            image = Image.fromarray(photo.pixels)
            image.thumbnail((SHEET_CELL - 2, SHEET_CELL - 2))
            left = shot.camera * SHEET_CELL + (SHEET_CELL - image.width) // 2
            sheet.paste(image, (left, row * SHEET_CELL + (SHEET_CELL - image.height) // 2))
    return sheet


def main(argv: list[str] | None = None) -> None:
    """Save the contact sheet, draw the set, or both."""
    parser = OneLineParser(prog="python -m datasets.synthetic", description=main.__doc__)
    parser.add_argument("--sheet", metavar="PNG", help="save a picture: rows are identities, columns are cameras")
    parser.add_argument("--root_dir", metavar="DIR", help=f"draw the set into DIR/{FOLDER}, unless it is there")
    args = parser.parse_args(argv)
    if args.sheet is None and args.root_dir is None:
        parser.error("nothing to do: give --sheet, --root_dir or both")
    if args.sheet is not None:
        try:
            contact_sheet().save(args.sheet)
        except (OSError, ValueError) as error:
            raise DataError(f"--sheet '{args.sheet}' cannot be written ({error}); choose another file .png") from error
    if args.root_dir is not None:
        load_synthetic(args.root_dir)


if __name__ == "__main__":
    sys.exit(run_command(main))
