"""Similarities of captions and images, ranked: against a loop over queries, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.retrieval import blocks_of
from utils.errors import ConfigError, DataError
from utils.metrics import eval_similarity

KEYS = {"cmc", "mAP", "mINP", "ap", "inp", "num_valid_query"}


def by_loop(similarity: np.ndarray, q_pids: list[int], g_pids: list[int], max_rank: int) -> dict[str, object]:
    """Return the figures of IRRA's protocol, by sorting each row: falling similarity, then rising index."""
    aps, inps, curves = [], [], []
    for row, pid in zip(similarity.tolist(), q_pids, strict=True):
        order = sorted(range(len(row)), key=lambda image: (-row[image], image))
        places = [place for place, image in enumerate(order, start=1) if g_pids[image] == pid]
        if not places:
            aps.append(float("nan"))
            inps.append(float("nan"))
            continue
        aps.append(sum(number / place for number, place in enumerate(places, start=1)) / len(places))
        inps.append(len(places) / places[-1])
        curves.append([float(places[0] <= rank) for rank in range(1, max_rank + 1)])
    figures = {"mAP": np.nanmean(aps), "mINP": np.nanmean(inps), "cmc": np.mean(curves, axis=0)}
    return figures | {"ap": aps, "inp": inps, "num_valid_query": len(curves)}


def assert_equal(result: dict[str, object], expected: dict[str, object]) -> None:
    assert result.keys() == expected.keys() == KEYS
    for name in KEYS:
        np.testing.assert_allclose(result[name], expected[name], rtol=0, atol=1e-12)


def test_hand_computed_example():
    similarity = np.array([[0.9, 0.1, 0.8], [0.2, 0.7, 0.3], [0.5, 0.5, 0.4]])
    result = eval_similarity(similarity, [4, 9, 4], [4, 8, 4], max_rank=3)
    # query 0: images 0, 2, 1; query 1 has no match; query 2: a tie goes to the smaller index, images 0, 1, 2
    np.testing.assert_allclose(result["ap"], [1, np.nan, (1 + 2 / 3) / 2])
    np.testing.assert_allclose(result["inp"], [1, np.nan, 2 / 3])
    np.testing.assert_allclose(result["cmc"], [1, 1, 1])
    assert result["num_valid_query"] == 2
    assert (result["mAP"], result["mINP"]) == (pytest.approx(11 / 12), pytest.approx(5 / 6))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_query=st.integers(1, 9),
    num_gallery=st.integers(1, 20),
    num_ids=st.integers(1, 5),
    levels=st.sampled_from([0, 2, 5]),
    max_rank=st.sampled_from([1, 5, 10, 50]),
    size=st.sampled_from([1, 3, 100]),
    kind=st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.uint8, "torch", "bfloat16"]),
)
def test_any_case_equals_a_loop_over_queries(seed, num_query, num_gallery, num_ids, levels, max_rank, size, kind):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(num_query, num_gallery))
    if levels or kind in (np.int64, np.uint8):  # ties
        values = np.round(values * (levels or 2)) + 100
    q_pids = [0, *rng.integers(0, num_ids, num_query - 1).tolist()]
    g_pids = [0, *rng.integers(0, num_ids, num_gallery - 1).tolist()]
    if isinstance(kind, str):
        similarity = torch.from_numpy(values).to(torch.bfloat16 if kind == "bfloat16" else torch.float32)
        exact = similarity.double().numpy()
    else:
        similarity = values.astype(kind)
        exact = similarity.astype(np.float64)
    with blocks_of(size, num_gallery):
        result = eval_similarity(similarity, q_pids, np.array(g_pids), max_rank)
    assert_equal(result, by_loop(exact, q_pids, g_pids, max_rank))


def test_a_gradient_is_not_asked_for_and_the_similarities_stay_as_they_are():
    similarity = torch.tensor([[0.1, 0.9]], requires_grad=True)
    assert eval_similarity(similarity, [1], [0, 1])["cmc"].tolist() == [1.0] * 10
    assert similarity.tolist() == torch.tensor([[0.1, 0.9]]).tolist()


@pytest.mark.parametrize(
    ("similarity", "q_pids", "g_pids", "max_rank", "error", "words"),
    [
        (np.ones(3), [1], [1, 1, 1], 10, DataError, r"the similarities have shape \[3\]; need \[queries, gallery\]"),
        (np.ones((2, 3)), [1], [1, 1, 1], 10, DataError, r"q_pids has shape \[1\]; need \[2\]"),
        (np.array([[0.5, np.nan]]), [1], [1, 1], 10, DataError, "query 0 .* hold NaN or infinity"),
        (np.ones((1, 2)), [1], [2, 3], 10, DataError, "none of the 1 queries has a match"),
        (np.ones((1, 2)), [1], [1, 3], 0, ConfigError, "max_rank 0 must be at least 1"),
        (np.ones((0, 2)), [], [1, 3], 10, DataError, "need at least one of each"),
    ],
)
def test_what_cannot_be_ranked_is_refused(similarity, q_pids, g_pids, max_rank, error, words):
    with pytest.raises(error, match=words):
        eval_similarity(similarity, q_pids, g_pids, max_rank)
