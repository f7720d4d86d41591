"""Spectral re-ranking: the new order is that of a loop, and what it must leave alone stays."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.retrieval import squared_euclidean
from tests.reference.spectral import blurred_order
from tests.tolerance import bounds
from utils.errors import ConfigError, DataError
from utils.ranking import distance, spectral
from utils.ranking.expansion import expand_queries
from utils.ranking.rank import make_distances
from utils.reranking import spectral_rerank

ULPS = 64  # more than there are images: equal distances are told apart by one step each


def features(seed: int, num_query: int = 5, num_gallery: int = 40, width: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Return query and gallery features, not normalised, of clusters: a blur moves them."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((6, width))
    feat = centres[rng.integers(0, 6, num_query + num_gallery)] + rng.standard_normal((num_query + num_gallery, width))
    return feat[:num_query].astype(np.float32), feat[num_query:].astype(np.float32)


def order_of(rows: np.ndarray) -> list[list[int]]:
    return rows.argsort(axis=1, kind="stable").tolist()


def plain(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Return the distances of the normalised features as tests make them."""
    query, gallery = (distance.unit_features(feat, "any") for feat in (query, gallery))
    return np.concatenate([rows for _, rows in make_distances(query, gallery).blocks()])


def test_an_image_far_from_its_neighbours_falls_behind_two_that_confirm_each_other():
    # similarities to (1, 0): 0.8, 0.79, 0.78, 0.5; cosines of the first to the others: .264, .248, .920
    # its blur at T 0.1 is about (e^0 0.8 + e^-0.8 0.5) / (e^0 + e^-0.8) = .707, those of the next two about .785
    gallery = np.array([[0.8, 0.6], [0.79, -0.6131], [0.78, -0.6258], [0.5, 0.866]])
    result = spectral_rerank(np.array([[1.0, 0.0]]), gallery, 4, 0.1)
    assert result.dtype == np.float32 and order_of(result) == [[1, 2, 0, 3]]
    np.testing.assert_allclose(result, [[0.44, 0.4, 0.42, 1.0]], atol=2e-4)  # distances 2 - 2 similarity, by place


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_query=st.integers(1, 5),
    num_gallery=st.integers(1, 25),
    copies=st.integers(1, 3),
    k=st.integers(1, 40),
    temperature=st.sampled_from([1e-3, 0.02, 0.1, 0.5]),
    block=st.sampled_from([1, 2**20]),
)
def test_the_stable_order_of_any_case_is_that_of_the_slow_reference(
    seed, num_query, num_gallery, copies, k, temperature, block
):
    query, gallery = features(seed, num_query, num_gallery)
    gallery = np.concatenate([gallery] * copies)  # ties
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(distance, "BLOCK_BYTES", block)  # one query at a time, or all at once
        before = plain(query, gallery)
        result = spectral_rerank(torch.from_numpy(query), gallery, k, temperature)
    for row, order in enumerate(order_of(before)):
        expected = blurred_order(query[row], gallery, order, k, temperature)
        assert order_of(result[row : row + 1])[0] == expected
        # distances rise along the new order, and are those that stood at these places but for what parts equal ones
        np.testing.assert_array_max_ulp(np.sort(result[row]), np.sort(before[row]), ULPS)
        beyond = order[k:]
        np.testing.assert_array_equal(result[row, beyond], before[row, beyond])


def test_the_order_is_also_that_of_similarities_in_float64():
    query, gallery = features(3)
    unit = [feat / np.linalg.norm(feat.astype(np.float64), axis=1, keepdims=True) for feat in (query, gallery)]
    similarity = unit[0] @ unit[1].T
    assert np.diff(np.sort(similarity), axis=1).min() > 1e-6  # float32 cannot confuse them
    order = (-similarity).argsort(axis=1)
    expected = [blurred_order(one, gallery, row.tolist(), 20, 0.1) for one, row in zip(query, order, strict=True)]
    assert order_of(spectral_rerank(query, gallery, 20, 0.1)) == expected != order.tolist()


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (30, 1e-6), (400, 1e-6)])
def test_a_single_image_and_a_temperature_near_0_leave_the_distances(k, temperature):
    query, gallery = features(1)
    np.testing.assert_array_equal(spectral_rerank(query, gallery, k, temperature), plain(query, gallery))


def test_k_beyond_the_gallery_is_the_gallery_and_lengths_of_features_do_not_matter():
    query, gallery = features(2)
    expected = spectral_rerank(query, gallery, 40, 0.1)
    np.testing.assert_array_equal(spectral_rerank(query, gallery, 10**4, 0.1), expected)
    np.testing.assert_array_equal(spectral_rerank(4 * query, gallery / 8, 40, 0.1), expected)


def test_features_of_zeros_are_ranked_too():
    query, gallery = features(4)
    query[0], gallery[3] = 0, 0
    assert np.isfinite(spectral_rerank(query, gallery, 20, 0.1)).all()


def test_numbers_of_floats_keep_their_order_and_lead_back():
    values = torch.tensor([-3e38, -1.5, -1e-45, 0.0, 1e-45, 1e-30, 1.0, 1.0000001, 3e38])
    steps = spectral._as_steps(values[None])
    assert (steps.diff() > 0).all() and (steps[0, 2:5].tolist(), (steps[0, 7] - steps[0, 6]).item()) == ([-1, 0, 1], 1)
    assert torch.equal(spectral._as_floats(steps)[0], values)
    assert spectral._as_steps(torch.tensor([[-0.0]])).item() == 0


def test_the_way_of_a_gpu_gives_the_same(monkeypatch):
    query, gallery = features(3)
    expected = spectral_rerank(query, gallery, 20, 0.1)
    monkeypatch.setattr(spectral, "on_gpu", lambda values: isinstance(values, torch.Tensor))
    result = spectral_rerank(torch.from_numpy(query), torch.from_numpy(gallery), 20, 0.1)
    np.testing.assert_allclose(result, expected, **bounds(8, 2))
    assert order_of(result) == order_of(expected)


def test_expansion_comes_first():
    query, gallery = features(6)
    result = make_distances(query, gallery, expand=(3, 3.0, 1), spectral=(10, 0.1)).rows(0, 5)
    expected = spectral_rerank(expand_queries(query, gallery, 3, 3.0), gallery, 10, 0.1)
    np.testing.assert_allclose(result, expected, **bounds(8, 2))
    assert order_of(result) == order_of(expected) != order_of(spectral_rerank(query, gallery, 10, 0.1))


def test_distances_without_it_are_as_ever():
    query, gallery = features(6)
    np.testing.assert_allclose(
        make_distances(query, gallery).rows(0, 5), squared_euclidean(query, gallery), **bounds(8, 60)
    )


@pytest.mark.parametrize(("k", "temperature"), [(0, 0.1), (-1, 0.1), (5, 0.0), (5, -0.1), (5, float("nan"))])
def test_impossible_parameters_are_refused(k, temperature):
    with pytest.raises(ConfigError, match=r"k -?\d, temperature .* is not possible.*TEST\.SPECTRAL\.K, T"):
        spectral_rerank(*features(0), k, temperature)


def test_both_re_rankings_at_once_are_refused():
    with pytest.raises(ConfigError, match=r"TEST\.RE_RANKING False or TEST\.SPECTRAL\.K 0"):
        make_distances(*features(0), rerank=(6, 3, 0.3), spectral=(10, 0.1))


def test_bad_features_are_refused():
    query, gallery = features(0)
    with pytest.raises(DataError, match="query features have 7 values, gallery features 8"):
        spectral_rerank(query[:, :7], gallery, 5, 0.1)
    gallery[2, 1] = np.nan
    with pytest.raises(DataError, match="gallery feature row 2"):
        spectral_rerank(query, gallery, 5, 0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_gives_the_order_of_the_cpu():
    query, gallery = features(3)
    distances = make_distances(torch.from_numpy(query).cuda(), torch.from_numpy(gallery).cuda(), spectral=(20, 0.1))
    assert distances.rows_in_place(0, 1).is_cuda
    assert order_of(distances.rows(0, 5)) == order_of(spectral_rerank(query, gallery, 20, 0.1))
