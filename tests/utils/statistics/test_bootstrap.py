"""Intervals from per-query results: against plain loops, and their coverage by simulation."""

import numpy as np
import pytest

from tests.reference import slow_statistics as slow
from utils.errors import DataError
from utils.statistics import bootstrap
from utils.statistics.bootstrap import (
    counted,
    interval,
    intervals,
    mean_interval,
    query_units,
    query_values,
    query_weights,
    resample,
)
from utils.test_folder import METRICS

FEW_IDS = 30
WORLDS = {  # difficulty of the identities, binary: skewed to either side, and Rank-1 near the ceiling
    "mid": ((1.2, 2.0), False),
    "low": ((0.5, 3.0), False),
    "high": ((4.0, 0.6), False),
    "ceiling": ((8.0, 0.6), True),
}


@pytest.fixture
def table() -> dict[str, np.ndarray]:
    return slow.simulated_queries(np.random.default_rng(3), 12, 4)


def groups_of(table: dict[str, np.ndarray], values: np.ndarray) -> list[list[float]]:
    return [values[table["pid"] == pid].tolist() for pid in np.unique(table["pid"])]


def test_the_interval_is_that_of_a_plain_loop_over_the_same_resamples(table):
    rows = np.random.default_rng(0).integers(12, size=(2000, 12)).tolist()
    expected = slow.bootstrap_t(groups_of(table, table["ap"]), rows, 0.025, 0.975, 0.25)
    assert interval(table, "mAP") == pytest.approx(expected, abs=1e-12)
    assert 0 < expected[0] < table["ap"].mean() < expected[1] < 1


def test_the_intervals_of_all_ranks_are_those_of_a_plain_loop_and_share_their_resamples(table, monkeypatch):
    table["first_hit"] = np.random.default_rng(5).integers(0, 15, len(table["pid"]))
    rows = np.random.default_rng(0).integers(12, size=(2000, 12)).tolist()
    draws = []
    draw = bootstrap.resample
    monkeypatch.setattr(bootstrap, "resample", lambda moments: draws.append(1) or draw(moments))
    found = intervals(table, METRICS)
    assert list(found) == list(METRICS) and len(draws) == 1
    for name in METRICS:
        expected = slow.bootstrap_t(groups_of(table, query_values(table, name)), rows, 0.025, 0.975, 0.25)
        assert found[name] == pytest.approx(np.clip(expected, 0, 1), abs=1e-12)
        assert interval(table, name) == found[name], "alone to the bit what it is among others"


def test_a_resample_sums_whole_rows_with_repetition_and_in_blocks(monkeypatch):
    whole = resample(np.eye(5))
    assert whole.shape == (bootstrap.DRAWS, 5) and set(whole.sum(axis=1)) == {5.0} and whole.max() >= 3
    assert whole.mean(axis=0) == pytest.approx(np.ones(5), abs=0.1)
    for block in (35, 5, 3):  # seven resamples at a time, one, and one that is larger than a block
        monkeypatch.setattr(bootstrap, "BLOCK", block)
        np.testing.assert_array_equal(resample(np.eye(5)), whole)


def test_the_same_results_give_the_same_interval(table):
    assert interval(table, "mINP") == interval(table, "mINP")


def test_each_metric_takes_its_own_column(table):
    assert query_values(table, "mINP") == pytest.approx(table["ap"] / 2)
    assert query_values(table, "Rank-1").tolist() == (table["first_hit"] == 0).tolist()
    assert query_values(table, "Rank-10").tolist() == [1.0] * len(table["pid"])


def test_excluded_queries_do_not_count(table):
    more = slow.table_of([*table["ap"], np.nan, np.nan], [*table["pid"], 3, 99])
    for metric in ("mAP", "mINP", "Rank-1"):
        assert interval(more, metric) == interval(table, metric)


def test_over_images_the_interval_ignores_who_is_on_them(table):
    shuffled = table | {"pid": np.zeros_like(table["pid"])}
    assert interval(table, "mAP", "query") == interval(shuffled, "mAP", "query") != interval(table, "mAP")


def test_identities_of_equal_queries_are_wider_than_their_images():
    level = np.repeat(np.random.default_rng(0).random(30), 8)
    table = slow.table_of(level, np.repeat(np.arange(30), 8))
    (low, high), (inner_low, inner_high) = interval(table, "mAP"), interval(table, "mAP", "query")
    assert high - low > 2 * (inner_high - inner_low)


def test_repeated_trials_of_the_same_queries_are_no_new_evidence(table):
    repeated = {key: np.concatenate([column] * 5) for key, column in table.items()}
    repeated["trial"] = np.repeat(np.arange(5), len(table["pid"]))
    for unit in bootstrap.UNITS:
        assert interval(repeated, "mAP", unit) == pytest.approx(interval(table, "mAP", unit), abs=1e-12)


def test_sets_of_unequal_sizes_weigh_what_they_weigh_in_the_metrics(table):
    small = {key: column[:9] for key, column in table.items()}
    both = {key: np.concatenate([table[key], small[key]]) for key in table}
    both |= {"set": np.array(["NIR"] * len(table["pid"]) + ["NIR+SK"] * 9), "weight": np.full(len(both["pid"]), 0.5)}
    assert query_weights(table) is None
    weights = query_weights(both)
    mean = np.mean([table["ap"].mean(), small["ap"].mean()])
    assert np.average(query_values(both, "mAP"), weights=weights) == pytest.approx(mean)
    low, high = interval(both, "mAP")
    assert low < mean < high
    # a set of the same queries again, each once for every query of the other set, is the weighing spelt out
    repeats = np.repeat(np.arange(len(weights)), np.where(both["set"] == "NIR", 9, len(table["pid"])))
    spelt_out = {key: column[repeats] for key, column in both.items() if key != "set"}
    assert interval(spelt_out, "mAP") == pytest.approx((low, high), abs=1e-9)
    alone = both | {"weight": np.where(both["set"] == "NIR", 1.0, 0.0)}
    assert interval(alone, "mAP") == pytest.approx(interval(table, "mAP"), abs=1e-9)


def test_sets_that_weigh_nothing_are_no_evidence(table):
    images = slow.table_of(np.linspace(0, 1, 50), np.arange(1000, 1050), "gallery")  # other identities, other paths
    both = with_images(table, images)
    assert counted(table) is table
    kept = counted(both)
    assert kept.keys() == table.keys()
    for key, column in table.items():
        np.testing.assert_array_equal(kept[key], column)
    for unit in bootstrap.UNITS:
        assert interval(both, "mINP", unit) == interval(table, "mINP", unit)
    some = counted(both | {"weight": np.where(both["pid"] < 1010, 0.5, 0.0)})
    assert set(some["set"]) == {"t2i", "i2t"} and len(some["pid"]) == len(table["pid"]) + 10


def with_images(table: bootstrap.PerQuery, images: bootstrap.PerQuery) -> bootstrap.PerQuery:
    """Return the table of a test that also searched captions with images, which weighs nothing."""
    counts = len(table["pid"]), len(images["pid"])
    both = {key: np.concatenate([table[key], images[key]]) for key in table}
    return both | {"set": np.repeat(["t2i", "i2t"], counts), "weight": np.repeat([1.0, 0.0], counts)}


def test_equal_results_give_a_point():
    table = slow.table_of([0.3, 0.3, 0.3, 0.3, 0.3], [1, 1, 2, 3, 3])
    assert interval(table, "mAP") == pytest.approx((0.3, 0.3), abs=1e-9)


def test_one_identity_says_nothing_about_others():
    table = slow.table_of([0.3, 0.4], [5, 5])
    assert interval(table, "mAP") == (0.0, 1.0)
    assert mean_interval(np.array([0.2]), np.array([0]), (-1.0, 1.0)) == (-1.0, 1.0)


def test_without_a_valid_query_there_is_an_error():
    with pytest.raises(DataError, match="no query has a match"):
        interval(slow.table_of([np.nan, np.nan], [1, 2]), "mAP")


def test_the_interval_stays_within_0_and_1():
    table = slow.table_of([0.0] * 9 + [1.0], range(10))
    assert interval(table, "mAP")[0] == 0.0 and interval(table, "mAP")[1] < 1.0


def test_one_wrong_identity_does_not_blow_the_interval_up():
    table = slow.table_of([1.0] * 69 + [0.0], range(70))  # a third of the resamples hold no wrong one
    low, high = interval(table, "Rank-1")
    assert 0.9 < low < 69 / 70 < high <= 1.0


def test_units_count_from_0_whatever_the_labels(table):
    assert query_units(table | {"pid": table["pid"] * 7 - 3}).tolist() == query_units(table).tolist()


def coverage(world: str, num_ids: int, mean_queries: float, trials: int) -> float:
    """Return in which share of simulated test sets the interval holds the true mean."""
    difficulty, binary = WORLDS[world]
    truth = difficulty[0] / sum(difficulty)
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(trials):
        low, high = interval(slow.simulated_queries(rng, num_ids, mean_queries, difficulty, binary), "mAP")
        held += low <= truth <= high
    return held / trials


@pytest.mark.parametrize("world", ["low", "ceiling"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(world):
    # 250 trials of 95 %: sd 1.4 %; a percentile interval reaches 90 % here
    assert 0.92 <= coverage(world, FEW_IDS, 5, 250) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("num_ids", "mean_queries"), [(30, 3), (30, 10), (70, 4), (200, 8)])
def test_coverage_over_many_simulated_test_sets(world, num_ids, mean_queries, capsys):
    share = coverage(world, num_ids, mean_queries, 2000)
    with capsys.disabled():
        print(f"\ncoverage {world}, {num_ids} identities, {mean_queries} queries each: {share:.1%}")
    assert 0.93 <= share <= 0.985


def test_two_identities_are_enough_for_an_interval():
    ap, pid = [0.2, 0.4, 0.9], [4, 4, 7]
    rows = np.random.default_rng(0).integers(2, size=(2000, 2)).tolist()
    expected = slow.bootstrap_t([ap[:2], ap[2:]], rows, 0.025, 0.975, 0.25)
    values, units = np.array(ap), np.array([0, 0, 1])
    assert mean_interval(values, units, (-9.0, 9.0)) == pytest.approx(expected, abs=1e-12)
    assert interval(slow.table_of(ap, pid), "mAP") == pytest.approx(np.clip(expected, 0, 1), abs=1e-12)


def test_each_end_is_cut_at_its_own_limit():
    values, units = np.array([0.2, 0.4, 0.9]), np.array([0, 0, 1])
    low, high = mean_interval(values, units, (-9.0, 9.0))
    mean = values.mean()
    assert mean_interval(values, units, (mean, 9.0)) == (pytest.approx(mean), high)
    assert mean_interval(values, units, (-9.0, mean)) == (low, pytest.approx(mean))


def test_values_are_float64_fractions_of_valid_queries_in_their_order():
    table = slow.table_of([0.9, np.nan, 0.3, 0.6], [5, 5, 1, 9])
    single = {key: column.astype(np.float32) if column.dtype == np.float64 else column for key, column in table.items()}
    for metric, expected in (("mAP", [0.9, 0.3, 0.6]), ("mINP", [0.45, 0.15, 0.3]), ("Rank-1", [1.0, 0.0, 1.0])):
        values = query_values(single, metric)
        assert values.dtype == np.float64 and values == pytest.approx(expected)
    table["first_hit"] = np.array([4, -1, 5, 0])
    assert query_values(table, "Rank-5").tolist() == [1, 0, 1]  # the fifth place counts, the sixth does not
    assert query_units(table).tolist() == [1, 0, 2]
    assert query_units(table, "query").tolist() == [0, 1, 2]


def test_weights_of_queries_are_their_share_of_their_set():
    table = slow.table_of([0.9, np.nan, 0.3, 0.6, 0.1], [5, 5, 1, 9, 9])
    table |= {"set": np.array(["b", "b", "a", "b", "b"]), "weight": np.array([0.25, 0.25, 0.75, 0.25, 0.25])}
    assert query_weights(table).tolist() == pytest.approx([0.25 / 3, 0.75, 0.25 / 3, 0.25 / 3])
