"""What a visitor gives: uploads are opened like all images and removed, and every mistake is told without a path."""

import importlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from yacs.config import CfgNode

from configs import get_cfg_defaults
from datasets.decode import read_image
from tools.demo import uploads
from tools.demo.uploads import SIDE, check_sentence, read_upload, with_item
from utils.errors import DataError


@pytest.fixture
def settings() -> CfgNode:
    """cfg.INPUT of a model of small images."""
    cfg = get_cfg_defaults()
    cfg.INPUT.SIZE_TEST = [32, 16]
    return cfg.INPUT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of uploads."""
    (tmp_path / "uploads").mkdir()
    return tmp_path / "uploads"


def upload(folder: Path, name: str, content: bytes) -> Path:
    """Write a file as gradio does: in a folder of its own."""
    path = folder / "0123abcd" / name
    path.parent.mkdir()
    path.write_bytes(content)
    return path


def picture_bytes(path: Path, kind: str, size: tuple[int, int] = (50, 70), **how: object) -> bytes:
    """Return the bytes of a noisy image file of a kind of Pillow."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, kind, **how)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"])
@pytest.mark.parametrize("grey", [False, True])
def test_an_upload_is_read_as_the_tests_read_an_image_and_is_gone(settings, folder, tmp_path, kind, grey):
    content = picture_bytes(tmp_path / "x", kind)
    path = upload(folder, "a.jpg", content)
    given = read_upload(str(path), folder, settings, grey)
    (tmp_path / "x").write_bytes(content)
    expected = read_image(str(tmp_path / "x"), [32, 16], settings.FILTER_TEST, settings.DECODER, None, grey)
    torch.testing.assert_close(given.pixels, expected, rtol=0, atol=0)
    assert (given.name, given.is_damaged, given.picture.size, given.picture.mode) == ("a.jpg", False, (50, 70), "RGB")
    assert list(folder.iterdir()) == []
    red, green, blue = np.asarray(given.picture).transpose(2, 0, 1)
    assert (np.array_equal(red, green) and np.array_equal(red, blue)) == grey


def test_a_large_picture_is_shown_small_and_a_damaged_one_is_told(settings, folder, tmp_path):
    content = picture_bytes(tmp_path / "x", "JPEG", (2000, 1000))
    given = read_upload(str(upload(folder, "a.jpg", content)), folder, settings)
    assert given.picture.size == (SIDE, SIDE // 2) and not given.is_damaged
    assert read_upload(str(upload(folder, "b.jpg", content[:-5000])), folder, settings).is_damaged


def postscript(path: Path) -> bytes:
    return picture_bytes(path, "EPS")


def bomb(path: Path) -> bytes:
    """A small file of more pixels than may be read."""
    Image.new("1", (12_000, 12_000)).save(path, "PNG")
    return path.read_bytes()


BAD: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "empty": (lambda path: b"", "'x.jpg' is no image that can be read (empty file)"),
    "text": (lambda path: b"hello", "not an image, or none of JPEG, PNG, BMP, GIF, TIFF, WEBP"),
    "svg": (lambda path: b"<svg onload='alert(1)'/>", "not an image, or none of"),
    "zip": (lambda path: b"PK\3\4" + bytes(50), "not an image, or none of"),
    "postscript": (postscript, "not an image, or none of"),
    "icon": (lambda path: picture_bytes(path, "ICO"), "not an image, or none of"),
    "bomb": (bomb, "12,000 x 12,000 pixels, readable are"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_image_is_one_clear_line_without_a_path_and_is_removed(settings, folder, tmp_path, kind):
    make, message = BAD[kind]
    path = upload(folder, "x.jpg", make(tmp_path / "made"))
    with pytest.raises(DataError) as error:
        read_upload(str(path), folder, settings)
    assert message in str(error.value) and str(tmp_path) not in str(error.value)
    assert "\n" not in str(error.value) and "tools.check" not in str(error.value)
    assert list(folder.iterdir()) == []


def test_a_file_over_the_limit_is_not_opened(settings, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_UPLOAD", 100)
    monkeypatch.setattr(uploads, "read_image", None)
    with pytest.raises(DataError, match="'x.png' has [0-9,]+ bytes, taken are at most 100"):
        read_upload(str(upload(folder, "x.png", picture_bytes(tmp_path / "y", "PNG"))), folder, settings)
    assert list(folder.iterdir()) == []


def test_a_path_that_was_not_uploaded_is_neither_read_nor_removed(settings, folder, tmp_path):
    other = tmp_path / "uploads_of_others" / "a.png"
    other.parent.mkdir()
    picture_bytes(other, "PNG")
    (folder / "link.png").symlink_to(other)
    (folder / "door").symlink_to(other.parent)
    paths = (other, folder / ".." / "uploads_of_others" / "a.png", folder / "link.png", folder / "door" / "a.png")
    for path in (*map(str, paths), "/etc/passwd", "a.png", "", "a\0.png", str(folder), str(folder / "gone.png")):
        with pytest.raises(DataError, match="this is no file that was uploaded here"):
            read_upload(path, folder, settings)
    assert other.is_file() and (folder / "link.png").is_symlink()


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "is empty"), (" \n", "is empty"), ("a\udc80", "no UTF-8 text"), ("a " * 1500, "has 3,000 characters")],
)
def test_what_is_no_sentence_is_told(text, message):
    with pytest.raises(DataError, match=message):
        check_sentence(text)


def test_a_sentence_loses_the_blanks_around_it():
    assert check_sentence("  a man \n") == "a man"


@pytest.mark.parametrize(
    ("several", "expected"),
    [(True, {"vis": "new", "text": "words"}), (False, {"vis": "new"})],
)
def test_a_new_item_replaces_the_old_one_and_where_a_model_takes_one_all_others(several, expected):
    old = {"vis": "old", "text": "words"} if several else {"text": "words"}
    assert with_item(old, "vis", "new", several) == expected
    assert with_item(expected, "vis", None, several) == {name: expected[name] for name in expected if name != "vis"}
    assert old == ({"vis": "old", "text": "words"} if several else {"text": "words"})


def test_equal_uploads_of_two_visitors_lie_in_folders_of_their_own():
    route_utils = pytest.importorskip("gradio.route_utils", reason="needs gradio (requirements-demo.txt)")
    importlib.import_module("tools.demo.page")
    folders = {route_utils.GradioUploadFile(io.BytesIO(), filename="a.jpg").sha.hexdigest() for _ in range(3)}
    assert len(folders) == 3
