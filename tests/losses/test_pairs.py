"""Who is a positive and who a negative of whom."""

import pytest
import torch

from losses.pairs import pair_masks, valid_anchors

LABELS = [3, 1, 3, 1, 3, 7]
AMONG = [True, True, False, True, True, True]


@pytest.mark.parametrize("among", [None, AMONG])
def test_masks_are_what_their_words_say_for_each_pair(among):
    members = [True] * len(LABELS) if among is None else among
    rows = range(len(LABELS))
    both = [[members[i] and members[j] for j in rows] for i in rows]
    positive, negative = pair_masks(torch.tensor(LABELS), None if among is None else torch.tensor(among))
    assert positive.tolist() == [[both[i][j] and i != j and LABELS[i] == LABELS[j] for j in rows] for i in rows]
    assert negative.tolist() == [[both[i][j] and LABELS[i] != LABELS[j] for j in rows] for i in rows]
    has_positive = [any(row) for row in positive.tolist()]
    assert valid_anchors(positive, negative).tolist() == [p and m for p, m in zip(has_positive, members, strict=True)]


def test_an_anchor_needs_a_positive_and_a_negative_of_its_own():
    positive = torch.tensor([[True, False], [False, False], [True, True], [False, False]])
    negative = torch.tensor([[False, True], [True, True], [False, False], [False, False]])
    assert valid_anchors(positive, negative).tolist() == [True, False, False, False]


def test_masks_are_made_where_the_labels_are():
    # "meta" holds shapes alone and refuses tensors of other devices, as a GPU does
    labels = torch.zeros(4, dtype=torch.int64, device="meta")
    positive, negative = pair_masks(labels)
    assert positive.device == negative.device == labels.device and positive.shape == negative.shape == (4, 4)
