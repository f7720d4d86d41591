"""SupCon against its golden values, hand-computed cases and the slow reference."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losses import SupConLoss
from losses.supcon import SupConTerm, supcon_loss
from model import ModelOutput
from tests.losses.batches import (
    GOLDEN_CAMIDS,
    GOLDEN_LABELS,
    LossOfFeat,
    assert_finite,
    assert_order_does_not_matter,
    assert_same,
    batches,
    golden_features,
    random_features,
    reorderings,
    value_and_gradient,
)
from tests.reference import slow_model_b
from tests.tolerance import rounding

LABELS, CAMIDS = torch.tensor(GOLDEN_LABELS), torch.tensor(GOLDEN_CAMIDS)
GOLDEN = [(0.07, None, 15.510230), (0.07, CAMIDS, 13.802915), (0.5, CAMIDS, 2.661432)]
LONELY = [([0, 1, 2, 3], [0, 0, 0, 0]), ([0, 0, 1, 1], [2, 2, 3, 3]), ([5], [0]), ([], [])]


def slow(
    labels: torch.Tensor,
    camids: torch.Tensor | None = None,
    temperature: float = 0.07,
    members: Sequence[int] | None = None,
) -> LossOfFeat:
    cameras = None if camids is None else camids.tolist()
    return lambda feat: slow_model_b.supcon(feat, labels.tolist(), cameras, temperature, members)


@pytest.mark.parametrize(("temperature", "camids", "expected"), GOLDEN)
def test_golden_values_are_met(temperature, camids, expected):
    loss = SupConLoss(temperature)(golden_features(), LABELS, camids)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(expected, abs=5e-7)
    assert slow(LABELS, camids, temperature)(golden_features()).item() == pytest.approx(expected, abs=5e-7)


def test_default_temperature_is_that_of_the_function():
    feat = random_features(8)
    assert SupConLoss()(feat, LABELS, CAMIDS).item() == supcon_loss(feat, LABELS, CAMIDS).item()
    assert SupConLoss().temperature == 0.07


def test_hand_computed_value_keeps_the_same_camera_in_the_denominator():
    # two unit vectors at 0 and 60 degrees of identity 0, one at 90 of identity 1; T = 1
    feat = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)], [0.0, 1.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1])
    first = -0.5 + math.log(math.exp(0.5) + 1)
    second = -0.5 + math.log(math.exp(0.5) + math.exp(math.sqrt(0.75)))
    assert supcon_loss(feat, labels, None, 1.0).item() == pytest.approx((first + second) / 2, abs=1e-12)
    # a fourth sample of identity 0 from the camera of sample 0: sample 0 still pushes it away
    feat, labels = torch.cat([feat, feat[:1]]), torch.tensor([0, 0, 1, 0])
    _, gradient = value_and_gradient(lambda x: supcon_loss(x, labels, torch.tensor([0, 1, 0, 0]), 1.0), feat)
    expected = slow_model_b.supcon(feat, labels.tolist(), [0, 1, 0, 0], 1.0)
    assert supcon_loss(feat, labels, torch.tensor([0, 1, 0, 0]), 1.0).item() == pytest.approx(
        expected.item(), abs=1e-12
    )
    assert gradient[3].abs().sum() > 0


@settings(deadline=None, max_examples=80)
@given(batch=batches(), temperature=st.sampled_from([0.07, 0.5, 3.0]), with_cameras=st.booleans())
def test_any_split_matches_the_loop(batch, temperature, with_cameras):
    camids = batch.camids if with_cameras else None
    assert_same(
        lambda x: supcon_loss(x, batch.labels, camids, temperature), slow(batch.labels, camids, temperature), batch.feat
    )


@settings(deadline=None, max_examples=80)
@given(case=reorderings())
def test_order_of_the_samples_does_not_matter(case):
    assert_order_does_not_matter(lambda b: supcon_loss(b.feat, b.labels, b.camids), *case)


@settings(deadline=None, max_examples=80)
@given(batch=batches(distinct=False), temperature=st.sampled_from([0.005, 0.07, 3.0]))
def test_repeated_and_zero_features_leave_value_and_gradient_finite(batch, temperature):
    assert_finite(lambda b: supcon_loss(b.feat, b.labels, b.camids, temperature), batch)


@settings(deadline=None, max_examples=80)
@given(batch=batches(), data=st.data())
def test_subset_is_contrasted_as_if_it_were_the_batch(batch, data):
    chosen = [data.draw(st.booleans()) for _ in batch.labels]
    members, among = [i for i, taken in enumerate(chosen) if taken], torch.tensor(chosen, dtype=torch.bool)
    assert_same(
        lambda x: supcon_loss(x, batch.labels, batch.camids, 0.5, among),
        slow(batch.labels, batch.camids, 0.5, members),
        batch.feat,
    )


def test_anchor_without_a_positive_is_not_averaged_but_stays_a_negative():
    feat = random_features(5)
    labels = torch.tensor([0, 0, 1, 1, 2])
    _, gradient = value_and_gradient(lambda x: supcon_loss(x, labels), feat)
    assert supcon_loss(feat, labels).item() == pytest.approx(slow(labels)(feat).item(), abs=1e-12)
    assert gradient[4].abs().sum() > 0
    assert supcon_loss(feat[:4], labels[:4]).item() < supcon_loss(feat, labels).item()


@pytest.mark.parametrize(("labels", "camids"), LONELY)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_batch_without_a_positive_gives_a_differentiable_zero(labels, camids, dtype):
    feat = random_features(len(labels)).to(dtype).requires_grad_()
    loss = SupConLoss()(feat, torch.tensor(labels, dtype=torch.int64), torch.tensor(camids, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0 and loss.ndim == 0
    assert torch.equal(feat.grad, torch.zeros_like(feat))


def test_one_identity_still_has_a_loss():
    # without negatives the loss spreads the similarity evenly: identical features give log(N - 1)
    feat = torch.ones(4, 3, dtype=torch.float64)
    assert supcon_loss(feat, torch.zeros(4, dtype=torch.int64)).item() == pytest.approx(math.log(3), abs=1e-12)


def test_length_of_the_features_does_not_matter():
    feat = random_features(8)
    assert SupConLoss()(9 * feat, LABELS).item() == pytest.approx(SupConLoss()(feat, LABELS).item(), abs=1e-12)


def test_gradient_matches_finite_differences():
    feat = golden_features().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: SupConLoss(0.2)(x, LABELS, CAMIDS), (feat,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_narrow_types_and_autocast_compute_in_float32(dtype, autocast):
    feat = golden_features(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = SupConLoss()(feat, LABELS, CAMIDS)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow(LABELS, CAMIDS)(feat.detach().double()).item(), rel=rounding(32))
    assert feat.grad.dtype == dtype and torch.isfinite(feat.grad).all()


def test_large_half_features_do_not_overflow():
    feat = 3e4 * golden_features(torch.float16)
    loss = SupConLoss()(feat, LABELS)
    assert loss.item() == pytest.approx(slow(LABELS)(feat.double()).item(), rel=rounding(32))


@pytest.mark.parametrize("temperature", [0.0, -0.07, float("nan"), float("inf")])
def test_impossible_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        SupConLoss(temperature)


@pytest.mark.parametrize("shape", [(8, 1), (7,), ()])
def test_labels_and_cameras_that_would_broadcast_are_refused(shape):
    wrong = torch.zeros(shape, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"labels \[N\]"):
        SupConLoss()(golden_features(), wrong)
    with pytest.raises(ValueError, match=r"camids \[N\]"):
        SupConLoss()(golden_features(), LABELS, wrong)


@settings(deadline=None, max_examples=80)
@given(batch=batches(), gamma=st.sampled_from([1.0, 1.8, 4.0]), cam_aware=st.booleans())
def test_boost_of_dark_samples_matches_the_loop(batch, gamma, cam_aware):
    dark = batch.brightness < 0.35
    term = SupConTerm(0.5, cam_aware, gamma)
    camids = batch.camids.tolist() if cam_aware else None
    assert_same(
        lambda x: term.boosted(x, batch.labels, batch.camids, dark),
        lambda x: slow_model_b.boosted_supcon(x, batch.labels.tolist(), camids, 0.5, dark.tolist(), gamma),
        batch.feat,
    )


def test_dark_samples_are_not_boosted_by_default():
    feat, dark = random_features(8), torch.tensor([True] * 4 + [False] * 4)
    plain = SupConLoss()(feat, LABELS, CAMIDS).item()
    assert SupConTerm().boosted(feat, LABELS, CAMIDS, dark).item() == plain
    assert SupConTerm(dark_gamma=1.8).boosted(feat, LABELS, CAMIDS, dark).item() != pytest.approx(plain, abs=1e-3)


def test_boost_of_an_all_dark_or_an_all_bright_batch_changes_nothing():
    feat = random_features(8)
    plain = SupConLoss()(feat, LABELS, CAMIDS).item()
    for dark in (torch.ones(8, dtype=torch.bool), torch.zeros(8, dtype=torch.bool)):
        assert SupConTerm(dark_gamma=1.8).boosted(feat, LABELS, CAMIDS, dark).item() == pytest.approx(plain, abs=1e-12)


def test_impossible_boost_is_refused_and_a_boost_needs_to_know_the_dark():
    for gamma in (0.9, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="dark_gamma"):
            SupConTerm(dark_gamma=gamma)
    with pytest.raises(ValueError, match="dark"):
        SupConTerm(dark_gamma=1.8).boosted(random_features(8), LABELS, CAMIDS)


@pytest.mark.parametrize("cam_aware", [True, False])
def test_term_by_default_looks_across_cameras_and_calls_dark_what_is_below_its_threshold(cam_aware):
    feat, brightness = random_features(8), torch.tensor([0.1, 0.3, 0.35, 0.36, 0.2, 0.9, 0.34, 1.0])
    batch = {"pids": LABELS, "camids": CAMIDS, "brightness": brightness}
    term = SupConTerm(dark_gamma=1.8) if cam_aware else SupConTerm(0.07, False, 1.8, 0.35)
    dark = [value < 0.35 for value in (0.1, 0.3, 0.35, 0.36, 0.2, 0.9, 0.34, 1.0)]
    cameras = GOLDEN_CAMIDS if cam_aware else None
    expected = slow_model_b.boosted_supcon(feat, GOLDEN_LABELS, cameras, 0.07, dark, 1.8)
    found = term(ModelOutput([], [], [], feat), batch, None)
    assert list(found) == ["supcon"] and found["supcon"].item() == pytest.approx(expected.item(), abs=1e-9)


def test_boost_needs_no_brightness_where_there_is_no_pair():
    feat = random_features(1)
    assert SupConTerm(dark_gamma=1.8).boosted(feat, LABELS[:1], CAMIDS[:1]).item() == 0
    with pytest.raises(ValueError, match="dark"):
        SupConTerm(dark_gamma=1.8).boosted(random_features(2), LABELS[:2], CAMIDS[:2])


def test_settings_are_printed():
    assert repr(SupConLoss(0.5)) == "SupConLoss(temperature=0.5)"
    assert "cam_aware=True, dark_gamma=1.0" in repr(SupConTerm())
