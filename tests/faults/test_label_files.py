"""Labels in lists, in file names and in key point files, and what stands where a file should."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from configs import get_cfg_defaults
from configs.keys import KEYS
from configs.titles import CAPTIONED, MULTIMODAL
from datasets.archives.common import read_labelled_list
from datasets.archives.market1501 import load_market1501
from datasets.archives.msmt17 import load_msmt17
from datasets.archives.table import load_table
from datasets.archives.vehicleid import load_vehicleid
from datasets.archives.veri import read_views
from datasets.read import make_datasets
from datasets.read_captions import make_caption_datasets
from datasets.read_multimodal import make_multimodal_datasets
from tests.datasets.trees import view_line, write_msmt17, write_text, write_vehicleid
from tests.faults.mistakes import refusal
from tests.faults.test_labels import ARABIC_ONE, lines, read_table
from tools.check import main as check
from utils.errors import DataError, escape_what_cannot_be_printed
from utils.logger import setup_logger
from utils.test_folder import TestFolder, epoch_folders, epoch_of_folder

pytestmark = pytest.mark.fault("bad input: labels")
MODEL = ("MODEL:", "  NAME: transformer", "  TRANSFORMER_TYPE: vit_tiny_patch16_224_TransReID")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a 1\nb two", "l.txt:2: expected '<image name> <label>', got 'b two'"),
        ("1 a.jpg", "l.txt:1: expected.*its columns are swapped"),
        ("1 0000/a.jpg", "its columns are swapped"),
        ("my photo.jpg 1", "no name may hold spaces"),
        ("a 1\nb +2", "l.txt:2: expected"),
        ("a 1\nb 2.0", "l.txt:2: expected"),
        ("a 1\nb \u0661", "l.txt:2: expected"),
        ("a 1\nb \u00b2", "l.txt:2: expected"),
        ("a 1\nb -2", "l.txt:2: expected"),
        ("a 99999999999999999999", "l.txt:1: label 99999999999999999999 exceeds"),
        (f"a {'9' * 5000}", "exceeds"),
        ("a 1\nb 1\na 2", "l.txt:3: image 'a' has label 2, but 1 in .*l.txt:1"),
        ("a 1\nb\0 2", "l.txt:2: holds a NUL"),
        ("a 1\n" + "b" * 70_000, "l.txt:2: a line of"),
        (b"a 1\n\xff 2", "l.txt:2: not UTF-8"),
        ("a 1".encode("utf-16"), "l.txt:1: not UTF-8"),
    ],
)
def test_a_list_that_cannot_be_meant_so_is_refused_with_its_line(tmp_path, text, words):
    path = tmp_path / "l.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=words):
        read_labelled_list(path)


def test_a_byte_order_mark_costs_no_image_and_junk_of_lists_is_counted(tmp_path):
    path = write_text(tmp_path / "l.txt", "\ufeffa 1", "b -1", "c None", "d 2", "e -1")
    assert read_labelled_list(path) == ([("a", 1), ("d", 2)], {"-1": 2, "None": 1})
    views = write_text(tmp_path / "v.txt", "\ufeff" + view_line("image_test", "x.jpg", 3))
    assert read_views(views) == {"x.jpg": 3}


@pytest.mark.parametrize(
    "tail",
    ["VeRi/x.jpg 1 2 3", view_line("a", "x.jpg", 3)[:-9], view_line("a", "x.jpg", 3) + " 4", "VeRi/x.jpg"]
    + [view_line("a", "x.jpg", view) for view in (-1, "\u0661", "nan", "99999", "1.0")],
)
def test_a_viewpoint_line_that_was_cut_or_is_out_of_bounds_is_refused(tmp_path, tail):
    path = write_text(tmp_path / "v.txt", view_line("a", "y.jpg", 0), tail)
    with pytest.raises(DataError, match=r"v.txt:2: (expected '<image> x1 y1|viewpoint 99999 exceeds)"):
        read_views(path)


MARKET = {"bounding_box_train": "0002_c1s1_1.jpg", "query": "0003_c1s1_1.jpg", "bounding_box_test": "0003_c2s1_1.jpg"}


def market(root: Path, **more: str) -> Path:
    for folder, name in MARKET.items():
        place = root / "market1501" / folder
        place.mkdir(parents=True)
        (place / name).touch()
    for folder, name in more.items():
        (root / "market1501" / folder / name).touch()
    return root / "market1501"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("0003_c192168011_1.jpg", "camera 192168011 exceeds 10000"),
        ("0003_c0_1.jpg", "cameras count from 1"),
        ("99999999999999999999_c1_1.jpg", "pid 99999999999999999999 exceeds"),
        ("-2_c1_1.jpg", "pid '-2' is not a whole number"),
        (f"{ARABIC_ONE}_c1_1.jpg", "is not named <pid>_c<camera>"),
        (f"0003_c{ARABIC_ONE}_1.jpg", "is not named <pid>_c<camera>"),
        ("+3_c1_1.jpg", "is not named <pid>_c<camera>"),
        ("my photo.jpg", "docs/data.md, Your own labelled images"),
    ],
)
def test_a_name_that_labels_nothing_is_refused_and_named(tmp_path, name, words):
    market(tmp_path, bounding_box_test=name)
    with pytest.raises(DataError, match=words) as error:
        load_market1501(tmp_path)
    assert name in str(error.value)


@pytest.mark.parametrize(
    "name", ["._0003_c1s1_1.jpg", "Thumbs.db", ".DS_Store", "desktop.ini", "readme.txt", "0003_c1.mat"]
)
def test_files_that_systems_leave_beside_images_do_not_count(tmp_path, name):
    market(tmp_path, bounding_box_test=name)
    assert len(load_market1501(tmp_path).gallery) == 1


@pytest.mark.parametrize("form", ["-1", "-01"])
def test_junk_is_counted_in_the_same_words_in_names_as_in_tables(tmp_path, form):
    market(tmp_path, bounding_box_test=f"{form}_c1s1_1.jpg")
    assert load_market1501(tmp_path).notes == ("market1501 gallery: 1 junk images (pid -1) are ignored",)


@pytest.mark.parametrize("form", ["-1", "nan", "None", "?"])
def test_junk_of_lists_is_counted_in_the_same_words(tmp_path, form):
    msmt17 = write_msmt17(tmp_path / "MSMT17", "train", "test") / "list_gallery.txt"
    vehicleid = write_vehicleid(tmp_path / "VehicleID") / "train_test_split" / "train_list.txt"
    for path in (msmt17, vehicleid):
        path.write_text(f"{path.read_text()}\n0009/0009_001_04_a.jpg {form}\n")
    assert load_msmt17(tmp_path).notes == (f"msmt17 gallery: 1 junk images (pid {form}) are ignored",)
    assert load_vehicleid(tmp_path).notes == (f"VehicleID train: 1 junk images (pid {form}) are ignored",)


def test_a_name_that_is_no_text_of_any_encoding_is_logged_without_a_failure(tmp_path, capsys):
    escape_what_cannot_be_printed()  # as run_command does
    setup_logger(tmp_path / "log.txt")
    logging.getLogger("reid").warning("image '%s'", b"0003_c1_\xff.jpg".decode("utf-8", "surrogateescape"))
    assert "0003_c1_\\udcff.jpg" in (tmp_path / "log.txt").read_text()
    assert "Traceback" not in capsys.readouterr().err


def as_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def as_loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (as_pipe, "is a pipe"),
        (as_loop, "(Too many levels|does not exist|no file)"),
        (lambda path: (path.unlink(), path.mkdir()), "is a folder"),
    ],
)
@pytest.mark.parametrize("kind", ["table", "list", "views"])
def test_what_is_no_file_is_said_and_nothing_hangs(tmp_path, kind, make, words):
    path = tmp_path / "t.csv"
    path.touch()
    make(path)
    read: dict[str, Callable] = {
        "table": lambda p: load_table(p, tmp_path),
        "list": read_labelled_list,
        "views": read_views,
    }
    with pytest.raises(DataError, match=words):
        read[kind](path)


def test_a_pipe_among_images_does_not_block(tmp_path):
    as_pipe(market(tmp_path) / "query" / "0003_c1s1_2.jpg")
    assert len(load_market1501(tmp_path).query) == 1


@pytest.mark.parametrize("root", ["a\0b", "~no_such_user/x", "/" + "x" * 300])
@pytest.mark.parametrize("name", KEYS["DATASETS.NAMES"].choices)
def test_a_root_that_no_path_can_be_is_one_line_for_every_data_set(tmp_path, name, root):
    if name == "table":
        read_table(tmp_path, lines())
    cfg = get_cfg_defaults()
    cfg.DATASETS.ROOT_DIR, cfg.DATASETS.TABLE = root, str(tmp_path / "t.csv")
    readers = dict.fromkeys(CAPTIONED, make_caption_datasets) | dict.fromkeys(MULTIMODAL, make_multimodal_datasets)
    read = readers.get(name, make_datasets)
    with pytest.raises(DataError, match="DATASETS.ROOT_DIR"):
        read(cfg, [name])


def test_a_root_that_no_path_can_be_is_one_line_of_the_command(tmp_path, capsys):
    config = write_text(tmp_path / "c.yml", *MODEL, "DATASETS:", "  NAMES: market1501")
    assert "DATASETS.ROOT_DIR" in refusal(check, "--config_file", config, "DATASETS.ROOT_DIR", "a\0b", capsys=capsys)


def test_a_table_of_the_command_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "t.csv").write_text(lines("d.jpg,1.0,0,0,train"))
    config = write_text(tmp_path / "c.yml", *MODEL, "DATASETS:", "  NAMES: table", f"  TABLE: {tmp_path}/t.csv")
    assert "t.csv:5: pid '1.0'" in refusal(check, "--config_file", config, capsys=capsys)


def test_numbers_in_names_are_those_of_decimal_digits(tmp_path):
    for name in ("epoch_3", "epoch_\u00b2"):
        (tmp_path / name).mkdir()
    assert list(epoch_folders(tmp_path)) == [3]
    assert epoch_of_folder(TestFolder(tmp_path / "epoch_\u00b2")) is None
