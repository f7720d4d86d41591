"""ATRW: its lists, its rule of near frames, and its score against the protocol walked through one query at a time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.archives.atrw import PUBLISHED_KINDS, load_atrw
from datasets.bases import match_findings, published_findings
from tests.datasets.scored import result_of
from tests.datasets.trees import labels, write_text
from tests.datasets.vis_nir_trees import touch
from tests.reference.slow_animals import atrw_scores
from utils.errors import DataError
from utils.test_folder import METRICS

TEST_LIST = "gt_test_plain.json"


def entry(number: int, tiger: int, kind: str, frame: list[int]) -> dict[str, Any]:
    """Return one entry of the list of test images."""
    return {"imgid": number, "entityid": tiger, "query": kind, "frame": frame}


def random_entries(seed: int, counts: dict[str, tuple[int, int]]) -> list[dict[str, Any]]:
    """Return entries, by kind so many images of so many tigers; frames of a camera lie close together or far apart."""
    rng = np.random.default_rng(seed)
    entries, first = [], 4
    for kind, (images, tigers) in counts.items():
        for row in range(images):
            camera = [int(rng.integers(3)), 0] if kind == "multi" else [7, 1]
            frame = [*camera, int(rng.integers(8))] if row >= 2 * tigers else [*camera, 100 * (row // tigers)]
            entries.append(entry(len(entries), first + row % tigers, kind, frame))
        first += tigers
    return entries


def write_atrw(folder: Path, entries: list[dict[str, Any]], train: int = 5) -> Path:
    """Write ATRW: the test list and its images, `train` labelled images of two tigers, and one without a label."""
    write_text(folder / TEST_LIST, json.dumps(entries))
    touch(folder / "atrw_reid_test" / "test", [f"{one['imgid']:06d}.jpg" for one in entries])
    lines = [f"{300 + row % 2},{row:06d}.jpg" for row in range(train)]
    write_text(folder / "atrw_anno_reid_train" / "reid_list_train.csv", *lines)
    touch(folder / "atrw_reid_train" / "train", [f"{row:06d}.jpg" for row in range(train + 1)])
    return folder


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_the_challenge(tmp_path, seed):
    folder = write_atrw(tmp_path / "atrw", random_entries(seed, {"sing": (20, 3), "multi": (30, 4)}))
    data = load_atrw(tmp_path)
    result, distance = result_of(data, seed)
    expected = atrw_scores(folder, distance)
    for metric in METRICS:
        for name in ("single camera", "cross-camera"):
            assert result.sets[name][metric] == pytest.approx(expected[name][metric], abs=1e-12), (name, metric)
        assert result.metrics[metric] == pytest.approx(expected["mean"][metric], abs=1e-12)  # mAP: the mmAP


def test_frames_within_three_are_junk_and_farther_ones_of_the_camera_are_matches(tmp_path):
    frames = [[1, 2, 10], [1, 2, 13], [1, 2, 14], [1, 3, 10]]
    entries = [entry(row, 9, "multi", frame) for row, frame in enumerate(frames)]
    write_atrw(tmp_path / "atrw", [*entries, entry(4, 8, "multi", [1, 2, 10])])
    data = load_atrw(tmp_path)
    result, _ = result_of(data, 0)
    assert result.per_query["num_pos"].tolist() == [2, 1, 2, 3, 0]  # near: 10 and 13, 13 and 14; tiger 8 is alone
    (line,) = match_findings(data)
    assert "1 of 5 queries have no match in the gallery" in line


def test_labels_come_from_the_lists_and_each_test_image_is_read_once(tmp_path):
    write_atrw(tmp_path / "atrw", random_entries(0, {"sing": (6, 2), "multi": (8, 2)}))
    data = load_atrw(tmp_path)
    assert labels(data.train[:2]) == [("000000.jpg", 300, 0, 0), ("000001.jpg", 301, 0, 0)] and len(data.train) == 5
    assert len(data.tested) == 14 and data.gallery == data.query
    result, _ = result_of(data, 0)
    assert result.num_query == 14 and list(result.sets) == ["single camera", "cross-camera"]


def test_a_list_in_full_has_its_published_counts_and_another_is_a_finding(tmp_path):
    write_atrw(tmp_path / "atrw", random_entries(0, PUBLISHED_KINDS))
    lines = [line for line in published_findings(load_atrw(tmp_path)) if " train:" not in line]
    assert lines == []
    write_atrw(tmp_path / "other" / "atrw", random_entries(0, {"sing": (6, 3), "multi": (8, 2)}))
    lines = [line for line in published_findings(load_atrw(tmp_path / "other")) if " train:" not in line]
    assert [line.partition(";")[0] for line in lines] == [
        "atrw query: expected 1,764 images (published), found 14",
        "atrw query: expected 75 ids (published), found 5",
        "atrw: expected 701 single camera queries of 47 tigers (published), found 6 of 3",
        "atrw: expected 1,063 cross-camera queries of 28 tigers (published), found 8 of 2",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": "both"}, "entry 1: expected imgid"),
        ({"query": ["sing"]}, "entry 1: expected imgid"),
        ({"frame": [1, 2]}, "entry 1: expected imgid"),
        ({"entityid": "4"}, "entry 1: expected imgid"),
        ({"imgid": True}, "entry 1: expected imgid"),
        ({"imgid": 0}, "image 0 stands there twice"),
    ],
)
def test_an_entry_that_does_not_fit_is_named(tmp_path, change, message):
    folder = write_atrw(tmp_path / "atrw", random_entries(0, {"sing": (4, 2)}))
    entries = json.loads((folder / TEST_LIST).read_text())
    entries[1] |= change
    write_text(folder / TEST_LIST, json.dumps(entries))
    with pytest.raises(DataError, match=message):
        load_atrw(tmp_path)


def test_a_training_image_of_two_tigers_is_an_error(tmp_path):
    folder = write_atrw(tmp_path / "atrw", random_entries(0, {"sing": (4, 2)}))
    write_text(folder / "atrw_anno_reid_train" / "reid_list_train.csv", "300,000000.jpg", "301,000000.jpg")
    with pytest.raises(DataError, match="000000.jpg' has label 301, but 300 earlier"):
        load_atrw(tmp_path)


def test_lists_that_name_absent_images_are_an_error(tmp_path):
    folder = write_atrw(tmp_path / "atrw", random_entries(0, {"sing": (4, 2)}))
    (folder / "atrw_reid_test" / "test" / "000002.jpg").unlink()
    with pytest.raises(DataError, match="1 of 4 images do not exist"):
        load_atrw(tmp_path)
