import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.expansion import expand
from tests.tolerance import rounding
from utils.errors import ConfigError, DataError
from utils.ranking import distance, expansion
from utils.ranking.expansion import expand_queries

ATOL = rounding(8 + 5)  # of unit features of 8 values, up to 5 of which are added up


def features(seed: int, num_query: int = 7, num_gallery: int = 30, dim: int = 8) -> tuple[np.ndarray, np.ndarray]:
    feat = np.random.default_rng(seed).standard_normal((num_query + num_gallery, dim)).astype(np.float32)
    return feat[:num_query], feat[num_query:]


def test_average_query_expansion_by_hand():
    # the two nearest of (1, 0) are (0.8, 0.6) and (0.6, 0.8); their sum with the query is (2.4, 1.4)
    gallery = np.array([[-1, 0], [0.6, 0.8], [0.8, 0.6]])
    expected = np.array([[2.4, 1.4]]) / np.hypot(2.4, 1.4)
    np.testing.assert_allclose(expand_queries(np.array([[1.0, 0.0]]), gallery, 2, 0.0), expected, atol=ATOL)


def test_alpha_weighted_expansion_by_hand():
    # similarities 0.8, 0.6 and -1, which counts as 0: (1, 0) + 0.8^3 (0.8, 0.6) + 0.6^3 (0.6, 0.8)
    gallery = np.array([[-1, 0], [0.6, 0.8], [0.8, 0.6]])
    total = np.array([[1 + 0.512 * 0.8 + 0.216 * 0.6, 0.512 * 0.6 + 0.216 * 0.8]])
    result = expand_queries(np.array([[1.0, 0.0]]), gallery, 3, 3.0)
    np.testing.assert_allclose(result, total / np.linalg.norm(total), atol=ATOL)


def test_alpha_0_counts_opposite_images_as_any_other():
    gallery = np.array([[0.0, 1.0], [-1.0, 0.0]])
    np.testing.assert_allclose(expand_queries(np.array([[1.0, 0.0]]), gallery, 2, 0.0), [[0, 1]], atol=ATOL)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_query=st.integers(1, 6),
    num_gallery=st.integers(1, 40),
    k=st.integers(1, 60),
    alpha=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    times=st.integers(1, 3),
)
def test_any_case_equals_the_slow_reference(seed, num_query, num_gallery, k, alpha, times):
    query, gallery = features(seed, num_query, num_gallery)
    result = expand_queries(query, gallery, k, alpha, times)
    assert result.shape == query.shape and result.dtype == np.float32
    np.testing.assert_allclose(result, expand(query, gallery, k, alpha, times), rtol=0, atol=1e-4)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_duplicates_and_ties_go_to_the_smaller_index(k):
    gallery = np.array([[0, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 0, 0], [0, -1, 0]])
    query = np.array([[1.0, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(expand_queries(query, gallery, k, 0.0), expand(query, gallery, k, 0.0), atol=ATOL)


def test_length_of_the_features_does_not_matter():
    query, gallery = features(1)
    scale = np.random.default_rng(1).uniform(0.1, 10, (30, 1)).astype(np.float32)
    result = expand_queries(5 * query, scale * gallery, 4, 1.0)
    np.testing.assert_allclose(result, expand_queries(query, gallery, 4, 1.0), atol=ATOL)
    np.testing.assert_allclose(np.linalg.norm(result, axis=1), 1, atol=ATOL)


def test_two_rounds_are_one_round_of_one_round():
    query, gallery = features(2)
    once = expand_queries(query, gallery, 4, 1.0)
    np.testing.assert_allclose(
        expand_queries(query, gallery, 4, 1.0, times=2), expand_queries(once, gallery, 4, 1.0), atol=ATOL
    )


def test_block_size_changes_nothing(monkeypatch):
    query, gallery = features(3)
    whole = expand_queries(query, gallery, 5, 3.0, 2)
    monkeypatch.setattr(distance, "BLOCK_BYTES", 2 * 9 * len(gallery))  # 2 queries at a time
    np.testing.assert_allclose(expand_queries(query, gallery, 5, 3.0, 2), whole, atol=ATOL)


def test_sum_of_zero_and_features_of_zeros_stay_finite():
    np.testing.assert_array_equal(expand_queries(np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]]), 1, 0.0), [[0, 0]])
    np.testing.assert_array_equal(expand_queries(np.zeros((1, 2)), np.zeros((3, 2)), 2, 1.0), [[0, 0]])


def test_inputs_are_left_as_they_were():
    query, gallery = features(4)
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    before = query.copy(), gallery.copy()
    expand_queries(query, torch.from_numpy(gallery), 5, 3.0, 2)
    np.testing.assert_array_equal(query, before[0])
    np.testing.assert_array_equal(gallery, before[1])


@pytest.mark.parametrize(
    "options", [(0, 0.0, 1), (1, -1.0, 1), (1, float("nan"), 1), (1, float("inf"), 1), (1, 0.0, 0)]
)
def test_parameters_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match=r"need k >= 1, alpha >= 0 and times >= 1 \(TEST.QE"):
        expand_queries(*features(5), *options)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_feature_that_is_not_finite_names_its_side_and_row(side, value):
    sides = features(6)
    sides[side][2, 1] = value
    with pytest.raises(DataError, match=rf"{('query', 'gallery')[side]} feature row 2 .*1 of"):
        expand_queries(*sides, 3, 0.0)


def test_features_that_cannot_be_compared_are_refused():
    query, gallery = features(7)
    with pytest.raises(DataError, match="query features have 8 values, gallery features 7"):
        expand_queries(query, gallery[:, :7], 3, 0.0)
    with pytest.raises(DataError, match=r"gallery features have shape \[0, 8\]"):
        expand_queries(query, gallery[:0], 3, 0.0)


def test_blocks_hold_as_many_queries_as_distances_mask_and_minima_of_groups_leave_room_for(monkeypatch):
    query, gallery = features(8)
    sizes, made = [], expansion.squared_distances
    monkeypatch.setattr(expansion, "squared_distances", lambda x, *rest: sizes.append(len(x)) or made(x, *rest))
    monkeypatch.setattr(distance, "BLOCK_BYTES", 3 * 9 * len(gallery))
    expand_queries(query, gallery, 5, 1.0)
    assert sizes == [3, 3, 1]


def test_one_round_is_the_default_and_the_smallest_of_each_parameter_is_allowed():
    query, gallery = features(9)
    once = expand_queries(query, gallery, 1, 0.0)
    np.testing.assert_array_equal(once, expand_queries(query, gallery, 1, 0.0, 1))
    np.testing.assert_allclose(once, expand(query, gallery, 1, 0.0, 1), rtol=0, atol=1e-4)
    with pytest.raises(ConfigError, match="query expansion with k 0, alpha 0.5, times 3 is not possible"):
        expand_queries(query, gallery, 0, 0.5, 3)
