"""RegDB: each trial has lists of its own to train and to test on, and persons are folders, not labels."""

import re
from pathlib import Path

import pytest

from datasets.archives.regdb import load_regdb
from tests.datasets.trees import write_text
from tests.datasets.vis_nir_trees import REGDB_TEST, REGDB_TRAIN, write_regdb
from tests.reference import slow_vis_nir as slow
from utils.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_regdb(tmp_path / "RegDB")


def error_of(root: Path, trial: int = 1) -> str:
    with pytest.raises(DataError) as error:
        load_regdb(root, trial)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("trial", REGDB_TRAIN)
def test_a_trial_trains_and_tests_on_its_own_lists(folder, trial):
    data = load_regdb(folder.parent, trial)
    assert {record.pid for record in data.train} == set(REGDB_TRAIN[trial])
    assert {item.pid for item in data.test.items} == set(REGDB_TEST[trial])
    thermal = slow.read_list(folder, f"train_thermal_{trial}.txt")
    assert [record.vis for record in data.train] == [
        path for path, *_ in slow.read_list(folder, f"train_visible_{trial}.txt")
    ]
    for record in data.train:
        assert record.others == {"nir": tuple(path for path, pid, _ in thermal if pid == record.pid)}
    assert f"trial {trial} of 10" in data.notes[0] and data.no_train == ""


@pytest.mark.parametrize("trial", REGDB_TEST)
def test_both_directions_are_tested_and_visible_to_thermal_decides(folder, trial):
    test = load_regdb(folder.parent, trial).test
    sides = {
        kind: [path for path, *_ in slow.read_list(folder, f"test_{kind}_{trial}.txt")]
        for kind in ("visible", "thermal")
    }
    found = {
        one.set: tuple([test.items[row].value for row in rows[:, 0]] for rows in (one.query, one.gallery))
        for one in test.trials
    }
    assert found == {
        "visible to thermal": (sides["visible"], sides["thermal"]),
        "thermal to visible": (sides["thermal"], sides["visible"]),
    }
    assert test.groups == {"visible to thermal": ("visible to thermal",)}
    assert (test.junk, test.distinct) == (None, False)
    assert {(item.modality, item.camid) for item in test.items} == {("vis", 0), ("nir", 1)}


def test_a_test_does_without_training_lists(folder):
    (folder / "idx" / "train_thermal_1.txt").unlink()
    data = load_regdb(folder.parent)
    assert data.train == [] and "train_thermal_1.txt' does not exist" in data.no_train and data.test.items


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        (
            "test_visible_1",
            "Visible/3/absent_3.bmp 0",
            "test_visible_1.txt': 1 of 1 images do not exist: .*absent_3.bmp",
        ),
        (
            "test_visible_1",
            "Visible/3/male_back_v_00100_3.bmp",
            "test_visible_1.txt:1: expected '<image name> <label>'",
        ),
        ("test_visible_1", "Thermal/3/male_back_t_00100_3.bmp 0", "is no path Visible/.../<image>"),
        ("test_visible_1", "Visible/../Visible/3/male_back_v_00100_3.bmp 0", "is no path Visible/.../<image>"),
        ("test_visible_1", "/etc/3/x.bmp 0", "is no path Visible/.../<image>"),
        ("test_visible_1", ". 0", r"'\.' is no path Visible/.../<image>"),
        ("test_visible_1", "Visible/anna/x.bmp 0", "folder of the person 'anna' is not a whole number"),
        ("test_visible_1", "Visible/3/male_back_v_00100_3.bmp nan", "1 images have no label"),
        ("test_visible_1", "", "names no image"),
        (
            "test_thermal_1",
            "Thermal/2/male_back_t_00100_2.bmp 0",
            "person 2 stands in the training lists and in the test",
        ),
    ],
)
def test_a_list_that_does_not_fit_is_one_clear_line(folder, name, line, said):
    write_text(folder / "idx" / f"{name}.txt", line)
    message = error_of(folder.parent)
    assert re.search(said, message), message


@pytest.mark.parametrize("second", ["Visible/11/male_back_v_00100_11.bmp 0", "Visible/3/male_back_v_00101_3.bmp 1"])
def test_a_label_of_two_persons_or_a_person_of_two_labels_is_refused_naming_both(folder, second):
    write_text(folder / "idx" / "test_visible_1.txt", "Visible/3/male_back_v_00100_3.bmp 0", second)
    message = error_of(folder.parent)
    path, label = second.split()
    assert f"'Visible/3/male_back_v_00100_3.bmp' has label 0 and '{path}' has label {label}" in message


def test_what_is_absent_is_named(folder):
    assert "test_visible_3.txt' does not exist" in error_of(folder.parent, 3)
    assert "DATASETS.TRIAL got 11, RegDB has the trials 1 to 10" in error_of(folder.parent, 11)
    (folder / "Thermal").rename(folder / "Infrared")
    assert "has no Thermal, found there: Infrared, Visible, idx" in error_of(folder.parent)
