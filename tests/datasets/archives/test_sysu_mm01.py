"""SYSU-MM01: what trains, what searches what, in whose draws, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest

from datasets.archives.sysu_mm01 import load_sysu_mm01, same_place
from datasets.multimodal import MultiModalDataset
from datasets.test_set import Labels
from tests.datasets.trees import write_text
from tests.datasets.vis_nir_trees import SYSU_TEST, write_orders, write_sysu
from tests.reference import slow_vis_nir as slow
from utils.errors import DataError

SETS = ["all single-shot", "all multi-shot", "indoor single-shot", "indoor multi-shot"]
CAMERAS = {"all": (1, 2, 4, 5), "indoor": (1, 2)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_sysu(tmp_path / "SYSU-MM01")


def shown(data: MultiModalDataset, rows: np.ndarray) -> list[slow.Shown]:
    """Return path, person and camera (from 1) of rows [N, 1]."""
    assert rows.shape == (len(rows), 1)
    return [(item.value, item.pid, item.camid + 1) for item in (data.test.items[row] for row in rows[:, 0])]


def galleries(data: MultiModalDataset, name: str) -> list[list[slow.Shown]]:
    """Return the galleries of a set in order of its draws."""
    trials = [trial for trial in data.test.trials if trial.set == name]
    assert [trial.draw for trial in trials] == list(range(10))
    return [shown(data, trial.gallery) for trial in trials]


def error_of(root: Path) -> str:
    with pytest.raises(DataError) as error:
        load_sysu_mm01(root)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_train_and_val_persons_are_trained_on_with_all_infrared_images_as_partners(folder):
    data = load_sysu_mm01(folder.parent)
    assert [(record.pid, record.vis) for record in data.train] == [
        (pid, path) for path, pid, _ in slow.walk(folder, (1, 2, 4, 5), (1, 2, 7))
    ]
    assert {record.camid for record in data.train} == {0, 1, 3} and {record.caption for record in data.train} == {""}
    for record in data.train:
        assert record.others == {"nir": tuple(path for path, *_ in slow.walk(folder, (3, 6), (record.pid,)))}
    assert data.no_train == "" and data.gallery == [] and data.queries == {}


def test_all_infrared_test_images_search_in_both_places_and_visible_items_stand_first(folder):
    data = load_sysu_mm01(folder.parent)
    infrared = slow.walk(folder, (3, 6), SYSU_TEST)
    for trial in data.test.trials:
        assert shown(data, trial.query) == infrared
    kinds = [item.modality for item in data.test.items]
    assert kinds == sorted(kinds, reverse=True) and set(kinds) == {"vis", "nir"}  # vis, then nir
    assert list(dict.fromkeys(trial.set for trial in data.test.trials)) == SETS
    assert data.test.groups == {"all single-shot": ("all single-shot",)} and data.test.distinct


@pytest.mark.parametrize("search", CAMERAS)
def test_without_the_official_table_single_shot_galleries_are_those_of_agw(folder, search):
    data = load_sysu_mm01(folder.parent)
    expected = [slow.agw_gallery(folder, CAMERAS[search], SYSU_TEST, draw) for draw in range(10)]
    assert galleries(data, f"{search} single-shot") == expected
    assert len({tuple(gallery) for gallery in expected}) > 1
    assert "draws of AGW's code" in data.notes[-1] and "rand_perm_cam.mat" in data.notes[-1]


@pytest.mark.parametrize("search", CAMERAS)
def test_without_it_multi_shot_galleries_have_ten_images_of_each_person_and_camera_or_all(folder, search):
    found = galleries(load_sysu_mm01(folder.parent), f"{search} multi-shot")
    images = slow.walk(folder, CAMERAS[search], SYSU_TEST)
    for gallery in found:
        assert set(gallery) <= set(images) and len(set(gallery)) == len(gallery)
        for _, pid, camera in images:
            own = [image for image in images if image[1:] == (pid, camera)]
            assert sum(image[1:] == (pid, camera) for image in gallery) == min(10, len(own))
    assert len({frozenset(gallery) for gallery in found}) > 1
    assert found == galleries(load_sysu_mm01(folder.parent), f"{search} multi-shot")


@pytest.mark.parametrize("place", ["exp", "."])
def test_the_official_table_gives_all_galleries_where_it_lies_there(folder, place):
    orders = write_orders(folder / place / "rand_perm_cam.mat")
    data = load_sysu_mm01(folder.parent)
    for search, cameras in CAMERAS.items():
        for name, shots in (("single-shot", 1), ("multi-shot", 10)):
            found = galleries(data, f"{search} {name}")
            for draw, gallery in enumerate(found):
                assert sorted(gallery) == sorted(slow.official_gallery(folder, cameras, orders, draw, shots))
    assert "official draws" in data.notes[-1]


def test_an_image_of_camera_2_is_junk_for_camera_3_whomever_it_shows():
    camids = np.array([0, 1, 2, 3, 4, 5])
    labels = Labels(np.array([1, 2, 1, 1, 2, 2]), camids, camids, [])
    junk = same_place(labels, np.array([2, 5]), np.array([0, 1, 3, 4]))
    assert junk.tolist() == [[False, True, False, False], [False] * 4]


def test_copies_that_keep_the_images_in_ori_data_are_read(tmp_path):
    data = load_sysu_mm01(write_sysu(tmp_path / "SYSU-MM01", "ori_data").parent)
    plain = load_sysu_mm01(write_sysu(tmp_path / "plain" / "SYSU-MM01").parent)
    short = [[record.vis.split("/")[-3:] for record in one.train] for one in (data, plain)]
    assert short[0] == short[1] and "/ori_data/cam1/" in data.test.items[0].value


@pytest.mark.parametrize("name", ["train_id.txt", "val_id.txt"])
def test_a_test_does_without_training_lists(folder, name):
    whole = load_sysu_mm01(folder.parent)
    (folder / "exp" / name).unlink()
    data = load_sysu_mm01(folder.parent)
    assert (data.train, data.no_train) == ([], f"'{folder / 'exp'}' has no {name}")
    assert data.test.items == whole.test.items


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "exp/test_id.txt").unlink(), "exp/test_id.txt' does not exist; unpack the archive"),
        (
            lambda folder: write_text(folder / "exp/test_id.txt", "6,ten"),
            "test_id.txt:1: identity 'ten' is not a whole",
        ),
        (lambda folder: write_text(folder / "exp/test_id.txt", " "), "test_id.txt' names no identity"),
        (lambda folder: write_text(folder / "exp/test_id.txt", "6,33"), "1 of 2 persons have no image .*: 0033; "),
        (lambda folder: write_text(folder / "exp/val_id.txt", "2,44"), "val_id.txt': 1 of 2 persons have no image"),
        (
            lambda folder: write_text(folder / "exp/val_id.txt", "2,6"),
            "person 6 stands in val_id.txt and in test_id.txt",
        ),
        (lambda folder: (folder / "cam4").rename(folder / "cam7"), "SYSU-MM01' has no cam4, found there: cam1, cam2"),
        (
            lambda folder: (folder / "cam2/0006/0001.jpg").unlink(),
            "orders 12 images of person 6 under camera 2, but 11",
        ),
        (lambda folder: (folder / "exp/rand_perm_cam.mat").write_bytes(b"no"), "cannot be read as a MATLAB file"),
    ],
)
def test_a_damaged_archive_is_one_clear_line(folder, change, said):
    write_orders(folder / "exp" / "rand_perm_cam.mat")
    change(folder)
    message = error_of(folder.parent)
    assert re.search(said, message), message


def test_another_table_of_the_same_format_is_refused(folder):
    from scipy.io import savemat

    savemat(folder / "exp" / "rand_perm_cam.mat", {"test_id": np.arange(5)})
    assert "holds no table rand_perm_cam of 6 cameras" in error_of(folder.parent)


def test_an_empty_folder_of_a_person_is_refused_by_name(folder):
    (folder / "cam6" / "0010").mkdir()
    assert "no image" in error_of(folder.parent) and "cam6/0010" in error_of(folder.parent)


def test_no_archive_at_all_says_where_it_was_looked_for(tmp_path):
    assert "expected folder" in error_of(tmp_path) and "SYSU-MM01" in error_of(tmp_path)
