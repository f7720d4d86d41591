"""The protocols of SYSU-MM01, RegDB and LLCM in the most obvious way: folders walked, lists read line by line."""

import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

Shown = tuple[str, int, int]  # path, person, camera from 1


def persons_of(id_list: Path) -> list[int]:
    """Return the persons of a list on one line, ascending."""
    return sorted(int(text) for text in id_list.read_text().split(","))


def walk(folder: Path, cameras: Iterable[int], pids: Iterable[int]) -> list[Shown]:
    """Return all images of some persons under some cameras."""
    found = []
    for pid in pids:
        for camera in cameras:
            place = folder / f"cam{camera}" / f"{pid:04d}"
            if place.is_dir():
                found += [(f"{place}/{name}", pid, camera) for name in sorted(os.listdir(place))]
    return found


def agw_gallery(folder: Path, cameras: Iterable[int], pids: Iterable[int], draw: int) -> list[Shown]:
    """Return the gallery of one image of each person and camera that AGW's code, and LLCM's, draws."""
    random.seed(draw)
    gallery = []
    for pid in sorted(pids):
        for camera in cameras:
            place = folder / f"cam{camera}" / f"{pid:04d}"
            if place.is_dir():
                files = sorted(f"{place}/{name}" for name in os.listdir(place))
                gallery.append((random.choice(files), pid, camera))
    return gallery


def official_gallery(
    folder: Path, cameras: Iterable[int], orders: Mapping[tuple[int, int], np.ndarray], draw: int, shots: int
) -> list[Shown]:
    """Return the gallery of SYSU-MM01's table of permutations, whose numbers are those of the files."""
    gallery = []
    for (camera, pid), numbers in orders.items():
        if camera in cameras:
            for number in numbers[draw][:shots]:
                gallery.append((f"{folder}/cam{camera}/{pid:04d}/{number:04d}.jpg", pid, camera))
    return gallery


def read_list(folder: Path, name: str) -> list[Shown]:
    """Return the images of one of RegDB's lists; the person is the folder, the camera plays no part: 0."""
    lines = (folder / "idx" / name).read_text().splitlines()
    images = [line.split()[0] for line in lines]
    return [(f"{folder}/{image}", int(image.split("/")[1]), 0) for image in images]


def nobody(query: Shown, image: Shown) -> bool:
    """RegDB: nothing is junk."""
    return False


def place_of_camera_2(query: Shown, image: Shown) -> bool:
    """SYSU-MM01: camera 3 hangs where camera 2 does."""
    at = 2 if query[2] == 3 else query[2]
    return image[2] == at


def own_camera(query: Shown, image: Shown) -> bool:
    """LLCM: the same person under the same camera."""
    return query[1] == image[1] and query[2] == image[2]


def scores(
    query: Sequence[Shown],
    gallery: Sequence[Shown],
    distance: Callable[[str, str], float],
    junk: Callable[[Shown, Shown], bool],
    distinct: bool,
) -> dict[str, float]:
    """Return mAP, mINP, Rank-1, -5 and -10 of one trial, and num_valid, one query and one image at a time."""
    precisions, penalties, ranks = [], [], []
    for one in query:
        left = sorted(
            (image for image in gallery if not junk(one, image)), key=lambda image: distance(one[0], image[0])
        )
        hits = [place for place, image in enumerate(left, start=1) if image[1] == one[1]]
        if not hits:
            continue
        precisions.append(sum(found / place for found, place in enumerate(hits, start=1)) / len(hits))
        penalties.append(len(hits) / hits[-1])
        listed = []
        for image in left:
            if not distinct or image[1] not in listed:
                listed.append(image[1])
        ranks.append(1 + listed.index(one[1]))
    share = {f"Rank-{k}": float(np.mean([rank <= k for rank in ranks])) for k in (1, 5, 10)}
    return {"mAP": float(np.mean(precisions)), "mINP": float(np.mean(penalties)), **share, "num_valid": len(ranks)}
