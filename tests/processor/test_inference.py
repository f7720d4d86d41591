"""Results over several random galleries, and Rank-k of short curves."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from configs import get_cfg_defaults
from datasets.bases import Sample
from processor.embed import Embedded
from processor.inference import METRICS, RankOptions, evaluate, evaluate_features, log_results
from processor.outcome import save_results
from tests.reference import retrieval


def make_data(num_ids=6, images_per_id=4, trials=3, notes=()):
    """Return VehicleID-like data: one image per identity is the gallery of a trial, all others are queries."""
    samples = [Sample(f"{pid}_{i}.jpg", pid, int(i == 0), 0) for pid in range(num_ids) for i in range(images_per_id)]
    rng = np.random.default_rng(0)
    splits = []
    for _ in range(trials):
        gallery = np.arange(num_ids) * images_per_id + rng.integers(0, images_per_id, num_ids)
        splits.append((np.setdiff1d(np.arange(len(samples)), gallery), gallery))
    dataset = SimpleNamespace(samples=samples, trials=tuple(splits), notes=notes)
    return SimpleNamespace(val_loader=SimpleNamespace(dataset=dataset), num_query=len(splits[0][0]))


@pytest.fixture
def features():
    return torch.randn(24, 5, generator=torch.Generator().manual_seed(1))


def test_trials_are_averaged_and_cameras_do_not_filter(features):
    data = make_data()
    results = evaluate_features(data, features, np.zeros(24), RankOptions(5))
    pids = np.array([sample.pid for sample in data.val_loader.dataset.samples])
    expected = []
    for query, gallery in data.val_loader.dataset.trials:
        distance = retrieval.squared_euclidean(features[query], features[gallery])
        labels = (pids[query], pids[gallery], np.zeros(len(query)), np.ones(len(gallery)))
        expected.append(retrieval.evaluate(distance, *labels, 5))
    maps = [trial["mAP"] for trial in expected]
    assert results["mAP"] == pytest.approx(np.mean(maps)) and np.std(maps) > 0
    assert results["trial_sd"]["mAP"] == pytest.approx(np.std(maps, ddof=1))
    assert results["Rank-1"] == pytest.approx(np.mean([trial["cmc"][0] for trial in expected]))
    assert results["num_trials"] == 3 and results["num_query"] == results["num_valid_query"] == 18
    np.testing.assert_allclose(results["per_query"]["ap"], np.concatenate([trial["ap"] for trial in expected]))
    assert results["per_query"]["trial"].tolist() == [0] * 18 + [1] * 18 + [2] * 18


def test_rank_k_does_not_depend_on_the_length_of_the_curve(features):
    data = make_data(trials=1)
    short, long = (evaluate_features(data, features, np.zeros(24), RankOptions(rank)) for rank in (2, 50))
    assert {name: short[name] for name in METRICS} == {name: long[name] for name in METRICS}
    assert short["Rank-10"] == 1.0 and len(short["cmc"]) == 2


def test_results_and_their_file_tell_the_precision_of_the_embeddings(features, tmp_path):
    embedded = Embedded(features, np.zeros(24), "bfloat16")
    results = evaluate(get_cfg_defaults(), make_data(), embedded)
    assert results["precision"] == "bfloat16"
    assert results["mAP"] == evaluate_features(make_data(), features, np.zeros(24), RankOptions(50))["mAP"]
    save_results(results, tmp_path, {})
    assert json.loads((tmp_path / "summary.json").read_text())["precision"] == "bfloat16"


def test_what_was_left_out_is_said_with_every_result(features, caplog):
    results = evaluate_features(
        make_data(notes=("veri query: 1 image dropped",)), features, np.zeros(24), RankOptions(5)
    )
    with caplog.at_level("INFO"):
        log_results(results, "Test Results")
    text = caplog.text
    assert "veri query: 1 image dropped" in text and "over 3 trials" in text and "CMC curve, Rank-1  :" in text
