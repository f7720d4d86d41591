"""Small trees in the exact layouts of MARS and iLIDS-VID; the loaders read names alone, so files are empty."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.io import savemat

from tests.datasets.trees import write_text
from tests.datasets.vis_nir_trees import touch

Track = tuple[int, int, int]  # person, camera from 1, number of frames

MARS_TRAIN: tuple[Track, ...] = ((1, 1, 3), (1, 2, 2), (3, 1, 4))
MARS_TEST: tuple[Track, ...] = (
    *((-1, 2, 2), (0, 3, 3), (0, 5, 1), (2, 1, 5), (2, 1, 2), (2, 4, 3), (2, 6, 1), (6, 1, 2), (6, 2, 4)),
    *((7, 3, 2), (7, 3, 3), (8, 5, 2), (8, 6, 6)),
)
MARS_QUERY = (3, 5, 7, 9, 11)  # rows of MARS_TEST; the person of row 9 is seen by one camera
ILIDS_PERSONS = [3 * number + 1 for number in range(152)]  # with gaps, as in the archive: 150 to test, 2 to train


def mars_name(pid: int, camera: int, track: int, frame: int) -> str:
    """Return the name of a frame."""
    return f"{'00-1' if pid < 0 else f'{pid:04d}'}C{camera}T{track:04d}F{frame:03d}.jpg"


def write_mars(folder: Path, test: Sequence[Track] = MARS_TEST, query: Sequence[int] = MARS_QUERY) -> Path:
    """Write MARS; lists of test names end in carriage returns, too, as the archive's do."""
    for split, tracks, end in (("train", MARS_TRAIN, ""), ("test", test, "\r")):
        names, rows = [], []
        for track, (pid, camera, frames) in enumerate(tracks, start=1):
            own = [mars_name(pid, camera, track, frame) for frame in range(1, frames + 1)]
            touch(folder / f"bbox_{split}" / own[0][:4], own)
            rows.append((len(names) + 1, len(names) + frames, pid, camera))
            names += own
        write_text(folder / "info" / f"{split}_name.txt", *(f"{name}{end}" for name in names))
        savemat(folder / "info" / f"tracks_{split}_info.mat", {f"track_{split}_info": np.array(rows)})
    savemat(folder / "info" / "query_IDX.mat", {"query_IDX": np.array([[row + 1 for row in query]])})
    return folder


def write_ilids(folder: Path, seed: int = 0) -> np.ndarray:
    """Write iLIDS-VID with a sequence of one or two frames of each person and camera; return ls_set, int [10, 152]."""
    for camera in (1, 2):
        for pid in ILIDS_PERSONS:
            names = [f"cam{camera}_person{pid:03d}_{frame:05d}.png" for frame in range(9, 10 + pid % 2)]
            touch(folder / "i-LIDS-VID" / "sequences" / f"cam{camera}" / f"person{pid:03d}", names)
    rng = np.random.default_rng(seed)
    order = np.stack([rng.permutation(len(ILIDS_PERSONS)) + 1 for _ in range(10)])
    splits = folder / "train-test people splits"
    splits.mkdir(parents=True)
    savemat(splits / "train_test_splits_ilidsvid.mat", {"ls_set": order})
    return order
