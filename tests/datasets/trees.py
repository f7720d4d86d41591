"""Tiny archives in every layout, written to a temporary folder, and the real sets where they are present."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.bases import Sample

REID_DATA = os.environ.get("REID_DATA", "")
EMOJI = Path(REID_DATA) / "emoji"


def needs_emoji(test: Callable) -> Callable:
    """Mark a test that uses the real images: skipped where REID_DATA is unset, an error to skip where it is set."""
    absent = pytest.mark.skipif(not REID_DATA, reason="REID_DATA names no folder with the data set emoji")
    return pytest.mark.real_data(absent(test))


def write_image(path: Path, seed: int | None = None) -> None:
    """Write a noise JPEG of 8 x 6 pixels; its content follows from the path unless a seed is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(str(path).encode()) if seed is None else seed)
    Image.fromarray(rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)).save(path)


def write_images(folder: Path, names: Iterable[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        write_image(folder / name)


def write_text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


MARKET = {
    "bounding_box_train": ["0007_c2s1_000451_01.jpg", "0002_c1s1_000451_03.jpg", "-1_c1s1_000001_00.jpg"],
    "query": ["0003_c1s1_000151_00.jpg"],
    "bounding_box_test": [
        "0003_c1s2_000152_00.jpg",
        "0003_c6s2_000153_00.jpg",
        "0000_c3s1_000001_00.jpg",
        "-1_c4s1_000001_00.jpg",
        "-1_c5s1_000001_00.jpg",
    ],
}
VERI = {
    "image_train": ["0030_c002_00000001_0.jpg", "0005_c012_00000002_0.jpg", "0005_c001_00000003_0.jpg"],
    "image_query": ["0002_c002_00030600_0.jpg"],
    "image_test": ["0002_c001_00030601_0.jpg", "0002_c002_00030600_0.jpg", "0100_c020_00000001_0.jpg"],
}


def write_person_archive(folder: Path, layout: dict[str, list[str]] = MARKET) -> Path:
    for sub_folder, names in layout.items():
        write_images(folder / sub_folder, names)
    return folder


def view_line(folder: str, name: str, view: int) -> str:
    return f"VeRi/{folder}/{name} {' '.join(['-1'] * 40)} {view}"


def write_veri(folder: Path, view_folder: Path | None = None) -> Path:
    """Write VERI; image i of a folder has viewpoint i, image_query's lines stand under image_test as in the archive."""
    for sub_folder, names in VERI.items():
        write_images(folder / sub_folder, names)
    view_folder = folder if view_folder is None else view_folder
    for split in ("train", "test"):
        lines = [view_line(f"image_{split}", name, view) for view, name in enumerate(VERI[f"image_{split}"])]
        write_text(view_folder / f"keypoint_{split}.txt", *lines)
    return folder


def write_msmt17(folder: Path, train: str, test: str) -> Path:
    lists = {
        "list_train.txt": (train, ["0001/0001_001_15_0303morning_0015_0.jpg 1", "0000/0000_000_01_a_0.jpg 0"]),
        "list_val.txt": (train, ["0000/0000_004_02_0303noon_0015_1.jpg 0"]),
        "list_query.txt": (test, ["0000/0000_000_03_0303morning_0015_0.jpg 0"]),
        "list_gallery.txt": (test, ["0000/0000_001_04_0303morning_0015_0.jpg 0", "", "0007/0007_002_05_b.jpg 7"]),
    }
    for name, (image_folder, lines) in lists.items():
        write_text(folder / name, *lines)
        write_images(folder / image_folder, [])
        for line in lines:
            if line:
                write_image(folder / image_folder / line.split()[0])
    return folder


def write_vehicleid(folder: Path, images_per_id: Iterable[int] = (1, 3, 5)) -> Path:
    test = [(f"{10 * pid + copy:07d}", pid) for pid, count in enumerate(images_per_id, 40) for copy in range(count)]
    train = [("0000002", 9), ("0000001", 4)]
    for name, rows in (("train_list.txt", train), ("test_list_800.txt", test)):
        write_text(folder / "train_test_split" / name, *(f"{image} {pid}" for image, pid in rows))
        for image, _ in rows:
            write_image(folder / "image" / f"{image}.jpg")
    return folder


def labels(samples: Iterable[Sample]) -> list[tuple]:
    """Return the samples with the names of their files in place of the paths."""
    return [(os.path.basename(path), *rest) for path, *rest in samples]


def write_captions(folder: Path, entries: list[dict], name: str = "data_captions.json", key: str = "img_path") -> Path:
    """Write the annotation of a captioned archive and the images that it names; return the folder."""
    write_images(folder / "imgs", [])
    for entry in entries:
        write_image(folder / "imgs" / entry[key])
    (folder / name).write_text(json.dumps(entries), encoding="utf-8")
    return folder


def captioned(path: str, pid: int, captions: list[str], split: str, key: str = "img_path") -> dict:
    """Return one entry of such an annotation."""
    return {"id": pid, key: path, "captions": captions, "split": split}
