"""Image files of a hostile stranger: each is RGB of the right shape, counted as damaged, or refused by its name."""

import ast
import os
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from datasets import image_files
from datasets.decode import read_image
from datasets.image_files import decode, read_file
from tests.faults.hostile_images import BOMBS, FOREIGN, FORMATS, photo, saved
from tests.faults.tally import Count
from tools.check import read_file as check_file
from tools.onnx_example import read_image as read_for_onnx
from tools.report.thumbnails import thumbnail
from tools.visualize.grid import open_rgb
from utils.errors import DataError

pytestmark = pytest.mark.fault("bad input: images")

ROOT = Path(__file__).parents[2]
SIZE = (12, 8)
DECODERS = ("torchvision", "pillow")
SOUND, DAMAGED, REFUSED = "sound", "damaged", "refused"


def outcome(path: Path, decoder: str) -> str:
    """Read a file as training does; return what became of it, checked to be one of three outcomes."""
    damaged: list[str] = []
    try:
        pixels = read_image(str(path), SIZE, "bilinear", decoder, damaged)
    except DataError as error:
        assert path.name in str(error) and damaged == []
        return REFUSED
    assert pixels.shape == (3, *SIZE) and pixels.dtype == torch.uint8
    assert damaged in ([], [str(path)])
    return DAMAGED if damaged else SOUND


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", [*FOREIGN, *BOMBS])
@pytest.mark.filterwarnings("ignore")  # Pillow's own about bombs and odd headers
def test_what_is_no_accepted_image_is_refused_by_its_name_fast_and_starts_nothing(tmp_path, monkeypatch, name, decoder):
    def start(*args: object, **options: object) -> None:
        raise AssertionError(f"a program was started: {args}")

    for what in ("subprocess.Popen", "os.system", "os.posix_spawn"):
        monkeypatch.setattr(what, start)
    path = tmp_path / "a.jpg"
    path.write_bytes((FOREIGN | BOMBS)[name])
    started = time.process_time()
    assert outcome(path, decoder) == REFUSED
    assert thumbnail(str(path)) is None
    assert time.process_time() - started < 2
    assert check_file(str(path)).finding
    with pytest.raises(DataError, match="a.jpg"):
        open_rgb(path)
    assert os.listdir(tmp_path) == ["a.jpg"]


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    os.chdir(path.parent)  # such an address is at most 108 characters
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(path.name)


def a_huge_file(path: Path) -> None:
    with open(path, "wb") as file:
        file.write(saved("JPEG"))
        file.truncate(image_files.MAX_BYTES + 1)


PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (Path.mkdir, "a folder"),
    "pipe": (a_fifo, "a pipe"),
    "socket": (a_socket, "a socket"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "loop of links": (lambda path: path.symlink_to(path), "oo many levels"),
    "link to nothing": (lambda path: path.symlink_to("gone"), "is missing"),
    "nothing": (lambda path: None, "is missing"),
    "more bytes than are read": (a_huge_file, "readable are at most"),
}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path, monkeypatch, place, decoder):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.jpg"
    make, words = PLACES[place]
    make(path)
    with pytest.raises(DataError, match=f"a.jpg.*{words}"):
        read_image(str(path), SIZE, "bilinear", decoder)
    assert thumbnail(str(path)) is None and check_file(str(path)).finding


@pytest.mark.parametrize("path", ["a\0b.jpg", "x" * 300 + ".jpg", "/etc/passwd/a.jpg"])
def test_a_path_that_cannot_be_is_refused(path):
    with pytest.raises(DataError):
        read_image(path, SIZE, "bilinear", "torchvision")


CUTS = [(kind, share) for kind in ("JPEG", "PNG", "BMP", "GIF", "MPO") for share in (0.55, 0.7, 0.9)]


def cut(kind: str, share: float, **options: object) -> bytes:
    content = saved(kind, photo(64, 48), **options)
    return content[: int(share * len(content))]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("kind", "share"), CUTS)
def test_a_cut_image_is_completed_as_in_transreid_and_counted(tmp_path, monkeypatch, kind, share, decoder):
    (tmp_path / "a.jpg").write_bytes(cut(kind, share))
    assert outcome(tmp_path / "a.jpg", decoder) == DAMAGED
    assert "a.jpg' does not decode" in check_file(str(tmp_path / "a.jpg")).finding
    got = read_image(str(tmp_path / "a.jpg"), (64, 48), "bilinear", decoder)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    expected = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))
    np.testing.assert_array_equal(got.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("lost", [1, 2, 3, 10, 700])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_cut_of_a_jpeg_is_noticed(tmp_path, lost, progressive, decoder):
    content = saved("JPEG", photo(96, 96), progressive=progressive)
    (tmp_path / "a.jpg").write_bytes(content[:-lost])
    assert outcome(tmp_path / "a.jpg", decoder) == DAMAGED
    (tmp_path / "a.jpg").write_bytes(content[:-lost] + bytes(lost))  # room was made, the bytes never came
    assert outcome(tmp_path / "a.jpg", decoder) == DAMAGED
    (tmp_path / "a.jpg").write_bytes(content + b"more" * lost)  # cameras write behind the end
    assert outcome(tmp_path / "a.jpg", decoder) == SOUND


@pytest.mark.parametrize("kind", ["TIFF", "WEBP"])
def test_a_cut_image_of_which_nothing_decodes_is_refused(tmp_path, kind):
    (tmp_path / "a.jpg").write_bytes(cut(kind, 0.7))
    assert [outcome(tmp_path / "a.jpg", decoder) for decoder in DECODERS] == [REFUSED, REFUSED]


MODES = {
    "1": "PNG",
    "L": "PNG",
    "LA": "PNG",
    "P": "PNG",
    "RGBA": "PNG",
    "I;16": "PNG",
    "I": "TIFF",
    "PA": "TIFF",
    "CMYK": "TIFF",
    "YCbCr": "TIFF",
    "LAB": "TIFF",
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_the_rgb_that_pillow_makes_of_it(tmp_path, mode):
    image = photo().convert("L").convert("I;16") if mode == "I;16" else None
    if image is None:
        image = (
            Image.new("LAB", (30, 40), (90, 130, 120))
            if mode == "LAB"
            else photo().convert("L" if mode == "I" else mode if mode != "PA" else "P").convert(mode)
        )
    image.save(tmp_path / "a.jpg", MODES[mode])
    got, is_damaged = decode(read_file(tmp_path / "a.jpg"))
    with Image.open(tmp_path / "a.jpg") as expected:
        if expected.mode.startswith("I"):
            expected = Image.fromarray((np.asarray(expected) // 257).astype(np.uint8))
        np.testing.assert_array_equal(np.asarray(got), np.asarray(expected.convert("RGB")))
    assert not is_damaged and outcome(tmp_path / "a.jpg", "torchvision") == SOUND


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_of_an_animation_the_first_image_is_read(tmp_path, kind):
    red, blue = (Image.new("RGB", (30, 40), colour) for colour in ("red", "blue"))
    red.save(tmp_path / "a.jpg", kind, save_all=True, append_images=[blue])
    pixels = read_image(str(tmp_path / "a.jpg"), SIZE, "bilinear", "torchvision").float().mean((1, 2))
    assert pixels[0] > 240 and pixels[2] < 15


@pytest.mark.parametrize(("width", "height"), [(1, 100_000), (100_000, 1), (1, 1), (3_000, 2_000)])
def test_extreme_shapes_within_the_bound_are_read(tmp_path, width, height):
    Image.new("1", (width, height), 1).save(tmp_path / "a.jpg", "PNG")
    for decoder in DECODERS:
        assert outcome(tmp_path / "a.jpg", decoder) == SOUND
    assert thumbnail(str(tmp_path / "a.jpg")) is not None


def test_a_sound_image_is_read_without_the_switch_that_completes(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "completing", None)
    for kind in FORMATS:
        (tmp_path / "a.jpg").write_bytes(saved(kind))
        assert [outcome(tmp_path / "a.jpg", decoder) for decoder in DECODERS] == [SOUND, SOUND]


def test_reading_a_damaged_image_leaves_pillows_switch_as_it_was():
    for before in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", before)
            decode(np.frombuffer(cut("JPEG", 0.7), np.uint8))
            assert ImageFile.LOAD_TRUNCATED_IMAGES is before


@pytest.mark.parametrize("name", ["eps", "psd", "ico", "png of 100,000 x 100,000", "folder"])
@pytest.mark.filterwarnings("ignore")
def test_the_example_to_copy_refuses_them_too(tmp_path, name, capsys):
    path = tmp_path / "a.jpg"
    path.mkdir() if name == "folder" else path.write_bytes((FOREIGN | BOMBS)[name])
    with pytest.raises(SystemExit):
        read_for_onnx(str(path), {"size": SIZE, "resize_filter": "bilinear"})
    assert capsys.readouterr().err.startswith(f"error: image '{path}'")


# modules and calls that open an image file, and who may
OPENERS = {"open": {"datasets/image_files.py", "tools/onnx_example.py"}, "decode_jpeg": {"datasets/decode.py"}}
OTHERS = {"imread", "imopen", "decode_image", "decode_png", "decode_gif", "decode_webp", "read_file_as_image"}


def image_openers(source: str) -> list[tuple[int, str]]:
    """Return (line, what) of the calls of Image.open (also as PIL.Image.open, or imported), and of the like of it."""
    found = []
    if not any(word in source for word in ("PIL", "Image.open", "torchvision.io", *OTHERS)):
        return []
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "open":
            base = node.value
            name = base.id if isinstance(base, ast.Name) else base.attr if isinstance(base, ast.Attribute) else ""
            if name == "Image":
                found.append((node.lineno, "open"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "") == "PIL.Image":
            found += [(node.lineno, "open") for alias in node.names if alias.name == "open"]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torchvision.io"):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.Attribute) and node.attr in OTHERS:
            found.append((node.lineno, node.attr))
    return found


def test_images_are_opened_in_one_place():
    parts = [path for path in ROOT.iterdir() if path.name != "tests" and not path.name.startswith(".")]
    files = [path for part in parts for path in ([part] if part.suffix == ".py" else part.rglob("*.py"))]
    assert len(files) > 100
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {what}"
        for path in files
        for line, what in image_openers(path.read_text(encoding="utf-8"))
        if path.relative_to(ROOT).as_posix() not in OPENERS.get(what, ())
    ]
    assert len(files) > 150 and wrong == []


@pytest.mark.parametrize(
    "source", ["Image.open(a)", "PIL.Image.open(a)", "from PIL.Image import open", "plt.imread(a)"]
)
def test_another_opener_would_be_found(source):
    assert len(image_openers(source)) == 1


def damaged_copies(content: bytes, draws: random.Random, count: int) -> list[bytes]:
    """Return copies with flipped bits, other bytes, cuts, holes, and pieces swapped or put in."""
    copies = []
    for number in range(count):
        copy = bytearray(content)
        kind = number % 5
        if kind == 0:
            for _ in range(draws.choice((1, 3, 30))):
                copy[draws.randrange(len(copy))] ^= 1 << draws.randrange(8)
        elif kind == 1:
            del copy[draws.randrange(len(copy)) :]
        elif kind == 2:
            start = draws.randrange(len(copy))
            copy[start : start + draws.randrange(64)] = bytes(draws.randrange(64))
        elif kind == 3:
            start = draws.randrange(min(len(copy), 120))  # in the header
            copy[start : start + 4] = draws.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\1"))
        else:
            start, stop = sorted(draws.sample(range(len(copy)), 2))
            copy[start:stop] = draws.randbytes(draws.randrange(200))
        copies.append(bytes(copy))
    return copies


def fuzz(folder: Path, seed: int, count: int, tally: Count) -> None:
    """Read `count` damaged copies of an image of each format with both decoders."""
    tried, failures = 0, []
    for kind in FORMATS:
        draws = random.Random(f"{kind} {seed}")
        for copy in damaged_copies(saved(kind, photo(24, 20)), draws, count):
            path = folder / "a.jpg"
            path.write_bytes(copy)
            for decoder in DECODERS:
                tried += 1
                try:
                    outcome(path, decoder)
                except Exception as error:
                    failures.append((kind, decoder, repr(error), copy[:40]))
    tally("fuzzed image files", tried, tried - len(failures))
    assert failures == []


@pytest.mark.filterwarnings("ignore")
def test_no_damage_of_any_format_is_more_than_one_clear_error(tmp_path, monkeypatch, tally):
    for module in ("decode", "image_files"):  # a damaged header may ask for as many as are allowed, which take seconds
        monkeypatch.setattr(f"datasets.{module}.MAX_PIXELS", 1_000_000)
    fuzz(tmp_path, seed=0, count=60, tally=tally)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(1, 4))
def test_no_damage_of_any_format_is_more_than_one_clear_error_at_length(tmp_path, tally, seed):
    fuzz(tmp_path, seed=seed, count=300, tally=tally)
