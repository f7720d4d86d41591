import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.retrieval import blocks_of, squared_euclidean
from tests.tolerance import bounds, rounding
from utils.errors import DataError
from utils.ranking import distance
from utils.ranking.distance import (
    as_array,
    as_features,
    check_norms,
    feature_distances,
    matrix_distances,
    nearest_columns,
    on_gpu,
    row_blocks,
    squared_norms,
    unit_features,
)


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


WIDENED = {torch.float16: np.float32, torch.bfloat16: np.float32, torch.float32: np.float32, torch.float64: np.float64}


@pytest.mark.parametrize("kind", [*WIDENED, torch.int64, torch.uint8, torch.bool])
def test_tensors_become_arrays_of_their_values_and_half_types_are_widened(kind):
    tensor = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).to(kind)
    array = as_array(tensor)
    assert array.tolist() == tensor.tolist()
    assert array.dtype == WIDENED.get(kind, array.dtype) and isinstance(array, np.ndarray)


def test_arrays_stay_views_where_their_type_stays():
    array, tensor = np.ones((2, 2), np.float32), torch.ones(2, 2, requires_grad=True)
    assert np.shares_memory(as_array(array), array) and as_array(array[:, :1]).shape == (2, 1)
    assert as_array(tensor).ctypes.data == tensor.data_ptr()
    assert as_array([1, 2]).tolist() == [1, 2]
    half = np.array([0.5, 1.5], np.float16)
    assert as_array(half).dtype == np.float32 and as_array(half).tolist() == [0.5, 1.5]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int64])
def test_features_are_float32_and_copied_only_where_they_must(kind):
    values = np.array([[1, 2], [3, 4]], kind)
    feat = as_features(values, "query")
    assert feat.dtype == np.float32 and feat.tolist() == values.tolist()
    assert np.shares_memory(feat, values) == (kind == np.float32)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,), (1, 2, 3), ()])
def test_features_of_another_shape_are_refused_with_their_side(shape):
    for values in (np.zeros(shape), torch.zeros(shape)):
        words = f"gallery features have shape {list(shape)}; need one row per image, [N >= 1, D >= 1]"
        with pytest.raises(DataError) as error:
            as_features(values, "gallery")
        assert str(error.value) == words


def test_the_first_row_that_is_not_finite_is_named_with_the_number_of_all():
    norms = np.array([1, 2, np.inf, 3, np.nan])
    with pytest.raises(DataError, match=r"^gallery feature row 2 \(0-based; 2 of 5 rows\) holds NaN, infinity"):
        check_norms(norms, "gallery")
    check_norms(norms[:2], "gallery")
    huge = np.full((2, 3), 1e30, np.float32)  # finite, but not its square
    with pytest.raises(DataError, match=r"^query feature row 0 \(0-based; 2 of 2 rows\)"):
        unit_features(huge, "query")


def test_unit_features_leave_their_input_as_it_was():
    (feat,) = features(4, 3)
    before = feat.copy()
    assert not np.shares_memory(unit_features(feat, "query"), feat)
    np.testing.assert_array_equal(feat, before)


@pytest.mark.parametrize(
    ("rows", "row_bytes", "block", "expected"),
    [
        (5, 10, 20, [(0, 2), (2, 4), (4, 5)]),
        (4, 10, 29, [(0, 2), (2, 4)]),
        (3, 10, 9, [(0, 1), (1, 2), (2, 3)]),
        (3, 10, 1000, [(0, 3)]),
        (0, 10, 1000, []),
    ],
)
def test_blocks_of_rows_are_as_large_as_the_memory_and_never_empty(monkeypatch, rows, row_bytes, block, expected):
    monkeypatch.setattr(distance, "BLOCK_BYTES", block)
    assert list(row_blocks(rows, row_bytes)) == expected


def test_blocks_take_64_mib():
    assert next(iter(row_blocks(10**9, 2**20))) == (0, 64)


def test_arrays_and_tensors_of_the_cpu_do_not_lie_on_a_gpu():
    assert not on_gpu(np.ones(2)) and not on_gpu(torch.ones(2))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.int32, torch.float32, torch.float64])
def test_a_matrix_stays_on_its_gpu_only_in_types_that_sort_alike(monkeypatch, kind):
    monkeypatch.setattr(distance, "on_gpu", lambda values: isinstance(values, torch.Tensor))
    matrix = torch.arange(6).reshape(2, 3).to(kind)
    ((start, rows),) = matrix_distances(matrix).blocks_in_place()
    assert start == 0 and isinstance(rows, torch.Tensor) == (kind in (torch.float32, torch.float64))
    assert rows.tolist() == matrix.tolist() and matrix_distances(matrix).shape == (2, 3)
