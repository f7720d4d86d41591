"""SDM, ITC and CMPM against values by hand and the formulas in float64, with gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losses import cmpm_loss, itc_loss, sdm_loss
from losses.numeric import unit_rows
from tests.losses.batches import random_features
from tests.reference import slow_image_text as slow
from tests.tolerance import assert_rounded

ORTHOGONAL = torch.eye(2, dtype=torch.float64)
WRONG = -math.log(1e-8)  # what a unit of probability on a wrong pair costs
HIGH = 1 / (1 + math.exp(-2))  # the softmax of (2, 0)
KL = HIGH * math.log(HIGH) + (1 - HIGH) * (math.log(1 - HIGH) + WRONG)  # of one direction
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def tensor(labels: list[int]) -> torch.Tensor:
    return torch.tensor(labels, dtype=torch.int64)


def assert_formula(fast: object, exact: object, count: int, seed: int, size: float = 1.0) -> None:
    """Value and both gradients of fast(image, text) are those of exact(image, text)."""
    sides = [size * random_features(count, 5, seed + side) for side in range(2)]
    found = []
    for loss in (fast, exact):
        own = [side.clone().requires_grad_() for side in sides]
        value = loss(*own)
        assert value.dtype == torch.float64 and value.ndim == 0
        found.append((value.detach(), *torch.autograd.grad(value, own)))
    torch.testing.assert_close(*found, **CLOSE)


def test_sdm_of_two_orthogonal_pairs_by_hand():
    value = sdm_loss(ORTHOGONAL, ORTHOGONAL, tensor([7, 3]), scale=2.0)
    assert value.item() == pytest.approx(3.660925, abs=1e-5)  # of factors rounded to six digits
    assert value.item() == pytest.approx(2 * KL, abs=1e-7)  # 1e-8 beside a target of 1 is left out there


def test_the_reference_has_the_value_by_hand_too():
    assert slow.sdm(ORTHOGONAL, ORTHOGONAL, [7, 3], 2.0).item() == pytest.approx(2 * KL, abs=1e-7)


def test_sdm_of_two_pairs_of_one_identity_by_hand():
    """Targets are 1/2 each: KL is HIGH log(2 HIGH) + (1 - HIGH) log(2 (1 - HIGH))."""
    value = sdm_loss(ORTHOGONAL, ORTHOGONAL, tensor([7, 7]), scale=2.0)
    by_hand = HIGH * math.log(2 * HIGH) + (1 - HIGH) * math.log(2 * (1 - HIGH))
    assert value.item() == pytest.approx(2 * by_hand, abs=1e-6)


def test_soft_labels_are_shares_of_their_row_by_hand():
    """Images 0, 0, 1 of one identity, f = 0.3: the last row is (0.3, 0.3, 1) / 1.6, and all logits are equal."""
    same = torch.ones(3, 2, dtype=torch.float64)
    value = sdm_loss(same, same, tensor([4, 4, 4]), image_ids=tensor([0, 0, 1]), soft_label=0.3)
    rows = [[1 / 2.3, 1 / 2.3, 0.3 / 2.3]] * 2 + [[0.3 / 1.6, 0.3 / 1.6, 1 / 1.6]]
    by_hand = sum(math.log(1 / 3) - sum(map(math.log, row)) / 3 for row in rows) / 3
    assert value.item() == pytest.approx(2 * by_hand, abs=1e-6)


def test_itc_by_hand_where_another_row_shows_the_same_identity_is_a_negative():
    assert itc_loss(ORTHOGONAL, ORTHOGONAL, scale=2.0).item() == pytest.approx(-math.log(HIGH), abs=1e-9)


def test_cmpm_by_hand_is_of_lengths_and_not_of_cosines():
    """Features of length 2 against unit ones: logits (2, 0), which cosines would make (1, 0)."""
    assert cmpm_loss(2 * ORTHOGONAL, 2 * ORTHOGONAL, tensor([0, 1])).item() == pytest.approx(2 * KL, abs=1e-6)
    once = cmpm_loss(2 * ORTHOGONAL, 5 * ORTHOGONAL, tensor([0, 1]))
    high = 1 / (1 + math.exp(-5))
    other = high * math.log(high) + (1 - high) * (math.log(1 - high) + WRONG)
    assert once.item() == pytest.approx(KL + other, abs=1e-6)


def test_the_targets_of_l2_add_up_to_the_root_of_the_pairs_and_make_the_loss_negative():
    same, pids = torch.zeros(4, 3, dtype=torch.float64), tensor([1, 1, 1, 1])
    assert cmpm_loss(same, same, pids).item() == pytest.approx(0, abs=1e-6)
    assert cmpm_loss(same, same, pids, "l2").item() == pytest.approx(2 * math.log(1 / 2), abs=1e-6)


PIDS = st.lists(st.integers(0, 3), min_size=1, max_size=7)


@settings(deadline=None, max_examples=40)
@given(pids=PIDS, scale=st.sampled_from([50.0, 2.0, 0.5]), seed=st.integers(0, 1000))
def test_sdm_and_itc_are_the_formulas_for_any_identities(pids, scale, seed):
    count = len(pids)
    assert_formula(
        lambda v, t: sdm_loss(v, t, tensor(pids), scale), lambda v, t: slow.sdm(v, t, pids, scale), count, seed
    )
    assert_formula(lambda v, t: itc_loss(v, t, scale), lambda v, t: slow.itc(v, t, scale), count, seed)


@settings(deadline=None, max_examples=30)
@given(images=PIDS, soft_label=st.sampled_from([0.3, 0.0, 0.9, 1.0]), seed=st.integers(0, 1000))
def test_soft_labels_are_the_formula_s(images, soft_label, seed):
    pids = [image // 2 for image in images]  # two images an identity
    assert_formula(
        lambda v, t: sdm_loss(v, t, tensor(pids), 5.0, tensor(images), soft_label),
        lambda v, t: slow.sdm(v, t, pids, 5.0, images, soft_label),
        *(len(pids), seed),
    )


@settings(deadline=None, max_examples=30)
@given(pids=PIDS, target=st.sampled_from(["l1", "l2"]), seed=st.integers(0, 1000))
def test_cmpm_is_the_formula_for_any_identities(pids, target, seed):
    assert_formula(
        lambda v, t: cmpm_loss(v, t, tensor(pids), target),
        lambda v, t: slow.cmpm(v, t, pids, target),
        *(len(pids), seed, 2.0),
    )


def test_soft_labels_of_one_are_hard_ones_and_image_ids_alone_soften():
    image, text, pids = random_features(4), random_features(4, seed=1), tensor([0, 0, 1, 1])
    hard, ids = sdm_loss(image, text, pids), tensor([0, 1, 2, 2])
    assert torch.equal(sdm_loss(image, text, pids, image_ids=ids, soft_label=1.0), hard)
    assert torch.equal(sdm_loss(image, text, pids, soft_label=0.3), hard)
    assert abs(sdm_loss(image, text, pids, image_ids=ids) - hard) > 0.01


LOSSES = {
    "sdm": lambda image, text, pids: sdm_loss(image, text, pids),
    "sdm, soft": lambda image, text, pids: sdm_loss(image, text, pids, image_ids=torch.arange(len(pids))),
    "itc": lambda image, text, pids: itc_loss(image, text),
    "cmpm": lambda image, text, pids: cmpm_loss(image, text, pids),
    "cmpm, l2": lambda image, text, pids: cmpm_loss(image, text, pids, "l2"),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("zeros", [(0,), (1,), (0, 1)])
def test_a_zero_feature_has_a_finite_value_and_a_finite_gradient(name, dtype, zeros):
    sides = [random_features(3, seed=side).to(dtype) for side in range(2)]
    for side in zeros:
        sides[side][1] = 0
    for side in sides:
        side.requires_grad_()
    value = LOSSES[name](*sides, tensor([0, 1, 1]))
    value.backward()
    assert torch.isfinite(value) and value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert all(bool(torch.isfinite(side.grad).all()) for side in sides)


@pytest.mark.parametrize("name", LOSSES)
def test_zero_features_have_the_value_of_the_formula(name):
    sides = [random_features(3, seed=side) for side in range(2)]
    sides[0][1] = 0
    exact = {
        "sdm": slow.sdm(*sides, [0, 1, 1]),
        "sdm, soft": slow.sdm(*sides, [0, 1, 1], image_ids=[0, 1, 2], soft_label=0.3),
        "itc": slow.itc(*sides),
        "cmpm": slow.cmpm(*sides, [0, 1, 1]),
        "cmpm, l2": slow.cmpm(*sides, [0, 1, 1], "l2"),
    }
    torch.testing.assert_close(LOSSES[name](*sides, tensor([0, 1, 1])), exact[name], **CLOSE)


def test_unit_rows_have_length_one_and_a_zero_row_the_gradient_of_a_unit_one():
    feat = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-6, 0.0]], requires_grad=True)
    rows = unit_rows(feat)
    torch.testing.assert_close(rows.detach(), torch.tensor([[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]]))
    rows[1].sum().backward()
    torch.testing.assert_close(feat.grad, torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))


@pytest.mark.parametrize("name", LOSSES)
def test_without_rows_the_loss_is_a_zero_with_a_gradient(name):
    sides = [torch.zeros(0, 4, requires_grad=True) for _ in range(2)]
    value = LOSSES[name](*sides, tensor([]))
    value.backward()
    assert value.item() == 0 and all(side.grad is not None for side in sides)


@pytest.mark.parametrize("name", LOSSES)
def test_images_and_captions_count_alike_and_the_order_of_pairs_does_not_matter(name):
    image, text, pids = random_features(6), random_features(6, seed=1), tensor([0, 1, 1, 2, 0, 0])
    value, order = LOSSES[name](image, text, pids), tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(LOSSES[name](text, image, pids), value, **CLOSE)
    torch.testing.assert_close(LOSSES[name](image[order], text[order], pids[order]), value, **CLOSE)


@pytest.mark.parametrize("name", ["sdm", "itc"])
def test_lengths_of_features_do_not_matter_to_cosines(name):
    image, text, pids = random_features(4), random_features(4, seed=1), tensor([0, 1, 1, 2])
    longer = torch.tensor([[0.01], [3.0], [1.0], [250.0]], dtype=torch.float64)
    torch.testing.assert_close(LOSSES[name](longer * image, text, pids), LOSSES[name](image, text, pids), **CLOSE)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32_whatever_autocast_says(name, dtype):
    image, text = random_features(6, 64).to(dtype), random_features(6, 64, seed=1).to(dtype)
    pids = tensor([0, 0, 1, 1, 2, 2])
    exact = LOSSES[name](image.double(), text.double(), pids)
    with torch.autocast("cpu", torch.bfloat16):
        value = LOSSES[name](image, text, pids)
    logits = 50.0 if name[:4] != "cmpm" else image.double().norm(dim=1).max().item()
    assert_rounded(value, exact, terms=64, scale=logits)  # a rounding of a logit moves the loss by about as much


def test_shapes_that_do_not_fit_are_refused():
    feat, pids = torch.randn(3, 4), tensor([0, 1, 2])
    for wrong in (torch.randn(3, 5), torch.randn(2, 4), torch.randn(3)):
        for loss in LOSSES.values():
            with pytest.raises(ValueError, match="images and texts"):
                loss(feat, wrong, pids)
    with pytest.raises(ValueError, match="labels"):
        sdm_loss(feat, feat, tensor([0, 1]))
    with pytest.raises(ValueError, match="labels"):
        sdm_loss(feat, feat, pids, image_ids=tensor([0]))
    with pytest.raises(ValueError, match="target got 'l3', expected l1 or l2"):
        cmpm_loss(feat, feat, pids, "l3")
    with pytest.raises(ValueError, match="labels"):
        cmpm_loss(feat, feat, tensor([[0], [1], [2]]))


@pytest.mark.parametrize("ids", [None, [0, 0, 1, 2, 2, 3]])
@pytest.mark.parametrize("kept", [[0, 1, 2, 3, 4, 5], [0, 2, 4, 5], [3], []])
def test_sdm_among_some_pairs_is_that_of_these_alone(kept, ids):
    pids, among = tensor([1, 1, 2, 1, 3, 2]), torch.zeros(6, dtype=torch.bool)
    among[kept] = True
    found = []
    for own in (True, False):
        sides = [random_features(6, 5, side).requires_grad_() for side in range(2)]
        seen = [side[kept] if own else side for side in sides]
        labels, others = (pids[kept], None) if own else (pids, among)
        images = None if ids is None else tensor(ids)[kept] if own else tensor(ids)
        value = sdm_loss(*seen, labels, 5.0, images, 0.3, others)
        found.append((value.detach(), *torch.autograd.grad(value, sides)))
    torch.testing.assert_close(*found, **CLOSE)


def test_sdm_refuses_another_number_of_pairs_to_take_part():
    with pytest.raises(ValueError, match="expected features"):
        sdm_loss(ORTHOGONAL, ORTHOGONAL, tensor([0, 1]), among=torch.ones(3, dtype=torch.bool))
