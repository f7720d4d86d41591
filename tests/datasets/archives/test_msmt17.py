import os

import pytest

from datasets.archives.msmt17 import load_msmt17, load_msmt17_v2
from tests.datasets.trees import write_msmt17, write_text
from utils.errors import DataError

LOADERS = {"msmt17": load_msmt17, "msmt17_v2": load_msmt17_v2}
IMAGES = {"msmt17": ("train", "test"), "msmt17_v2": ("mask_train_v2", "mask_test_v2")}


@pytest.mark.parametrize(
    ("name", "folder"),
    [("msmt17", "MSMT17"), ("msmt17", "MSMT17_V1"), ("msmt17_v2", "MSMT17"), ("msmt17_v2", "MSMT17_V2")],
)
def test_train_and_val_lists_are_the_training_set_of_both_versions(tmp_path, name, folder):
    root = write_msmt17(tmp_path / folder, *IMAGES[name])
    data = LOADERS[name](tmp_path)
    train, test = IMAGES[name]
    assert data.train == [
        (f"{root}/{train}/0000/0000_000_01_a_0.jpg", 0, 0, 0),
        (f"{root}/{train}/0000/0000_004_02_0303noon_0015_1.jpg", 0, 1, 0),
        (f"{root}/{train}/0001/0001_001_15_0303morning_0015_0.jpg", 1, 14, 0),
    ]
    assert data.query == [(f"{root}/{test}/0000/0000_000_03_0303morning_0015_0.jpg", 0, 2, 0)]
    assert [sample[1:] for sample in data.gallery] == [(0, 3, 0), (7, 4, 0)]
    assert all(os.path.isfile(sample.path) for sample in data.train + data.query + data.gallery)
    assert data.name == name


@pytest.mark.parametrize(
    ("asked", "present", "version"), [("msmt17", "msmt17_v2", "V2"), ("msmt17_v2", "msmt17", "V1")]
)
@pytest.mark.parametrize("folder", ["MSMT17", "MSMT17_V1", "MSMT17_V2"])
def test_the_other_version_is_named_with_the_value_to_set(tmp_path, asked, present, version, folder):
    write_msmt17(tmp_path / folder, *IMAGES[present])
    with pytest.raises(DataError, match=f"DATASETS.NAMES {asked}: .* MSMT17 {version}; set DATASETS.NAMES {present}$"):
        LOADERS[asked](tmp_path)


def test_both_versions_side_by_side_are_each_found(tmp_path):
    write_msmt17(tmp_path / "MSMT17", *IMAGES["msmt17"])
    write_msmt17(tmp_path / "MSMT17_V2", *IMAGES["msmt17_v2"])
    assert "/MSMT17/train/" in load_msmt17(tmp_path).train[0].path
    assert "/MSMT17_V2/mask_train_v2/" in load_msmt17_v2(tmp_path).train[0].path


def test_a_missing_list_is_reported_as_part_of_the_folder(tmp_path):
    root = write_msmt17(tmp_path / "MSMT17", *IMAGES["msmt17"])
    (root / "list_query.txt").unlink()
    with pytest.raises(
        DataError,
        match="MSMT17' with train, test, list_train.txt, list_val.txt.*MSMT17' has no list_query.txt, found there: ",
    ):
        load_msmt17(tmp_path)


@pytest.mark.parametrize(("line", "message"), [("0000/photo.jpg 0", "'0000/photo.jpg' is not named"), ("", "names no")])
def test_a_list_that_does_not_fit_is_named(tmp_path, line, message):
    root = write_msmt17(tmp_path / "MSMT17", *IMAGES["msmt17"])
    write_text(root / "list_query.txt", line)
    with pytest.raises(DataError, match=f"list_query.txt'.*{message}"):
        load_msmt17(tmp_path)
