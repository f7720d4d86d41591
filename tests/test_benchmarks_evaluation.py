"""The benchmarks of evaluation and re-ranking at a tiny size: the baselines are right, the arguments are checked."""

import numpy as np
import pytest

from benchmarks import evaluation, reranking
from benchmarks.measure import Bar, Cost, compare, measure
from tests.reference.retrieval import evaluate
from utils.errors import ConfigError
from utils.ranking.rank import rank_distances


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


def test_reranking_prints_its_comparison(capsys):
    reranking.main(["20", "100", "6", "3", "8"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("20 queries + 100 gallery images, 8 values each, k1 6, k2 3")
    assert "faster" in lines[1] and lines[2].startswith("largest difference to float64")


def test_large_sizes_compare_with_the_float32_loops(capsys, monkeypatch):
    monkeypatch.setattr(reranking, "FLOAT64_LIMIT", 0)
    reranking.main(["20", "100", "6", "3", "8"])
    assert "differ from the float32 baseline" in capsys.readouterr().out


@pytest.mark.parametrize(("command", "numbers"), [(evaluation, ["1", "2"]), (reranking, ["1", "2", "3", "4", "0"])])
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
