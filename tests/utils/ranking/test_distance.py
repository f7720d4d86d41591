import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.retrieval import blocks_of, squared_euclidean
from tests.tolerance import bounds, rounding
from utils.errors import DataError
from utils.ranking import distance
from utils.ranking.distance import feature_distances, matrix_distances, nearest_columns, squared_norms, unit_features


def features(seed: int, *sizes: int, dim: int = 16) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((size, dim)).astype(np.float32) for size in sizes]


def test_feature_distances_are_the_squared_euclidean_ones():
    query, gallery = features(0, 5, 30)
    distances = feature_distances(torch.from_numpy(query), gallery)
    assert distances.shape == (5, 30)
    rows = distances.rows(1, 4)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, squared_euclidean(query, gallery)[1:4], **bounds(16, 16))


@pytest.mark.parametrize(("size", "starts"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (9, [0])])
def test_blocks_cover_all_queries_in_order(size, starts):
    values = np.arange(20.0).reshape(5, 4)
    with blocks_of(size, 4):
        blocks = list(matrix_distances(values).blocks())
    assert [start for start, _ in blocks] == starts
    np.testing.assert_array_equal(np.vstack([rows for _, rows in blocks]), values)


def test_blocks_take_the_memory_they_may(monkeypatch):
    monkeypatch.setattr(distance, "BLOCK_BYTES", 2 * 4 * 4 * 2)  # rows and a copy, 4 float32 each: 2 queries
    assert [len(rows) for _, rows in matrix_distances(np.zeros((5, 4))).blocks()] == [2, 2, 1]


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3)])
def test_matrix_of_other_dimensions_is_refused(shape):
    with pytest.raises(DataError, match=r"need \[queries, gallery\]"):
        matrix_distances(np.zeros(shape))


def test_features_that_cannot_be_compared_are_refused():
    query, gallery = features(1, 5, 30)
    with pytest.raises(DataError, match="query features have 16 values, gallery features 15"):
        feature_distances(query, gallery[:, :15])
    with pytest.raises(DataError, match=r"query features have shape \[0, 16\]"):
        feature_distances(query[:0], gallery)
    gallery[3, 0] = np.inf
    with pytest.raises(DataError, match="gallery feature row 3"):
        feature_distances(query, gallery)


def test_unit_features_have_length_1_and_zeros_stay():
    (feat,) = features(2, 4)
    feat[2] = 0
    unit = unit_features(feat, "query")
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), [1, 1, 0, 1], atol=rounding(16))
    np.testing.assert_allclose(unit[0], feat[0] / np.linalg.norm(feat[0]), atol=rounding(16))


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_rows=st.integers(1, 5),
    num_columns=st.integers(1, 200),
    k=st.integers(1, 200),
    span=st.sampled_from([1, 3, 1000]),
)
def test_nearest_columns_are_in_the_stable_order_of_exact_distances(seed, num_rows, num_columns, k, span):
    rng = np.random.default_rng(seed)
    k = min(k, num_columns)
    x, y = (rng.integers(-span, span + 1, size=(size, 4)).astype(np.float32) for size in (num_rows, num_columns))
    exact = squared_euclidean(x, y)
    error = 1e-3 * span**2
    rows = (exact + rng.uniform(-error, error, exact.shape) * 0.99).astype(np.float32)
    expected = np.argsort(exact, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(nearest_columns(rows, x, y, k, error), expected)


def test_near_twins_are_ordered_as_in_float64():
    (base,) = features(3, 40)
    twins = base + (1e-7 * np.random.default_rng(3).standard_normal(base.shape)).astype(np.float32)
    gallery = np.concatenate((base, twins))
    rows = feature_distances(base, gallery).rows(0, 40)
    error = distance.ROUNDING * 2 * squared_norms(gallery, "gallery").max()
    expected = np.argsort(squared_euclidean(base, gallery), axis=1, kind="stable")[:, :7]
    np.testing.assert_array_equal(nearest_columns(rows, base, gallery, 7, error), expected)
