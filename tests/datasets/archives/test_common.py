import os
from pathlib import Path
from typing import NoReturn

import pytest

from datasets.archives.common import list_images, read_labelled_list, read_named_images, read_training_images
from datasets.archives.find import find_folder
from datasets.bases import Sample
from tests.datasets.trees import write_image, write_images, write_text
from utils.errors import DataError

NEEDED = ("train", "test")


def test_find_folder_takes_the_first_complete_one(tmp_path):
    (tmp_path / "first" / "train").mkdir(parents=True)
    for name in NEEDED:
        (tmp_path / "second" / name).mkdir(parents=True)
    assert find_folder(tmp_path, ("first", "second"), NEEDED) == tmp_path / "second"


def test_a_root_without_the_folder_names_what_was_expected_and_found(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError) as error:
        find_folder(tmp_path, ("set",), NEEDED)
    assert str(error.value) == f"expected folder '{tmp_path}/set' with train, test; found in '{tmp_path}': a, b"


def test_an_incomplete_folder_shows_its_own_entries(tmp_path):
    (tmp_path / "set" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match=f"'{tmp_path}/set' has no test, found there: train$"):
        find_folder(tmp_path, ("set",), NEEDED)


def test_an_empty_root_and_a_full_one_are_both_shown_in_one_line(tmp_path):
    with pytest.raises(DataError, match="nothing$"):
        find_folder(tmp_path, ("set",), NEEDED)
    for number in range(13):
        (tmp_path / f"{number:02d}").mkdir()
    with pytest.raises(DataError, match="08, 09 and 3 more$"):
        find_folder(tmp_path, ("set",), NEEDED)


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(DataError, match=f"'{tmp_path}/nowhere' does not exist; set DATASETS.ROOT_DIR"):
        find_folder(tmp_path / "nowhere", ("set",), NEEDED)


@pytest.mark.parametrize(("name", "rename"), [("set", False), ("mine", True)])
def test_a_root_that_is_the_data_set_itself_is_recognised(tmp_path, name, rename):
    for folder in NEEDED:
        (tmp_path / name / folder).mkdir(parents=True)
    with pytest.raises(DataError) as error:
        find_folder(tmp_path / name, ("set",), NEEDED)
    assert f"set DATASETS.ROOT_DIR to its parent '{tmp_path}'" in str(error.value)
    assert ("name the folder 'set'" in str(error.value)) is rename


def test_images_are_sorted_and_other_files_ignored(tmp_path):
    write_images(tmp_path, ["b.jpg", "a.png", "C.JPG"])
    write_text(tmp_path / "Thumbs.db")
    write_text(tmp_path / "._b.jpg")
    assert list_images(tmp_path) == ["C.JPG", "a.png", "b.jpg"]


def test_a_folder_without_images_is_an_error(tmp_path):
    write_text(tmp_path / "notes.txt")
    with pytest.raises(DataError, match=f"no image .* in '{tmp_path}', found: notes.txt"):
        list_images(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        list_images(tmp_path / "absent")


@pytest.mark.parametrize("read", [list_images, read_training_images])
def test_a_folder_that_may_not_be_read_is_an_error_and_not_taken_for_empty(tmp_path, monkeypatch, read):
    write_image(tmp_path / "0001_c1.jpg")

    def refuse(folder: Path) -> NoReturn:
        raise PermissionError(13, "Permission denied", str(folder))

    for name in ("scandir", "listdir"):  # root may read all folders
        monkeypatch.setattr(os, name, refuse)
    with pytest.raises(DataError, match=rf"folder '{tmp_path}' cannot be read \(Permission denied\)"):
        read(tmp_path)


def test_names_give_identity_and_camera_from_zero(tmp_path):
    names = ["0002_c1s1_000451_03.jpg", "0107_c014_00030600_0.jpg", "-1_c3s1_1.jpg"]
    write_images(tmp_path, names)
    expected = [Sample(f"{tmp_path}/{names[0]}", 2, 0, 0), Sample(f"{tmp_path}/{names[1]}", 107, 13, 0)]
    assert read_named_images(tmp_path) == (expected, {"-1": 1})


@pytest.mark.parametrize(("name", "message"), [("photo.jpg", "not named <pid>_c<camera>"), ("1_c0.jpg", "camera 0")])
def test_a_name_that_does_not_fit_is_an_error_naming_the_file(tmp_path, name, message):
    write_image(tmp_path / name)
    with pytest.raises(DataError, match=message) as error:
        read_named_images(tmp_path)
    assert f"'{tmp_path}/{name}'" in str(error.value)


def test_labelled_lists_skip_empty_lines(tmp_path):
    assert read_labelled_list(write_text(tmp_path / "list.txt", "b 2", "", "a  10 ")) == ([("b", 2), ("a", 10)], {})


@pytest.mark.parametrize("line", ["b", "b two", "b 2 3", "b -2"])
def test_a_bad_list_line_is_named(tmp_path, line):
    with pytest.raises(DataError, match="list.txt:2: expected"):
        read_labelled_list(write_text(tmp_path / "list.txt", "a 1", line))


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(DataError, match="list.txt' does not exist"):
        read_labelled_list(tmp_path / "list.txt")
