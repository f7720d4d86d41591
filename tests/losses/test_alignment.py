"""Alignment and penalty against values by hand and the formulas in float64, with gradients; who takes no part."""

import math

import pytest
import torch

from configs.modalities import MODALITIES, sets_of
from losses import alignment_loss, norm_penalty, sdm_loss
from losses.alignment import AlignTerm, align_sets, mean_by_size, sdm_of_sets
from tests.losses.batches import random_features, value_and_gradient
from tests.reference import slow_alignment as slow
from tests.tolerance import bounds

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
ORTHOGONAL = torch.eye(2, dtype=torch.float64)
SETS = sets_of(MODALITIES)
SIZES = (4, 6, 4, 1)
PIDS = [4, 0, 4, 2, 0, 0]


def tensor(labels: list[int]) -> torch.Tensor:
    return torch.tensor(labels, dtype=torch.int64)


def drawn_valid(count: int, sets: int = len(SETS), seed: int = 0, share: float = 0.6) -> torch.Tensor:
    """Any rows but those of RGB, which all have."""
    valid = torch.rand(count, sets, generator=torch.Generator().manual_seed(seed)) < share
    valid[:, 0] = True
    return valid


def drawn_rows(count: int = len(PIDS), sets: int = len(SETS), seed: int = 0, width: int = 5) -> torch.Tensor:
    return random_features(sets * count, width, seed).view(sets, count, width)


def test_two_orthogonal_pairs_by_hand():
    """The logits of a row are (1/T, 0), of which the first is right."""
    value = alignment_loss(ORTHOGONAL, 3 * ORTHOGONAL, tensor([7, 3]), tensor([7, 3]), 0.5)
    assert value.item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-12)
    wrong = alignment_loss(ORTHOGONAL, ORTHOGONAL, tensor([7, 3]), tensor([3, 7]), 0.5)
    assert wrong.item() == pytest.approx(2 + math.log(1 + math.exp(-2)), abs=1e-12)


def test_its_minimum_is_the_logarithm_of_the_number_of_positives():
    feat, pids = ORTHOGONAL[[0, 0, 0, 1, 1, 1]], tensor([0, 0, 0, 1, 1, 1])
    assert alignment_loss(feat, feat, pids, pids, 0.01).item() == pytest.approx(math.log(3), abs=1e-9)


def test_half_is_of_the_queries_and_half_of_the_gallery_by_hand():
    """One query and two gallery rows, one of them its own: back, a column of one row has the loss 0."""
    gallery = ORTHOGONAL
    value = alignment_loss(ORTHOGONAL[:1], gallery, tensor([1]), tensor([1, 2]), 1.0)
    assert value.item() == pytest.approx(math.log(1 + math.exp(-1)) / 2, abs=1e-12)


@pytest.mark.parametrize("temperature", [0.03, 0.1, 2.0])
@pytest.mark.parametrize(("queries", "gallery"), [(PIDS, PIDS), ([1, 2, 2], [2, 1, 1, 5]), ([3], [3])])
def test_value_and_gradients_are_the_formula(queries, gallery, temperature):
    found = []
    for loss in (alignment_loss, slow.alignment):
        own = [random_features(len(labels), 5, side).requires_grad_() for side, labels in enumerate((queries, gallery))]
        labels = (tensor(queries), tensor(gallery)) if loss is alignment_loss else (queries, gallery)
        value = loss(*own, *labels, temperature)
        assert value.dtype == torch.float64 and value.ndim == 0
        found.append((value.detach(), *torch.autograd.grad(value, own)))
    torch.testing.assert_close(*found, **CLOSE)


def test_lengths_do_not_matter_nor_does_the_order_nor_which_side_asks():
    query, gallery = random_features(6, 5, 1), random_features(4, 5, 2)
    labels = tensor(PIDS), tensor([0, 4, 9, 2])
    value = alignment_loss(query, gallery, *labels, 0.1)
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    others = (
        alignment_loss(query * torch.arange(1, 7)[:, None], 7 * gallery, *labels, 0.1),
        alignment_loss(query[order], gallery, labels[0][order], labels[1], 0.1),
        alignment_loss(gallery, query, *labels[::-1], 0.1),
    )
    for other in others:
        torch.testing.assert_close(other, value, **CLOSE)


@pytest.mark.parametrize(("queries", "gallery"), [([1, 2], [3, 4, 5]), ([], [1]), ([1], []), ([], [])])
def test_without_a_positive_it_is_a_zero_that_has_a_gradient(queries, gallery):
    own = [random_features(len(labels)).requires_grad_() for labels in (queries, gallery)]
    value = alignment_loss(*own, tensor(queries), tensor(gallery), 0.1)
    gradients = torch.autograd.grad(value, own)
    assert value.item() == 0 and all(bool((gradient == 0).all()) for gradient in gradients)


def test_a_zero_row_and_equal_rows_have_finite_gradients():
    feat = torch.cat([torch.zeros(1, 3), torch.ones(3, 3)]).requires_grad_()
    alignment_loss(feat, feat.detach(), tensor([0, 0, 1, 1]), tensor([0, 0, 1, 1]), 1e-3).backward()
    assert torch.isfinite(feat.grad).all()


@pytest.mark.parametrize(
    ("query", "gallery", "labels"), [((3, 4), (3, 5), (3, 3)), ((3, 4), (3, 4), (2, 3)), ((4,), (3, 4), (4, 3))]
)
def test_other_shapes_are_refused(query, gallery, labels):
    with pytest.raises(ValueError, match="expected|wide"):
        alignment_loss(torch.ones(query), torch.ones(gallery), *(torch.zeros(n, dtype=torch.int64) for n in labels), 1)


def test_under_autocast_it_is_that_of_float32_features():
    half = random_features(6).to(torch.bfloat16)
    exact = alignment_loss(half.double(), half.double().flip(0), tensor(PIDS), tensor(PIDS[::-1]), 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        value = alignment_loss(half, half.flip(0), tensor(PIDS), tensor(PIDS[::-1]), 0.1)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact, **bounds(60, 10.0))


@pytest.mark.parametrize("form", ["ce", "kl"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_all_sets_at_once_are_the_formula_of_each(form, share):
    valid = drawn_valid(len(PIDS), share=share, seed=3)
    of_all = align_sets if form == "ce" else sdm_of_sets

    def fast(rows: torch.Tensor) -> torch.Tensor:
        return mean_by_size(of_all(rows, valid, tensor(PIDS), 0.2), valid[:, 1:].any(0), SIZES)

    found = [
        value_and_gradient(loss, drawn_rows())
        for loss in (fast, lambda rows: slow.of_sets(rows, valid, PIDS, SETS, 0.2, form) + 0 * rows.sum())
    ]
    torch.testing.assert_close(*found, **CLOSE)


@pytest.mark.parametrize("of_all", [align_sets, sdm_of_sets])
def test_what_a_row_that_is_not_valid_holds_changes_nothing(of_all):
    valid = drawn_valid(len(PIDS), seed=5)
    other = torch.where(valid.t()[..., None], drawn_rows(), 1e3 * drawn_rows(seed=9))
    found = [
        value_and_gradient(lambda rows: of_all(rows, valid, tensor(PIDS), 0.1).sum(), rows)
        for rows in (drawn_rows(), other)
    ]
    torch.testing.assert_close(*found, **CLOSE)
    assert bool((found[0][1][~valid.t()] == 0).all())


def test_an_anchor_that_is_not_valid_is_none():
    valid = drawn_valid(len(PIDS), seed=7)
    valid[2, 0] = False
    found = align_sets(drawn_rows(), valid, tensor(PIDS), 0.1)
    assert mean_by_size(found, valid[:, 1:].any(0), SIZES) == pytest.approx(
        slow.of_sets(drawn_rows(), valid, PIDS, SETS, 0.1).item(), abs=1e-9
    )


def test_kl_of_whole_samples_is_irras_loss_of_each_set():
    rows, valid = drawn_rows(), torch.ones(len(PIDS), len(SETS), dtype=torch.bool)
    expected = torch.stack([sdm_loss(rows[0], own, tensor(PIDS), 50.0) for own in rows[1:]])
    torch.testing.assert_close(sdm_of_sets(rows, valid, tensor(PIDS), 1 / 50), expected, **CLOSE)


def test_each_size_counts_alike_and_sets_and_sizes_that_are_not_there_do_not():
    values = torch.arange(1.0, 8.0)  # three singles, three doubles, one triple
    assert mean_by_size(values, torch.ones(7, dtype=torch.bool), (3, 3, 1)) == pytest.approx((2 + 5 + 7) / 3)
    some = torch.tensor([True, False, True, False, False, True, False])
    assert mean_by_size(values, some, (3, 3, 1)) == pytest.approx((2 + 6) / 2)
    assert mean_by_size(values, torch.zeros(7, dtype=torch.bool), (3, 3, 1)) == 0


@pytest.mark.parametrize(("args", "message"), [((0.1, SIZES, "CE"), "form got 'CE'"), ((0.0, SIZES), "temperature")])
def test_a_term_of_another_form_or_temperature_is_refused(args, message):
    with pytest.raises(ValueError, match=message):
        AlignTerm(*args)


def test_the_penalty_by_hand():
    """Lengths 5, 7, 10, 13, 15: two below the band and two above it cost, 10 within it and its ends do not."""
    feat = torch.tensor([[3.0, 4.0], [7.0, 0.0], [6.0, 8.0], [5.0, 12.0], [9.0, 12.0]], dtype=torch.float64)
    assert norm_penalty(feat, 10.0, 3.0).item() == pytest.approx((4 + 4) / 5, abs=1e-12)
    valid = torch.tensor([True, False, True, True, False])
    assert norm_penalty(feat, 10.0, 3.0, valid).item() == pytest.approx(4 / 3, abs=1e-12)


def test_the_penalty_of_normalised_channels_at_the_start_is_what_the_defaults_expect():
    feat = torch.ones(4, 512)
    assert 2e-3 * norm_penalty(feat, 10.0, 3.0).item() == pytest.approx(0.185, abs=5e-4)


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0, 9.0])
def test_value_and_gradient_of_the_penalty_are_the_formula(scale):
    found = [
        value_and_gradient(lambda feat, loss=loss: loss(scale * feat, 4.0, 1.5), random_features(7))
        for loss in (norm_penalty, slow.penalty)
    ]
    torch.testing.assert_close(*found, **CLOSE)


def test_the_penalty_is_finite_at_zero_and_zero_without_rows():
    feat = torch.zeros(3, 4, requires_grad=True)
    norm_penalty(feat, 10.0, 3.0).backward()
    assert torch.isfinite(feat.grad).all()
    none = torch.zeros(0, 4, requires_grad=True)
    value = norm_penalty(none, 10.0, 3.0)
    value.backward()
    assert value == 0 and none.grad.shape == (0, 4)
    unseen = norm_penalty(feat, 10.0, 3.0, torch.zeros(3, dtype=torch.bool))
    assert unseen == 0 and unseen.requires_grad
