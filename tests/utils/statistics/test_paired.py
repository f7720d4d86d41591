"""Paired tests against exhaustive enumeration and published values; their false-positive rate by simulation."""

import numpy as np
import pytest

from tests.reference import slow_statistics as slow
from utils.errors import DataError
from utils.statistics import paired
from utils.statistics.bootstrap import interval, mean_interval
from utils.statistics.paired import compare_tables, holm, pair_queries, sign_flip_test, welch_test

# extra hours of sleep under two drugs (Student 1908), and p of Welch's test as R's manual prints it
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
SLEEP_P = 0.07939


@pytest.mark.parametrize("seed", range(6))
def test_random_flips_come_near_the_exact_p_of_all_sign_patterns(seed):
    rng = np.random.default_rng(seed)
    changes = rng.normal(0.4 * (seed % 3), 1, 10) * rng.integers(1, 5, 10)
    exact = slow.exhaustive_sign_flips(changes.tolist())
    assert sign_flip_test(changes) == pytest.approx(exact, abs=4 * (0.25 / paired.FLIPS) ** 0.5)


def test_flips_that_tie_with_the_result_count_as_reaching_it():
    changes = np.array([0.1, 0.2, 0.3, -0.3, 0.1])  # sums whose rounding depends on the order
    exact = slow.exhaustive_sign_flips(changes.tolist())
    assert sign_flip_test(changes) == pytest.approx(exact, abs=0.02)


def test_no_change_has_p_1_and_p_is_never_0():
    assert sign_flip_test(np.zeros(5)) == 1.0
    assert sign_flip_test(np.ones(40)) == 1 / (1 + paired.FLIPS)


def test_flips_do_not_depend_on_the_block_size(monkeypatch):
    changes = np.random.default_rng(0).normal(size=16)
    whole = sign_flip_test(changes)
    monkeypatch.setattr(paired, "BLOCK", 16 * 1000)
    assert sign_flip_test(changes) == pytest.approx(whole, abs=0.02)


def test_welch_gives_the_published_p():
    assert welch_test(DRUG_1, DRUG_2) == pytest.approx(SLEEP_P, abs=1e-5)


def test_welch_needs_two_seeds_on_each_side_and_some_spread():
    assert welch_test([0.5], [0.6, 0.7]) is None and welch_test([0.5, 0.6], [0.7]) is None
    assert welch_test([0.5, 0.5], [0.5, 0.5]) == 1.0 and welch_test([0.5, 0.5], [0.6, 0.6]) == 0.0
    one_sided = 2 * (0.5 - np.arctan(0.15 / 0.05) / np.pi)  # spread on one side: t of 1 degree of freedom, a Cauchy's
    assert welch_test([0.5, 0.5], [0.6, 0.7]) == pytest.approx(one_sided)
    assert welch_test([0.6, 0.7], [0.5, 0.5]) == pytest.approx(one_sided)


@pytest.mark.parametrize("seed", range(4))
def test_holm_is_that_of_the_definition(seed):
    p_values = np.random.default_rng(seed).random(6).round(1).tolist()  # with ties
    assert holm(p_values) == pytest.approx(slow.holm(p_values))


def test_holm_of_hand_computed_values_and_of_none():
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([]) == []


def shuffled(table: dict[str, np.ndarray], seed: int = 0) -> dict[str, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(table["pid"]))
    return {key: column[order] for key, column in table.items()}


def test_queries_are_paired_by_folder_and_file_under_any_root_and_in_any_order():
    first = slow.simulated_queries(np.random.default_rng(0), 8, 3)
    other = shuffled(slow.table_of(first["ap"], first["pid"], root="/elsewhere/data"))
    assert not np.array_equal(other["ap"], first["ap"])
    np.testing.assert_array_equal(pair_queries([("a", first), ("b", other)])[1]["ap"], first["ap"])


def test_the_trials_of_one_image_are_kept_apart():
    first = slow.table_of([0.1, 0.2], [1, 1])
    first = {key: np.concatenate([column, column]) for key, column in first.items()}
    first |= {"trial": np.array([0, 0, 1, 1]), "ap": np.array([0.1, 0.2, 0.3, 0.4])}
    np.testing.assert_array_equal(pair_queries([("a", first), ("b", shuffled(first, 1))])[1]["ap"], first["ap"])


def test_the_sets_of_one_query_are_kept_apart_and_count_alike():
    first = slow.table_of([0.1, 0.2, 0.3, 0.4], [1, 2, 1, 2])
    first |= {"path": np.array(["a/1.jpg", "a/2.jpg", "a/1.jpg", "a/3.jpg"]), "set": np.array(["NIR"] * 3 + ["SK"])}
    first |= {"weight": np.full(4, 0.5)}
    first["set"][2] = "SK"
    other = first | {"ap": first["ap"] + 0.1}
    np.testing.assert_allclose(pair_queries([("a", first), ("b", shuffled(other, 1))])[1]["ap"], other["ap"])
    three = {key: column[:3] for key, column in first.items()}  # two of NIR, one of SK
    found = compare_tables([three], [three | {"ap": three["ap"] + np.array([0.1, 0.3, 0.4])}], "mAP")
    assert found.first == pytest.approx((0.15 + 0.3) / 2) and found.difference == pytest.approx((0.2 + 0.4) / 2)
    with pytest.raises(DataError, match="'b': queries share parent folder and file name"):
        pair_queries([("a", first), ("b", {key: column for key, column in first.items() if key != "set"})])


def test_queries_of_cameras_whose_folders_are_alike_pair_under_another_root():
    first = slow.table_of([0.1, 0.2, 0.3], [6, 6, 6])
    names = ["cam3/0006/0001.jpg", "cam6/0006/0001.jpg", "cam6/0006/0002.jpg"]
    first |= {"path": np.array([f"a/SYSU-MM01/{name}" for name in names])}
    other = first | {"path": np.array([f"/elsewhere/{name}" for name in names]), "ap": first["ap"] + 0.1}
    assert pair_queries([("a", first), ("b", shuffled(other, 2))])[1]["ap"].tolist() == other["ap"].tolist()


def test_windows_paths_pair_with_others():
    first = slow.table_of([0.1, 0.2], [1, 2])
    other = first | {"path": np.array([path.replace("/", "\\") for path in first["path"]])}
    assert len(pair_queries([("a", first), ("b", other)])) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: {key: column[1:] for key, column in table.items()}, "of 4 and 3, 1 have no counterpart"),
        (lambda table: table | {"pid": table["pid"] + 1}, "other identities"),
        (lambda table: table | {"first_hit": np.array([0, 0, 0, -1])}, "so their galleries differ"),
        (lambda table: table | {"num_pos": table["num_pos"] + 1}, "so their galleries differ"),
        (lambda table: table | {"path": np.array(["x/q/1.jpg"] * 4)}, "share parent folder and file name"),
    ],
)
def test_other_queries_are_refused_in_one_line_that_names_both(change, said):
    table = slow.table_of([0.1, 0.2, 0.3, 0.4], [1, 1, 2, 2])
    with pytest.raises(DataError, match=said) as error:
        pair_queries([("run_a", table), ("run_b", change(table))])
    assert "'run_b'" in str(error.value) and "\n" not in str(error.value)
    assert "'run_a'" in str(error.value) or "share parent folder" in said  # which is a mistake of one alone


def test_a_comparison_averages_seeds_per_query_and_is_that_of_hand_computed_values():
    pid = [1, 1, 2]
    first = [slow.table_of(ap, pid) for ap in ([0.1, 0.3, 0.2], [0.3, 0.1, 0.4])]  # mean 0.2, 0.2, 0.3
    second = [slow.table_of(ap, pid) for ap in ([0.5, 0.3, 0.2], [0.5, 0.5, 0.2])]  # mean 0.5, 0.4, 0.2
    found = compare_tables(first, second, "mAP")
    assert (found.first, found.second) == (pytest.approx(0.7 / 3), pytest.approx(1.1 / 3))
    assert found.difference == pytest.approx(0.4 / 3) and found.num_units == 2
    assert found.seeds == ([pytest.approx(0.2), pytest.approx(0.8 / 3)], [pytest.approx(1 / 3), pytest.approx(0.4)])
    # changes per identity 0.5 and -0.1: all four sign patterns are |0.4|, |0.6| or further
    assert found.p_units == pytest.approx(1.0)
    assert found.p == max(found.p_units, found.p_seeds)


def test_the_interval_of_the_difference_is_that_of_the_paired_change():
    rng = np.random.default_rng(0)
    first = slow.simulated_queries(rng, 20, 4)
    second = slow.table_of(first["ap"] * 0.5 + 0.3, first["pid"])
    found = compare_tables([first], [second], "mAP")
    low, high = interval(slow.table_of(second["ap"] - first["ap"] + 0.5, first["pid"]), "mAP")  # moved into 0..1
    assert found.interval == pytest.approx((low - 0.5, high - 0.5)) and found.p_seeds is None
    alone = interval(second, "mAP")
    assert found.interval[1] - found.interval[0] < alone[1] - alone[0]  # what both find hard cancels


def mistakes(trials: int, num_ids: int) -> tuple[float, float]:
    """Return how often two equally good models differ with p < 0.05, and how often the interval does not hold 0.

    Identities are unequal in size and difficulty.
    """
    rng = np.random.default_rng(5)
    significant = without_0 = 0
    for _ in range(trials):
        first = slow.simulated_queries(rng, num_ids, 5, (0.8, 2.0))
        level = np.clip(first["ap"] + rng.normal(0, 0.1, num_ids)[first["pid"]], 0.01, 0.99)
        pair = [slow.table_of(rng.beta(3 * level, 3 * (1 - level)), first["pid"]) for _ in range(2)]
        change = pair[1]["ap"] - pair[0]["ap"]
        significant += sign_flip_test(np.bincount(first["pid"], change)) < 0.05
        low, high = mean_interval(change, first["pid"], (-1.0, 1.0))
        without_0 += not low <= 0 <= high
    return significant / trials, without_0 / trials


def test_equal_models_rarely_differ():
    significant, without_0 = mistakes(300, 40)
    assert 0.015 <= significant <= 0.09 and 0.015 <= without_0 <= 0.09  # 5 %, sd 1.3 %


@pytest.mark.slow
@pytest.mark.parametrize("num_ids", [15, 40, 200])
def test_the_false_positive_rate_is_near_5_percent(num_ids, capsys):
    significant, without_0 = mistakes(2000, num_ids)
    with capsys.disabled():
        print(
            f"\nequal models, {num_ids} identities: p < 0.05 in {significant:.1%}, interval without 0 {without_0:.1%}"
        )
    assert 0.035 <= significant <= 0.065 and 0.03 <= without_0 <= 0.08


def flips(changes: np.ndarray) -> float:
    """Return p over the same random signs, each sum spelt out."""
    kept = np.random.default_rng(0).integers(2, size=(9999, len(changes)), dtype=np.int8)
    sums = np.where(kept == 1, changes, -changes).sum(axis=1)
    return (1 + np.count_nonzero(np.abs(sums) >= abs(changes.sum()) - 1e-9)) / 10_000


@pytest.mark.parametrize("seed", range(3))
def test_p_is_that_of_a_plain_loop_over_the_same_signs(seed, monkeypatch):
    changes = np.random.default_rng(seed).normal(0.2, 1, 12)
    expected = flips(changes)
    assert sign_flip_test(changes) == pytest.approx(expected, abs=1e-12)
    monkeypatch.setattr(paired, "BLOCK", 5)  # less than one flip of all identities
    assert sign_flip_test(changes[:6]) == pytest.approx(flips(changes[:6]), abs=0.02)


def test_one_identity_cannot_show_a_difference():
    assert sign_flip_test(np.array([0.7])) == sign_flip_test(np.array([-0.7])) == 1.0


def test_tables_in_one_order_need_no_names_that_tell_their_queries_apart():
    first = slow.table_of([0.1, 0.2, 0.3], [1, 1, 2]) | {"path": np.array(["a/q/1.jpg", "b/q/1.jpg", "c/q/1.jpg"])}
    second, third = first | {"ap": first["ap"] + 0.1}, first | {"ap": first["ap"] + 0.2}
    assert pair_queries([("a", first), ("b", second), ("c", third)]) == [first, second, third]
    assert pair_queries([("a", first)]) == [first]
    with pytest.raises(DataError, match="'c': queries share parent folder and file name"):
        other = third | {"path": np.array(["x/1.jpg", "y/1.jpg", "x/1.jpg"])}
        pair_queries([("a", slow.table_of([0.1] * 3, [1, 1, 2])), ("c", other)])


def test_a_query_without_a_counterpart_is_shown_and_all_of_both_sides_are_counted():
    first, second = slow.table_of([0.1, 0.2, 0.3], [1, 1, 2]), slow.table_of([0.1, 0.2], [1, 3])
    words = (
        r"'run_a' and 'run_b' were tested on other queries: of 3 and 2, 3 have no counterpart, such as "
        "'query/00001_1.jpg'; compare tests of one test set"
    )
    with pytest.raises(DataError, match=words):
        pair_queries([("run_a", first), ("run_b", second)])


def test_another_trial_is_another_query():
    first = slow.table_of([0.1, 0.2], [1, 2])
    with pytest.raises(DataError, match="of 2 and 2, 2 have no counterpart"):
        pair_queries([("a", first), ("b", first | {"trial": np.array([0, 1])})])


def test_every_column_follows_the_order_of_the_first_table():
    first = slow.simulated_queries(np.random.default_rng(2), 6, 3)
    found = pair_queries([("a", first), ("b", shuffled(first, 3))])[1]
    assert found.keys() == first.keys()
    for key, column in first.items():
        np.testing.assert_array_equal(found[key], column)


def test_over_images_each_query_is_a_unit_of_its_own():
    first = slow.table_of([0.1, 0.3, 0.2, 0.4], [1, 1, 2, 2])
    second = slow.table_of([0.4, 0.5, 0.5, 0.5], [1, 1, 2, 2])
    change = second["ap"] - first["ap"]
    found = compare_tables([first], [second], "mAP", "query")
    assert found.num_units == 4 and found.p_units == sign_flip_test(change)
    assert found.interval == pytest.approx(mean_interval(change, np.arange(4), (-1.0, 1.0)))
    by_identity = compare_tables([first], [second], "mAP")
    assert by_identity == compare_tables([first], [second], "mAP", "identity")
    assert by_identity.p_units == sign_flip_test(np.array([0.5, 0.4])) and by_identity.p == by_identity.p_units


def test_sets_weigh_in_the_test_and_in_the_interval_as_in_the_metrics():
    table = slow.table_of([0.1, 0.2, 0.3, 0.4], [1, 2, 1, 3])
    table |= {"set": np.array(["NIR", "NIR", "NIR", "SK"]), "weight": np.full(4, 0.5)}
    other = table | {"ap": table["ap"] + np.array([0.3, -0.1, 0.2, 0.1])}
    found = compare_tables([table], [other], "mAP")
    change, weights = np.array([0.3, -0.1, 0.2, 0.1]), np.array([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    assert found.p_units == sign_flip_test(np.array([0.5, -0.1, 0.3]) / 6)
    expected = mean_interval(change, np.array([0, 1, 0, 2]), (-1.0, 1.0), weights)
    assert found.interval == pytest.approx(expected) and found.seeds[1] == [pytest.approx(found.second)]


def test_the_larger_p_counts_whichever_it_is():
    first = [slow.table_of(np.full(30, value), range(30)) for value in (0.2, 0.6)]
    second = [slow.table_of(np.full(30, value), range(30)) for value in (0.5, 0.7)]
    found = compare_tables(first, second, "mAP")
    assert found.p_units == 1e-4 < found.p_seeds == found.p
    close = [slow.table_of([0.2, 0.5, value], [1, 2, 3]) for value in (0.4, 0.41)]
    far = [slow.table_of([0.3, 0.6, value], [1, 2, 3]) for value in (0.5, 0.51)]
    found = compare_tables(close, far, "mAP")
    assert found.p_seeds < found.p_units == found.p
