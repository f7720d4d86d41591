"""Small trees in the exact layouts of SYSU-MM01, RegDB and LLCM; the loaders read names alone, so files are empty."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.io import savemat

from tests.datasets.trees import write_text

SYSU_TRAIN, SYSU_VAL, SYSU_TEST = (1, 7), (2,), (6, 10, 21)
SYSU_COUNTS = {  # images of each test person by camera; a camera that did not see the person is left out
    6: {1: 3, 2: 12, 3: 2, 4: 2, 5: 1, 6: 2},
    10: {1: 1, 2: 2, 3: 1, 4: 11},
    21: {4: 2, 5: 4, 6: 3},
}
REGDB_TRAIN, REGDB_TEST = {1: (2, 5), 2: (5, 11)}, {1: (11, 3), 2: (2, 3)}  # persons by trial
LLCM_TRAIN, LLCM_TEST = (3, 8), (2, 12, 31)
LLCM_VIS, LLCM_NIR = {2: (1, 3, 9), 12: (1, 2), 31: (4,)}, {2: (1, 2), 12: (2, 9), 31: (4, 5)}  # cameras by person


def touch(folder: Path, names: Iterable[str]) -> None:
    """Write empty files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")


def write_sysu(folder: Path, images: str = "") -> Path:
    """Write SYSU-MM01, the images below `images`; return the folder. Those to train on have 2 by camera 1-4."""
    for name, pids in (("train_id", SYSU_TRAIN), ("val_id", SYSU_VAL), ("test_id", SYSU_TEST)):
        write_text(folder / "exp" / f"{name}.txt", ",".join(map(str, pids)))
    counts = {pid: dict.fromkeys((1, 2, 3, 4), 2) for pid in (*SYSU_TRAIN, *SYSU_VAL)} | SYSU_COUNTS
    for camera in range(1, 7):
        (folder / images / f"cam{camera}").mkdir(parents=True)
    for pid, by_camera in counts.items():
        for camera, count in by_camera.items():
            names = [f"{number:04d}.jpg" for number in range(1, count + 1)]
            touch(folder / images / f"cam{camera}" / f"{pid:04d}", names)
    return folder


def write_orders(file: Path, seed: int = 0) -> dict[tuple[int, int], np.ndarray]:
    """Write rand_perm_cam.mat for SYSU_COUNTS; return {(camera, person): int [10, n]}, which counts from 1."""
    rng = np.random.default_rng(seed)
    orders = {
        (camera, pid): np.stack([rng.permutation(count) + 1 for _ in range(10)])
        for pid, by_camera in SYSU_COUNTS.items()
        for camera, count in by_camera.items()
    }
    cameras = np.empty((6, 1), dtype=object)
    for camera in range(1, 7):
        cameras[camera - 1, 0] = np.empty((max(SYSU_TEST), 1), dtype=object)
        for pid in range(1, max(SYSU_TEST) + 1):
            cameras[camera - 1, 0][pid - 1, 0] = orders.get((camera, pid), np.empty((0, 0)))
    file.parent.mkdir(parents=True, exist_ok=True)
    savemat(file, {"rand_perm_cam": cameras})
    return orders


def write_regdb(folder: Path, each: int = 2) -> Path:
    """Write RegDB with `each` images of a person and kind, and the lists of trials 1 and 2; return the folder."""
    for trial in REGDB_TRAIN:
        for split, pids in (("train", REGDB_TRAIN[trial]), ("test", REGDB_TEST[trial])):
            for kind, letter in (("Visible", "v"), ("Thermal", "t")):
                lines = []
                for label, pid in enumerate(pids):
                    names = [f"male_back_{letter}_{100 + number:05d}_{pid}.bmp" for number in range(each)]
                    touch(folder / kind / str(pid), names)
                    lines += [f"{kind}/{pid}/{name} {label}" for name in names]
                write_text(folder / "idx" / f"{split}_{kind.lower()}_{trial}.txt", *lines)
    return folder


def llcm_names(pid: int, cameras: Sequence[int], kind: str, each: int = 2) -> dict[int, list[str]]:
    """Return the names of a person's images by camera."""
    return {
        camera: [f"{pid:04d}_c{camera:02d}_s{camera}2{number}_f{number}_{kind}.jpg" for number in range(each)]
        for camera in cameras
    }


def write_llcm(folder: Path) -> Path:
    """Write LLCM, two images of each person, camera and kind; no infrared test image under camera 3."""
    for kind in ("vis", "nir"):
        lines = []
        for label, pid in enumerate(LLCM_TRAIN):
            for names in llcm_names(pid, (1, 4), kind).values():
                touch(folder / kind / f"{pid:04d}", names)
                lines += [f"{kind}/{pid:04d}/{name} {label}" for name in names]
        write_text(folder / "idx" / f"train_{kind}.txt", *lines)
    write_text(folder / "idx" / "test_id.txt", ",".join(map(str, LLCM_TEST)))
    sides: Mapping[str, Mapping[int, Sequence[int]]] = {"vis": LLCM_VIS, "nir": LLCM_NIR}
    for kind, persons in sides.items():
        for camera in (camera for camera in range(1, 10) if (kind, camera) != ("nir", 3)):
            (folder / f"test_{kind}" / f"cam{camera}").mkdir(parents=True)
        for pid, cameras in persons.items():
            for camera, names in llcm_names(pid, cameras, kind).items():
                touch(folder / f"test_{kind}" / f"cam{camera}" / f"{pid:04d}", names)
    return folder
