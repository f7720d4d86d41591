import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.captions import RSTP_REID, CaptionDataset, load_caption_folder, load_cuhk_pedes, load_icfg_pedes
from datasets.captions import load_rstp_reid as load
from tests.datasets.trees import captioned, write_captions
from utils.errors import DataError

ENTRIES = [
    captioned("b/2.jpg", 7, ["a man", "he walks"], "train"),
    captioned("t/1.jpg", 9, ["tall woman"], "test"),
    captioned("a/1.jpg", 3, ["a woman"], "train"),
    captioned("v/1.jpg", 5, ["a boy", "boy"], "val"),
    captioned("t/2.jpg", 4, ["one", "two", "three"], "test"),
    captioned("b/3.jpg", 7, ["again"], "train"),
    captioned("t/3.jpg", 9, [], "test"),
]


def write(root: Path, entries: list[dict] = ENTRIES) -> Path:
    return write_captions(root / "RSTPReid", entries)


def error_of(load: Callable[[Path], Any], root: Path) -> str:
    with pytest.raises(DataError) as error:
        load(root)
    assert "\n" not in str(error.value)
    return str(error.value)


def listed(root: Path, content: Any) -> str:
    """Return the error of an annotation with this content."""
    folder = write(root)
    (folder / "data_captions.json").write_text(json.dumps(content))
    return error_of(load, root)


def changed(**values: Any) -> list[dict]:
    """Return two entries, the second of which has other values, or lacks the key where the value is `...`."""
    entry = {key: value for key, value in (ENTRIES[2] | values).items() if value is not ...}
    return [ENTRIES[0], entry]


def test_training_has_a_sample_for_each_caption_with_identities_by_order_and_images_by_place(tmp_path):
    images = write(tmp_path) / "imgs"
    data = load(tmp_path)
    assert data.train == [
        (f"{images}/b/2.jpg", 1, 0, "a man"),
        (f"{images}/b/2.jpg", 1, 0, "he walks"),
        (f"{images}/a/1.jpg", 0, 1, "a woman"),
        (f"{images}/b/3.jpg", 1, 2, "again"),
    ]
    assert data.train[0]._fields == ("path", "pid", "image_id", "caption")
    assert (data.name, data.no_train) == ("RSTPReid", "")


def test_all_images_of_a_split_are_searched_by_all_its_captions_with_the_archives_own_identities(tmp_path):
    images = write(tmp_path) / "imgs"
    test, val = load(tmp_path).test, load(tmp_path).val
    assert test.paths == [f"{images}/t/{number}.jpg" for number in (1, 2, 3)]
    assert test.pids.tolist() == [9, 4, 9] and test.pids.dtype == np.int64
    assert test.captions == ["tall woman", "one", "two", "three"]
    assert test.caption_pids.tolist() == [9, 4, 4, 4]
    assert test.caption_images.tolist() == [0, 1, 1, 1]
    assert (val.paths, val.captions, val.caption_pids.tolist()) == ([f"{images}/v/1.jpg"], ["a boy", "boy"], [5, 5])


def test_any_other_split_is_val_and_images_without_captions_are_told(tmp_path):
    write(tmp_path, [*ENTRIES, captioned("d.jpg", 8, ["dev"], "dev"), captioned("u.jpg", 8, [], "train")])
    data = load(tmp_path)
    assert data.val.pids.tolist() == [5, 8]
    assert data.notes == (
        "RSTPReid: 1 images of split 'dev' count as val",
        "RSTPReid: train: 1 images have no caption, so they are not trained on",
        "RSTPReid: test: 1 images have no caption, so they are only searched for",
    )
    assert max(pair.pid for pair in data.train) == 1  # no class without a caption


@pytest.mark.parametrize(
    ("load_archive", "folder", "annotation"),
    [
        (load_cuhk_pedes, "CUHK-PEDES", "reid_raw.json"),
        (load_icfg_pedes, "ICFG-PEDES", "ICFG-PEDES.json"),
        (load_icfg_pedes, "ICFG-PEDES", "ICFG_PEDES.json"),
    ],
)
def test_archives_that_call_the_path_file_path_are_read_from_their_own_files(
    tmp_path, load_archive, folder, annotation
):
    entries = [
        captioned("cam_a/000.png", 1, ["x", "y"], "train", "file_path") | {"processed_tokens": [["x"], ["y"]]},
        captioned("cam_b/000.png", 12, ["z"], "test", "file_path"),
    ]
    write_captions(tmp_path / folder, entries, annotation, "file_path")
    data = load_archive(tmp_path)
    assert [pair[1:] for pair in data.train] == [(0, 0, "x"), (0, 0, "y")]
    assert (data.name, data.val, data.test.pids.tolist()) == (folder, None, [12])


def test_a_folder_of_any_name_with_the_same_layout_loads(tmp_path):
    write_captions(tmp_path / "mine", ENTRIES)
    data = load_caption_folder(tmp_path / "mine", RSTP_REID._replace(name="mine"))
    assert (data.name, len(data.train)) == ("mine", 4)


def test_without_training_images_the_set_serves_tests_alone_and_says_why(tmp_path):
    write(tmp_path, [entry for entry in ENTRIES if entry["split"] == "test"])
    data = load(tmp_path)
    assert data.train == [] and data.val is None
    assert data.no_train == f"no entry of '{tmp_path}/RSTPReid/data_captions.json' has split train and a caption"


@pytest.mark.parametrize("absent", ["", "imgs", "data_captions.json"])
def test_what_is_missing_is_one_error_with_its_path(tmp_path, absent):
    folder = write(tmp_path)
    missing = folder / absent
    missing.rename(tmp_path / "elsewhere")
    assert error_of(load, tmp_path).startswith(f"RSTPReid: '{missing}' does not exist: expected folder '{folder}'")
    assert "set DATASETS.ROOT_DIR" in error_of(load, tmp_path / "nowhere")


def test_a_folder_in_the_place_of_a_file_and_the_other_way_round_are_named(tmp_path):
    folder = write(tmp_path)
    (folder / "data_captions.json").unlink()
    (folder / "data_captions.json").mkdir()
    assert "data_captions.json' is a folder, expected a file" in error_of(load, tmp_path)
    (folder / "imgs").rename(tmp_path / "moved")
    (folder / "imgs").write_text("")
    assert f"'{folder}/imgs' is a file, expected a folder" in error_of(load, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"id": 1,\n ]', ":2: is no JSON ("),
        (b"", ":1: is no JSON ("),
        (b'[{"id": "\xff"}]', ": not UTF-8 text (invalid start byte, byte 9)"),
        (b"[" * 100_000, ": is no annotation ("),
        (b"[" + b"9" * 5000 + b"]", ": is no annotation ("),
    ],
)
def test_a_file_that_is_no_json_is_named_with_its_line(tmp_path, content, message):
    annotation = write(tmp_path) / "data_captions.json"
    annotation.write_bytes(content)
    assert error_of(load, tmp_path).startswith(f"{annotation}{message}")


@pytest.mark.parametrize(
    ("content", "what"),
    [({}, "the empty {}"), ({"images": []}, "an object"), ([], "the empty []"), ("x", 'the text "x"'), (None, "null")],
)
def test_an_annotation_that_is_no_list_of_images_is_told_with_what_it_is(tmp_path, content, what):
    assert f": holds {what}, expected a list with an object for each image" in listed(tmp_path, content)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([ENTRIES[0], ["a.jpg", 1]], "entry 1 is a list, expected an object"),
        ([ENTRIES[0], None], "entry 1 is null, expected an object"),
        (changed(captions=...), "entry 1 has no captions, its keys are id, img_path, split"),
        (changed(id=..., split=...), "entry 1 has no id and no split, its keys are img_path, captions"),
        ([captioned("a.jpg", 1, ["x"], "train", "file_path")], "entry 0 has no img_path, its keys are id, file_path"),
        (changed(id="3"), "entry 1 ('a/1.jpg'): id is the text \"3\", expected a whole number from 0"),
        (changed(id=True), "entry 1 ('a/1.jpg'): id is true"),
        (changed(id=-1), "entry 1 ('a/1.jpg'): id is -1"),
        (changed(id=1.5), "entry 1 ('a/1.jpg'): id is 1.5"),
        (changed(img_path=7), "entry 1: img_path is 7, expected the path of an image below imgs"),
        (changed(img_path=""), 'entry 1: img_path is the text ""'),
        (changed(img_path="/a.jpg"), 'entry 1: img_path is the text "/a.jpg"'),
        (changed(img_path="a\0.jpg"), "entry 1: img_path is the text"),
        (changed(captions="a man"), "entry 1 ('a/1.jpg'): captions is the text \"a man\", expected a list of texts"),
        (changed(captions=["a", None]), "entry 1 ('a/1.jpg'): captions holds null, expected texts alone"),
        (changed(captions=["\ud800"]), "entry 1 ('a/1.jpg'): captions holds the text"),
        (changed(split=3), "entry 1 ('a/1.jpg'): split is 3, expected train, test or val"),
        ([entry | {"captions": []} for entry in ENTRIES], "none of its 7 images has a caption"),
    ],
)
def test_an_entry_of_another_layout_is_named_with_what_does_not_fit(tmp_path, entries, message):
    error = listed(tmp_path, entries)
    assert error.startswith(f"{tmp_path}/RSTPReid/data_captions.json: ") and message in error


def test_an_annotation_may_have_a_byte_order_mark_and_one_long_line(tmp_path):
    annotation = write(tmp_path) / "data_captions.json"
    long = [ENTRIES[0] | {"captions": ["red " * 30_000]}, *ENTRIES[1:]]
    annotation.write_bytes(b"\xef\xbb\xbf" + json.dumps(long).encode())
    assert len(load(tmp_path).train[0].caption) == 120_000


def test_loading_looks_at_no_image_one_by_one(tmp_path, monkeypatch):
    write(tmp_path)
    seen = []
    for name in ("stat", "lstat"):
        plain = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda path, *rest, _plain=plain, **more: (seen.append(str(path)), _plain(path, *rest, **more))[1]
        )
    data: CaptionDataset = load(tmp_path)
    assert data.train and not [path for path in seen if path.endswith(".jpg")]
