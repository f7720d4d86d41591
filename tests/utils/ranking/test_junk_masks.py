"""Junk by the rule of a data set, and curves over identities: every reader of distances against a slow loop."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.retrieval import blocks_of, evaluate_masked, random_case
from tests.reference.verification import rate, tpr_at_fpr
from utils.errors import DataError
from utils.ranking import distance
from utils.ranking import rank as ranking_module
from utils.ranking.camera_pairs import camera_pair_slices
from utils.ranking.distance import matrix_distances
from utils.ranking.protocol import Protocol
from utils.ranking.rank import rank
from utils.ranking.rank_list import STATUS, rank_lists
from utils.ranking.verification import verify


def masked(labels: list[np.ndarray], junk: np.ndarray) -> Protocol:
    return Protocol(*labels, lambda start, stop: junk[start:stop])


def draw_case(
    seed: int, levels: int | None, num_query: int = 6, num_gallery: int = 25
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Return distances, labels and a mask bool [Q, G] that leaves query 0 a match and a wrong image."""
    distances, labels = random_case(seed, num_query, num_gallery, num_ids=4, levels=levels)
    junk = np.random.default_rng(seed).random(distances.shape) < 0.4
    labels[1][0], labels[1][1] = labels[0][0], labels[0][0] + 1
    junk[0, :2] = False
    return distances, labels, junk


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([None, 1, 3]),
    distinct=st.booleans(),
    on_device=st.booleans(),
    size=st.sampled_from([1, 4, 100]),
)
def test_any_masked_ranking_equals_the_slow_reference(seed, levels, distinct, on_device, size):
    distances, labels, junk = draw_case(seed, levels)
    distances = distances.astype(np.float32)
    with pytest.MonkeyPatch.context() as patch, blocks_of(size, distances.shape[1]):
        for module in (distance, ranking_module):  # tensors on the CPU take the way of those on a GPU
            patch.setattr(module, "on_gpu", lambda values: isinstance(values, torch.Tensor))
        made = matrix_distances(torch.from_numpy(distances) if on_device else distances)
        found = rank(made, masked(labels, junk), 5, distinct)
    expected = evaluate_masked(distances, *labels[:2], junk, 5, distinct)
    assert found.first_hit.tolist() == expected["first_hit"]
    np.testing.assert_allclose(found.ap, expected["ap"], rtol=1e-12)
    np.testing.assert_allclose(found.cmc, expected["cmc"], rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), levels=st.sampled_from([None, 1, 3]), distinct=st.booleans())
def test_junk_by_camera_is_the_mask_of_one_identity_and_one_camera(seed, levels, distinct):
    distances, labels, _ = draw_case(seed, levels)
    q_pids, g_pids, q_camids, g_camids = labels
    g_camids[0] = q_camids[0] + 1  # a match of another camera
    junk = (q_pids[:, None] == g_pids) & (q_camids[:, None] == g_camids)
    by_labels = rank(matrix_distances(distances), Protocol(*labels), 5, distinct)
    by_mask = rank(matrix_distances(distances), masked(labels, junk), 5, distinct)
    for name in by_labels._fields:
        np.testing.assert_array_equal(getattr(by_labels, name), getattr(by_mask, name))


def test_an_identity_takes_one_rank_by_hand():
    distances = np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])
    labels = ([1], [2, 2, 3, 1, 1], [0], [1] * 5)
    images, identities = (rank(matrix_distances(distances), Protocol(*labels), 5, distinct) for distinct in (0, 1))
    assert images.first_hit.tolist() == [3] and identities.first_hit.tolist() == [2]
    assert images.cmc.tolist() == [0, 0, 0, 1, 1] and identities.cmc.tolist() == [0, 0, 1, 1, 1]
    assert images.ap == identities.ap == pytest.approx((1 / 4 + 2 / 5) / 2)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), levels=st.sampled_from([None, 3]), block=st.sampled_from([1, 500, 2**26]))
def test_masked_pairs_are_none_of_those_verified(seed, levels, block):
    distances, labels, junk = draw_case(seed, levels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distance, "BLOCK_BYTES", block)
        result = verify(matrix_distances(distances), masked(labels, junk), [0.1, 1.0])
    same = np.array(labels[0])[:, None] == labels[1]
    positive, negative = distances[same & ~junk].tolist(), distances[~same & ~junk].tolist()
    assert (result.positive.sum(), result.negative.sum()) == (len(positive), len(negative))
    for fpr in (0.1, 1.0):
        assert result.tpr_at_fpr[fpr] == tpr_at_fpr(positive, negative, fpr)
        assert rate(negative, result.threshold[fpr]) <= fpr


def test_masked_images_are_shown_as_junk_and_take_no_rank():
    distances = np.array([[0.4, 0.1, 0.2, 0.3]])
    junk = np.array([[False, True, False, False]])
    protocol = masked(([1], [1, 2, 2, 1], [0], [0, 0, 0, 0]), junk)
    (found,) = rank_lists(matrix_distances(distances), [0], 2, protocol)
    assert found.gallery.tolist() == [1, 2, 3]
    assert [STATUS[code] for code in found.status] == ["junk", "wrong", "right"]


def test_camera_pairs_say_nothing_under_another_rule():
    labels = tuple(np.array(values) for values in ([1, 2], [1, 2], [0, 1], [1, 0]))
    assert len(camera_pair_slices(matrix_distances(np.eye(2)), Protocol(*labels))) == 4
    assert camera_pair_slices(matrix_distances(np.eye(2)), masked(labels, np.zeros((2, 2), dtype=bool))) == []


def test_a_rule_that_leaves_no_match_is_blamed():
    protocol = masked(([1], [1, 2], [0], [0, 0]), np.array([[True, False]]))
    with pytest.raises(DataError, match="the data set's rule calls each image of a query's identity junk"):
        rank(matrix_distances(np.zeros((1, 2))), protocol)
