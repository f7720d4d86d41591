"""SYSU-MM01: persons, 4 visible and 2 infrared cameras; infrared images search visible ones in galleries drawn anew.

References: Wu et al., RGB-Infrared Cross-Modality Person Re-Identification, ICCV 2017; Wu et al., RGB-IR Person
Re-Identification by Cross-Modality Similarity Preservation, IJCV 2020.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.archives.cross_modal import (
    DRAWS,
    as_items,
    check_apart,
    check_shown,
    column,
    draw_rows,
    images_by_camera,
    paired_records,
    read_ids,
    rows_by_camera,
    unpaired_notes,
)
from datasets.archives.find import find_folder, has_entries
from datasets.archives.matlab import read_variables
from datasets.bases import Sample
from datasets.multimodal import MultiModalDataset, SearchTest
from datasets.test_set import Labels, Trial
from utils.errors import DataError
from utils.paths import user_path

NAME, FOLDERS = "SYSU-MM01", ("SYSU-MM01", "SYSU_MM01")
VIS_CAMERAS, NIR_CAMERAS = (1, 2, 4, 5), (3, 6)  # as the archive numbers them, from 1; 2 and 3 hang at one place
LISTS, TRAIN_LISTS, TEST_LIST = "exp", ("train_id.txt", "val_id.txt"), "test_id.txt"
CAMERAS = tuple(f"cam{camera}" for camera in range(1, 7))
MOVED = "ori_data"  # where AGW's copies of the archive have the camera folders
OFFICIAL_DRAWS = "rand_perm_cam.mat"  # in LISTS or beside it
SEARCHES = {"all": VIS_CAMERAS, "indoor": (1, 2)}
SHOTS = {"single-shot": 1, "multi-shot": 10}
DECIDES = "all single-shot"
PUBLISHED = {
    "train": {"ids": (395,), "vis": (22_258,), "nir": (11_909,)},
    "test": {"ids": (96,), "vis": (6_775,), "nir": (3_803,)},
}

Orders = Mapping[tuple[int, int], np.ndarray]  # (pid, camid) -> int64 [DRAWS, n]: places of its images by name, from 0


def load_sysu_mm01(root_dir: str | Path) -> MultiModalDataset:
    """Load `<root_dir>/SYSU-MM01`: train and val persons to train on, all 3,803 infrared test images as queries.

    The test has four sets of ten draws each: the visible cameras all or indoors, one or ten images of each person and
    camera in the gallery. "all single-shot" is its score. The draws are the official ones where rand_perm_cam.mat lies
    there, else those of AGW's code, and for ten images our own. What camera 2 took is junk for a query of camera 3,
    whomever it shows. Raises DataError for absent lists, cameras and persons, and persons in two lists.
    """
    root = user_path(root_dir, "DATASETS.ROOT_DIR", DataError)
    moved = (MOVED, LISTS)
    folder = find_folder(
        root, FOLDERS, moved if any(has_entries(root / name, moved) for name in FOLDERS) else (*CAMERAS, LISTS)
    )
    images, lists = folder / MOVED if (folder / MOVED).is_dir() else folder, folder / LISTS
    test_ids = read_ids(lists / TEST_LIST)
    vis, nir = (images_by_camera(images, cameras, test_ids) for cameras in (VIS_CAMERAS, NIR_CAMERAS))
    check_shown([*vis, *nir], test_ids, lists / TEST_LIST)
    train_vis, train_nir, no_train = _read_training(images, lists, test_ids)
    test, drawn = _make_test(vis, nir, folder)
    return MultiModalDataset(
        name=NAME,
        train=paired_records(train_vis, train_nir),
        test=test,
        notes=(*unpaired_notes(train_vis, train_nir, f"{NAME} train"), drawn),
        no_train=no_train,
        published=PUBLISHED,
    )


def same_place(labels: Labels, query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """The rule of SYSU-MM01: cameras 2 and 3 see one place, so what 2 took is junk for a query of 3, bool [c, G]."""
    return (labels.camids[query] == 3 - 1)[:, None] & (labels.camids[gallery] == 2 - 1)


def _read_training(images: Path, lists: Path, test_ids: Sequence[int]) -> tuple[list[Sample], list[Sample], str]:
    """Return the visible and the infrared images of train and val persons, and why there are none."""
    absent = [name for name in TRAIN_LISTS if not (lists / name).exists()]
    if absent:
        return [], [], f"'{lists}' has no {', '.join(absent)}"
    ids = {name: read_ids(lists / name) for name in TRAIN_LISTS}
    check_apart({**ids, TEST_LIST: test_ids}, NAME)
    pids = sorted(pid for own in ids.values() for pid in own)
    vis, nir = (images_by_camera(images, cameras, pids) for cameras in (VIS_CAMERAS, NIR_CAMERAS))
    if not vis:
        return [], [], f"no camera's folder in '{images}' has a visible image of a training person"
    for name, own in ids.items():
        check_shown([*vis, *nir], own, lists / name)
    return vis, nir, ""


def _make_test(vis: Sequence[Sample], nir: Sequence[Sample], folder: Path) -> tuple[SearchTest, str]:
    """Return the test, and a note on where its draws come from."""
    items, vis_rows, nir_rows = as_items(vis, nir)
    groups = rows_by_camera(items, vis_rows)
    file = next(
        (place / OFFICIAL_DRAWS for place in (folder / LISTS, folder) if (place / OFFICIAL_DRAWS).exists()), None
    )
    orders = read_orders(file, {key: len(rows) for key, rows in groups.items()}) if file is not None else None
    trials, query = [], column(nir_rows)
    for (search, cameras), (name, shots) in itertools.product(SEARCHES.items(), SHOTS.items()):
        searched = {key: rows for key, rows in groups.items() if key[1] + 1 in cameras}
        for draw in range(DRAWS):
            if orders is None:
                gallery = draw_rows(searched.values(), draw, shots)
            else:
                gallery = [rows[at] for key, rows in searched.items() for at in orders[key][draw, :shots]]
            trials.append(Trial(f"{search} {name}", draw, query, column(gallery)))
    note = (
        f"the galleries are the official draws, those of {OFFICIAL_DRAWS}"
        if file is not None
        else f"the galleries are the draws of AGW's code, those of multi-shot our own; the official ones need {LISTS}/"
        f"{OFFICIAL_DRAWS}"
    )
    test = SearchTest(items, tuple(trials), groups={DECIDES: (DECIDES,)}, junk=same_place, distinct=True)
    return test, f"{NAME}: {note}"


def read_orders(file: Path, counts: Mapping[tuple[int, int], int]) -> Orders:
    """Return the official draws: for each (pid, camid) of `counts` its images in the order in which draws take them.

    `counts` says how many images each has. Raises DataError where the file is no such table, or knows other numbers of
    images.
    """
    content = read_variables(file, "get it again, or take it away")
    cameras = np.asarray(content.get("rand_perm_cam"), dtype=object).ravel()
    if len(cameras) != len(CAMERAS):
        raise DataError(
            f"'{file}' holds no table rand_perm_cam of {len(CAMERAS)} cameras; get it again, or take it away"
        )
    orders = {}
    for (pid, camid), count in counts.items():
        known = _order_of(np.asarray(cameras[camid], dtype=object).ravel(), pid)
        if known.shape[1] != count:
            raise DataError(
                f"'{file}' orders {known.shape[1]} images of person {pid} under camera {camid + 1}, but {count} lie "
                "there; unpack the images again, or take that file away"
            )
        orders[pid, camid] = known
    return orders


def _order_of(persons: Sequence[Any], pid: int) -> np.ndarray:
    """Return the order of the n images of a person, int64 [DRAWS, n], of all `persons` of a camera; n is 0 for none."""
    rows = np.atleast_2d(persons[pid - 1]) if 0 < pid <= len(persons) else np.empty((0, 0))
    places = np.arange(1, rows.shape[1] + 1)
    if len(rows) < DRAWS or rows.dtype.kind not in "iuf" or (np.sort(rows, axis=1) != places).any():
        return np.empty((DRAWS, 0), dtype=np.int64)
    return rows[:DRAWS].astype(np.int64) - 1
