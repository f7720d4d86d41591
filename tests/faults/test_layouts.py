"""Data sets that do not lie as expected: the message names the cause and the way out, and tests alone load."""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from configs import load_cfg
from datasets import make_dataloader
from datasets.archives.market1501 import load_market1501
from datasets.archives.msmt17 import load_msmt17
from datasets.archives.table import load_table
from datasets.archives.vehicleid import load_vehicleid
from datasets.archives.veri import load_veri
from datasets.bases import ReIDDataset, published_findings
from datasets.read import Counts, Told
from tests.commands import run
from tests.conftest import TINY_YAML
from tests.datasets.trees import write_msmt17, write_text, write_vehicleid, write_veri
from tools.check import doubted_images, read_files
from tools.check import main as check
from tools.loose_images import check_paths, find_images
from utils.errors import ConfigError, DataError

pytestmark = pytest.mark.fault("bad input: labels")

NAMES = {"bounding_box_train": "0002_c1s1_1.jpg", "query": "0003_c1s1_1.jpg", "bounding_box_test": "0003_c2s1_1.jpg"}


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def market(folder: Path, names: Iterable[str] = NAMES) -> Path:
    touch(*(folder / name / NAMES[name] for name in names))
    return folder


def deeper(root: Path) -> None:
    market(root / "Market-1501-v15.09.15" / "Market-1501-v15.09.15")


def higher(root: Path) -> None:
    market(root / "archives" / "market1501")


def other_case(root: Path) -> None:
    market(root / "MARKET1501")


def other_dashes(root: Path) -> None:
    market(root / "market_1501")


def other_case_inside(root: Path) -> None:
    market(root / "market1501")
    (root / "market1501" / "query").rename(root / "market1501" / "Query")


def packed(root: Path) -> None:
    touch(root / "Market-1501-v15.09.15.zip", root / "other.tar")


def packed_in_folder(root: Path) -> None:
    touch(root / "market1501" / "images.tar.gz")


def packed_split(root: Path) -> None:
    market(root / "market1501", ("bounding_box_train", "bounding_box_test"))
    touch(root / "market1501" / "query" / "query.zip")


def by_identity(root: Path) -> None:
    touch(*(root / "market1501" / f"{pid:04d}" / "1.jpg" for pid in range(3)))


def splits_by_identity(root: Path) -> None:
    touch(*(root / "market1501" / split / "0002" / "1.jpg" for split in NAMES))


def a_file(root: Path) -> None:
    root.rmdir()
    root.touch()


def itself(root: Path) -> None:
    market(root)


def looping(root: Path) -> None:
    (root / "market1501").symlink_to(root / "market1501")


def one_split_of_it(root: Path) -> None:
    """DATASETS.ROOT_DIR is what lies below the data set, as a folder of images that was copied from a file manager."""
    market(root.parent)
    root.rmdir()
    root.symlink_to(root.parent / "query")


def shortened(root: Path) -> None:
    market(root / "Market")


def of_another_set(root: Path) -> None:
    market(root / "DukeMTMC-reID")


def without_gallery(root: Path) -> None:
    market(root / "market1501", ("bounding_box_train", "query"))


def left_by_macos(root: Path) -> None:
    for name in NAMES:
        touch(root / "__MACOSX" / "market1501" / name / "._0002_c1s1_1.jpg")


def unrelated(root: Path) -> None:
    touch(root / "notes.txt")


@pytest.mark.parametrize(
    ("lay", "words"),
    [
        (
            deeper,
            "it lies in '.*/Market-1501-v15.09.15/Market-1501-v15.09.15': set DATASETS.ROOT_DIR .*/Market-1501-v15",
        ),
        (higher, "it lies in '.*/archives/market1501': set DATASETS.ROOT_DIR .*/archives$"),
        (other_case, "'.*MARKET1501' is it by another name: rename it to 'market1501'"),
        (other_dashes, "'.*market_1501' is it by another name: rename it to 'market1501'"),
        (other_case_inside, "rename Query in '.*market1501' to query$"),
        (packed, "'.*Market-1501-v15.09.15.zip' is still packed: unpack it there"),
        (packed_in_folder, "'.*market1501/images.tar.gz' is still packed"),
        (packed_split, "no image .*query', found: query.zip; unpack query.zip there"),
        (by_identity, "found in '.*market1501': 0000, 0001, 0002; for another layout write a CSV.*docs/data.md"),
        (splits_by_identity, "not in folders by identity; for another layout write a CSV"),
        (a_file, "is a file; set DATASETS.ROOT_DIR"),
        (itself, "is the data set itself: set DATASETS.ROOT_DIR to its parent"),
        (one_split_of_it, "is the data set itself: set DATASETS.ROOT_DIR to its parent .* and name the folder"),
        (shortened, "'.*Market' is it by another name: rename it to 'market1501'"),
        (of_another_set, "found in '.*': DukeMTMC-reID$"),
        (without_gallery, "market1501' has no bounding_box_test, found there: bounding_box_train, query$"),
        (looping, "expected folder '.*market1501'"),
        (left_by_macos, "found in '.*': __MACOSX$"),
        (unrelated, "found in '.*': notes.txt$"),
    ],
)
def test_a_data_set_that_lies_otherwise_is_told_with_the_way_out(tmp_path, lay, words):
    root = tmp_path / "root"
    root.mkdir()
    lay(root)
    with pytest.raises(DataError, match=words):
        load_market1501(root)


def test_listed_images_that_are_not_there_at_all_accuse_list_or_folder(tmp_path):
    root = write_vehicleid(tmp_path / "VehicleID")
    write_text(root / "train_test_split" / "train_list.txt", "9 0000001", "4 0000002")
    with pytest.raises(DataError, match="2 of 2 images do not exist: '.*9.jpg'.*the image stands first"):
        load_vehicleid(tmp_path)


@pytest.mark.parametrize("number", [1, 30])
def test_one_wrong_line_of_a_list_shows_before_anything_is_trained(tmp_path, number):
    root = write_vehicleid(tmp_path / "VehicleID", images_per_id=(30,))
    path = root / "train_test_split" / "test_list_800.txt"
    lines = path.read_text().splitlines()
    write_text(path, *lines[: number - 1], "7777777 40", *lines[number:])
    with pytest.raises(DataError, match="test_list_800.txt': 1 of 30 images do not exist: '.*7777777.jpg'; unpack"):
        load_vehicleid(tmp_path)


def upper_case_images(root: Path) -> None:
    for path in sorted((root / "image").iterdir()):
        path.rename(path.with_suffix(".JPG"))


def upper_case_list(root: Path) -> None:
    (root / "train_test_split" / "test_list_800.txt").rename(root / "train_test_split" / "Test_list_800.txt")


@pytest.mark.parametrize(
    ("lay", "words"),
    [
        (
            upper_case_images,
            "2 of 2 images do not exist: .*; rename 0000002.JPG in .*image. to 0000002.jpg, or correct",
        ),
        (upper_case_list, "test_list_800.txt' does not exist; rename Test_list_800.txt in '.*' to test_list_800.txt$"),
    ],
)
def test_a_file_that_is_there_in_other_case_is_named(tmp_path, lay, words):
    lay(write_vehicleid(tmp_path / "VehicleID"))
    with pytest.raises(DataError, match=words):
        load_vehicleid(tmp_path)


def test_training_folders_in_other_case_are_named_where_nothing_else_is_missing(tmp_path):
    market(tmp_path / "market1501")
    (tmp_path / "market1501" / "bounding_box_train").rename(tmp_path / "market1501" / "Bounding_box_train")
    assert "rename Bounding_box_train in" in load_market1501(tmp_path).no_train
    root = write_msmt17(tmp_path / "MSMT17", "train", "test")
    (root / "list_val.txt").rename(root / "LIST_val.txt")
    assert "has no list_val.txt; rename LIST_val.txt in" in load_msmt17(tmp_path).no_train


def test_listed_names_keep_an_ending_in_other_case(tmp_path):
    root = write_vehicleid(tmp_path / "VehicleID")
    plain = load_vehicleid(tmp_path)
    upper_case_images(root)
    for name in ("train_list.txt", "test_list_800.txt"):
        path = root / "train_test_split" / name
        path.write_text(path.read_text().replace(" ", ".JPG "))
    paths = [sample.path for sample in load_vehicleid(tmp_path).train]
    assert paths == [sample.path.replace(".jpg", ".JPG") for sample in plain.train]


def test_names_of_vehicleid_may_end_in_jpg(tmp_path):
    root = write_vehicleid(tmp_path / "VehicleID")
    plain = load_vehicleid(tmp_path)
    for name in ("train_list.txt", "test_list_800.txt"):
        path = root / "train_test_split" / name
        path.write_text(path.read_text().replace(" ", ".jpg "))
    assert (load_vehicleid(tmp_path).train, load_vehicleid(tmp_path).query) == (plain.train, plain.query)


def without_train(tmp_path: Path, name: str) -> ReIDDataset:
    """Return a data set of each kind without training images."""
    if name == "market":
        market(tmp_path / "market1501", ("query", "bounding_box_test"))
        return load_market1501(tmp_path)
    if name == "market, empty folder":
        market(tmp_path / "market1501", ("query", "bounding_box_test"))
        (tmp_path / "market1501" / "bounding_box_train").mkdir()
        return load_market1501(tmp_path)
    if name == "market, junk":
        touch(market(tmp_path / "market1501", ("query", "bounding_box_test")) / "bounding_box_train" / "-1_c1_1.jpg")
        return load_market1501(tmp_path)
    if name == "msmt17":
        (write_msmt17(tmp_path / "MSMT17", "train", "test") / "list_val.txt").unlink()
        return load_msmt17(tmp_path)
    if name == "VehicleID":
        (write_vehicleid(tmp_path / "VehicleID") / "train_test_split" / "train_list.txt").unlink()
        return load_vehicleid(tmp_path)
    if name == "veri":
        root = write_veri(tmp_path / "VeRi")
        (root / "image_train").rename(root / "elsewhere")
        (root / "keypoint_train.txt").unlink()
        return load_veri(tmp_path)
    touch(tmp_path / "a.jpg", tmp_path / "b.jpg")
    return load_table(write_text(tmp_path / "t.csv", "path,pid,split", "a.jpg,1,query", "b.jpg,1,gallery"), tmp_path)


KINDS = {
    "market": "bounding_box_train' does not exist",
    "market, empty folder": "no image .*bounding_box_train'",
    "market, junk": "bounding_box_train' holds junk images alone",
    "msmt17": "has no list_val.txt",
    "VehicleID": "train_list.txt' does not exist",
    "veri": "image_train' does not exist",
    "table": "no row of '.*t.csv' has split train",
}


@pytest.mark.parametrize("kind", KINDS)
def test_query_and_gallery_load_without_training_images_and_say_why_there_are_none(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    data = without_train(tmp_path, kind)
    assert data.train == [] and data.query and data.gallery
    assert re.search(KINDS[kind], data.no_train)
    assert not [line for line in published_findings(data) if " train:" in line]


@pytest.fixture
def tests_alone(tiny_root: Path, tmp_path: Path) -> list[str]:
    """The command line of the tiny experiment on its archive without training images."""
    (tmp_path / "VeRi").mkdir()
    for name in ("image_query", "image_test", "keypoint_test.txt"):
        (tmp_path / "VeRi" / name).symlink_to(tiny_root / "VeRi" / name)
    config = write_text(tmp_path / "alone.yml", TINY_YAML.format(root=tmp_path, output=tmp_path / "run"))
    return [str(config), "DATASETS.VAL_IDS", "0.3"]


def test_training_without_training_images_is_one_clear_error(tests_alone):
    config, *opts = tests_alone
    with pytest.raises(DataError, match="veri: there is nothing to train on: .*image_train' does not exist"):
        make_dataloader(load_cfg(config, [*opts, "SOLVER.EVAL_PERIOD", "1"]), 2)


def test_the_doctor_finds_that_there_is_nothing_to_train_on_and_examines_the_rest(tests_alone, capsys):
    assert run(check, "--config_file", *tests_alone, "SOLVER.EVAL_PERIOD", "1") == 1
    out = capsys.readouterr().out
    assert "finding: veri: nothing to train on: image folder" in out and "veri query: expected 1,678" in out


def told(*names: str) -> Callable[[], Told]:
    return lambda: Told(Counts(8, 3, 2), names)


@pytest.mark.parametrize("names", [("msmt17", "veri"), ("market1501",), ("veri", "msmt17")])
def test_cameras_of_a_model_of_other_training_sets_are_unknown(tests_alone, caplog, names):
    config, *opts = tests_alone
    data = make_dataloader(load_cfg(config, [*opts, "SOLVER.EVAL_PERIOD", "1"]), counts=told(*names))
    assert {int(camid) for batch in data.val_loader for camid in batch["camids"]} == {-1}
    assert "have a camera unknown to training" in caplog.text


def test_a_test_takes_its_counts_from_the_checkpoint_and_its_labels_as_ever(tests_alone, tiny_config):
    config, *opts = tests_alone
    whole = make_dataloader(load_cfg(tiny_config))
    alone = make_dataloader(load_cfg(config, [*opts, "SOLVER.EVAL_PERIOD", "1"]), counts=told("veri"))
    assert (alone.num_classes, alone.camera_num, alone.view_num) == (8, 3, 2)
    assert (alone.train_loader, alone.held_out, alone.fingerprint) == (None, None, "")
    assert alone.test.fingerprint == whole.test.fingerprint
    for one, other in zip(alone.val_loader, whole.val_loader, strict=True):
        assert one["camids"].equal(other["camids"]) and one["viewids"].equal(other["viewids"])


def test_the_same_bytes_under_two_identities_are_told_once(tmp_path):
    for split, name in NAMES.items():
        touch(tmp_path / "market1501" / split / name)
        (tmp_path / "market1501" / split / name).write_bytes(name.encode())
    gallery = tmp_path / "market1501" / "bounding_box_test"
    for name in ("0007_c1_1.jpg", "0007_c1_2.jpg", "0003_c3_1.jpg"):
        (gallery / name).write_bytes(b"the same")
    data = load_market1501(tmp_path)
    images = [(sample.path, sample.pid) for sample in data.query + data.gallery]
    (line,) = doubted_images(read_files([path for path, _ in images]), [("market1501", images)])
    assert "0003_c3_1.jpg' (identity 3) and" in line and "(identity 7) are the same image" in line


def test_the_script_of_the_documentation_writes_a_table_of_folders_by_identity(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(
        *(Path("photos") / split / pid / "1.jpg" for split, pid in (("train", "x"), ("query", "y"), ("gallery", "y")))
    )
    touch(Path("photos") / "train" / "x" / "._1.jpg")
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    exec(page.partition("```python\n")[2].partition("```")[0], {})
    data = load_table("table.csv", ".")
    assert [sample.pid for sample in data.train + data.query + data.gallery] == [0, 1, 1]


@pytest.mark.parametrize("refused", [check_paths, find_images])
def test_a_pipe_named_as_an_image_is_refused_before_it_blocks(tmp_path, refused: Callable):
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(ConfigError, match="--query '.*x.jpg' is a pipe; name image files"):
        refused([str(tmp_path / "x.jpg")], "--query")
