"""The benchmarks of evaluation and re-ranking at a tiny size: the baselines are right, the arguments are checked."""

import json
import time

import numpy as np
import pytest
import torch

from benchmarks import captions, evaluation, query_sets, reranking, whole_test
from benchmarks import measure as measure_module
from benchmarks.measure import Bar, Cost, compare, measure
from tests.reference import slow_query_sets
from tests.reference.retrieval import evaluate
from utils.errors import ConfigError
from utils.ranking.rank import rank_distances
from utils.test_folder import TestFolder


@pytest.mark.parametrize("levels", [None, 5])
def test_textbook_loop_equals_the_slow_reference(levels):
    rng = np.random.default_rng(0)
    distances = rng.random((10, 60))
    distances = np.floor(distances * levels) if levels else distances
    labels = [rng.integers(high, size=size) for high in (8, 3) for size in (10, 60)]
    expected = evaluate(distances, *labels, 50)
    cmc, ap, mean_inp = evaluation.textbook(distances, *labels)
    np.testing.assert_allclose(cmc, expected["cmc"], atol=1e-12)
    np.testing.assert_allclose(ap.mean(), expected["mAP"], atol=1e-12)
    np.testing.assert_allclose(mean_inp, expected["mINP"], atol=1e-12)


def test_difference_between_textbook_and_ours_stops_the_benchmark():
    rng = np.random.default_rng(1)
    distances = rng.random((10, 60))
    labels = [rng.integers(high, size=size) for high in (8, 3) for size in (10, 60)]
    expected = evaluation.textbook(distances, *labels)
    evaluation.check(expected, rank_distances(distances, *labels))
    with pytest.raises(AssertionError):
        evaluation.check(expected, rank_distances(-distances, *labels))


def test_evaluation_prints_its_comparisons(capsys):
    evaluation.main(["40", "900", "8"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("40 queries x 900 gallery images, 8 values each")
    assert sum("faster" in line for line in lines) == 4
    assert any(line.startswith("equal:") for line in lines)


def test_a_whole_test_is_compared_with_separate_passes_and_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure_module, "RESULTS", tmp_path)
    monkeypatch.setitem(whole_test.SIZES, "small", (20, 150, 8, 6, 3))
    whole_test.main([])
    said = capsys.readouterr().out
    assert "equal: AP" in said and said.count("bar: ") == 2
    rows = json.loads((tmp_path / "whole_test.json").read_text())["facts"]["rows"]
    assert [row["TEST.FEATURES"] for row in rows] == ["float32"] * 3 + ["float16", "disk"]


@pytest.mark.parametrize("field", ["verification", "pairs", "worst"])
def test_a_whole_test_that_finds_something_else_stops_the_benchmark(tmp_path, field):
    case, folder = whole_test.make_case(20, 150, 8, 6, 3), TestFolder(tmp_path)
    plain, result = whole_test.separate_passes(*case), whole_test.one_pass(*case, folder)
    whole_test.check(plain, result, folder, case[2])
    values = getattr(plain, field)
    other = {
        "verification": lambda: values._replace(tpr_at_fpr=dict.fromkeys(values.tpr_at_fpr, 2.0)),
        "pairs": lambda: {pair: (mean_ap + 1e-4, rank1) for pair, (mean_ap, rank1) in values.items()},
        "worst": lambda: values[::-1],
    }
    with pytest.raises(AssertionError):
        whole_test.check(plain._replace(**{field: other[field]()}), result, folder, case[2])


def test_own_memory_grows_by_what_a_call_fills():
    assert whole_test.grown_by(lambda: [np.ones(2**24), time.sleep(0.2)]) > 100 * 2**20


def test_plain_search_by_captions_equals_the_slow_reference():
    (text, text_pids), (image, image_pids) = captions.make_side(12, 4, 6, 1), captions.make_side(50, 4, 6, 2)
    distances = -(text.double() @ image.double().t()).numpy()
    cameras = np.zeros(12, dtype=int), np.ones(50, dtype=int)
    expected = evaluate(distances, text_pids.numpy(), image_pids.numpy(), *cameras, 10)
    curve = {f"Rank-{k}": expected["cmc"][k - 1] for k in (1, 5, 10)}
    found = captions.plain_metrics((text, text_pids), (image, image_pids))
    assert found == pytest.approx({"mAP": expected["mAP"], "mINP": expected["mINP"], **curve}, abs=1e-6)
    assert 0.2 < found["mAP"] < 0.9


def test_captions_compare_equal_figures_and_keep_both_sides(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(captions, "run_apart", captions.run_way)  # processes of their own take seconds to start
    monkeypatch.setattr(measure_module, "RESULTS", tmp_path)
    monkeypatch.setitem(captions.SIZES, "small", (30, 40, 3, 8))
    captions.main([])
    said = capsys.readouterr().out
    assert "equal: mAP" in said and said.count("bar: ") == 1
    rows = json.loads((tmp_path / "captions.json").read_text())["facts"]["rows"]
    assert [row["way"] for row in rows] == ["plain", "ours"] and min(row["MiB"] for row in rows) > 0
    assert rows[0]["Rank-5"] == pytest.approx(rows[1]["Rank-5"], abs=1e-5)


def test_figures_of_captions_that_differ_stop_the_benchmark():
    plain = captions.run_way("plain", (30, 40, 3, 8))
    other = plain._replace(metrics=plain.metrics | {"mINP": plain.metrics["mINP"] + 1e-4})
    captions.check({"plain": plain, "ours": plain}, 30)
    with pytest.raises(AssertionError, match="mINP"):
        captions.check({"plain": plain, "ours": other}, 30)
    swapped = plain._replace(metrics=plain.metrics | {"Rank-5": plain.metrics["Rank-5"] - 4 / 20_000})
    with pytest.raises(AssertionError, match="Rank-5"):
        captions.check({"plain": plain, "ours": swapped}, 20_000)


@pytest.mark.slow
def test_each_way_runs_in_a_process_of_its_own():
    before = captions.max_memory(torch.device("cpu"))
    found = captions.run_apart("plain", (1500, 1500, 20, 8))
    assert found.mib > 1500 * 1500 * (4 + 8 + 1) / 2**20  # similarities, their order, matches
    assert captions.max_memory(torch.device("cpu")) == before


def test_reranking_prints_its_comparison(capsys):
    reranking.main(["20", "100", "6", "3", "8"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("20 queries + 100 gallery images, 8 values each, k1 6, k2 3")
    assert "faster" in lines[1] and lines[2].startswith("largest difference to float64")


def test_large_sizes_compare_with_the_float32_loops(capsys, monkeypatch):
    monkeypatch.setattr(reranking, "FLOAT64_LIMIT", 0)
    reranking.main(["20", "100", "6", "3", "8"])
    assert "differ from the float32 baseline" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "numbers"),
    [(evaluation, ["1", "2"]), (reranking, ["1", "2", "3", "4", "0"]), (captions, ["1", "2", "3"])],
)
def test_wrong_numbers_are_refused(command, numbers):
    with pytest.raises(ConfigError, match="got the numbers"):
        command.main(numbers)


@pytest.mark.parametrize(("value", "verdict"), [(1.0, "pass, goal met"), (1.5, "pass"), (2.5, "MISS")])
def test_bars_are_judged(value, verdict):
    assert Bar("time", 2, 1, "s").judge(value).endswith(f"must 2, goal 1: {verdict}")


def test_cost_is_time_and_peak_memory():
    result, cost = measure(lambda: np.zeros(10**6).sum(), 2)
    assert result == 0 and 8e6 <= cost.peak_bytes < 8.2e6 and cost.seconds > 0
    assert "2.0x faster, 4.0x less memory" in compare("title", Cost(2.0, 4 * 2**20), Cost(1.0, 2**20))


def test_plain_query_sets_equal_the_slow_reference():
    test = query_sets.make_test(12, 150, 3)
    embedded = query_sets.make_embedded(test, 8)
    found = dict(query_sets.plain_sets(test, embedded, 6))
    assert [*found] == ["NIR", "CP", "SK", "TEXT", "NIR+CP", "NIR+SK"] and len(test.trials) == 32
    feat = embedded.feat.double().tolist()

    def fuse(items: list[list[float]]) -> list[float]:
        z = torch.tensor(items).float()[None]
        return embedded.fuse(z, torch.ones(z.shape[:2], dtype=torch.bool))[0].tolist()

    for trial in (test.trials[0], test.trials[5]):
        lists = slow_query_sets.ranked((trial.query.tolist(), trial.gallery.tolist()), feat, test.labels.pids, fuse)
        expected = slow_query_sets.figures(lists, query_sets.DEPTH)
        assert found[trial.set] | {"num_query": 12} == pytest.approx(expected, abs=1e-4)
        assert 0.3 < expected["mAP"] < 0.9


def test_query_sets_compare_equal_figures_and_keep_both_sides(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(query_sets, "run_apart", query_sets.run_way)
    monkeypatch.setattr(measure_module, "RESULTS", tmp_path)
    monkeypatch.setitem(query_sets.SIZES, "small", (12, 30, 3, 8, 2))
    query_sets.main([])
    said = capsys.readouterr().out
    assert "equal in 2 sets; ours has 32" in said and said.count("bar: ") == 1
    rows = json.loads((tmp_path / "query_sets.json").read_text())["facts"]["rows"]
    assert [(row["way"], row["sets"]) for row in rows] == [("plain", 2), ("ours", 32)]
    plain = query_sets.run_way("plain", (12, 30, 3, 8, 1))
    other = plain._replace(sets={"NIR": plain.sets["NIR"] | {"mAP@100": 2.0}})
    with pytest.raises(AssertionError, match="NIR: mAP@100"):
        query_sets.check({"plain": plain, "ours": other}, 12)
