from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.errors import ConfigError, DataError
from utils.ranking.distance import matrix_distances
from utils.ranking.protocol import Protocol
from utils.ranking.rank_list import STATUS, rank_lists


def slow_list(
    distances: Sequence[float], pid: int, camid: int, g_pids: Sequence[int], g_camids: Sequence[int], topk: int
) -> list[tuple[int, str]]:
    """Return (gallery index, status) one image at a time until `topk` of them are ranked."""
    shown, ranked = [], 0
    for g in sorted(range(len(g_pids)), key=lambda g: distances[g]):  # Python's sort is stable
        if ranked == topk:
            break
        junk = g_pids[g] == pid and g_camids[g] == camid
        ranked += not junk
        shown.append((g, "junk" if junk else "right" if g_pids[g] == pid else "wrong"))
    return shown


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_gallery=st.integers(1, 20),
    topk=st.integers(1, 25),
    levels=st.sampled_from([2, 5, 1000]),
)
def test_any_list_equals_the_slow_one(seed, num_gallery, topk, levels):
    rng = np.random.default_rng(seed)
    distances = rng.integers(levels, size=(4, num_gallery)).astype(np.float32)
    labels = [rng.integers(3, size=size) for _ in range(2) for size in (4, num_gallery)]
    q_pids, g_pids, q_camids, g_camids = labels
    rows = [3, 0, 3]
    for row, found in zip(rows, rank_lists(matrix_distances(distances), rows, topk, Protocol(*labels)), strict=True):
        expected = slow_list(distances[row], q_pids[row], q_camids[row], g_pids, g_camids, topk)
        assert [(g, STATUS[code]) for g, code in zip(found.gallery, found.status, strict=True)] == expected
        np.testing.assert_array_equal(found.distance, distances[row, found.gallery])
        assert found.status.dtype == np.int8


def test_junk_is_shown_where_it_stands_and_takes_no_rank():
    # identity 1 in camera 0: images 3 and 0 are junk, 1 is right, 2 and 4 are wrong; the junk after rank 2 is not shown
    distances = np.array([[0.2, 0.3, 0.4, 0.1, 0.5]])
    (found,) = rank_lists(matrix_distances(distances), [0], 2, Protocol([1], [1, 1, 2, 1, 2], [0], [0, 1, 1, 0, 0]))
    assert found.gallery.tolist() == [3, 0, 1, 2]
    assert [STATUS[code] for code in found.status] == ["junk", "junk", "right", "wrong"]


def test_no_rows_give_no_lists():
    assert rank_lists(matrix_distances(np.zeros((2, 2))), [], 5, Protocol([1, 2], [1, 2], [0, 0], [1, 1])) == []


@pytest.mark.parametrize("row", [-1, 2])
def test_row_that_is_no_query_is_refused(row):
    with pytest.raises(DataError, match=f"no query {row}; the 2 queries count from 0"):
        rank_lists(matrix_distances(np.zeros((2, 2))), [row], 5, Protocol([1, 2], [1, 2], [0, 0], [1, 1]))


def test_topk_below_1_is_refused():
    with pytest.raises(ConfigError, match="topk 0"):
        rank_lists(matrix_distances(np.zeros((1, 1))), [0], 0, Protocol([1], [1], [0], [1]))


def test_distance_that_is_not_finite_names_its_query():
    distances = np.zeros((3, 4))
    distances[2, 1] = np.nan
    with pytest.raises(DataError, match=r"query 2 \(0-based\)"):
        rank_lists(matrix_distances(distances), [0, 2], 1, Protocol([1] * 3, [1] * 4, [0] * 3, [1] * 4))


def test_a_distance_that_is_not_finite_in_another_row_is_no_matter():
    distances = np.zeros((3, 4))
    distances[2, 1] = np.nan
    labels = ([1] * 3, [1] * 4, [0] * 3, [1] * 4)
    (found,) = rank_lists(matrix_distances(distances), [1], 1, Protocol(*labels))
    assert found.gallery.tolist() == [0]


def test_a_status_counts_right_wrong_junk():
    assert STATUS == ("right", "wrong", "junk")
