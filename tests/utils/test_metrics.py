import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.retrieval import blocks_of, evaluate, random_case, squared_euclidean
from utils.errors import ConfigError, DataError
from utils.metrics import eval_func
from utils.ranking import distance
from utils.ranking.distance import Distances, feature_distances
from utils.ranking.protocol import Protocol
from utils.ranking.rank import Ranking, rank, rank_distances
from utils.ranking.verification import verify

PER_QUERY = ("ap", "inp", "first_hit", "num_pos")

# 4 queries x 8 gallery images; query 0 has junk (image 1), query 2 nothing but junk (image 6), query 3 ties.
HAND_DISTANCES = np.array(
    [
        [0.2, 0.1, 0.4, 0.3, 0.5, 0.6, 0.7, 0.8],
        [0.9, 0.8, 0.7, 0.1, 0.2, 0.3, 0.6, 0.5],
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
        [0.5, 0.5, 0.9, 0.9, 0.9, 0.9, 0.1, 0.9],
    ]
)
HAND_G_PIDS, HAND_G_CAMIDS = [9, 1, 9, 2, 1, 2, 3, 1], [0, 0, 1, 0, 1, 0, 0, 1]
HAND_Q_PIDS, HAND_Q_CAMIDS = [1, 2, 3, 1], [0, 1, 0, 2]
HAND_LABELS = (HAND_Q_PIDS, HAND_G_PIDS, HAND_Q_CAMIDS, HAND_G_CAMIDS)


def assert_equal(ranking: Ranking, expected: dict[str, object]) -> None:
    np.testing.assert_array_equal(ranking.first_hit, expected["first_hit"])
    np.testing.assert_array_equal(ranking.num_pos, expected["num_pos"])
    for name in ("ap", "inp", "cmc", "mAP", "mINP"):
        np.testing.assert_allclose(getattr(ranking, name), expected[name], rtol=0, atol=1e-12)


def assert_same(ranking: Ranking, other: Ranking) -> None:
    for name in Ranking._fields:
        np.testing.assert_array_equal(getattr(ranking, name), getattr(other, name))


def test_hand_computed_example_of_4_queries_and_8_gallery_images():
    ranking = rank_distances(HAND_DISTANCES, *HAND_LABELS, max_rank=5)
    # query 0 without gallery 1: order 0 3 2 4 5 6 7, matches 4, 7 at ranks 4, 7
    # query 1: order 3 4 5 7 6 2 1 0, matches 3, 5 at ranks 1, 3
    # query 3: order 6 0 1 2 3 4 5 7 (ties by index), matches 1, 4, 7 at ranks 3, 6, 8
    ap = [(1 / 4 + 2 / 7) / 2, (1 / 1 + 2 / 3) / 2, np.nan, (1 / 3 + 2 / 6 + 3 / 8) / 3]
    np.testing.assert_allclose(ranking.ap, ap, rtol=1e-15)
    np.testing.assert_allclose(ranking.inp, [2 / 7, 2 / 3, np.nan, 3 / 8], rtol=1e-15)
    np.testing.assert_array_equal(ranking.first_hit, [3, 0, -1, 2])
    np.testing.assert_array_equal(ranking.num_pos, [2, 2, 0, 3])
    np.testing.assert_allclose(ranking.cmc, [1 / 3, 1 / 3, 2 / 3, 1, 1], rtol=1e-15)
    assert ranking.mAP == pytest.approx((ap[0] + ap[1] + ap[3]) / 3, rel=1e-15)
    assert ranking.mINP == pytest.approx((2 / 7 + 2 / 3 + 3 / 8) / 3, rel=1e-15)


def test_eval_func_returns_cmc_and_map_of_the_hand_computed_example():
    cmc, mean_ap = eval_func(torch.from_numpy(HAND_DISTANCES), *HAND_LABELS)
    assert cmc.shape == (50,) and cmc.dtype == np.float32
    np.testing.assert_allclose(cmc[:5], [1 / 3, 1 / 3, 2 / 3, 1, 1], rtol=1e-6)
    assert isinstance(mean_ap, float)
    assert mean_ap == pytest.approx((15 / 56 + 5 / 6 + 25 / 72) / 3, rel=1e-14)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_query=st.integers(1, 8),
    num_gallery=st.integers(1, 30),
    num_ids=st.integers(1, 6),
    num_cams=st.integers(1, 4),
    levels=st.sampled_from([None, 1, 3, 10]),
    size=st.sampled_from([1, 3, 100]),
    max_rank=st.sampled_from([1, 5, 50]),
)
def test_any_case_equals_the_slow_reference(seed, num_query, num_gallery, num_ids, num_cams, levels, size, max_rank):
    distances, labels = random_case(seed, num_query, num_gallery, num_ids, num_cams, levels)
    q_pids, g_pids, q_camids, g_camids = labels
    if not ((q_pids[:, None] == g_pids) & (q_camids[:, None] != g_camids)).any():
        with pytest.raises(DataError, match="has a match"):
            rank_distances(distances, *labels)
        return
    with blocks_of(size, num_gallery):
        ranking = rank_distances(distances, *labels, max_rank)
    assert_equal(ranking, evaluate(distances, *labels, max_rank))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_every_real_type_of_distance_is_ranked_as_it_is(dtype):
    distances, labels = random_case(3, levels=20)
    distances = (distances * 20).astype(dtype)
    assert_equal(rank_distances(distances, *labels), evaluate(distances, *labels, 50))


def test_bfloat16_tensors_are_accepted():
    distances, labels = random_case(4)
    distances = torch.from_numpy(distances).bfloat16()
    labels = [torch.from_numpy(values) for values in labels]
    assert_equal(rank_distances(distances, *labels), evaluate(distances.double().numpy(), *labels, 50))


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([-1e308, 1e308, 0, 1e-300], np.float64),
        ([-3e38, 3e38, 0, 1e-38], np.float32),
        ([0, 1e-45, 3e-45, 1e-44], np.float32),
        ([1, 1 + 1e-15, 1 + 3e-15, 2], np.float64),
        ([-128, 127, 0, 1], np.int8),
        ([0, 255, 3, 4], np.uint8),
        ([-(2**62), 2**62, 2**53, 2**53 + 1], np.int64),
    ],
)
def test_extreme_ranges_of_distance_are_ranked_exactly(values, dtype):
    rng = np.random.default_rng(1)
    _, labels = random_case(1)
    distances = rng.choice(np.array(values, dtype=dtype), size=(12, 40))
    assert_equal(rank_distances(distances, *labels), evaluate(distances.tolist(), *labels, 50))


@pytest.mark.parametrize("num_gallery", [300, 20000])
def test_values_that_share_a_bucket_are_told_apart(num_gallery):
    distances, labels = random_case(2, 3, num_gallery)
    distances[:, 0] = 1e6  # squeezes all the others into one bucket
    assert_equal(rank_distances(distances, *labels), evaluate(distances, *labels, 50))


def test_all_distances_equal_ranks_by_gallery_index():
    ranking = rank_distances(np.zeros((1, 4)), [7], [1, 7, 2, 7], [0], [0, 1, 0, 1])
    assert ranking.first_hit.tolist() == [1]
    assert ranking.ap[0] == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_junk_tied_with_a_match_is_removed_whatever_its_index():
    labels = ([7], [7, 7, 7, 1], [0], [0, 1, 0, 0])  # images 0 and 2 are junk
    ranking = rank_distances(np.zeros((1, 4)), *labels)
    assert ranking.first_hit.tolist() == [0] and ranking.ap[0] == 1 and ranking.num_pos.tolist() == [1]


def test_negative_zero_ties_with_zero():
    ranking = rank_distances(np.array([[0.0, -0.0]]), [7], [1, 7], [0], [0, 1])
    assert ranking.first_hit.tolist() == [1]


def test_gallery_shorter_than_max_rank_pads_the_cmc_with_its_last_value():
    labels = ([1, 2], [1, 2, 2], [0, 0], [1, 1, 0])
    ranking = rank_distances(np.array([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]]), *labels, max_rank=10)
    np.testing.assert_array_equal(ranking.cmc, [0.5] + [1.0] * 9)


def test_queries_without_a_match_change_no_mean():
    distances, labels = random_case(5)
    q_pids, g_pids, q_camids, g_camids = labels
    more = rank_distances(
        np.vstack((distances, distances[:3])), np.append(q_pids, [90, 91, 92]), g_pids, np.append(q_camids, [0] * 3),
        g_camids
    )  # fmt: skip
    plain = rank_distances(distances, *labels)
    assert (more.mAP, more.mINP) == (plain.mAP, plain.mINP)
    np.testing.assert_array_equal(more.cmc, plain.cmc)
    assert more.first_hit[-3:].tolist() == [-1] * 3 and np.isnan(more.ap[-3:]).all() and np.isnan(more.inp[-3:]).all()


@pytest.mark.parametrize("size", [1, 5, 12])
def test_the_size_of_blocks_changes_nothing(size):
    distances, labels = random_case(6, levels=7)
    with blocks_of(size, distances.shape[1]):
        ranking = rank_distances(distances, *labels)
    assert_same(ranking, rank_distances(distances, *labels))


def test_permuted_queries_permute_the_results():
    distances, labels = random_case(7, levels=9)
    q_pids, g_pids, q_camids, g_camids = labels
    order = np.random.default_rng(0).permutation(len(q_pids))
    plain = rank_distances(distances, *labels)
    moved = rank_distances(distances[order], q_pids[order], g_pids, q_camids[order], g_camids)
    for name in PER_QUERY:
        np.testing.assert_array_equal(getattr(moved, name), getattr(plain, name)[order])
    np.testing.assert_array_equal(moved.cmc, plain.cmc)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), span=st.sampled_from([1, 3, 50]), size=st.sampled_from([1, 7, 100]))
def test_features_rank_as_their_exact_distances_even_when_most_tie(seed, span, size):
    rng = np.random.default_rng(seed)
    _, labels = random_case(seed, num_ids=2)
    qf = rng.integers(-span, span + 1, size=(12, 6)).astype(np.float32)  # small integers: float32 is exact
    gf = rng.integers(-span, span + 1, size=(40, 6)).astype(np.float32)
    with blocks_of(size, len(gf)):
        ranking = rank(feature_distances(qf, torch.from_numpy(gf)), Protocol(*labels))
    assert_equal(ranking, evaluate(squared_euclidean(qf, gf), *labels, 50))


def test_normalised_features_rank_as_in_float64():
    rng = np.random.default_rng(8)
    distances, labels = random_case(8, 30, 300, num_ids=10)
    feat = rng.standard_normal((330, 64))
    feat /= np.linalg.norm(feat, axis=1, keepdims=True)
    expected = evaluate(squared_euclidean(feat[:30], feat[30:]), *labels, 50)
    assert_equal(rank(feature_distances(feat[:30], feat[30:]), Protocol(*labels)), expected)


def test_low_matmul_precision_setting_of_torch_does_not_reach_the_distances():
    rng = np.random.default_rng(9)
    _, labels = random_case(9, 30, 300, num_ids=10)
    feat = torch.from_numpy(rng.standard_normal((330, 64)).astype(np.float32) + 3)
    before = torch.get_float32_matmul_precision()
    plain = rank(feature_distances(feat[:30], feat[30:]), Protocol(*labels))
    torch.set_float32_matmul_precision("medium")
    try:
        assert_same(rank(feature_distances(feat[:30], feat[30:]), Protocol(*labels)), plain)
    finally:
        torch.set_float32_matmul_precision(before)


def test_rows_are_asked_for_once_and_in_blocks():
    distances, labels = random_case(15)
    asked = []

    def rows(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return distances[start:stop]

    with blocks_of(5, distances.shape[1]):
        assert_equal(rank(Distances(distances.shape, rows), Protocol(*labels)), evaluate(distances, *labels, 50))
    assert asked == [(0, 5), (5, 10), (10, 12)]


@pytest.mark.parametrize("use", [rank, lambda *args: verify(*args, [0.001])], ids=["rank", "verify"])
def test_memory_is_that_of_blocks_and_labels_whatever_the_number_of_pairs(monkeypatch, use):
    monkeypatch.setattr(distance, "BLOCK_BYTES", 2**20)
    feat = np.random.default_rng(16).standard_normal((5800, 4)).astype(np.float32)
    _, labels = random_case(16, 800, 5000, num_ids=100)
    distances = feature_distances(feat[:800], feat[800:])
    tracemalloc.start()
    try:
        use(distances, Protocol(*labels))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20 < 800 * 5000 * 4 / 3  # the matrix alone would take 15 MiB


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_distance_that_is_not_finite_names_its_query(value):
    distances, labels = random_case(10)
    distances[8, 5] = value
    with pytest.raises(DataError, match=r"query 8 \(0-based\) hold NaN or infinity"):
        rank_distances(distances, *labels)


@pytest.mark.parametrize("side", ["query", "gallery"])
def test_feature_that_is_not_finite_names_its_side_and_row(side):
    _, labels = random_case(11)
    feat = {"query": np.ones((12, 4)), "gallery": np.ones((40, 4))}
    feat[side][2, 1] = np.nan
    with pytest.raises(DataError, match=rf"{side} feature row 2 .*1 of"):
        rank(feature_distances(feat["query"], feat["gallery"]), Protocol(*labels))


def test_no_common_identity_shows_both_sets():
    with pytest.raises(DataError, match=r"query ids begin \[1, 2\], gallery ids \[7, 8\]"):
        rank_distances(np.zeros((2, 2)), [1, 2], [7, 8], [0, 0], [1, 1])


def test_what_is_said_without_a_match_counts_both_sides_and_shows_three_ids_of_each():
    labels = ([5, 4, 3, 2], [9, 8, 7, 6, 6], [0] * 4, [1] * 5)
    words = (
        "none of the 4 queries has a match among 5 gallery images: they share no identity (query ids begin [2, 3, 4], "
        "gallery ids [6, 7, 8]); check the two lists"
    )
    for mask in (None, lambda start, stop: np.zeros((stop - start, 5), dtype=bool)):  # no rule is to blame
        with pytest.raises(DataError) as error:
            rank(Distances((4, 5), lambda start, stop: np.zeros((stop - start, 5))), Protocol(*labels, mask))
        assert str(error.value) == words


def test_one_common_identity_of_many_blames_the_cameras():
    words = "each image of a query's identity has the query's own camera id, which the protocol removes; check the cam"
    with pytest.raises(DataError, match=words):
        rank_distances(np.zeros((3, 2)), [1, 2, 3], [3, 7], [0, 0, 4], [4, 1])


def test_the_curve_has_50_ranks_by_default_and_as_many_as_asked_for():
    distances, labels = random_case(18)
    assert rank_distances(distances, *labels).cmc.shape == (50,)
    made = Distances(distances.shape, lambda start, stop: distances[start:stop])
    for ranking in (rank(made, Protocol(*labels)), rank_distances(distances, *labels, 1)):
        assert ranking.cmc[0] == np.mean(ranking.first_hit[ranking.first_hit >= 0] == 0)
    assert rank(made, Protocol(*labels)).cmc.shape == (50,) and rank(made, Protocol(*labels), 1).cmc.shape == (1,)


def test_only_same_camera_matches_blames_the_cameras():
    with pytest.raises(DataError, match="own camera id"):
        rank_distances(np.zeros((2, 2)), [1, 2], [1, 2], [0, 0], [0, 0])


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((0, 2), ([], [1, 2], [], [1, 1]), "0 query and 2 gallery"),
        ((2, 0), ([1, 2], [], [0, 0], []), "2 query and 0 gallery"),
        ((2, 2), ([1], [1, 2], [0, 0], [1, 1]), r"q_pids has shape \[1\]; need \[2\]"),
        ((2, 2), ([1, 2], [1, 2], [0, 0], [[1, 1]]), r"g_camids has shape \[1, 2\]"),
        ((4,), ([1], [1], [0], [1]), r"distance matrix has shape \[4\]"),
    ],
)
def test_shapes_that_disagree_are_refused(shape, labels, message):
    with pytest.raises(DataError, match=message):
        rank_distances(np.zeros(shape), *labels)


def test_features_of_different_width_are_refused():
    with pytest.raises(DataError, match="query features have 3 values, gallery features 4"):
        feature_distances(np.zeros((1, 3)), np.zeros((1, 4)))


def test_max_rank_below_1_is_refused():
    with pytest.raises(ConfigError, match="max_rank 0 must be at least 1"):
        rank_distances(HAND_DISTANCES, *HAND_LABELS, max_rank=0)
