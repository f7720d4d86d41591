"""LLCM: lists to train on, folders by camera to test with, galleries drawn as the authors' code draws them."""

import re
from pathlib import Path

import pytest

from datasets.archives.llcm import load_llcm
from datasets.test_set import same_camera
from tests.datasets.trees import write_text
from tests.datasets.vis_nir_trees import LLCM_TEST, LLCM_TRAIN, write_llcm
from tests.reference import slow_vis_nir as slow
from utils.errors import DataError

SIDES = {"nir to vis": ("nir", "vis"), "vis to nir": ("vis", "nir")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_llcm(tmp_path / "LLCM")


def error_of(root: Path) -> str:
    with pytest.raises(DataError) as error:
        load_llcm(root)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_persons_and_cameras_of_training_are_those_of_the_file_names(folder):
    data = load_llcm(folder.parent)
    assert {record.pid for record in data.train} == set(LLCM_TRAIN) and len(data.train) == 8
    assert {record.camid for record in data.train} == {0, 3}
    for record in data.train:
        assert (
            Path(record.vis).is_file() and f"/vis/{record.pid:04d}/{record.pid:04d}_c0{record.camid + 1}_" in record.vis
        )
        own = sorted(str(path) for path in (folder / "nir" / f"{record.pid:04d}").iterdir())
        assert sorted(record.others["nir"]) == own and len(own) == 4


@pytest.mark.parametrize("name", SIDES)
def test_all_images_of_one_kind_search_one_image_of_each_person_and_camera_of_the_other(folder, name):
    test = load_llcm(folder.parent).test
    query, gallery = SIDES[name]
    trials = [trial for trial in test.trials if trial.set == name]
    assert [trial.draw for trial in trials] == list(range(10))
    galleries = set()
    for trial in trials:
        found = [
            [(item.value, item.pid, item.camid + 1) for item in (test.items[row] for row in rows[:, 0])]
            for rows in (trial.query, trial.gallery)
        ]
        assert found[0] == slow.walk(folder / f"test_{query}", range(1, 10), LLCM_TEST)
        assert found[1] == slow.agw_gallery(folder / f"test_{gallery}", range(1, 10), LLCM_TEST, trial.draw)
        galleries.add(tuple(found[1]))
    assert len(galleries) > 1


def test_infrared_to_visible_decides_and_the_swapped_protocol_is_named(folder):
    data = load_llcm(folder.parent)
    assert data.test.groups == {"nir to vis": ("nir to vis",)} and data.test.trials[0].set == "nir to vis"
    assert data.test.distinct and data.test.junk is same_camera
    assert "swaps the two sides" in data.notes[-1]


@pytest.mark.parametrize("absent", ["vis", "idx/train_nir.txt"])
def test_a_test_does_without_training_data(folder, absent):
    (folder / absent).rename(folder / "moved")
    data = load_llcm(folder.parent)
    assert data.train == [] and data.no_train == f"'{folder}' has no {absent}" and data.test.items


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("train_vis", "vis/0003/0003_c01_s999_f9_vis.jpg 0", "train_vis.txt': 1 of 1 images do not exist"),
        ("train_vis", "vis/0003/photo.jpg 0", "is not named <pid>_c<camera>_..., e.g. 0003_c01_s185734_f3195_nir.jpg"),
        ("train_vis", "vis/0003/0003_c00_s1_f1_vis.jpg 0", "cameras count from 1"),
        ("train_nir", "vis/0003/0003_c01_s120_f0_vis.jpg 0", "is no path nir/.../<image>"),
        ("test_id", "2,12,77", "1 of 3 persons have no image in any camera's folder: 0077"),
        ("test_id", "2;12", "test_id.txt:1: identity '2;12' is not a whole number"),
    ],
)
def test_a_list_that_does_not_fit_is_one_clear_line(folder, name, line, said):
    write_text(folder / "idx" / f"{name}.txt", line)
    message = error_of(folder.parent)
    assert re.search(said, message), message


def test_a_person_of_two_lists_is_refused(folder):
    write_text(folder / "idx" / "train_vis.txt", "vis/0012/0012_c01_s1_f1_vis.jpg 0")
    (folder / "vis" / "0012").mkdir()
    (folder / "vis" / "0012" / "0012_c01_s1_f1_vis.jpg").write_bytes(b"")
    assert "person 12 stands in the training lists and in test_id.txt" in error_of(folder.parent)


def test_a_camera_without_a_folder_is_named_but_for_the_infrared_one_that_never_was(folder):
    assert not (folder / "test_nir" / "cam3").exists()
    load_llcm(folder.parent)
    (folder / "test_nir" / "cam7").rmdir()
    assert f"image folder '{folder / 'test_nir' / 'cam7'}' does not exist" in error_of(folder.parent)
