"""Synthetic vehicles with captions: the same files each time, RSTPReid's layout, captions that are true."""

import json
import os
import re
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import synthetic_text
from datasets.synthetic import TEXT_FOLDER
from datasets.synthetic.caption_sheet import caption_sheet
from datasets.synthetic.once import VERSION_FILE
from datasets.synthetic.plan import look_of, plan_identities, plan_shots, take_shots
from datasets.synthetic.sentences import words_of
from datasets.synthetic_text import draw_synthetic_text, load_synthetic_text
from tests.datasets.synthetic.truths import claims_of, is_true
from tools.synthetic import main
from utils.errors import DataError

ROOT = Path(__file__).parents[3]
SIZES = {"num_train_ids": 20, "num_val_ids": 4, "num_test_ids": 8}
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "set"
    draw_synthetic_text(path, **SIZES)
    return path


@pytest.fixture(scope="module")
def entries(folder: Path) -> list[dict]:
    return json.loads((folder / "data_captions.json").read_text(encoding="utf-8"))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let load_synthetic_text draw two identities for training and one each for val and test."""
    small = partial(draw_synthetic_text, num_train_ids=2, num_val_ids=1, num_test_ids=1)
    monkeypatch.setattr(synthetic_text, "draw_synthetic_text", small)


def all_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def identities() -> list:
    """The identities in the order of their numbers: train, val, test, each by the number that seeds their pictures."""
    plan = plan_identities(0, SIZES["num_train_ids"], SIZES["num_test_ids"], SIZES["num_val_ids"])
    return [identity for split in SPLITS for identity in plan if identity.split == split]


def test_the_same_arguments_draw_the_same_files_and_another_seed_does_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        draw_synthetic_text(tmp_path / name, seed, 2, 1, 1)
    assert all_files(tmp_path / "a") == all_files(tmp_path / "b")
    assert all_files(tmp_path / "a") != all_files(tmp_path / "c")


def test_the_folder_is_laid_out_as_rstpreid(folder, entries):
    assert set(os.listdir(folder)) == {"imgs", "data_captions.json"}
    assert sorted(entry["img_path"] for entry in entries) == sorted(os.listdir(folder / "imgs"))
    for entry in entries:
        assert [*entry] == ["id", "img_path", "captions", "split"]
        assert re.fullmatch(rf"{entry['id']:04d}_c([1-9]|10)_\d{{4}}\.jpg", entry["img_path"])
        assert len(set(entry["captions"])) == len(entry["captions"]) == 2
    counts = {split: len({entry["id"] for entry in entries if entry["split"] == split}) for split in SPLITS}
    assert counts == {"train": 20, "val": 4, "test": 8}
    assert sorted({entry["id"] for entry in entries}) == list(range(32))


def test_families_never_span_two_splits_and_hard_negatives_are_in_each():
    plan = plan_identities(0, 160, 70, 20)
    families = {}
    for identity in plan:
        families.setdefault(identity.family, []).append(identity.split)
    assert all(len(set(splits)) == 1 for splits in families.values())
    assert {splits[0] for splits in families.values() if len(splits) > 1} == set(SPLITS)
    assert Counter(identity.split for identity in plan) == {"train": 160, "val": 20, "test": 70}


def test_the_pictures_are_those_of_the_vehicles_without_captions(folder, entries):
    number, identity = 30, identities()[30]
    paths = [folder / "imgs" / entry["img_path"] for entry in entries if entry["id"] == number]
    shots = plan_shots(0, identity)
    assert len(paths) == len(shots)
    for path, (_, photo) in zip(paths, take_shots(look_of(0, identity), shots, 0), strict=True):
        with Image.open(path) as image:
            assert image.size == photo.pixels.shape[1::-1]
            assert np.abs(np.asarray(image, dtype=float) - photo.pixels).mean() < 8  # of 255: JPEG of a noisy picture


def test_every_caption_is_true_of_the_vehicle(entries):
    looks = [look_of(0, identity) for identity in identities()]
    said = Counter()
    for entry in entries:
        for caption in entry["captions"]:
            claims = claims_of(caption)
            assert claims, caption
            for claim in claims:
                assert is_true(claim, looks[entry["id"]]), f"{claim} in {caption!r}, {entry['img_path']}"
            said.update(claim.about for claim in claims)
    assert set(said) >= {"vehicle", "motif", "roof", "stripes", "second", "rim", "plate", "bumper"}
    assert said["motif"] > 0.5 * said["vehicle"]


def test_captions_have_few_words_no_digits_and_tests_use_words_of_training(entries):
    words = {split: set() for split in SPLITS}
    for entry in entries:
        for caption in entry["captions"]:
            assert re.fullmatch(r"[A-Z][A-Za-z ,]*(\. [A-Z][A-Za-z ,]*)?\.", caption)
            assert len(words_of(caption)) <= 40
            words[entry["split"]].update(words_of(caption))
    assert 80 < len(words["train"]) <= 150
    assert words["val"] | words["test"] <= words["train"]


@pytest.mark.parametrize("seed", range(2))
def test_tests_use_words_of_training_where_training_has_few(tmp_path, seed):
    draw_synthetic_text(tmp_path / "set", seed, 3, 1, 2)
    entries = json.loads((tmp_path / "set" / "data_captions.json").read_text(encoding="utf-8"))
    words = {True: set(), False: set()}
    for entry in entries:
        words[entry["split"] == "train"].update(word for text in entry["captions"] for word in words_of(text))
    assert words[False] <= words[True] | {"vehicle"}


def test_identities_differ_in_what_is_said_of_them(entries):
    """Most captions fit fewer than half of the other identities of their own colour and type, or there are none."""
    looks = [look_of(0, identity) for identity in identities()]
    twins = fooled = 0
    for entry in entries:
        look = looks[entry["id"]]
        for caption in entry["captions"]:
            for other, another in enumerate(looks):
                if other != entry["id"] and (another.type_name, another.paint) == (look.type_name, look.paint):
                    twins += 1
                    fooled += all(is_true(claim, another) for claim in claims_of(caption))
    assert twins > 100 and fooled < 0.3 * twins


def test_more_identities_than_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="700 \\+ 7 \\+ 70 identities asked for, at most 776"):
        draw_synthetic_text(tmp_path / "set", 0, 700, 7, 70)


def test_the_set_is_drawn_once_and_read_as_a_captioned_set(tmp_path, tiny, monkeypatch):
    dataset = load_synthetic_text(tmp_path)
    assert os.listdir(tmp_path) == [TEXT_FOLDER]
    assert set(os.listdir(tmp_path / TEXT_FOLDER)) == {"imgs", "data_captions.json", VERSION_FILE}
    assert (dataset.name, dataset.notes) == ("synthetic_text", ())
    assert {pair.pid for pair in dataset.train} == {0, 1}
    for test, pid in ((dataset.val, 2), (dataset.test, 3)):
        assert set(test.pids) == set(test.caption_pids) == {pid}
        assert len(test.captions) == 2 * len(test.paths) and all(map(os.path.isfile, test.paths))
    monkeypatch.setattr(synthetic_text, "draw_synthetic_text", lambda folder: pytest.fail("drawn twice"))
    assert load_synthetic_text(str(tmp_path)).train == dataset.train


@pytest.mark.parametrize("content", [None, b"0\n"])
def test_an_unfinished_or_outdated_folder_is_drawn_again(tmp_path, tiny, content):
    load_synthetic_text(tmp_path)
    complete = all_files(tmp_path / TEXT_FOLDER)
    (tmp_path / TEXT_FOLDER / "data_captions.json").unlink()
    (tmp_path / TEXT_FOLDER / VERSION_FILE).unlink()
    if content is not None:
        (tmp_path / TEXT_FOLDER / VERSION_FILE).write_bytes(content)
    load_synthetic_text(tmp_path)
    assert all_files(tmp_path / TEXT_FOLDER) == complete


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="captions cannot be drawn into .*Not a directory.*DATASETS.ROOT_DIR") as error:
        load_synthetic_text(tmp_path / "file" / "data")
    assert "\n" not in str(error.value)


def test_the_command_draws_the_set_and_the_sheet(tmp_path, tiny):
    main(["--captions", "--sheet", str(tmp_path / "sheet.png"), "--root_dir", str(tmp_path)])
    assert set(os.listdir(tmp_path)) == {TEXT_FOLDER, "sheet.png"}
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == caption_sheet().size


def test_the_sheet_in_the_pages_shows_the_present_drawing():
    path = ROOT / "configs" / "Synthetic" / "captions.png"
    with Image.open(path) as image:
        kept = np.asarray(image.convert("RGB"), dtype=float)
    fresh = np.asarray(caption_sheet().convert("RGB"), dtype=float)
    assert kept.shape == fresh.shape and kept.shape[1] == 900
    assert np.abs(kept - fresh).mean() < 4
    assert path.stat().st_size < 400_000
