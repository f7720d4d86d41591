"""From features to figures: draws, sets, queries of several items, junk rules, all against naive loops."""

import json

import numpy as np
import pytest
import torch

from configs import get_cfg_defaults
from datasets.test_set import Labels, TestSet
from processor.evaluation.embed import Embedded, mean_direction
from processor.evaluation.evaluate import METRICS, RankOptions, evaluate, log_results, rank_options, search
from tests.processor.evaluation.sets import make_labels, make_test_set, random_galleries
from tests.reference import retrieval
from tests.reference.spectral import blurred_order
from utils.errors import DataError
from utils.statistics.bootstrap import query_values, query_weights
from utils.test_folder import TestFolder, read_per_query, write_result

IDS, EACH = 6, 4


@pytest.fixture
def embedded() -> Embedded:
    feat = torch.randn(IDS * EACH, 5, generator=torch.Generator().manual_seed(1))
    return Embedded(feat, np.zeros(IDS * EACH), "float32", mean_direction)


def random_gallery_set(draws: int = 3, **changes: object) -> TestSet:
    """Return a VehicleID-like test set: one image per identity is the gallery of a trial, all others are queries."""
    pids = np.repeat(np.arange(IDS), EACH)
    return make_test_set(make_labels(pids), random_galleries(pids, draws), junk=None, **changes)


def expected_of(feat: torch.Tensor, pids: np.ndarray, query: np.ndarray, gallery: np.ndarray, depth: int = 5) -> dict:
    """Return the slow figures of unfiltered queries [Q] or [Q, n], fused by hand, against a gallery."""
    feat = feat.double().numpy()
    rows = [[row for row in np.atleast_1d(items) if row >= 0] for items in query]
    fused = [feat[items[0]] if np.ndim(query) == 1 else unit(np.mean(feat[items], axis=0)) for items in rows]
    distance = retrieval.squared_euclidean(np.array(fused), feat[gallery])
    labels = (pids[[items[0] for items in rows]], pids[gallery], np.zeros(len(rows)), np.ones(len(gallery)))
    return retrieval.evaluate(distance, *labels, depth)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_trials_are_averaged_and_cameras_do_not_filter(embedded):
    test = random_gallery_set()
    result = evaluate(test, embedded, RankOptions(5))
    pids = test.labels.pids
    expected = [expected_of(embedded.feat, pids, trial.query, trial.gallery) for trial in test.trials]
    maps = [trial["mAP"] for trial in expected]
    assert result.metrics["mAP"] == pytest.approx(np.mean(maps)) and np.std(maps) > 0
    assert result.trial_sd["mAP"] == pytest.approx(np.std(maps, ddof=1))
    assert result.metrics["Rank-1"] == pytest.approx(np.mean([trial["cmc"][0] for trial in expected]))
    np.testing.assert_allclose(result.cmc, np.mean([trial["cmc"] for trial in expected], axis=0))
    assert result.num_trials == 3 and result.num_query == result.num_valid_query == 18
    np.testing.assert_allclose(result.per_query["ap"], np.concatenate([trial["ap"] for trial in expected]))
    assert result.per_query["trial"].tolist() == [0] * 18 + [1] * 18 + [2] * 18
    assert result.sets == {} and "set" not in result.per_query


def test_the_flat_result_has_the_keys_that_it_always_had(embedded):
    flat = evaluate(random_gallery_set(), embedded, RankOptions(5)).flat()
    counts = ["num_query", "num_valid_query", "num_trials", "data_fingerprint", "notes", "per_query", "precision"]
    assert list(flat) == [*METRICS, "trial_sd", "cmc", *counts]
    columns = ["ap", "inp", "first_hit", "num_pos", "pid", "camid", "viewid", "brightness", "path", "trial"]
    assert list(flat["per_query"]) == columns


def test_rank_k_does_not_depend_on_the_length_of_the_curve(embedded):
    test = random_gallery_set(1)
    short, long = (evaluate(test, embedded, RankOptions(rank)) for rank in (2, 50))
    assert short.metrics == long.metrics and short.trial_sd == {}
    assert short.metrics["Rank-10"] == 1.0 and len(short.cmc) == 2


def test_results_and_their_file_tell_the_precision_of_the_embeddings(embedded, tmp_path):
    result = evaluate(random_gallery_set(), embedded._replace(precision="bfloat16"), rank_options(get_cfg_defaults()))
    assert result.flat()["precision"] == "bfloat16"
    write_result(TestFolder(tmp_path), result, {})
    assert json.loads((tmp_path / "summary.json").read_text())["precision"] == "bfloat16"


def test_what_was_left_out_is_said_with_every_result(embedded, caplog):
    result = evaluate(random_gallery_set(notes=("veri query: 1 image dropped",)), embedded, RankOptions(5))
    with caplog.at_level("INFO"):
        log_results(result, "Test Results")
    text = caplog.text
    assert "veri query: 1 image dropped" in text and "over 3 trials" in text and "CMC curve, Rank-1  :" in text


def two_sets() -> tuple:
    """Return trials of two sets with two draws each: single queries, and queries of one to three items."""
    rng = np.random.default_rng(2)
    trials = []
    for draw in range(2):
        (plain,) = random_galleries(np.repeat(np.arange(IDS), EACH), 1, seed=draw)
        trials.append(plain._replace(set="NIR", draw=draw))
        rest = plain.query.reshape(IDS, EACH - 1)  # the identity's other images
        present = rng.random(rest.shape) < 0.6
        present[:, 0] |= ~present.any(axis=1)
        trials.append(plain._replace(set="NIR+SK", draw=draw, query=np.where(present, rest, -1)))
    return tuple(trials)


def test_sets_have_figures_of_their_own_and_the_metrics_are_their_mean(embedded, tmp_path, caplog):
    test = make_test_set(make_labels(np.repeat(np.arange(IDS), EACH)), two_sets(), junk=None)
    result = evaluate(test, embedded, RankOptions(5))
    found = {"NIR": [], "NIR+SK": []}
    for trial in test.trials:
        found[trial.set].append(expected_of(embedded.feat, test.labels.pids, trial.query, trial.gallery))
    assert list(result.sets) == ["NIR", "NIR+SK"]
    for name, draws in found.items():
        assert result.sets[name]["mAP"] == pytest.approx(np.mean([draw["mAP"] for draw in draws]))
        assert result.sets[name]["mINP"] == pytest.approx(np.mean([draw["mINP"] for draw in draws]))
        assert result.sets[name]["Rank-5"] == pytest.approx(np.mean([draw["cmc"][4] for draw in draws]))
    assert [figures["num_query"] for figures in result.sets.values()] == [18, 6] and result.num_query == 24
    by_draw = [np.mean([found[name][draw]["mAP"] for name in found]) for draw in range(2)]
    assert result.metrics["mAP"] == pytest.approx(np.mean(by_draw))
    assert result.trial_sd["mAP"] == pytest.approx(np.std(by_draw, ddof=1))
    curves = [np.mean([draw["cmc"] for draw in draws], axis=0) for draws in found.values()]
    np.testing.assert_allclose(result.cmc, np.mean(curves, axis=0))
    write_result(TestFolder(tmp_path), result, {})
    table = read_per_query(TestFolder(tmp_path))
    assert table["set"].tolist() == ["NIR"] * 18 + ["NIR+SK"] * 6 + ["NIR"] * 18 + ["NIR+SK"] * 6
    assert table["trial"].tolist() == [0] * 24 + [1] * 24
    assert json.loads((tmp_path / "summary.json").read_text())["sets"] == result.sets
    with caplog.at_level("INFO"):
        log_results(result, "Test Results")
    assert f"NIR+SK: mAP {result.sets['NIR+SK']['mAP']:.1%}" in caplog.text


def test_the_score_may_be_a_mean_over_groups_or_one_set_alone(embedded: Embedded):
    labels, trials = make_labels(np.repeat(np.arange(IDS), EACH)), two_sets()
    more = tuple(trial._replace(set="SK", query=trial.query[1::2]) for trial in trials if trial.set == "NIR")
    test = make_test_set(labels, trials + more, junk=None, groups={"MM-1": ("NIR", "SK"), "MM-2": ("NIR+SK",)})
    result = evaluate(test, embedded, RankOptions(5))
    of = {name: figures["mAP"] for name, figures in result.sets.items()}
    assert result.groups["MM-1"]["mAP"] == pytest.approx((of["NIR"] + of["SK"]) / 2) and of["NIR"] != of["SK"]
    assert result.metrics["mAP"] == pytest.approx((result.groups["MM-1"]["mAP"] + of["NIR+SK"]) / 2)
    weights = dict(zip(result.per_query["set"].tolist(), result.per_query["weight"].tolist(), strict=True))
    assert weights == {"NIR": 0.25, "SK": 0.25, "NIR+SK": 0.5}
    for metric in ("mAP", "mINP", "Rank-1"):
        values, shares = query_values(result.per_query, metric), query_weights(result.per_query)
        assert np.average(values, weights=shares) == pytest.approx(result.metrics[metric])
    one = evaluate(test._replace(groups={"t2i": ("NIR",)}), embedded, RankOptions(5))
    assert one.metrics["mAP"] == of["NIR"] and one.num_query == 18 and one.sets == result.sets


def test_a_query_of_several_items_is_named_after_all_and_labelled_by_the_first():
    labels = make_labels(np.array([3, 3, 4, 4, 3, 4]), camids=np.array([0, 1, 2, 0, 1, 2]))
    (trial,) = random_galleries(labels.pids, 1)
    trial = trial._replace(query=np.array([[-1, 1, 0], [2, -1, -1]]), gallery=np.array([4, 5]))
    test = make_test_set(labels, (trial,), junk=None)
    embedded = Embedded(torch.eye(6), np.arange(6.0), "float32", mean_direction)
    per_query = evaluate(test, embedded, RankOptions(5)).per_query
    assert per_query["path"].tolist() == ["1.jpg + 0.jpg", "2.jpg"]
    assert [per_query[name].tolist() for name in ("pid", "camid", "brightness")] == [[3, 4], [1, 2], [1.0, 2.0]]


def test_a_query_without_any_item_is_refused(embedded):
    trial = random_gallery_set(1).trials[0]
    nothing = trial._replace(query=np.array([[0, 1], [-1, -1]]))
    test = make_test_set(make_labels(np.repeat(np.arange(IDS), EACH)), (nothing,))
    with pytest.raises(DataError, match=r"query 1 \(0-based\) has no item"):
        search(test, embedded, RankOptions(5))


def test_what_is_junk_for_one_item_is_junk_for_the_query():
    labels = make_labels(np.array([7, 7, 7, 7, 8]), camids=np.array([0, 1, 0, 2, 1]))
    (trial,) = random_galleries(labels.pids, 1)
    trial = trial._replace(query=np.array([[0, 1]]), gallery=np.array([2, 3, 4]))
    test = make_test_set(labels, (trial,))
    embedded = Embedded(torch.randn(5, 3), np.zeros(5), "float32", mean_direction)
    searched = search(test, embedded, RankOptions(5))
    assert searched.protocol.mask(0, 1).tolist() == [[True, False, False]]  # camera 0 of 7; 8 is another identity
    assert evaluate(test, embedded, RankOptions(5)).per_query["num_pos"].tolist() == [1]


def test_a_rule_of_the_data_set_may_take_other_identities_out(embedded):
    """Gallery images of camera 1 do not exist for queries of camera 2, whomever they show (SYSU-MM01's rule)."""
    rng = np.random.default_rng(3)
    labels = make_labels(np.repeat(np.arange(IDS), EACH), camids=rng.integers(0, 3, IDS * EACH))
    (trial,) = random_galleries(labels.pids, 1)
    trial = trial._replace(query=trial.gallery, gallery=trial.query)

    def rule(labels: Labels, query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        return (labels.camids[query] == 2)[:, None] & (labels.camids[gallery] == 1)

    for distinct in (False, True):
        result = evaluate(make_test_set(labels, (trial,), rule, distinct), embedded, RankOptions(5))
        distance = retrieval.squared_euclidean(embedded.feat[trial.query], embedded.feat[trial.gallery])
        junk = rule(labels, trial.query, trial.gallery)
        assert junk.any()
        pids = (labels.pids[trial.query], labels.pids[trial.gallery])
        expected = retrieval.evaluate_masked(distance, *pids, junk, 5, distinct)
        np.testing.assert_allclose(result.cmc, expected["cmc"])
        np.testing.assert_allclose(result.per_query["ap"], expected["ap"])
        assert result.per_query["first_hit"].tolist() == expected["first_hit"]


def test_the_plain_camera_rule_ranks_the_same_by_labels_and_by_mask(embedded):
    rng = np.random.default_rng(4)
    labels = make_labels(np.repeat(np.arange(IDS), EACH), camids=rng.integers(0, 2, IDS * EACH))
    (trial,) = random_galleries(labels.pids, 1)
    plain = make_test_set(labels, (trial,))
    fast = evaluate(plain, embedded, RankOptions(5))
    slow = evaluate(plain._replace(junk=lambda *rows: plain.junk(*rows)), embedded, RankOptions(5))
    assert fast.num_valid_query < fast.num_query  # some match under the own camera alone
    assert fast.metrics == slow.metrics
    for name, values in fast.per_query.items():
        np.testing.assert_array_equal(values, slow.per_query[name])


def test_keys_of_tests_become_options_and_a_result_names_what_is_not_plain(embedded):
    cfg = get_cfg_defaults()
    assert rank_options(cfg) == RankOptions(50) and RankOptions(50).named() == {}
    cfg.TEST.SPECTRAL.K, cfg.TEST.SPECTRAL.T, cfg.TEST.QE.K = 20, 0.2, 3
    named = evaluate(random_gallery_set(1), embedded, rank_options(cfg)).flat()["ranking"]
    expansion = {"k": 3, "alpha": 0.0, "times": 1}
    assert named == {"ap": "standard", "expansion": expansion, "spectral": {"k": 20, "t": 0.2}}
    cfg = get_cfg_defaults()
    cfg.TEST.AP, cfg.TEST.RE_RANKING = "trapezoid", True
    assert rank_options(cfg).named() == {"ap": "trapezoid", "re_ranking": {"k1": 50, "k2": 15, "lambda": 0.3}}


def test_spectral_re_ranking_is_that_of_the_slow_reference(embedded):
    test = random_gallery_set(1)
    searched = search(test, embedded, RankOptions(5, spectral=(4, 0.1)))
    query, gallery = (embedded.feat[rows].double().numpy() for rows in (searched.query, searched.trial.gallery))
    for row, one in enumerate(query):
        similarity = [unit(one) @ unit(other) for other in gallery]
        order = np.argsort(similarity)[::-1].tolist()
        expected = blurred_order(one, gallery, order, 4, 0.1)
        assert searched.distances.rows(row, row + 1)[0].argsort(kind="stable").tolist() == expected


def test_figures_of_trapezoids_are_lower_and_marked_in_the_log(embedded, caplog):
    test = random_gallery_set(1)
    result = evaluate(test, embedded, RankOptions(5, ap="trapezoid"))
    standard = evaluate(test, embedded, RankOptions(5))
    assert result.metrics["mAP"] < standard.metrics["mAP"] and result.ap_rule == "trapezoid"
    assert {name: value for name, value in result.metrics.items() if name != "mAP"} == {
        name: value for name, value in standard.metrics.items() if name != "mAP"
    }
    with caplog.at_level("INFO"):
        log_results(result, "title")
    assert f"mAP (trapezoid AP): {result.metrics['mAP']:.1%}" in caplog.messages
