import bisect
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, roc_curve

from tests.reference.verification import rate, tpr_at_fpr, valid_pairs
from utils.errors import ConfigError, DataError
from utils.ranking import distance
from utils.ranking.distance import feature_distances, matrix_distances
from utils.ranking.protocol import Protocol
from utils.ranking.verification import verify


def random_case(
    seed: int, num_query: int = 9, num_gallery: int = 40, levels: int | None = None, dtype: type = np.float32
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return (distances, labels); `levels` leaves that many values, so that most are tied."""
    rng = np.random.default_rng(seed)
    distances = rng.random((num_query, num_gallery)) * 3
    if levels:
        distances = np.floor(distances * levels)
    labels = [rng.integers(high, size=size) for high in (4, 3) for size in (num_query, num_gallery)]
    labels[0][0], labels[1][0], labels[2][0], labels[3][0] = 1, 1, 0, 1  # one positive pair
    labels[1][-1] = 9  # and one negative
    return distances.astype(dtype), labels


def binned(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    return [sum(low <= value < high for value in values) for low, high in zip(edges[:-1], edges[1:], strict=True)]


# identity 1 in camera 0 against positives 0.1, 0.35, 0.6, junk 0.0 and ten negatives
HAND_DISTANCES = np.array([[0.1, 0.35, 0.6, 0.0, 0.2, 0.3, 0.35, 0.5, 0.55, 0.7, 0.8, 0.9, 1.0, 1.1]])
HAND_LABELS = ([1], [1] * 4 + [2] * 10, [0], [1, 1, 1, 0] + [0] * 10)


@pytest.mark.parametrize(
    ("fpr", "tpr", "accepted"),
    [
        (0.05, 1 / 3, 0),  # no negative may pass: thresholds below 0.2
        (0.1, 1 / 3, 1),  # below 0.3
        (0.2, 1 / 3, 2),  # below 0.35, where a positive and a negative tie
        (0.3, 2 / 3, 3),  # below 0.5
        (0.5, 1.0, 5),  # below 0.7
        (1.0, 1.0, 10),
    ],
)
def test_rates_by_hand(fpr, tpr, accepted):
    result = verify(matrix_distances(HAND_DISTANCES), Protocol(*HAND_LABELS), [fpr])
    assert result.tpr_at_fpr == {fpr: pytest.approx(tpr)}
    assert (HAND_DISTANCES[0, 4:] <= result.threshold[fpr]).sum() == accepted
    assert (result.positive.sum(), result.negative.sum()) == (3, 10)


def test_29_of_100_negatives_are_accepted_at_0_29():
    distances = np.append(np.arange(100.0), 28.5)[None]  # 0.29 * 100 is 28.999999999999996 in float64
    result = verify(matrix_distances(distances), Protocol([1], [2] * 100 + [1], [0], [1] * 101), [0.29])
    assert result.tpr_at_fpr == {0.29: 1.0} and 28.5 < result.threshold[0.29] < 29


def test_histogram_by_hand():
    result = verify(matrix_distances(HAND_DISTANCES), Protocol(*HAND_LABELS), [], bins=4)
    assert result.positive.tolist() == binned([0.1, 0.35, 0.6], result.edges)
    assert result.negative.tolist() == binned(HAND_DISTANCES[0, 4:], result.edges)
    assert result.positive.sum() == 3 and result.negative.sum() == 10
    assert result.edges[0] == pytest.approx(0.1, abs=0.002) and result.edges[-1] == pytest.approx(1.1, abs=0.002)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_query=st.integers(1, 6),
    num_gallery=st.integers(2, 30),
    levels=st.sampled_from([None, 1, 3]),
    fprs=st.lists(st.sampled_from([1e-9, 0.01, 0.07, 0.29, 0.5, 0.999, 1.0]), max_size=3),
    bins=st.sampled_from([1, 7, 100]),
    dtype=st.sampled_from([np.float64, np.float32, np.float16, np.int64]),
    block=st.sampled_from([1, 500, 2**26]),
)
def test_any_case_equals_the_slow_reference(seed, num_query, num_gallery, levels, fprs, bins, dtype, block):
    distances, labels = random_case(seed, num_query, num_gallery, levels, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distance, "BLOCK_BYTES", block)
        result = verify(matrix_distances(distances), Protocol(*labels), fprs, bins)
    positive, negative = valid_pairs(distances, *labels)
    for fpr in fprs:
        assert result.tpr_at_fpr[fpr] == tpr_at_fpr(positive, negative, fpr)
        assert rate(positive, result.threshold[fpr]) == result.tpr_at_fpr[fpr]
        assert rate(negative, result.threshold[fpr]) <= fpr
    assert len(result.edges) == bins + 1
    assert result.positive.tolist() == binned(positive, result.edges)
    assert result.negative.tolist() == binned(negative, result.edges)
    assert result.positive.sum() == len(positive) and result.negative.sum() == len(negative)


def test_block_size_changes_nothing(monkeypatch):
    distances, labels = random_case(1)
    distances[5:] *= 40  # the range grows from block to block
    distances[3] -= 2
    whole = verify(matrix_distances(distances), Protocol(*labels), [0.01, 0.3])
    monkeypatch.setattr(distance, "BLOCK_BYTES", 1)
    parts = verify(matrix_distances(distances), Protocol(*labels), [0.01, 0.3])
    for values, expected in zip(parts, whole, strict=True):
        np.testing.assert_equal(values, expected)


def test_points_of_the_curve_lie_on_that_of_scikit_learn():
    distances, labels = random_case(2, 40, 300)
    positive, negative = valid_pairs(distances, *labels)
    result = verify(matrix_distances(distances), Protocol(*labels), [])
    truth = np.repeat([1, 0], [len(positive), len(negative)])
    fpr, tpr, _ = roc_curve(truth, -np.array(positive + negative), drop_intermediate=False)
    low, high = (tpr[fpr.searchsorted(result.fpr, side) - (side == "right")] for side in ("left", "right"))
    assert np.all((low <= result.tpr + 1e-12) & (result.tpr <= high + 1e-12))
    assert np.all(np.diff(result.fpr) >= 0) and np.all(np.diff(result.tpr) >= 0)
    assert (result.fpr[0], result.tpr[0], result.fpr[-1], result.tpr[-1]) == (0, 0, 1, 1)
    assert auc(result.fpr, result.tpr) == pytest.approx(auc(fpr, tpr), abs=0.005)


def test_features_verify_as_their_distances():
    feat = np.random.default_rng(3).integers(-3, 4, size=(49, 5)).astype(np.float32)  # small integers: exact
    _, labels = random_case(3)
    exact = ((feat[:9, None] - feat[9:]) ** 2).sum(axis=2)
    result = verify(feature_distances(torch.from_numpy(feat[:9]), feat[9:]), Protocol(*labels), [0.1])
    for values, expected in zip(result, verify(matrix_distances(exact), Protocol(*labels), [0.1]), strict=True):
        np.testing.assert_equal(values, expected)


def test_distances_are_left_as_they_were():
    distances, labels = random_case(4)
    before = distances.copy()
    verify(matrix_distances(distances), Protocol(*labels), [0.1])
    np.testing.assert_array_equal(distances, before)


def test_all_distances_equal_accept_all_or_nothing():
    result = verify(matrix_distances(np.zeros((1, 3))), Protocol([1], [1, 2, 3], [0], [1, 1, 1]), [0.5, 1.0])
    assert result.tpr_at_fpr == {0.5: 0.0, 1.0: 1.0}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_distance_that_is_not_finite_names_its_query(value):
    distances, labels = random_case(5)
    distances[7, 5] = value
    with pytest.raises(DataError, match=r"query 7 \(0-based\) hold NaN or infinity"):
        verify(matrix_distances(distances), Protocol(*labels), [0.1])


def test_no_pair_of_a_kind_is_refused():
    with pytest.raises(DataError, match="own camera id"):
        verify(matrix_distances(np.zeros((1, 2))), Protocol([1], [1, 2], [0], [0, 0]), [0.1])
    with pytest.raises(DataError, match="no negative pair: .* of one identity"):
        verify(matrix_distances(np.zeros((1, 2))), Protocol([1], [1, 1], [0], [1, 1]), [0.1])


@pytest.mark.parametrize(("fprs", "bins"), [([0.0], 10), ([0.1, 1.5], 10), ([float("nan")], 10), ([0.1], 0)])
def test_rates_and_bins_out_of_range_are_refused(fprs, bins):
    distances, labels = random_case(6)
    with pytest.raises(ConfigError, match="TEST.ROC_FPR"):
        verify(matrix_distances(distances), Protocol(*labels), fprs, bins)


def test_labels_of_another_size_are_refused():
    with pytest.raises(DataError, match=r"g_pids has shape \[1\]; need \[3\]"):
        verify(matrix_distances(np.zeros((1, 3))), Protocol([1], [1], [0], [1, 1, 1]), [0.1])


@pytest.mark.parametrize("count", [1, 2, 100])
def test_one_bin_up_to_many_hold_every_pair_and_the_edges_are_even(count):
    distances, labels = random_case(7)
    positive, negative = valid_pairs(distances, *labels)
    result = verify(matrix_distances(distances), Protocol(*labels), [1.0], bins=count)
    assert result.positive.tolist() == binned(positive, result.edges)
    assert result.negative.tolist() == binned(negative, result.edges)
    steps = np.diff(result.edges)
    assert len(steps) == count and steps == pytest.approx(np.full(count, steps[0])) and steps[0] > 0
    spread = max(positive + negative) - min(positive + negative)
    assert result.edges[0] <= min(positive + negative) < result.edges[1]
    assert result.edges[-1] - result.edges[0] < 1.1 * spread + 2 * count * spread / 2048


def slow_points(positive: Sequence[float], negative: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return fpr and tpr of the fine bins in which the curve enters a cell: 1/200 of TPR, 1/50 of a decade of FPR."""
    low, high = min(*positive, *negative), max(*positive, *negative)
    width = 2.0 ** (math.floor(math.log2((high - low) / 4095)) + 1)  # at most 4096 bins, their width a power of two
    sides = [sorted(math.floor(value / width) for value in side) for side in (positive, negative)]
    points, cells = [(0.0, 0.0)], [(0, math.floor(50 * math.log10(1 / len(negative))))]
    for fine in range(math.floor(low / width), math.floor(high / width) + 1):
        tpr, fpr = (bisect.bisect_right(side, fine) / len(side) for side in sides)
        cell = math.floor(tpr / (1 / 200)), math.floor(50 * math.log10(max(fpr, 1 / len(negative))))
        if cell != cells[-1] or fine == math.floor(high / width):
            points.append((fpr, tpr))
            cells.append(cell)
    fprs, tprs = zip(*points, strict=True)
    return list(fprs), list(tprs)


@pytest.mark.parametrize(("centre", "spread"), [(1.0, 0.3), (-5.0, 0.02)])
def test_a_picture_gets_100_bins_and_the_curve_a_point_for_each_cell_that_it_passes(centre, spread):
    rng = np.random.default_rng(8)
    positive, negative = rng.normal(centre, spread, (20, 400)), rng.normal(centre + 3 * spread, spread, (20, 4000))
    labels = ([1] * 20, [1] * 400 + [2] * 4000, [0] * 20, [1] * 4400)
    result = verify(matrix_distances(np.concatenate((positive, negative), axis=1)), Protocol(*labels), [])
    fpr, tpr = slow_points(positive.ravel().tolist(), negative.ravel().tolist())
    assert len(result.edges) == 101 and 200 < len(fpr) < 450
    assert result.fpr == pytest.approx(fpr, abs=1e-12) and result.tpr == pytest.approx(tpr, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("shift", [-1.0, 0.0, 5.0])
def test_the_histogram_follows_any_scale_and_sign(scale, shift):
    distances, labels = random_case(9, dtype=np.float64)
    distances = (distances + shift) * scale
    result = verify(matrix_distances(distances), Protocol(*labels), [0.1])
    positive, negative = valid_pairs(distances, *labels)
    assert result.positive.tolist() == binned(positive, result.edges)
    assert result.negative.tolist() == binned(negative, result.edges)
    assert np.count_nonzero(result.positive + result.negative) > 50  # as fine as the shown bins


def test_a_rate_of_1_accepts_all_and_has_no_threshold():
    result = verify(matrix_distances(HAND_DISTANCES), Protocol(*HAND_LABELS), [1.0, 0.5], bins=1)
    assert result.threshold[1.0] == np.inf and result.threshold[0.5] < 0.7 <= np.nextafter(result.threshold[0.5], 1)
