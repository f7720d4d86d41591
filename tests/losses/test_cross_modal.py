"""The image-text losses against values by hand and the formula in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.phases import Phase
from losses import cross_modal_contrast
from losses.cross_modal import ContrastTerm, ImageToTextTerm, image_text_logits, image_to_text_accuracy
from model import ModelOutput
from tests.losses.batches import random_features
from tests.reference import slow_clip_reid as slow
from tests.tolerance import assert_rounded, bounds

PHASE = Phase(1, 0, "static", {"i2t": 1.0, "t2i": 1.0}, 4, False)


def both_sides(
    anchor: torch.Tensor, other: torch.Tensor, mine: list[int], theirs: list[int], t: float
) -> list[tuple[torch.Tensor, ...]]:
    """Return (value, gradient in anchor, gradient in other) of the loss and of the formula."""
    results = []
    for loss in (cross_modal_contrast, slow.contrast):
        own = [side.clone().requires_grad_() for side in (anchor, other)]
        labels = (mine, theirs) if loss is slow.contrast else (torch.tensor(mine), torch.tensor(theirs))
        value = loss(*own, *labels, t)
        results.append((value.detach(), *torch.autograd.grad(value, own)))
    return results


def test_two_pairs_by_hand():
    anchor, other, labels = torch.eye(2), 2 * torch.eye(2), torch.tensor([3, 8])
    value = cross_modal_contrast(anchor, other, labels, labels)
    assert value.item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-6)
    assert value.item() == pytest.approx(0.126928, abs=1e-6)


def test_the_temperature_divides_the_dot_products():
    anchor, other, labels = torch.eye(2), 2 * torch.eye(2), torch.tensor([3, 8])
    assert cross_modal_contrast(anchor, other, labels, labels, 0.5).item() == pytest.approx(
        math.log(1 + math.exp(-4)), rel=1e-5
    )


def test_positives_share_the_loss_of_an_anchor_by_hand():
    """Logits (1, 0, 0), the first two positive: log(e + 2) - (1 + 0) / 2."""
    anchor, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    value = cross_modal_contrast(anchor, other, torch.tensor([4]), torch.tensor([4, 4, 0]))
    assert value.item() == pytest.approx(math.log(math.e + 2) - 0.5, rel=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    mine=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    theirs=st.lists(st.integers(0, 3), min_size=1, max_size=7),
    t=st.sampled_from([1.0, 0.07, 3.0]),
    seed=st.integers(0, 1000),
)
def test_value_and_gradients_are_the_formula_s_for_any_labels(mine, theirs, t, seed):
    if not set(mine) & set(theirs):
        theirs = [*theirs, mine[0]]
    anchor, other = random_features(len(mine), 5, seed), random_features(len(theirs), 5, seed + 1)
    got, exact = both_sides(anchor, other, mine, theirs, t)
    for value, expected in zip(got, exact, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-10)


def test_anchors_without_a_positive_are_left_out_of_the_mean():
    anchor, other = random_features(3), random_features(2, seed=1)
    whole = cross_modal_contrast(anchor, other, torch.tensor([0, 7, 1]), torch.tensor([0, 1]))
    without = cross_modal_contrast(anchor[[0, 2]], other, torch.tensor([0, 1]), torch.tensor([0, 1]))
    torch.testing.assert_close(whole, without)


@pytest.mark.parametrize("sizes, labels", [((0, 0), ([], [])), ((0, 2), ([], [0, 1])), ((2, 0), ([0, 1], []))])
def test_without_pairs_the_loss_is_a_zero_with_a_gradient(sizes, labels):
    sides = [torch.randn(count, 4, requires_grad=True) for count in sizes]
    value = cross_modal_contrast(*sides, *(torch.tensor(own, dtype=torch.int64) for own in labels))
    value.backward()
    assert value.item() == 0
    assert all(side.grad is not None and bool((side.grad == 0).all()) for side in sides)


def test_without_a_positive_the_loss_is_a_zero_with_a_gradient():
    sides = [torch.randn(2, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)]
    value = cross_modal_contrast(*sides, torch.tensor([0, 1]), torch.tensor([2, 3, 4]))
    value.backward()
    assert value.item() == 0
    assert all(bool((side.grad == 0).all()) for side in sides)


def test_equal_texts_of_one_identity_each_count():
    """Duplicates: a batch with the text of an identity twice is not the batch with it once."""
    anchor, text = random_features(3), random_features(2, seed=1)
    labels = [0, 0, 1]
    got, exact = both_sides(anchor, text[labels], labels, labels, 1.0)
    torch.testing.assert_close(got, exact, rtol=1e-10, atol=1e-12)
    once = cross_modal_contrast(anchor, text, torch.tensor(labels), torch.tensor([0, 1]))
    assert abs(once - got[0]) > 0.05


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    anchor, other = random_features(6, 64).to(dtype), random_features(6, 64, seed=1).to(dtype)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    exact = slow.contrast(anchor.double(), other.double(), labels.tolist(), labels.tolist())
    with torch.autocast("cpu", torch.bfloat16):
        value = cross_modal_contrast(anchor, other, labels, labels)
    assert_rounded(value, exact, terms=64)


def test_shapes_that_do_not_fit_are_refused():
    feat = torch.randn(3, 4)
    with pytest.raises(ValueError, match="labels"):
        cross_modal_contrast(feat, feat, torch.tensor([0, 1]), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="labels"):
        cross_modal_contrast(feat, feat, torch.tensor([0, 1, 2]), torch.tensor([0, 1]))


@pytest.mark.parametrize("normalise, temperature", [(False, 1.0), (True, 1.0), (True, 0.05), (False, 4.0)])
def test_both_terms_of_stage_one_are_the_formula_s(normalise, temperature):
    images, texts, labels = random_features(7), random_features(7, seed=1), [0, 1, 1, 4, 0, 0, 2]
    output = ModelOutput([], [], [], extra={"image": images, "text": texts})
    got = ContrastTerm(normalise, temperature)(output, {"pids": torch.tensor(labels)}, PHASE)
    if normalise:
        images, texts = (side / (side * side).sum(1, keepdim=True).sqrt() for side in (images, texts))
    torch.testing.assert_close(got["i2t"], slow.contrast(images, texts, labels, labels, temperature))
    torch.testing.assert_close(got["t2i"], slow.contrast(texts, images, labels, labels, temperature))
    assert abs(got["i2t"] - got["t2i"]) > 1e-3 * abs(got["i2t"])


@pytest.mark.parametrize("normalise, temperature", [(False, 1.0), (True, 0.05)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_term_of_stage_two_is_the_cross_entropy_of_dot_products(normalise, temperature, smoothing):
    images, texts, labels = random_features(5), random_features(9, seed=1), [8, 0, 3, 3, 7]
    logits = image_text_logits(images, texts, normalise, temperature)
    if normalise:
        images, texts = (side / (side * side).sum(1, keepdim=True).sqrt() for side in (images, texts))
    by_hand = torch.stack([torch.stack([(row * text).sum() / temperature for text in texts]) for row in images])
    torch.testing.assert_close(logits, by_hand)
    output = ModelOutput([], [], [], extra={"i2t": logits})
    value = ImageToTextTerm(smoothing)(output, {"pids": torch.tensor(labels)}, PHASE)["i2t"]
    torch.testing.assert_close(value, slow.cross_entropy(by_hand, labels, smoothing))


def test_the_cosines_of_a_zero_vector_have_finite_gradients():
    images = torch.zeros(2, 3, requires_grad=True)
    image_text_logits(images, torch.randn(4, 3), True, 0.01).sum().backward()
    assert bool(torch.isfinite(images.grad).all())


def test_accuracy_is_the_share_of_images_with_their_own_text_on_top():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 0.5, 0.4], [1.0, 0.0, 5.0], [9.0, 8.0, 7.0]])
    output = ModelOutput([], [], [], extra={"i2t": logits})
    accuracy = image_to_text_accuracy(output, {"pids": torch.tensor([0, 2, 2, 1])})
    torch.testing.assert_close(accuracy, torch.tensor(0.5), **bounds(1))
