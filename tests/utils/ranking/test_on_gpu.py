"""Ranking on a GPU is that on the CPU; most tests run its code on CPU tensors, which it treats alike."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.retrieval import blocks_of, random_case, squared_euclidean
from tests.tolerance import bounds
from utils.errors import DataError
from utils.ranking import distance
from utils.ranking import rank as metrics
from utils.ranking.distance import feature_distances
from utils.ranking.on_gpu import device_distances, device_positions, true_float32
from utils.ranking.protocol import Protocol, group, same_identity
from utils.ranking.rank import Ranking, make_distances, rank, rank_distances
from utils.ranking.rank_list import rank_lists

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.fixture
def as_on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on the CPU take the way of those on a GPU."""
    for module in (distance, metrics):
        monkeypatch.setattr(module, "on_gpu", lambda values: isinstance(values, torch.Tensor))


def assert_same(ranking: Ranking, other: Ranking) -> None:
    for name in Ranking._fields:
        np.testing.assert_array_equal(getattr(ranking, name), getattr(other, name))


def whole_features(seed: int, *sizes: int, span: int = 50) -> list[np.ndarray]:
    """Return float32 features of small whole numbers, whose squared distances float32 holds exactly."""
    rng = np.random.default_rng(seed)
    return [rng.integers(-span, span + 1, size=(size, 6)).astype(np.float32) for size in sizes]


def unit_features(seed: int, *sizes: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    feat = rng.standard_normal((sum(sizes), 64)).astype(np.float32)
    feat /= np.linalg.norm(feat, axis=1, keepdims=True)
    return np.split(feat, np.cumsum(sizes)[:-1])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_query=st.integers(1, 6),
    num_gallery=st.integers(1, 60),
    levels=st.sampled_from([None, 1, 3, 10]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_places_are_those_of_the_stable_order(seed, num_query, num_gallery, levels, dtype):
    distances, arrays = random_case(seed, num_query, num_gallery, levels=levels)
    rows = (distances - 0.5).astype(dtype)
    labels = group(Protocol(*arrays), rows.shape)
    pairs = same_identity(labels, 0, num_query)
    order = np.argsort(rows, axis=1, kind="stable")
    expected = [int(np.flatnonzero(order[q] == g)[0]) for q, g in zip(pairs.query, pairs.gallery, strict=True)]
    positions = device_positions(torch.from_numpy(rows), pairs)
    assert positions.dtype == np.int64 and positions.tolist() == expected


@pytest.mark.parametrize("levels", [None, 1, 4])
@pytest.mark.parametrize("size", [1, 5, 100])
def test_a_matrix_ranks_bit_for_bit_as_on_the_cpu(as_on_gpu, levels, size):
    matrix, labels = random_case(1, 40, 300, levels=levels)
    matrix = matrix.astype(np.float32)
    with blocks_of(size, 300):
        assert_same(rank_distances(torch.from_numpy(matrix), *labels), rank_distances(matrix, *labels))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), span=st.sampled_from([1, 3, 50]), size=st.sampled_from([1, 7, 100]))
def test_features_whose_distances_are_exact_rank_bit_for_bit_as_on_the_cpu(seed, span, size):
    _, labels = random_case(seed, num_ids=2)
    qf, gf = whole_features(seed, 12, 40, span=span)
    with blocks_of(size, len(gf)):
        ranking = rank(device_distances(torch.from_numpy(qf), torch.from_numpy(gf)), Protocol(*labels))
        assert_same(ranking, rank(feature_distances(qf, gf), Protocol(*labels)))


def test_features_on_a_gpu_are_ranked_there_and_elsewhere_with_expansion(as_on_gpu):
    qf, gf = map(torch.from_numpy, whole_features(2, 30, 300))
    _, labels = random_case(2, 30, 300, num_ids=10)
    made = make_distances(qf, gf)
    assert all(isinstance(rows, torch.Tensor) for _, rows in made.blocks_in_place())
    assert all(isinstance(rows, np.ndarray) for _, rows in made.blocks())
    assert_same(rank(made, Protocol(*labels)), rank(feature_distances(qf, gf), Protocol(*labels)))
    assert isinstance(make_distances(qf, gf, expand=(3, 1.0, 1)).rows(0, 2), np.ndarray)
    both = [rank_lists(one, [0, 7], 5, Protocol(*labels)) for one in (made, feature_distances(qf, gf))]
    for ours, expected in zip(*both, strict=True):
        np.testing.assert_array_equal(ours.gallery, expected.gallery)


def test_distances_are_the_squared_euclidean_ones_in_float32_whatever_type_the_features_have():
    qf, gf = whole_features(3, 5, 30)
    rows = device_distances(torch.from_numpy(qf), torch.from_numpy(gf)).rows(1, 4)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, squared_euclidean(qf, gf)[1:4])
    qf, gf = unit_features(3, 5, 30)
    half = [torch.from_numpy(feat).half() for feat in (qf, gf)]
    np.testing.assert_allclose(device_distances(*half).rows(0, 5), squared_euclidean(*half), **bounds(64))


def test_autocast_does_not_reach_the_product():
    qf, gf = map(torch.from_numpy, unit_features(4, 5, 30))
    expected = device_distances(qf, gf).rows(0, 5)
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(device_distances(qf, gf).rows(0, 5), expected)


@pytest.mark.parametrize("before", ["highest", "high"])
def test_tf32_is_off_within_and_what_it_was_afterwards(before):
    matmul = torch.backends.cuda.matmul
    torch.set_float32_matmul_precision(before)
    try:
        with pytest.raises(KeyError), true_float32(torch.zeros(1)):
            inside = matmul.fp32_precision if hasattr(matmul, "fp32_precision") else matmul.allow_tf32
            raise KeyError
        assert inside in ("ieee", False)
        assert torch.get_float32_matmul_precision() == before and matmul.allow_tf32 == (before == "high")
    finally:
        torch.set_float32_matmul_precision("highest")


def test_what_cannot_be_ranked_is_refused_as_on_the_cpu(as_on_gpu):
    qf, gf = map(torch.from_numpy, unit_features(5, 5, 30))
    with pytest.raises(DataError, match="query features have 64 values, gallery features 63"):
        make_distances(qf, gf[:, :63])
    with pytest.raises(DataError, match=r"gallery features have shape \[0, 64\]"):
        make_distances(qf, gf[:0])
    gf[3, 0] = torch.nan
    with pytest.raises(DataError, match=r"gallery feature row 3 \(0-based; 1 of 30 rows\)"):
        make_distances(qf, gf)
    matrix, labels = random_case(5)
    matrix[7, 2] = np.inf
    with pytest.raises(DataError, match="distances of query 7 "), blocks_of(3, 40):
        rank_distances(torch.from_numpy(matrix), *labels)


@needs_gpu
@pytest.mark.parametrize("levels", [None, 3])
def test_a_gpu_ranks_a_matrix_bit_for_bit_as_the_cpu(levels):
    matrix, labels = random_case(6, 200, 5000, levels=levels)
    matrix = matrix.astype(np.float32)
    assert_same(rank_distances(torch.from_numpy(matrix).cuda(), *labels), rank_distances(matrix, *labels))


@needs_gpu
def test_a_gpu_multiplies_in_true_float32_although_tf32_is_on():
    qf, gf = unit_features(7, 30, 300)
    torch.set_float32_matmul_precision("high")
    try:
        rows = make_distances(*(torch.from_numpy(feat).cuda() for feat in (qf, gf))).rows(0, 30)
    finally:
        torch.set_float32_matmul_precision("highest")
    np.testing.assert_allclose(rows, squared_euclidean(qf, gf), **bounds(64))
