"""Synthetic VeRi: the same files each time, VeRi's layout, nothing half-drawn, not solved by raw pixels."""

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.archives.veri import load_veri_folder
from datasets.bases import Sample, valid_queries
from datasets.synthetic import FOLDER, once
from datasets.synthetic import load as synthetic
from datasets.synthetic.contact_sheet import contact_sheet
from datasets.synthetic.load import draw_synthetic_veri, load_synthetic
from datasets.synthetic.once import VERSION_FILE
from tests.datasets.synthetic.drawn import NUM_TEST_IDS, NUM_TRAIN_IDS, keypoints, labels, lines
from tests.reference.retrieval import evaluate, squared_euclidean
from tools.synthetic import main
from utils.errors import ConfigError, DataError

ROOT = Path(__file__).parents[3]
ENTRIES = {
    *("image_train", "image_query", "image_test", "name_train.txt", "name_query.txt", "name_test.txt"),
    *("train_label.xml", "test_label.xml", "list_color.txt", "list_type.txt", "keypoint_train.txt"),
    *("keypoint_test.txt", "gt_image.txt", "jk_image.txt"),
}
SPLITS = ("train", "query", "test")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let load_synthetic draw two identities for training and three for testing."""
    monkeypatch.setattr(synthetic, "draw_synthetic_veri", partial(draw_synthetic_veri, num_train_ids=2, num_test_ids=3))


def all_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_draws_the_same_files_and_another_seed_does_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        draw_synthetic_veri(tmp_path / name, seed, 2, 3)
    assert all_files(tmp_path / "a") == all_files(tmp_path / "b")
    assert all_files(tmp_path / "a") != all_files(tmp_path / "c")


def test_the_folder_holds_the_entries_of_veri_and_the_lists_name_the_images(drawn):
    assert set(os.listdir(drawn)) == ENTRIES
    for split in SPLITS:
        names = lines(drawn / f"name_{split}.txt")
        assert names == sorted(os.listdir(drawn / f"image_{split}"))
        assert all(len(name) == len("0002_c002_00030600_0.jpg") for name in names)
        assert all(1 <= labels(name)[0] <= 776 for name in names)
    assert len({labels(name)[0] for name in lines(drawn / "name_train.txt")}) == NUM_TRAIN_IDS
    assert len({labels(name)[0] for name in lines(drawn / "name_test.txt")}) == NUM_TEST_IDS


def test_query_images_also_lie_in_image_test_and_no_identity_is_in_both_splits(drawn):
    names = {split: set(os.listdir(drawn / f"image_{split}")) for split in SPLITS}
    assert names["query"] < names["test"]
    for name in names["query"]:
        assert (drawn / "image_query" / name).read_bytes() == (drawn / "image_test" / name).read_bytes()
    pids = {split: {labels(name)[0] for name in found} for split, found in names.items()}
    assert pids["query"] == pids["test"] and pids["train"].isdisjoint(pids["test"])
    assert max(Counter(labels(name) for name in names["query"]).values()) == 1  # one query per identity and camera


def test_images_are_rgb_with_sides_from_64_to_96(drawn):
    sizes = set()
    for path in drawn.glob("image_*/*.jpg"):
        with Image.open(path) as image:
            assert image.mode == "RGB"
            sizes.add(image.size)
    assert len(sizes) > 10 and min(map(min, sizes)) >= 64 and max(map(max, sizes)) <= 96


@pytest.mark.parametrize(
    ("file_name", "split", "root"),
    [("train_label.xml", "train", "TrainingImages"), ("test_label.xml", "test", "TestImages")],
)
def test_xml_labels_agree_with_the_names_and_are_constant_per_identity(drawn, file_name, split, root):
    text = (drawn / file_name).read_text(encoding="gb2312")
    declaration, _, body = text.partition("\n")
    assert declaration == '<?xml version="1.0" encoding="gb2312"?>'
    tree = ElementTree.fromstring(body)
    items = tree.findall("Items/Item")
    assert (tree.tag, tree.get("Version")) == (root, "1.0")
    assert tree.find("Items").get("number") == str(len(items))
    assert [item.get("imageName") for item in items] == lines(drawn / f"name_{split}.txt")
    by_pid = {}
    for item in items:
        assert set(item.attrib) == {"imageName", "vehicleID", "cameraID", "colorID", "typeID"}
        assert "_".join((item.get("vehicleID"), item.get("cameraID"))) == item.get("imageName")[:9]
        by_pid.setdefault(item.get("vehicleID"), set()).add((item.get("colorID"), item.get("typeID")))
    numbers = {name: {line.split()[0] for line in lines(drawn / f"list_{name}.txt")} for name in ("color", "type")}
    assert all(len(looks) == 1 for looks in by_pid.values())
    assert all(color in numbers["color"] and kind in numbers["type"] for ((color, kind),) in by_pid.values())


def test_right_and_junk_answers_are_those_of_brute_force(drawn):
    test = lines(drawn / "name_test.txt")
    right, junk = lines(drawn / "gt_image.txt"), lines(drawn / "jk_image.txt")
    query = lines(drawn / "name_query.txt")
    assert len(right) == len(junk) == len(query)
    for number, name in enumerate(query):
        pid, camera = labels(name)
        same_pid = [position for position, other in enumerate(test, start=1) if labels(other)[0] == pid]
        expected_junk = [position for position in same_pid if labels(test[position - 1])[1] == camera]
        assert [int(position) for position in junk[number].split()] == expected_junk
        assert [int(position) for position in right[number].split()] == sorted(set(same_pid) - set(expected_junk))
        assert test.index(name) + 1 in expected_junk and right[number]


def test_every_image_has_a_key_point_line_inside_the_image(drawn):
    rows = keypoints(drawn)
    assert set(rows) == {f"{path.parent.name}/{path.name}" for path in drawn.glob("image_*/*.jpg")}
    for name, (points, viewpoint) in rows.items():
        with Image.open(drawn / name) as image:
            size = image.size
        hidden = (points == -1).all(axis=1)
        assert viewpoint in range(8)
        assert (((points >= 0) & (points < size)).all(axis=1) | hidden).all()


def test_the_veri_loader_reads_the_drawn_set_without_a_remark(drawn):
    dataset = load_veri_folder(drawn, name="synthetic")
    assert (dataset.name, dataset.notes, dataset.published) == ("synthetic", (), {})
    views = {name.rsplit("/", 1)[-1]: viewpoint for name, (_, viewpoint) in keypoints(drawn).items()}
    for split, samples in (("train", dataset.train), ("query", dataset.query), ("test", dataset.gallery)):
        expected = [(*labels(name), views[name]) for name in lines(drawn / f"name_{split}.txt")]
        assert [(pid, camid + 1, viewid) for _, pid, camid, viewid in samples] == expected
    assert valid_queries(dataset.query, dataset.gallery).all()


def test_raw_pixels_are_far_from_solving_the_set(drawn):
    dataset = load_veri_folder(drawn)

    def features(samples: Sequence[Sample]) -> np.ndarray:
        images = (Image.open(sample.path).resize((32, 32), Image.Resampling.BILINEAR) for sample in samples)
        flat = np.stack([np.asarray(image, dtype=float).ravel() for image in images])
        return (flat - flat.mean(axis=1, keepdims=True)) / flat.std(axis=1, keepdims=True)

    distmat = squared_euclidean(features(dataset.query), features(dataset.gallery))
    query, gallery = (
        [np.array(column) for column in list(zip(*samples, strict=True))[1:3]]
        for samples in (dataset.query, dataset.gallery)
    )
    result = evaluate(distmat, query[0], gallery[0], query[1], gallery[1], 10)
    assert 0.05 < result["mAP"] < 0.35


def test_the_set_is_drawn_once(tmp_path, tiny, monkeypatch):
    root = tmp_path / "made" / "on the way"
    first = load_synthetic(root)
    assert (first.name, os.listdir(root)) == ("synthetic", [FOLDER])
    monkeypatch.setattr(synthetic, "draw_synthetic_veri", lambda folder: pytest.fail("drawn twice"))
    assert load_synthetic(str(root)) == first


@pytest.mark.parametrize("content", [None, b"", b"0\n", b"\xff"])
def test_an_unfinished_or_outdated_folder_is_drawn_again(tmp_path, tiny, content):
    folder = tmp_path / FOLDER
    load_synthetic(tmp_path)
    complete = all_files(folder)
    for path in (*folder.glob("image_train/*.jpg"), folder / "name_query.txt", folder / VERSION_FILE):
        path.unlink()
    if content is not None:
        (folder / VERSION_FILE).write_bytes(content)
    load_synthetic(tmp_path)
    assert all_files(folder) == complete
    assert os.listdir(tmp_path) == [FOLDER]


def test_an_unfinished_folder_that_another_process_puts_aside_first_is_no_error(tmp_path, tiny, monkeypatch):
    folder = tmp_path / FOLDER
    folder.mkdir()
    answers = [False, False]

    def is_complete(asked: Path, version: str) -> bool:
        if len(answers) == 1:
            asked.rmdir()
        return answers.pop()

    monkeypatch.setattr(once, "is_complete", is_complete)
    assert load_synthetic(tmp_path).train


def test_an_interrupted_drawing_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupted(folder: Path) -> None:
        (folder / "image_train").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "draw_synthetic_veri", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_synthetic(tmp_path)
    assert os.listdir(tmp_path) == []


def test_only_old_leftovers_of_killed_processes_are_removed(tmp_path, tiny):
    old, young = tmp_path / f".{FOLDER}_old", tmp_path / f".{FOLDER}_young"
    for scratch in (old, young):
        (scratch / "image_train").mkdir(parents=True)
    a_day_ago = time.time() - 86_400
    os.utime(old, (a_day_ago, a_day_ago))
    load_synthetic(tmp_path)
    assert set(os.listdir(tmp_path)) == {FOLDER, young.name}


RACER = """
import sys, time
from functools import partial
from pathlib import Path
from datasets.synthetic import load as synthetic

def draw_when_both_are_here(folder):
    Path(sys.argv[1], f"here_{sys.argv[2]}").touch()
    deadline = time.monotonic() + 60
    while len(list(Path(sys.argv[1]).glob("here_*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    draw(folder)

draw = partial(synthetic.draw_synthetic_veri, num_train_ids=2, num_test_ids=3)
synthetic.draw_synthetic_veri = draw_when_both_are_here
print(len(synthetic.load_synthetic(Path(sys.argv[1], "root")).train))
"""


@pytest.mark.parametrize("stale", [False, True])
def test_two_processes_that_draw_at_once_both_end_well(tmp_path, stale):
    if stale:
        (tmp_path / "root" / FOLDER / "image_train").mkdir(parents=True)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path), number], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for number in "12"
    ]
    outputs = [racer.communicate(timeout=120)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert outputs[0] == outputs[1] != ""
    assert os.listdir(tmp_path / "root") == [FOLDER]


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be drawn into .*Not a directory.*DATASETS.ROOT_DIR") as error:
        load_synthetic(tmp_path / "file" / "data")
    assert "\n" not in str(error.value)


def test_the_sheet_in_the_pages_shows_the_present_drawing():
    path = ROOT / "configs" / "Synthetic" / "contact_sheet.png"
    with Image.open(path) as image:
        kept = np.asarray(image.convert("RGB"), dtype=float)
    fresh = np.asarray(contact_sheet().convert("RGB"), dtype=float)
    assert kept.shape == fresh.shape and kept.shape[1] == 900
    assert np.abs(kept - fresh).mean() < 4
    assert path.stat().st_size < 400_000


def test_the_command_draws_the_set_and_the_sheet(tmp_path, tiny):
    main(["--sheet", str(tmp_path / "sheet.png"), "--root_dir", str(tmp_path)])
    assert set(os.listdir(tmp_path)) == {FOLDER, "sheet.png"}


def test_a_sheet_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--sheet '.*file' is a file, not a folder"):
        main(["--sheet", str(tmp_path / "file" / "sheet.png")])
    with pytest.raises(DataError, match="--sheet .* cannot be written"):
        main(["--sheet", str(tmp_path / "sheet.unknown")])
    assert os.listdir(tmp_path) == ["file"]


def test_the_command_without_an_argument_says_what_to_give(capsys):
    with pytest.raises(SystemExit) as error:
        main([])
    assert error.value.code == 2
    assert "give --sheet, --root_dir or both" in capsys.readouterr().err
