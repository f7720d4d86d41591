"""Embeddings are kept once, whatever TEST.FEATURES says, and what is found with them is what float32 finds."""

import errno
import os

import numpy as np
import pytest
import torch

from datasets.test_set import Trial
from processor.evaluation.embed import Embedded, mean_direction, vectors
from processor.evaluation.evaluate import RankOptions, evaluate
from processor.evaluation.store import STORES, room_for, rows_of
from tests.processor.evaluation.sets import make_labels, make_test_set
from tests.tolerance import bounds
from utils.errors import DataError, RunError
from utils.ranking import distance
from utils.ranking.distance import feature_distances
from utils.ranking.on_gpu import device_distances

NUM_QUERY, NUM_GALLERY, WIDTH = 20, 90, 16
HALF = 2**-11  # half a step of float16, relative


def kept(feat: torch.Tensor, store: str, folder: str = "") -> torch.Tensor:
    """Return features as a test keeps them, filled in two batches."""
    room = room_for(feat[:7], len(feat), store, folder)
    room[:7].copy_(feat[:7])
    room[7:].copy_(feat[7:])
    return room


@pytest.fixture
def feat() -> torch.Tensor:
    rng = np.random.default_rng(0)
    feat = rng.normal(size=(NUM_QUERY + NUM_GALLERY, WIDTH)).astype(np.float32)
    return torch.nn.functional.normalize(torch.from_numpy(feat))


@pytest.mark.parametrize("store", STORES)
def test_features_are_kept_to_the_rounding_of_their_type_and_leave_no_file(feat, store, tmp_path):
    found = kept(feat, store, str(tmp_path))
    assert found.dtype == (torch.float16 if store == "float16" else torch.float32)
    torch.testing.assert_close(found.float(), feat, rtol=HALF if store == "float16" else 0, atol=2**-25)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_yet_is_replaced_by_that_of_the_system(feat, tmp_path):
    assert torch.equal(kept(feat, "disk", str(tmp_path / "later")), feat)


def test_a_disk_without_room_is_said_before_any_row_is_written(feat, tmp_path, monkeypatch):
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RunError, match=r"has no room for .* TEST.FEATURES disk; free some, or set it to float16"):
        room_for(feat, len(feat), "disk", str(tmp_path))


def test_rows_that_follow_one_another_are_no_copy_and_others_are(feat):
    for rows in (np.arange(3, 50), np.arange(len(feat)), np.array([5])):
        assert torch.equal(rows_of(feat, rows), feat[rows])
        assert rows_of(feat, rows).data_ptr() == feat[rows[0]].data_ptr()
    for rows in (np.array([3, 4, 6]), np.array([4, 3]), np.array([2, 2, 4]), np.array([], dtype=int)):
        assert torch.equal(rows_of(feat, rows), feat[rows])


@pytest.mark.parametrize("store", ["float16", "disk"])
@pytest.mark.parametrize("made", [feature_distances, device_distances], ids=["cpu", "as on a GPU"])
def test_distances_of_kept_features_are_the_squared_ones_of_their_values(feat, store, made, monkeypatch):
    monkeypatch.setattr(distance, "BLOCK_BYTES", 4 * WIDTH * 7)  # 7 rows of the gallery are widened at once
    found = kept(feat, store)
    query, gallery = found[:NUM_QUERY], found[NUM_QUERY:]
    expected = torch.cdist(query.double(), gallery.double()).square().numpy()
    rows = made(query, gallery).rows(3, 11)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected[3:11], **bounds(WIDTH))


def test_values_beyond_float16_are_refused_by_name(feat):
    with pytest.raises(DataError, match=r"query feature row 0 .* TEST.FEATURES"):
        feature_distances(kept(1e6 * feat, "float16")[:3], kept(1e6 * feat, "float16")[3:])


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("how", [{}, {"rerank": (5, 2, 0.3)}, {"spectral": (10, 0.1)}, {"expand": (2, 1.0, 1)}])
def test_a_test_finds_the_same_however_its_features_are_kept(feat, store, how):
    pids = np.arange(len(feat)) % 7
    feat = torch.nn.functional.normalize(feat + 0.4 * torch.eye(WIDTH)[pids])
    rows = np.arange(len(feat))
    test = make_test_set(make_labels(pids), (Trial("", 0, rows[:NUM_QUERY], rows[NUM_QUERY:]),), None)
    results = []
    for features in (feat, kept(feat, store)):
        embedded = Embedded(features, np.full(len(feat), np.nan, dtype=np.float32), "float32", mean_direction)
        results.append(evaluate(test, embedded, RankOptions(10, **how)))
    if store != "float16":
        np.testing.assert_array_equal(results[0].per_query["ap"], results[1].per_query["ap"])
    assert results[0].metrics["mAP"] == pytest.approx(results[1].metrics["mAP"], abs=0.02)
    assert 0.2 < results[0].metrics["mAP"] < 0.95  # chance is 1 in 7


def test_items_that_are_fused_are_float32_from_half_precision(feat):
    embedded = Embedded(kept(feat, "float16"), np.zeros(len(feat)), "float32", mean_direction)
    fused = vectors(embedded, np.array([[0, 1], [2, -1]]))
    expected = torch.stack([feat[0] + feat[1], feat[2]])
    torch.testing.assert_close(fused, torch.nn.functional.normalize(expected), rtol=0, atol=4 * HALF)
    assert fused.dtype == torch.float32
