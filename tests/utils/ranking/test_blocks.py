"""One pass over distances: every look sees each block once, and finds what it finds alone, or what a slow loop does."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.retrieval import blocks_of, evaluate, random_case
from utils.ranking import distance
from utils.ranking.blocks import look_at
from utils.ranking.camera_pairs import CameraPairs, camera_pair_slices
from utils.ranking.distance import Distances, matrix_distances
from utils.ranking.protocol import Protocol, group
from utils.ranking.rank import Ranker, rank
from utils.ranking.rank_list import FirstLists, best_first, rank_lists, worst_first
from utils.ranking.verification import Verifier, verify


def watched(distances: Distances, protocol: Protocol, count: int = 4) -> tuple:
    """Return what all looks find in one pass."""
    labels = group(protocol, distances.shape)
    ranker = Ranker(labels)
    verifier, cameras, worst = (
        Verifier(labels, [0.01, 0.3]),
        CameraPairs(labels),
        FirstLists(ranker, count, 5, worst_first),
    )
    look_at(distances, labels, [ranker, verifier, cameras, worst])
    return ranker.ranking(), verifier.verification(), cameras.slices(), worst.found


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 12), levels=st.sampled_from([None, 3]))
def test_one_pass_finds_bit_for_bit_what_each_look_finds_alone(seed, size, levels):
    matrix, labels = random_case(seed, levels=levels)
    distances, protocol = matrix_distances(matrix), Protocol(*labels)
    with blocks_of(size, matrix.shape[1]):
        ranking, verification, slices, _ = watched(distances, protocol)
    np.testing.assert_equal(ranking._asdict(), rank(distances, protocol)._asdict())
    np.testing.assert_equal(verification._asdict(), verify(distances, protocol, [0.01, 0.3])._asdict())
    np.testing.assert_equal(slices, camera_pair_slices(distances, protocol))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 12),
    count=st.integers(1, 14),
    levels=st.sampled_from([None, 2]),
    masked=st.booleans(),
    first=st.sampled_from(["worst", "best"]),
)
def test_the_lists_are_those_of_the_lowest_or_highest_ap_of_a_slow_loop(seed, size, count, levels, masked, first):
    matrix, labels = random_case(seed, levels=levels)
    protocol = Protocol(*labels)
    if masked:
        junk = (labels[0][:, None] == labels[1]) & (labels[2][:, None] == labels[3])
        protocol = protocol._replace(mask=lambda start, stop: junk[start:stop])
    slow = evaluate(matrix, *labels, 50)
    ap = np.round(slow["ap"], 12)
    order = ap.argsort(kind="stable") if first == "worst" else np.lexsort((-np.array(slow["num_pos"]), -ap))
    expected = [query for query in order if not np.isnan(ap[query])][:count]
    with blocks_of(size, matrix.shape[1]):
        labels = group(protocol, matrix.shape)
        ranker = Ranker(labels)
        listed = FirstLists(ranker, count, 5, {"worst": worst_first, "best": best_first}[first])
        look_at(matrix_distances(matrix), labels, [ranker, listed])
    assert [one.query for one in listed.found] == expected
    lists = rank_lists(matrix_distances(matrix), expected, 5, protocol)
    for one, ranks in zip(listed.found, lists, strict=True):
        assert abs(one.key[0]) == pytest.approx(ap[one.query], abs=1e-12)
        for found, wanted in zip(one.ranks, ranks, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_each_distance_is_made_once_and_no_more_rows_than_a_block_holds():
    matrix, labels = random_case(3)
    made = []

    def rows(start: int, stop: int) -> np.ndarray:
        made.append((start, stop))
        return matrix[start:stop]

    with blocks_of(5, matrix.shape[1]):
        watched(Distances(matrix.shape, rows), Protocol(*labels))
    assert made == [(0, 5), (5, 10), (10, 12)]


def test_distances_on_a_gpu_are_looked_at_as_those_on_the_cpu(monkeypatch):
    monkeypatch.setattr(distance, "on_gpu", lambda values: isinstance(values, torch.Tensor))  # its way, on the CPU
    matrix, labels = random_case(4, 40, 300, levels=6)
    matrix = matrix.astype(np.float32)
    with blocks_of(7, matrix.shape[1]):
        here, there = (watched(matrix_distances(one), Protocol(*labels)) for one in (matrix, torch.from_numpy(matrix)))
    for ours, expected in zip(here[:3], there[:3], strict=True):
        np.testing.assert_equal(ours, expected)
    assert [one.query for one in here[3]] == [one.query for one in there[3]]
