"""Files and folders as a user names them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.photos import NAMES, write_photos
from tools.loose_images import check_paths, find_images, list_images
from utils.errors import ConfigError, DataError


def test_all_images_below_a_folder_are_listed_in_order_and_nothing_else(tmp_path):
    write_photos(tmp_path)
    assert list_images(tmp_path, "--images") == NAMES


def test_linked_folders_are_followed_and_each_folder_counts_once(tmp_path):
    write_photos(tmp_path / "photos")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "there").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "trip" / "back").symlink_to(tmp_path / "photos")
    assert list_images(tmp_path / "links", "--images") == [f"there/{name}" for name in NAMES]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_named_as_an_image_is_not_listed_but_a_dangling_link_is(tmp_path):
    write_photos(tmp_path)
    os.mkfifo(tmp_path / "x.png")
    (tmp_path / "y.png").symlink_to(tmp_path / "gone.png")
    assert list_images(tmp_path, "--images") == sorted([*NAMES, "y.png"])


def test_files_and_folders_mix_in_the_order_given_and_each_image_counts_once(tmp_path):
    paths = write_photos(tmp_path)
    note, last = str(tmp_path / "notes.txt"), paths[-1]
    assert find_images([note, last, str(tmp_path)], "--images") == [note, last, *paths[:-1]]


def test_mistakes_are_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no image \(.jpg, .jpeg, .png, .bmp, .webp, .tif, .tiff\)"):
        list_images(tmp_path / "empty", "--gallery")
    with pytest.raises(ConfigError, match=r"--gallery '.*nowhere' does not exist"):
        list_images(tmp_path / "nowhere", "--gallery")
    with pytest.raises(ConfigError, match="--gallery is empty; name a folder"):
        list_images("", "--gallery")
    with pytest.raises(ConfigError, match=r"--query '.*empty' is a folder"):
        check_paths([str(tmp_path / "empty")], "--query", folders=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file, not a folder"):
        list_images(tmp_path / "file", "--gallery")
    with pytest.raises(ConfigError, match=r"--images: no file 'MODEL.DEVICE'; .*KEY VALUE pairs stand before --images"):
        find_images([str(tmp_path), "MODEL.DEVICE", "cpu"], "--images")


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    write_photos(tmp_path)
    scan = os.scandir

    def refusing(folder: str | Path) -> Iterator[os.DirEntry]:
        if str(folder).endswith("trip"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match=r"trip' cannot be read \(Permission denied\)"):
        list_images(tmp_path, "--images")
