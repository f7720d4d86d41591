"""What a test leaves beside its figures: files that hold what loops by hand find."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from configs import get_cfg_defaults
from datasets.test_set import Trial, same_camera
from processor.evaluation.analysis import Analysis, Analyst, pair_rates, save_analysis
from processor.evaluation.embed import Embedded
from processor.evaluation.evaluate import RankOptions, Searched, evaluate, search
from tests.processor.evaluation.sets import make_labels, make_test_set
from tests.reference import retrieval, slow_slices
from utils.ranking.slices import read_slices
from utils.ranking.verification import verify
from utils.test_folder import TestFolder, TestResult

NUM_QUERY, NUM_GALLERY = 30, 60
OPTIONS = RankOptions(max_rank=10)


@pytest.fixture
def cfg() -> CfgNode:
    cfg = get_cfg_defaults()
    cfg.LOSS.BRIGHTNESS.THRESH = 0.5
    cfg.TEST.ROC_FPR = [0.01, 0.1]
    return cfg


def analysed(
    cfg: CfgNode, pids: np.ndarray, camids: np.ndarray, trials: tuple[Trial, ...] = ()
) -> tuple[Analysis, Searched, TestResult]:
    """Return the analysis of features in which identities differ a little, its first trial and the result."""
    rng = np.random.default_rng(0)
    feat = rng.normal(size=(len(pids), 4)) + rng.normal(size=(1000, 4))[pids]
    embedded = Embedded(
        torch.from_numpy(feat.astype(np.float32)), rng.uniform(size=len(pids)).astype(np.float32), "float32"
    )
    rows = np.arange(len(pids))
    labels = make_labels(pids, camids, rows % 3 - 1)._replace(names=[f"{row:03d}.jpg" for row in rows])
    split = (Trial("", 0, rows[:NUM_QUERY], rows[NUM_QUERY:]),)
    test = make_test_set(labels, trials or split, None if trials else same_camera)
    analyst = Analyst(cfg, test)
    result = evaluate(test, embedded, OPTIONS, analyst.watch)
    return analyst.analyse(result), search(test, embedded, OPTIONS), result


@pytest.fixture
def labels() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    pids = rng.integers(0, 9, NUM_QUERY + NUM_GALLERY)
    pids[:3] = 999  # no match
    return pids, rng.integers(0, 3, len(pids))


@pytest.fixture
def whole(cfg: CfgNode, labels: tuple[np.ndarray, np.ndarray]) -> tuple[Analysis, Trial, dict]:
    return analysed(cfg, *labels)


def content_of(analysis: Analysis, folder: Path) -> dict:
    save_analysis(analysis, TestFolder(folder))
    return json.loads((folder / "analysis.json").read_text(), parse_constant=pytest.fail)


def test_two_whole_files_are_written(whole, tmp_path):
    for _ in range(2):  # the second time over the first
        content = content_of(whole[0], tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"slices.csv", "analysis.json"}
    names = {"schema", "distance", "roc", "tpr_at_fpr", "threshold", "worst", "best"}
    assert set(content) == names and content["schema"] == 1
    written = read_slices(tmp_path / "slices.csv")
    assert [part[:5] for part in written] == [part[:5] for part in whole[0].slices]
    assert list(dict.fromkeys(part.kind for part in written)) == ["camera_pair", "viewpoint", "brightness", "matches"]


def test_slices_are_those_of_a_loop_and_dark_is_what_the_router_calls_dark(whole):
    analysis, trial, results = whole
    distmat = trial.distances.rows(0, NUM_QUERY)
    parts = {part[:3]: part for part in analysis.slices}
    queries, columns = np.flatnonzero(trial.protocol.q_camids == 2), np.flatnonzero(trial.protocol.g_camids == 0)
    expected = slow_slices.score(queries, distmat, *trial.protocol[:4], columns)
    assert parts["camera_pair", "2", "0"][3:] == pytest.approx(expected) and expected[0] > 0
    dark = np.flatnonzero(results.per_query["brightness"] < 0.5)
    expected = slow_slices.score(dark, distmat, *trial.protocol[:4])
    assert parts["brightness", "dark 0-0.5", ""][3:] == pytest.approx(expected) and expected[0] > 0


def test_distances_and_rates_are_those_of_all_valid_pairs(whole, tmp_path):
    analysis, trial, _ = whole
    content = content_of(analysis, tmp_path)
    same = trial.protocol.q_pids[:, None] == trial.protocol.g_pids
    junk = same & (trial.protocol.q_camids[:, None] == trial.protocol.g_camids)
    distmat = trial.distances.rows(0, NUM_QUERY)
    positive, negative = distmat[same & ~junk], distmat[~same]
    for name, values in (("positive", positive), ("negative", negative)):
        assert sum(content["distance"][name]) == len(values)
        assert len(content["distance"]["edges"]) == 1 + len(content["distance"][name])
    assert set(content["tpr_at_fpr"]) == set(content["threshold"]) == {"0.01", "0.1"}
    for rate, found in content["tpr_at_fpr"].items():
        accepted = [t for t in np.unique(distmat) if np.mean(negative <= t) <= float(rate)]
        assert found == pytest.approx(np.mean(positive <= max(accepted)))
        threshold = content["threshold"][rate]
        assert found == np.mean(positive <= threshold) and np.mean(negative <= threshold) <= float(rate)
    assert content["roc"]["fpr"][-1] == content["roc"]["tpr"][-1] == 1.0


def test_rates_alike_in_six_digits_keep_their_own_keys_and_a_threshold_that_accepts_all_is_null(whole):
    rates = pair_rates(verify(whole[1].distances, whole[1].protocol, [0.1234567, 0.1234568, 1]))
    assert list(rates["tpr_at_fpr"]) == list(rates["threshold"]) == ["0.1234567", "0.1234568", "1.0"]
    assert rates["threshold"]["1.0"] is None and rates["tpr_at_fpr"]["1.0"] == 1.0


def test_the_worst_queries_come_with_the_ranking_that_made_them_bad(whole, tmp_path):
    analysis, trial, results = whole
    worst = content_of(analysis, tmp_path)["worst"]
    distmat = trial.distances.rows(0, NUM_QUERY)
    slow = retrieval.evaluate(distmat, *trial.protocol[:4], 10)
    valid = [query for query in range(NUM_QUERY) if slow["first_hit"][query] >= 0]
    expected = sorted(valid, key=lambda query: slow["ap"][query])[:12]
    assert [entry["path"] for entry in worst] == [f"{query:03d}.jpg" for query in expected]
    for query, entry in zip(expected, worst, strict=True):
        assert entry["ap"] == pytest.approx(slow["ap"][query])
        assert (entry["num_pos"], entry["first_hit"]) == (slow["num_pos"][query], slow["first_hit"][query])
        assert (entry["pid"], entry["camid"]) == (trial.protocol.q_pids[query], trial.protocol.q_camids[query])
        order = sorted(range(NUM_GALLERY), key=lambda image, row=distmat[query]: row[image])[: len(entry["ranks"])]
        status = [status_of(trial, query, image) for image in order]
        assert len(status) - status.count("junk") == 10
        assert [image["status"] for image in entry["ranks"]] == status
        assert [image["path"] for image in entry["ranks"]] == [f"{NUM_QUERY + image:03d}.jpg" for image in order]
        assert [image["distance"] for image in entry["ranks"]] == pytest.approx(distmat[query][order], abs=1e-4)


def test_the_best_queries_are_those_of_highest_ap_and_of_equals_of_the_most_matches(whole, tmp_path):
    analysis, trial, results = whole
    content = content_of(analysis, tmp_path)
    slow = retrieval.evaluate(trial.distances.rows(0, NUM_QUERY), *trial.protocol[:4], 10)
    valid = [query for query in range(NUM_QUERY) if slow["first_hit"][query] >= 0]
    expected = sorted(valid, key=lambda query: (-slow["ap"][query], -slow["num_pos"][query]))[:6]
    assert [entry["path"] for entry in content["best"]] == [f"{query:03d}.jpg" for query in expected]
    assert {name for entry in content["best"] for name in entry} == {name for one in content["worst"] for name in one}


def status_of(trial: Searched, query: int, image: int) -> str:
    if trial.protocol.q_pids[query] != trial.protocol.g_pids[image]:
        return "wrong"
    return "junk" if trial.protocol.q_camids[query] == trial.protocol.g_camids[image] else "right"


def test_random_galleries_have_no_camera_pairs_and_show_the_first_trial(cfg):
    pids = np.repeat(np.arange(6), 4)
    rng = np.random.default_rng(0)
    galleries = [np.arange(6) * 4 + rng.integers(0, 4, 6) for _ in range(3)]
    trials = tuple(
        Trial("", draw, np.setdiff1d(np.arange(24), gallery), gallery) for draw, gallery in enumerate(galleries)
    )
    analysis, trial, results = analysed(cfg, pids, np.zeros(24, dtype=int), trials)
    assert not [part for part in analysis.slices if part.kind == "camera_pair"]
    assert sum(part.num_query for part in analysis.slices if part.kind == "matches") == 3 * 18
    first = results.per_query["ap"][:18]
    assert [entry["ap"] for entry in analysis.worst] == sorted(first)[:12]
    assert {image["path"] for image in analysis.worst[0]["ranks"]} == {f"{row:03d}.jpg" for row in galleries[0]}
    assert {image["status"] for image in analysis.worst[0]["ranks"]} == {"right", "wrong"}


def test_a_test_set_of_one_identity_has_no_pairs_to_tell_apart(cfg, labels, tmp_path, caplog):
    analysis, _, _ = analysed(cfg, np.zeros_like(labels[0]), labels[1])
    assert "one identity, so no negative pairs: distances and ROC are left out" in caplog.text
    assert set(content_of(analysis, tmp_path)) == {"schema", "worst", "best"}
