import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.reference.reranking import re_rank
from tests.reference.retrieval import squared_euclidean
from tests.tolerance import rounding
from utils.errors import ConfigError, DataError
from utils.ranking import distance, reranking
from utils.ranking.reranking import re_ranked_distances, re_ranking

ATOL = rounding(32)  # of distances over the largest of their row; features have up to 32 values


def clusters(
    seed: int, num_query: int = 15, num_gallery: int = 60, dim: int = 16, num_ids: int = 8, spread: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Return unit query and gallery features around a few centres."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((num_ids, dim))
    feat = centres[rng.integers(num_ids, size=num_query + num_gallery)]
    feat = feat + spread * rng.standard_normal(feat.shape)
    feat = (feat / np.linalg.norm(feat, axis=1, keepdims=True)).astype(np.float32)
    return feat[:num_query], feat[num_query:]


@pytest.mark.parametrize("lambda_value", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (50, 15), (1, 1), (2, 1), (5, 3), (7, 30), (3, 7), (10, 1)])
def test_sparse_result_equals_the_dense_algorithm(k1, k2, lambda_value):
    query, gallery = clusters(k1 + k2)
    result = re_ranking(query, gallery, k1, k2, lambda_value)
    assert result.shape == (15, 60) and result.dtype == np.float32
    np.testing.assert_allclose(result, re_rank(query, gallery, k1, k2, lambda_value), rtol=0, atol=ATOL)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_query=st.integers(1, 12),
    num_gallery=st.integers(1, 40),
    k1=st.integers(1, 60),
    k2=st.integers(1, 60),
    lambda_value=st.floats(0, 1),
)
def test_any_size_and_parameters_equal_the_dense_algorithm(seed, num_query, num_gallery, k1, k2, lambda_value):
    query, gallery = clusters(seed, num_query, num_gallery, num_ids=3)
    expected = re_rank(query, gallery, k1, k2, lambda_value)
    np.testing.assert_allclose(re_ranking(query, gallery, k1, k2, lambda_value), expected, rtol=0, atol=ATOL)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k1=st.integers(1, 20), k2=st.integers(1, 8), offset=st.sampled_from([0, 100]))
def test_ties_and_duplicates_are_ordered_by_index_as_in_the_dense_algorithm(seed, k1, k2, offset):
    points = np.random.default_rng(seed).integers(-2, 3, size=(40, 3)) + offset  # few distances, all exact in float64
    expected = re_rank(points[:8], points[8:], k1, k2, 0.3)
    np.testing.assert_allclose(re_ranking(points[:8], points[8:], k1, k2, 0.3), expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize("seed", range(5))
def test_neighbours_that_float32_cannot_tell_apart_are_ordered_as_in_float64(seed):
    rng = np.random.default_rng(seed)
    feat = rng.standard_normal((60, 32))
    feat /= np.linalg.norm(feat, axis=1, keepdims=True)
    feat = np.concatenate((feat, feat + 3e-8 * rng.standard_normal(feat.shape))).astype(np.float32)  # near twins
    feat = feat[rng.permutation(len(feat))]
    expected = re_rank(feat[:20], feat[20:], 6, 3, 0.3)
    np.testing.assert_allclose(re_ranking(feat[:20], feat[20:], 6, 3, 0.3), expected, rtol=0, atol=ATOL)


def test_lambda_1_is_the_distance_over_the_largest_of_the_query_row():
    query, gallery = clusters(1)
    squared = squared_euclidean(query, np.concatenate((query, gallery)))
    expected = (squared / squared.max(axis=1, keepdims=True))[:, len(query) :]
    np.testing.assert_allclose(re_ranking(query, gallery, 20, 6, 1.0), expected, rtol=0, atol=ATOL)


def test_three_points_by_hand():
    # points 0 | 1, 5 on a line, k1 = k2 = 1: mutual nearest are (0, 1); point 5 keeps only itself
    # squared distances 1, 25 | 16, row maxima 25, 16, 25; V_0 = [1, e^(-1/25)] / sum, V_1 = [e^(-1/16), 1] / sum
    near, far = np.exp(-1 / 25), np.exp(-1 / 16)
    shared = min(1 / (1 + near), far / (1 + far)) + min(near / (1 + near), 1 / (1 + far))
    jaccard = np.array([1 - shared / (2 - shared), 1.0])
    expected = 0.7 * jaccard + 0.3 * np.array([1 / 25, 1.0])
    result = re_ranking(np.array([[0.0]]), np.array([[1.0], [5.0]]), 1, 1, 0.3)
    np.testing.assert_allclose(result[0], expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize(("least_rows", "block_rows"), [(1, 4), (16, 4), (75, 1), (40, 40)])
@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (1, 1), (5, 70), (1000, 3)])
def test_blocks_of_rows_and_columns_give_the_dense_result(monkeypatch, least_rows, block_rows, k1, k2):
    query, gallery = clusters(2)
    monkeypatch.setattr(distance, "BLOCK_BYTES", block_rows * 9 * 75)
    monkeypatch.setattr(reranking, "LEAST_ROWS", least_rows)
    expected = re_rank(query, gallery, k1, k2, 0.3)
    np.testing.assert_allclose(re_ranking(query, gallery, k1, k2, 0.3), expected, rtol=0, atol=ATOL)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), k1=st.integers(1, 20), columns=st.integers(1, 30), rows=st.integers(1, 40))
def test_ties_over_the_edges_of_blocks_are_ordered_by_index(monkeypatch, seed, k1, columns, rows):
    points = np.random.default_rng(seed).integers(-2, 3, size=(40, 3))  # few distances, all exact in float64
    with monkeypatch.context() as patch:
        patch.setattr(distance, "BLOCK_BYTES", columns * 9 * rows)
        patch.setattr(reranking, "LEAST_ROWS", rows)
        result = re_ranking(points[:8], points[8:], k1, 4, 0.3)
    np.testing.assert_allclose(result, re_rank(points[:8], points[8:], k1, 4, 0.3), rtol=0, atol=ATOL)


def test_rows_made_alone_are_those_of_the_whole():
    query, gallery = clusters(3)
    distances = re_ranked_distances(query, gallery, 20, 6, 0.3)
    expected = re_rank(query, gallery, 20, 6, 0.3)
    for start, stop in ((0, 1), (4, 9), (14, 15)):
        np.testing.assert_allclose(distances.rows(start, stop), expected[start:stop], rtol=0, atol=ATOL)


def test_neither_a_matrix_of_all_pairs_nor_a_copy_of_the_features_is_held(monkeypatch):
    number, width = 3000, 256
    feat = np.random.default_rng(0).standard_normal((number, width)).astype(np.float16)
    monkeypatch.setattr(distance, "BLOCK_BYTES", 2**18)
    monkeypatch.setattr(reranking, "LEAST_ROWS", 64)
    tracemalloc.start()
    try:
        distances = re_ranked_distances(feat[:1500], feat[1500:], 5, 2, 0.3)
        for _ in distances.blocks():
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < feat.astype(np.float32).nbytes < 4 * 1500 * 1500 < 4 * number**2


def test_permuted_queries_permute_the_rows():
    query, gallery = clusters(3)
    order = np.random.default_rng(3).permutation(len(query))
    expected = re_ranking(query, gallery, 20, 6, 0.3)[order]
    np.testing.assert_allclose(re_ranking(query[order], gallery, 20, 6, 0.3), expected, rtol=0, atol=ATOL)


def test_k_beyond_the_number_of_images_means_all_of_them():
    query, gallery = clusters(4, 5, 20)
    expected = re_rank(query, gallery, 1000, 1000, 0.3)
    np.testing.assert_allclose(re_ranking(query, gallery, 1000, 1000, 0.3), expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_any_float_type_give_the_float32_result(dtype):
    query, gallery = (torch.from_numpy(feat).to(dtype) for feat in clusters(5))
    expected = re_ranking(query.float().numpy(), gallery.float().numpy(), 10, 4, 0.3)
    np.testing.assert_array_equal(re_ranking(query, gallery, 10, 4, 0.3), expected)


def test_inputs_are_left_as_they_were():
    query, gallery = clusters(6)
    before = query.copy(), gallery.copy()
    re_ranking(query, gallery, 10, 4, 0.3)
    np.testing.assert_array_equal(query, before[0])
    np.testing.assert_array_equal(gallery, before[1])


def test_large_common_offset_of_the_features_is_harmless():
    query, gallery = clusters(7)
    query, gallery = (np.round(feat * 1024) / 1024 for feat in (query, gallery))  # offset + feature is exact
    expected = re_rank(query, gallery, 20, 6, 0.3)
    np.testing.assert_allclose(re_ranking(query + 64, gallery + 64, 20, 6, 0.3), expected, rtol=0, atol=ATOL)


def test_identical_images_give_finite_distances_and_the_twin_first():
    query, gallery = clusters(8)
    gallery[7] = query[0]
    result = re_ranking(query, gallery, 10, 4, 0.3)
    assert np.isfinite(result).all() and result[0].argmin() == 7


@pytest.mark.parametrize("k1", [2, 30])
def test_all_images_identical_have_distance_0(k1):
    result = re_ranking(np.ones((3, 4)), np.ones((20, 4)), k1, 3, 0.3)
    np.testing.assert_allclose(result, np.zeros((3, 20)), rtol=0, atol=ATOL)


def test_one_query_and_one_gallery_image_work():
    result = re_ranking(np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]]), 20, 6, 0.3)
    np.testing.assert_allclose(result, re_rank([[0.0, 1.0]], [[1.0, 0.0]], 20, 6, 0.3), rtol=0, atol=ATOL)


@pytest.mark.parametrize("options", [(0, 6, 0.3), (20, 0, 0.3), (20, 6, -0.1), (20, 6, 1.1), (20, 6, float("nan"))])
def test_parameters_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match="TEST.RERANK"):
        re_ranking(*clusters(9), *options)


def test_features_that_cannot_be_compared_are_refused():
    query, gallery = clusters(10)
    with pytest.raises(DataError, match="query features have 16 values, gallery features 15"):
        re_ranking(query, gallery[:, :15], 20, 6, 0.3)
    with pytest.raises(DataError, match=r"gallery features have shape \[0, 16\]"):
        re_ranking(query, gallery[:0], 20, 6, 0.3)
    gallery[4, 2] = np.nan
    with pytest.raises(DataError, match="gallery feature row 4"):
        re_ranking(query, gallery, 20, 6, 0.3)


def test_blocks_hold_as_many_columns_as_distances_scaled_ones_and_a_mask_leave_room_for(monkeypatch):
    query, gallery = clusters(11)
    sizes, made = [], reranking.squared_distances

    def noted(x: np.ndarray, y: np.ndarray, *norms: np.ndarray) -> np.ndarray:
        sizes.append((len(x), len(y)))
        return made(x, y, *norms)

    monkeypatch.setattr(reranking, "squared_distances", noted)
    monkeypatch.setattr(distance, "BLOCK_BYTES", 40 * 9 * 75)
    monkeypatch.setattr(reranking, "LEAST_ROWS", 50)
    re_ranked_distances(query, gallery, 10, 4, 0.3)
    assert sizes == [(50, 60), (50, 15), (25, 75)]


@pytest.mark.parametrize(("k1", "k2", "lambda_value"), [(1, 1, 0), (1, 1, 1), (1, 2, 0.5)])
def test_parameters_at_the_ends_of_their_ranges_are_allowed(k1, k2, lambda_value):
    query, gallery = clusters(12, 4, 9)
    expected = re_rank(query, gallery, k1, k2, lambda_value)
    np.testing.assert_allclose(re_ranking(query, gallery, k1, k2, lambda_value), expected, rtol=0, atol=ATOL)


def test_a_refusal_names_what_it_got_and_the_side_of_broken_features():
    query, gallery = clusters(13)
    with pytest.raises(ConfigError, match=r"re-ranking with k1 0, k2 6, lambda 0.3 is not possible; need k1 >= 1"):
        re_ranking(query, gallery, 0, 6, 0.3)
    query[2, 0] = np.inf
    with pytest.raises(DataError, match="query feature row 2"):
        re_ranking(query, gallery, 20, 6, 0.3)
