"""LLCM: persons at low light, 9 cameras that each take visible and near-infrared images; faces are blurred.

Reference: Zhang and Wang, Diverse Embedding Expansion Network and Low-Light Cross-Modality Benchmark for
Visible-Infrared Person Re-identification, CVPR 2023.
"""

from collections.abc import Sequence
from pathlib import Path

from configs.modalities import VIS
from datasets.archives.common import NAME_PATTERN, camid_of
from datasets.archives.cross_modal import (
    DRAWS,
    NIR,
    as_items,
    check_apart,
    check_shown,
    column,
    draw_rows,
    images_by_camera,
    paired_records,
    read_ids,
    read_image_list,
    rows_by_camera,
    unpaired_notes,
)
from datasets.archives.find import find_folder
from datasets.bases import Sample
from datasets.labels import MAX_PID, whole_number
from datasets.multimodal import MultiModalDataset, SearchTest
from datasets.test_set import Trial, same_camera
from utils.errors import DataError

NAME, FOLDERS, LISTS, TEST_LIST = "LLCM", ("LLCM",), "idx", "test_id.txt"
TEST_FOLDERS = {VIS: "test_vis", NIR: "test_nir"}
CAMERAS = range(1, 10)
NOT_INFRARED = 3  # the camera without infrared test images
DECIDES, OTHER = "nir to vis", "vis to nir"
PUBLISHED = {
    "train": {"ids": (713,), "vis": (16_946,), "nir": (13_975,)},
    "test": {"ids": (351,), "vis": (8_680,), "nir": (7_166,)},
}
SWAPPED = (
    f"{NAME}: '{OTHER}' searches one infrared image of each person and camera with all visible images; the authors' "
    "code swaps the two sides, so most published figures of that direction are of all visible images searched with "
    "the drawn infrared ones: they do not compare"
)


def load_llcm(root_dir: str | Path) -> MultiModalDataset:
    """Load `<root_dir>/LLCM`: train_vis.txt and train_nir.txt to train on, the persons of test_id.txt to test with.

    All infrared test images search visible ones, which is the score, and the other way round, each in ten galleries of
    one image of each person and camera, drawn as the authors' code does. The query's own person under its own camera is
    junk. Raises DataError for absent folders, lists and persons, lists that name absent images, and persons in training
    and test.
    """
    folder = find_folder(root_dir, FOLDERS, (*TEST_FOLDERS.values(), LISTS))
    test_list = folder / LISTS / TEST_LIST
    pids = read_ids(test_list)
    test = {kind: _read_test(folder / place, kind, pids) for kind, place in TEST_FOLDERS.items()}
    check_shown([*test[VIS], *test[NIR]], pids, test_list)
    train, no_train = _read_training(folder)
    trained = {sample.pid for own in train.values() for sample in own}
    check_apart({"the training lists": trained, TEST_LIST: pids}, NAME)
    items, vis, nir = as_items(test[VIS], test[NIR])
    trials = []
    for name, asking, searched in ((DECIDES, nir, vis), (OTHER, vis, nir)):
        query, groups = column(asking), rows_by_camera(items, searched).values()
        trials += [Trial(name, draw, query, column(draw_rows(groups, draw))) for draw in range(DRAWS)]
    return MultiModalDataset(
        name=NAME,
        train=paired_records(train[VIS], train[NIR]),
        test=SearchTest(items, tuple(trials), groups={DECIDES: (DECIDES,)}, junk=same_camera, distinct=True),
        notes=(*unpaired_notes(train[VIS], train[NIR], f"{NAME} train"), SWAPPED),
        no_train=no_train,
        published=PUBLISHED,
    )


def _read_test(folder: Path, kind: str, pids: Sequence[int]) -> list[Sample]:
    """Return the test images of `cam<camera>/<pid>/*` below `folder`."""
    spared = {NOT_INFRARED} if kind == NIR and not (folder / f"cam{NOT_INFRARED}").is_dir() else set()
    return images_by_camera(folder, [camera for camera in CAMERAS if camera not in spared], pids)


def _read_training(folder: Path) -> tuple[dict[str, list[Sample]], str]:
    """Return the training images by modality, and why there are none."""
    needed = [name for kind in (VIS, NIR) for name in (kind, f"{LISTS}/train_{kind}.txt")]
    absent = [name for name in needed if not (folder / name).exists()]
    if absent:
        return {VIS: [], NIR: []}, f"'{folder}' has no {', '.join(absent)}"
    lists = {kind: folder / LISTS / f"train_{kind}.txt" for kind in (VIS, NIR)}
    return {kind: read_image_list(folder, path, kind, _labels_of) for kind, path in lists.items()}, ""


def _labels_of(image: str, what: str) -> tuple[int, int]:
    """Return pid and camid of a name such as 0003_c01_s185734_f3195_nir.jpg."""
    match = NAME_PATTERN.match(Path(image).name)
    if match is None:
        raise DataError(
            f"{what} is not named <pid>_c<camera>_..., e.g. 0003_c01_s185734_f3195_nir.jpg; correct the line"
        )
    return whole_number(match[1], MAX_PID, f"{what}: pid"), camid_of(match[2], image)
