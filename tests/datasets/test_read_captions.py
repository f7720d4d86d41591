"""From captioned archives to pairs and test sets: numbers, joins, what the epoch is picked by, what is tested."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from datasets import ReIDData, make_dataloader
from datasets.captions import Pair
from datasets.read import Counts, Told
from datasets.read_captions import hold_out_captions, images_of, join_pairs, pairs_fingerprint
from tests.datasets.captioned import IDS, caption_cfg, entries_of, write_captioned
from tests.datasets.trees import write_text
from utils.errors import DataError

VAL = ("DATASETS.EVAL_SPLIT", "val")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_captioned(tmp_path, entries_of())


def in_split(split: str) -> list[dict]:
    return [one for one in entries_of() if one["split"] == split]


def trained_pairs(data: ReIDData) -> list[tuple]:
    """Return (file name, pid, image_id, caption) of the training pairs."""
    return [(os.path.basename(path), *rest) for path, *rest in data.train_loader.dataset.pairs]


def test_counts_are_those_of_the_identities_alone(root):
    data = make_dataloader(caption_cfg(root))
    assert (data.num_classes, data.camera_num, data.view_num) == (4, 1, 1)
    captions = sum(len(one["captions"]) for one in in_split("test"))
    assert data[2] is data.test.loaders[0] and data.num_query == captions and data.held_out is None


def test_a_test_set_searches_all_images_with_every_caption(root):
    test = make_dataloader(caption_cfg(root)).test
    (trial,) = test.trials
    names = [os.path.basename(test.labels.names[row]) for row in trial.gallery]
    asked = [(test.labels.names[row], test.labels.pids[row]) for row in trial.query]
    assert names == [one["img_path"] for one in in_split("test")]
    assert test.labels.pids[trial.gallery].tolist() == [one["id"] for one in in_split("test")]
    assert asked == [(caption, one["id"]) for one in in_split("test") for caption in one["captions"]]
    words = test.labels.more["words"]
    assert (
        words[trial.query].tolist() == [len(caption.split()) for caption, _ in asked] and not words[trial.gallery].any()
    )
    rows = [key for loader in test.loaders for batch in loader for key in batch if key in ("images", "caption_ids")]
    assert rows == ["images"] * 2 + ["caption_ids"] * 2  # 6 images, 10 captions in batches of 5
    assert (test.name, test.title, test.junk, test.groups) == ("RSTPReid", "RSTPReid", None, {})


def test_the_other_direction_is_a_set_that_weighs_nothing(root):
    test = make_dataloader(caption_cfg(root, "TEST.I2T", True)).test
    forth, back = test.trials
    assert (forth.set, back.set) == ("t2i", "i2t") and test.set_weights() == {"t2i": 1.0, "i2t": 0.0}
    assert forth.query is back.gallery and forth.gallery is back.query


def test_pairs_of_several_sets_share_neither_identities_nor_images():
    first = [Pair("a", 3, 0, "x"), Pair("a", 3, 0, "y"), Pair("b", 1, 4, "z")]
    second = [Pair("c", 0, 2, "x"), Pair("a", 3, 1, "v")]
    joined = join_pairs([first, second])
    assert [pair[1:3] for pair in joined] == [(1, 0), (1, 0), (0, 1), (2, 3), (3, 2)]
    assert [sample.path for sample in images_of(joined)] == ["a", "b", "a", "c"]


def test_two_archives_train_together_and_the_first_is_tested(root):
    write_captioned(root, entries_of({"train": (9, 1), "test": (8,)}), "ICFG-PEDES")
    data = make_dataloader(caption_cfg(root, "DATASETS.NAMES", ("RSTPReid", "ICFG-PEDES")))
    pairs = data.train_loader.dataset.pairs
    own = [{pair.pid for pair in pairs if name in pair.path} for name in ("RSTPReid", "ICFG-PEDES")]
    assert own == [{0, 1, 2, 3}, {4, 5}] and data.num_classes == 6 and list(data.tests) == ["RSTPReid"]
    assert len({pair.image_id for pair in pairs}) == len(data.train_loader.images) == 8 + 3


def test_another_set_may_be_tested_and_training_looks_at_the_first_alone(root):
    write_captioned(root, entries_of({"test": (8, 1)}), "ICFG-PEDES")
    cfg = caption_cfg(root, "DATASETS.TESTS", ("ICFG-PEDES", "RSTPReid"))
    assert list(make_dataloader(cfg).tests) == ["ICFG-PEDES", "RSTPReid"]
    data = make_dataloader(cfg, num_instance=1)
    assert list(data.tests) == ["ICFG-PEDES"] and {*data.test.labels.pids} == {1, 8}


def test_the_epoch_is_picked_by_the_val_split_where_that_is_asked_for(root, caplog):
    caplog.set_level("INFO")
    plain, data = make_dataloader(caption_cfg(root)), make_dataloader(caption_cfg(root, *VAL), num_instance=1)
    assert (data.held_out.name, data.held_out.title) == ("held_out", "val split of RSTPReid")
    assert {*data.held_out.labels.pids} == {*IDS["val"]} and trained_pairs(data) == trained_pairs(plain)
    line = "held out to pick the epoch by: val split of RSTPReid, 2 identities, 3 images and 5 captions"
    assert line in caplog.text


def test_the_test_split_serves_where_there_is_no_val_split_and_that_is_said(tmp_path, caplog):
    root = write_captioned(tmp_path, entries_of({"train": (1, 2), "test": (7,)}), "ICFG-PEDES")
    data = make_dataloader(caption_cfg(root, "DATASETS.NAMES", ("ICFG-PEDES",), *VAL), num_instance=1)
    assert data.held_out is None
    assert "DATASETS.EVAL_SPLIT val: ICFG-PEDES has no val split, so training looks at the test split" in caplog.text


def test_held_out_identities_take_the_place_of_the_val_split_with_all_their_captions(root):
    data = make_dataloader(caption_cfg(root, "DATASETS.VAL_IDS", 0.5, *VAL), num_instance=1)
    assert data.held_out.title == "held-out identities" and data.num_classes == 2
    left = {name for name, *_ in trained_pairs(data)}
    (trial,) = data.held_out.trials
    asked = {os.path.basename(data.held_out.labels.names[row]) for row in trial.gallery}
    every = {one["img_path"]: one["captions"] for one in in_split("train")}
    assert not left & asked and left | asked == every.keys()
    captions = [data.held_out.labels.names[row] for row in trial.query]
    assert sorted(captions) == sorted(caption for name in asked for caption in every[name])
    numbers = [(pid, image_id) for _, pid, image_id, _ in trained_pairs(data)]
    assert [sorted({*values}) for values in zip(*numbers, strict=True)] == [[0, 1], [*range(len(left))]]


def test_a_caption_that_is_held_out_knows_its_own_image():
    pairs = [Pair(f"{image}.jpg", image // 2, image, f"{image} {turn}") for image in range(12) for turn in range(2)]
    left, test = hold_out_captions(pairs, 0.5)
    assert len(left) == len(test.captions) == 12 and len({pair.pid for pair in left} | {*test.pids}) == 6
    for caption, pid, image in zip(test.captions, test.caption_pids, test.caption_images, strict=True):
        assert test.paths[image] == f"{caption.split()[0]}.jpg" and test.pids[image] == pid
    assert hold_out_captions(pairs, 0.5)[1].captions == test.captions
    with pytest.raises(DataError, match=r"DATASETS.VAL_IDS 0\.5 asks for 2 held-out identities, but 3 of the 3"):
        hold_out_captions(pairs[:12], 0.5)


def test_the_number_of_identities_at_a_test_is_that_of_the_checkpoint(root):
    told = Told(Counts(17, 1, 1), ("RSTPReid",))
    assert make_dataloader(caption_cfg(root), counts=lambda: told).num_classes == 17
    assert make_dataloader(caption_cfg(root), counts=lambda: None).num_classes == 4


def test_a_test_does_without_training_pairs_and_images_but_training_does_not(tmp_path):
    root = write_captioned(tmp_path, entries_of({"test": (7, 3)}))
    told = Told(Counts(17, 1, 1), ("RSTPReid",))
    data = make_dataloader(caption_cfg(root), counts=lambda: told)
    assert (data.train_loader, data.train_loader_normal, data.num_classes, data.fingerprint) == (None, None, 17, "")
    with pytest.raises(DataError, match="RSTPReid: there is nothing to train on: no entry of .* has split train"):
        make_dataloader(caption_cfg(root), num_instance=1)


def test_images_that_are_not_there_end_a_training_before_it_starts_and_no_test_that_does_not_read_them(root):
    (root / "RSTPReid" / "imgs" / "0030_c1.jpg").unlink()
    assert make_dataloader(caption_cfg(root)).test.labels.names
    with pytest.raises(DataError, match=r"RSTPReid: 1 of 17 images do not exist: '.*0030_c1\.jpg'"):
        make_dataloader(caption_cfg(root), num_instance=1)
    (root / "RSTPReid" / "imgs" / "0060_c2.jpg").unlink()
    with pytest.raises(DataError, match=r"RSTPReid: 1 of 6 images do not exist: '.*0060_c2\.jpg'"):
        make_dataloader(caption_cfg(root))


def test_a_set_without_a_test_split_cannot_be_tested(tmp_path):
    root = write_captioned(tmp_path, entries_of({"train": (1, 2)}))
    with pytest.raises(DataError, match="RSTPReid: no image of split test has a caption"):
        make_dataloader(caption_cfg(root))


def test_a_table_with_captions_trains_and_tests_and_says_which_captions_find_nothing(tmp_path, caplog):
    root = write_captioned(tmp_path, entries_of({"train": (1, 2), "test": (3, 4)}, images=(2,)))
    rows = ["path,pid,split,caption"]
    for one in entries_of({"train": (1, 2), "test": (3, 4)}, images=(2,)):
        roles = {"train": ["train"], "test": ["query", "gallery"][: 1 if one["id"] == 4 else 2]}[one["split"]]
        rows += [
            f"RSTPReid/imgs/{one['img_path']},{one['id']},{role},{caption}"
            for role in roles
            for caption in one["captions"]
        ]
    table = write_text(tmp_path / "own.csv", *rows)
    data = make_dataloader(
        caption_cfg(root, "DATASETS.NAMES", ("table",), "DATASETS.TABLE", str(table)), num_instance=1
    )
    (trial,) = data.test.trials
    assert data.num_classes == 2 and {*data.test.labels.pids[trial.gallery]} == {3}
    assert {*data.test.labels.pids[trial.query]} == {3, 4}
    assert "captions have no image of their identity" in caplog.text


def test_fingerprints_follow_images_identities_and_captions_not_their_place(tmp_path):
    def prints(name: str, **changes: str) -> tuple[str, str]:
        entries = [one | (changes if one["split"] != "val" else {}) for one in entries_of()]
        data = make_dataloader(caption_cfg(write_captioned(tmp_path / name, entries)))
        return data.fingerprint, data.test.fingerprint

    first = prints("a")
    assert prints("b") == first
    assert all(np.array(prints("c", captions=["a person"])) != first)
    path = tmp_path / "a" / "RSTPReid" / "data_captions.json"
    path.write_text(json.dumps(json.loads(path.read_text())[::-1]))
    data = make_dataloader(caption_cfg(tmp_path / "a"))
    assert (data.fingerprint, data.test.fingerprint) == first
    assert pairs_fingerprint([]) != pairs_fingerprint([Pair("a", 0, 0, "x")])
