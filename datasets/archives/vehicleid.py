"""PKU VehicleID: vehicles, no camera labels; scores are means over random galleries of one image per identity.

Reference: Liu et al., Deep Relative Distance Learning: Tell the Difference Between Similar Vehicles, CVPR 2016.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.archives.common import LINES_OF_LABELS, check_listed, read_labelled_list
from datasets.archives.find import does_not_exist, find_folder, is_image_name
from datasets.bases import Published, ReIDDataset, Sample
from datasets.labels import junk_notes
from datasets.test_set import Trial
from utils.errors import DataError

FOLDERS = ("VehicleID_V1.0", "VehicleID")
TEST_SIZES = (800, 1600, 2400)
NUM_TRAIN_IDS = 13_164
QUERY_CAMID, GALLERY_CAMID = 0, 1
LISTS, TRAIN_LIST = "train_test_split", "train_list.txt"


def load_vehicleid(root_dir: str | Path, test_size: int = 800, trials: int = 10, seed: int = 0) -> ReIDDataset:
    """Load `<root_dir>/VehicleID_V1.0` with test_list_<test_size>.txt and `trials` random galleries.

    Each trial draws one image per test identity as its gallery, all others are queries; trial t depends on (seed, t)
    alone. `query` and `gallery` are trial 0. Subsets of the archive load too.
    """
    if test_size not in TEST_SIZES:
        raise DataError(f"DATASETS.VEHICLEID_TEST_SIZE got {test_size}, allowed: {', '.join(map(str, TEST_SIZES))}")
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    folder = find_folder(root_dir, FOLDERS, ("image", LISTS))
    train_list = folder / LISTS / TRAIN_LIST
    no_train = "" if train_list.exists() else does_not_exist(train_list)
    train, notes = ([], []) if no_train else _read_list(folder, TRAIN_LIST, "train")
    test, test_notes = _read_list(folder, f"test_list_{test_size}.txt", "test")
    is_gallery = np.stack([draw_gallery([sample.pid for sample in test], seed, trial) for trial in range(trials)])
    query = [sample for sample, drawn in zip(test, is_gallery[0], strict=True) if not drawn]
    gallery = [sample._replace(camid=GALLERY_CAMID) for sample, drawn in zip(test, is_gallery[0], strict=True) if drawn]
    order = np.argsort(is_gallery[0], kind="stable")  # [N], row of query + gallery -> row of the test list
    return ReIDDataset(
        name="VehicleID",
        train=train,
        query=query,
        gallery=gallery,
        published={
            "train": Published(images=(), ids=(NUM_TRAIN_IDS,)),
            "query": Published(images=(), ids=(test_size,)),
            "gallery": Published(images=(test_size,), ids=(test_size,)),
        },
        trials=tuple(
            Trial("", draw, np.flatnonzero(~drawn[order]), np.flatnonzero(drawn[order]))
            for draw, drawn in enumerate(is_gallery)
        ),
        junk=None,
        tests_new_ids=True,
        notes=(*notes, *test_notes),
        has_cameras=False,
        no_train=no_train,
    )


def draw_gallery(pids: Sequence[int], seed: int, trial: int) -> np.ndarray:
    """Return bool [N], True for one uniformly drawn image of each identity; a pure function of its arguments."""
    pids = np.asarray(pids)
    keys = np.random.default_rng((seed, trial)).random(len(pids))
    shuffled = np.lexsort((keys, pids))  # by identity, within it by random key
    _, first = np.unique(pids[shuffled], return_index=True)
    drawn = np.zeros(len(pids), dtype=bool)
    drawn[shuffled[first]] = True
    return drawn


def _read_list(folder: Path, list_name: str, split: str) -> tuple[list[Sample], list[str]]:
    """Return the samples, sorted by path, of lines "<image name, with or without .jpg> <vehicle id>", and the notes."""
    rows, junk = read_labelled_list(folder / LISTS / list_name)
    images = folder / "image"
    samples = [
        Sample(os.path.join(images, name if is_image_name(name) else f"{name}.jpg"), pid, QUERY_CAMID, 0)
        for name, pid in rows
    ]
    check_listed(samples, folder / LISTS / list_name, LINES_OF_LABELS)
    return sorted(samples), junk_notes(f"VehicleID {split}", junk)
