"""The two rules of AP, and AP of the first places alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.retrieval import random_case, ranked_matches
from tests.reference.spectral import average_precision
from utils.ap_rules import AP_RULES, marked, marked_metric
from utils.errors import ConfigError
from utils.metrics import eval_func
from utils.ranking.protocol import Protocol
from utils.ranking.rank import matrix_distances, rank


def mean_ap(hits: list[int], **how: object) -> float:
    """Return the mAP of one query whose gallery, in this order, is right (1) or wrong (0)."""
    g_pids = [7 if hit else 8 for hit in hits]
    return eval_func(np.arange(len(hits))[None], [7], g_pids, [0], [1] * len(hits), **how)[1]


@pytest.mark.parametrize(
    ("hits", "standard", "trapezoid"), [([0, 1], 0.5, 0.25), ([0, 1, 1, 0, 0, 1], 0.555556, 0.427778), ([1, 0], 1, 1)]
)
def test_both_rules_by_hand(hits, standard, trapezoid):
    assert mean_ap(hits) == mean_ap(hits, ap="standard") == pytest.approx(standard, abs=1e-6)
    assert mean_ap(hits, ap="trapezoid") == pytest.approx(trapezoid, abs=1e-6)


@pytest.mark.parametrize(
    ("depth", "expected"), [(1, 0), (2, 1 / 2 / 2), (3, (1 / 2 + 2 / 3) / 3), (5, (1 / 2 + 2 / 3) / 3), (9, 5 / 9)]
)
def test_at_a_depth_only_its_places_count_and_no_more_matches_than_it_has_room_for(depth, expected):
    assert mean_ap([0, 1, 1, 0, 0, 1], depth=depth) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([None, 3]),
    rule=st.sampled_from(AP_RULES),
    depth=st.sampled_from([None, 1, 4, 100]),
)
def test_any_case_equals_the_slow_reference_and_the_curve_is_that_of_the_standard_rule(seed, levels, rule, depth):
    distances, labels = random_case(seed, levels=levels)
    protocol = Protocol(*labels)
    ranking, standard = rank(matrix_distances(distances), protocol, ap=rule, depth=depth), None
    q_pids, g_pids, q_camids, g_camids = labels
    lists = [
        ranked_matches(row, pid, camid, g_pids, g_camids)
        for row, pid, camid in zip(distances, q_pids, q_camids, strict=True)
    ]
    expected = [average_precision(matches, rule) for matches in lists]
    np.testing.assert_allclose(ranking.ap, expected, rtol=0, atol=1e-12)
    assert ranking.mAP == pytest.approx(np.nanmean(expected), abs=1e-12)
    if depth is None:
        assert ranking.ap_at is None
    else:
        near = [average_precision(matches, rule, depth) for matches in lists]
        np.testing.assert_allclose(ranking.ap_at, near, rtol=0, atol=1e-12)
        assert eval_func(distances, *labels, ap=rule, depth=depth)[1] == pytest.approx(np.nanmean(near), abs=1e-12)
    standard = rank(matrix_distances(distances), protocol)
    for name in ("cmc", "inp", "first_hit", "num_pos", "mINP"):
        np.testing.assert_array_equal(getattr(ranking, name), getattr(standard, name))
    assert (ranking.ap <= standard.ap + 1e-12)[standard.num_pos > 0].all()


def test_an_unknown_rule_and_a_depth_without_a_place_are_refused():
    with pytest.raises(ConfigError, match=r"ap got 'Trapezoid', allowed: standard, trapezoid \(TEST\.AP\)"):
        mean_ap([1], ap="Trapezoid")
    with pytest.raises(ConfigError, match="depth 0 must be at least 1"):
        mean_ap([1], depth=0)


def test_what_is_no_standard_ap_is_marked():
    assert [marked_metric(name, "trapezoid") for name in ("mAP", "Rank-1")] == ["mAP (trapezoid AP)", "Rank-1"]
    assert marked("Market-1501", "standard") == "Market-1501"
