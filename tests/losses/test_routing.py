"""Brightness routing of one branch against the slow reference."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losses import TripletLoss, TripletXLoss
from losses.routing import Anchors, Routing, nothing_to_route, route
from tests.losses.batches import (
    Batch,
    assert_finite,
    assert_order_does_not_matter,
    assert_same,
    batches,
    random_features,
    reorderings,
    value_and_gradient,
)
from tests.reference import slow_model_b
from tests.tolerance import rounding

HARD, SOFT = Routing(), Routing(soft=True)
TRIPLET, TRIPLETX = TripletLoss(0.3), TripletXLoss(k=2)
WEIGHTS = (1.0, 1.2)  # of triplet and TripletX in the sums that are compared


def as_batch(
    labels: Sequence[int], brightness: Sequence[float], camids: Sequence[int] | None = None, seed: int = 0
) -> Batch:
    labels = torch.tensor(labels, dtype=torch.int64)
    camids = torch.arange(len(labels)) % 3 if camids is None else torch.tensor(camids)
    feat = random_features(len(labels), seed=seed)
    return Batch(feat, labels, camids, torch.tensor(brightness, dtype=torch.float64))


def routed(
    batch: Batch, routing: Routing = HARD, epoch: int | None = 1, tripletx: TripletXLoss = TRIPLETX
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (triplet, tripletx) of one branch; TripletX sees the square of the features, so that a mix-up shows."""
    anchors = Anchors(batch.labels, batch.camids, batch.brightness, epoch)
    return route((batch.feat, batch.feat.square()), anchors, TRIPLET, tripletx, routing)


def routed_sum(batch: Batch, routing: Routing = HARD, epoch: int | None = 1) -> torch.Tensor:
    return sum(weight * value for weight, value in zip(WEIGHTS, routed(batch, routing, epoch), strict=True))


def slow_sum(batch: Batch, routing: Routing = HARD, epoch: int | None = 1) -> torch.Tensor:
    labels, camids = batch.labels.tolist(), batch.camids.tolist()
    feats = batch.feat, batch.feat.square()
    if routing.soft:
        q = slow_model_b.dark_share(batch.brightness, routing.threshold, routing.softness)
        parts, shares = (None, None), ([1 - value for value in q], q)
    else:
        dark = slow_model_b.is_dark(batch.brightness, routing.threshold)
        parts = [i for i, value in enumerate(dark) if not value], [i for i, value in enumerate(dark) if value]
        shares = (None, None)
    options = slow_model_b.TripletXOptions(k=2)
    tri = slow_model_b.triplet_anchors(feats[0], labels, 0.3, 0.0, parts[0])
    tx = slow_model_b.tripletx_anchors(feats[1], labels, camids, epoch, options, parts[1])
    terms = slow_model_b.reduce_anchors(tri, feats[0], shares[0]), slow_model_b.reduce_anchors(tx, feats[1], shares[1])
    return sum(weight * value for weight, value in zip(WEIGHTS, terms, strict=True))


@settings(deadline=None, max_examples=100)
@given(batch=batches(), routing=st.sampled_from([HARD, SOFT]), epoch=st.sampled_from([None, 1, 12]))
def test_any_split_matches_the_loop(batch, routing, epoch):
    assert_same(
        lambda x: routed_sum(batch._replace(feat=x), routing, epoch),
        lambda x: slow_sum(batch._replace(feat=x), routing, epoch),
        batch.feat,
    )


@settings(deadline=None, max_examples=80)
@given(case=reorderings(), routing=st.sampled_from([HARD, SOFT]))
def test_order_of_the_samples_does_not_matter(case, routing):
    assert_order_does_not_matter(lambda b: routed_sum(b, routing), *case)


@settings(deadline=None, max_examples=80)
@given(batch=batches(distinct=False), routing=st.sampled_from([HARD, SOFT, Routing(softness=1e-6, soft=True)]))
def test_repeated_and_zero_features_leave_value_and_gradient_finite(batch, routing):
    assert_finite(lambda b: routed_sum(b, routing), batch)


@settings(deadline=None, max_examples=80)
@given(batch=batches())
def test_nothing_to_route_is_the_absence_of_valid_anchors_on_both_sides(batch):
    dark = slow_model_b.is_dark(batch.brightness, 0.35)
    valid = 0
    for side in (True, False):
        members = [i for i, value in enumerate(dark) if value == side]
        valid += len(slow_model_b.triplet_anchors(batch.feat, batch.labels.tolist(), members=members))
    assert bool(nothing_to_route(batch.labels, batch.brightness, HARD)) == (valid == 0)


@pytest.mark.parametrize(
    "brightness", [[0.9] * 8, [0.1] * 8, [0.1, 0.9] * 4, [0.1, 0.1, 0.9, 0.9] * 2, [0.1, 0.1, 0.1, 0.9] * 2]
)
def test_masks_give_what_each_part_gives_alone(brightness):
    batch = as_batch([0, 0, 0, 0, 1, 1, 1, 1], brightness)
    dark = batch.brightness < 0.35
    triplet, tripletx = routed(batch)
    alone = TRIPLET(batch.feat[~dark], batch.labels[~dark])
    assert triplet.item() == pytest.approx(alone.item(), abs=1e-12)
    alone = TRIPLETX(batch.feat[dark].square(), batch.labels[dark], batch.camids[dark], 1)
    assert tripletx.item() == pytest.approx(alone.item(), abs=1e-12)


def test_image_at_the_threshold_is_bright():
    brightness = torch.tensor([0.0, 0.3499, 0.35, 0.3501, 1.0], dtype=torch.float64)
    assert HARD.is_dark(brightness).tolist() == [True, True, False, False, False]
    assert Routing(threshold=0.5).is_dark(brightness).sum() == 4
    assert HARD.is_dark(torch.tensor([0.35])).tolist() == [False]


@pytest.mark.parametrize("counts", [(7, 8, 8, 8), (1, 1, 2, 2, 4, 4), (6,), (5, 1)])
@pytest.mark.parametrize("bright", [True, False])
def test_unbalanced_identities_on_one_side_match_the_loop(counts, bright):
    labels = [label for label, count in enumerate(counts) for _ in range(count)] + [0, 1]
    brightness = [0.9 if bright else 0.1] * sum(counts) + [0.1 if bright else 0.9] * 2
    batch = as_batch(labels, brightness)
    assert_same(lambda x: routed_sum(batch._replace(feat=x)), lambda x: slow_sum(batch._replace(feat=x)), batch.feat)


def test_hard_routing_mines_within_each_side_only():
    batch = as_batch([0, 0, 1, 1, 0, 0, 1, 1], [0.1] * 4 + [0.9] * 4)
    _, of_triplet = value_and_gradient(lambda x: routed(batch._replace(feat=x))[0], batch.feat)
    _, of_tripletx = value_and_gradient(lambda x: routed(batch._replace(feat=x))[1], batch.feat)
    assert not of_triplet[:4].any() and of_triplet[4:].any()
    assert of_tripletx[:4].any() and not of_tripletx[4:].any()


def test_soft_routing_mines_in_the_whole_batch():
    # neither side has a positive of its own, so hard routing has nothing and soft routing everything
    batch = as_batch([0, 0, 1, 1], [0.1, 0.9, 0.1, 0.9])
    assert [value.item() for value in routed(batch)] == [0, 0]
    assert all(value.item() > 0 for value in routed(batch, SOFT))


def test_soft_routing_weighs_anchors_by_their_darkness_and_hardness():
    batch = as_batch([0, 0, 1, 1], [0.35, 0.27, 0.6, 0.0])
    q = torch.sigmoid((0.35 - batch.brightness) / 0.08)
    assert q[:2].tolist() == pytest.approx([0.5, 0.731059], abs=1e-6)
    bright, _ = TRIPLET.anchors(batch.feat, batch.labels)
    dark, hardness = TRIPLETX.anchors(batch.feat.square(), batch.labels, batch.camids, 1)
    triplet, tripletx = routed(batch, SOFT)
    assert triplet.item() == pytest.approx((((1 - q) * bright).sum() / (1 - q).sum()).item(), abs=1e-12)
    assert tripletx.item() == pytest.approx(((q * hardness * dark).sum() / (q * hardness).sum()).item(), abs=1e-12)


def test_softness_is_the_width_of_the_transition():
    batch = as_batch([0, 0, 0, 1, 1, 1], [0.1, 0.3, 0.5, 0.2, 0.4, 0.9])
    sharp, wide = (routed(batch, Routing(softness=k, soft=True)) for k in (1e-3, 1e3))
    dark = batch.brightness < 0.35
    bright, _ = TRIPLET.anchors(batch.feat, batch.labels)
    assert sharp[0].item() == pytest.approx(bright[~dark].mean().item(), abs=1e-9)
    assert wide[0].item() == pytest.approx(bright.mean().item(), abs=1e-3)
    assert wide[1].item() == pytest.approx(
        TRIPLETX(batch.feat.square(), batch.labels, batch.camids, 1).item(), abs=1e-3
    )


@pytest.mark.parametrize("brightness", [[0.0] * 4, [1.0] * 4])
def test_side_without_any_soft_weight_gives_zero(brightness):
    values = routed(as_batch([0, 0, 1, 1], brightness), Routing(softness=1e-4, soft=True))
    dark = brightness[0] == 0
    assert values[0 if dark else 1].item() == 0
    assert values[1 if dark else 0].item() > 0


@pytest.mark.parametrize("routing", [HARD, SOFT])
@pytest.mark.parametrize("labels", [[], [3], [0, 0, 0], [0, 1, 2]])
@pytest.mark.parametrize("level", [0.1, 0.9])
def test_batch_without_a_valid_anchor_gives_two_differentiable_zeros(routing, labels, level):
    batch = as_batch(labels, [level] * len(labels))
    feat = batch.feat.requires_grad_()
    values = routed(batch._replace(feat=feat), routing)
    assert [value.item() for value in values] == [0, 0]
    sum(values).backward()
    assert torch.equal(feat.grad, torch.zeros_like(feat))


@pytest.mark.parametrize("routing", [HARD, SOFT])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_types_and_autocast_compute_in_float32(routing, dtype):
    batch = as_batch([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.9, 0.3, 0.0, 0.9])
    batch = batch._replace(feat=batch.feat.to(dtype), brightness=batch.brightness.float())
    wide = batch._replace(feat=batch.feat.double())
    anchors = Anchors(batch.labels, batch.camids, batch.brightness, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = route((batch.feat, batch.feat), anchors, TRIPLET, TRIPLETX, routing)
    expected = route((wide.feat, wide.feat), anchors, TRIPLET, TRIPLETX, routing)
    assert {value.dtype for value in values} == {torch.float32}
    assert [value.item() for value in values] == pytest.approx([value.item() for value in expected], abs=rounding(32))


def test_epoch_reaches_the_warm_up_of_tripletx():
    batch = as_batch([0, 0, 1, 1], [0.1] * 4)
    soft, hinge = (routed(batch, HARD, epoch)[1].item() for epoch in (9, 10))
    for epoch, value in ((9, soft), (10, hinge)):
        expected = TRIPLETX(batch.feat.square(), batch.labels, batch.camids, epoch)
        assert value == pytest.approx(expected.item(), abs=1e-12)
    assert soft != pytest.approx(hinge, abs=1e-3)


@pytest.mark.parametrize("routing", [HARD, SOFT])
def test_hyper_parameters_of_both_losses_reach_the_routed_anchors(routing):
    batch = as_batch([0, 0, 0, 1, 1, 1, 0, 1], [0.1, 0.3, 0.2, 0.1, 0.2, 0.9, 0.8, 0.7])
    triplet, tripletx = TripletLoss(0.7, 0.2), TripletXLoss(margin=0.9, k=1, alpha=4.0)
    anchors = Anchors(batch.labels, batch.camids, batch.brightness, 12)
    values = route((batch.feat, batch.feat), anchors, triplet, tripletx, routing)
    for shift, (changed, same) in enumerate(((0, 1), (1, 0))):
        plain = (TripletLoss(), tripletx) if shift == 0 else (triplet, TripletXLoss())
        other = route((batch.feat, batch.feat), anchors, *plain, routing)
        assert other[same].item() == values[same].item()
        assert other[changed].item() != pytest.approx(values[changed].item(), abs=1e-3)


def test_darkness_follows_the_threshold_of_the_routing():
    batch = as_batch([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.6, 0.4, 0.7, 0.3])
    for threshold in (0.25, 0.65):
        assert_same(
            lambda x, t=threshold: routed_sum(batch._replace(feat=x), Routing(threshold=t, soft=True)),
            lambda x, t=threshold: slow_sum(batch._replace(feat=x), Routing(threshold=t, soft=True)),
            batch.feat,
        )
