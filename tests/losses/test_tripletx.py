"""TripletX against its golden values, hand-computed cases and the slow reference."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losses import TripletXLoss
from losses.tripletx import mine, tripletx_anchors, tripletx_loss
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
)
from tests.reference import slow_model_b

LABELS, CAMIDS = torch.tensor(GOLDEN_LABELS), torch.tensor(GOLDEN_CAMIDS)
ONE_CAMERA = torch.zeros(8, dtype=torch.int64)
GOLDEN = [
    (2, CAMIDS, 1, 1.113367),
    (2, CAMIDS, 10, 0.996290),
    (2, None, 10, 1.121487),
    (2, ONE_CAMERA, 10, 1.270549),
    (5, CAMIDS, 1, 0.853438),
    (5, CAMIDS, 10, 0.576976),
    (5, None, 10, 0.545586),
]
GOLDEN_D_AP = [0.9758, 1.7174, 1.6063, 1.0868, 1.6565, 1.7588, 1.5894, 1.6918]
GOLDEN_D_AN = [1.0596, 0.6573, 0.8594, 0.8665, 0.9974, 0.6879, 0.8265, 1.0997]
UNEQUAL = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3])
UNEQUAL_CAMIDS = torch.tensor([0, 0, 1, 2, 2, 0, 0, 0, 1, 1])


def as_list(tensor: torch.Tensor | None) -> list | None:
    return None if tensor is None else tensor.tolist()


def slow(
    labels: torch.Tensor,
    camids: torch.Tensor | None = None,
    epoch: int | None = None,
    members: Sequence[int] | None = None,
    **options: object,
) -> LossOfFeat:
    chosen = slow_model_b.TripletXOptions(**options)
    return lambda feat: slow_model_b.tripletx(feat, as_list(labels), as_list(camids), epoch, chosen, members)


@pytest.mark.parametrize(("k", "camids", "epoch", "expected"), GOLDEN)
def test_golden_values_are_met(k, camids, epoch, expected):
    feat = golden_features()
    loss = TripletXLoss(k=k)(feat, LABELS, camids, epoch)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(expected, abs=5e-7)
    assert slow(LABELS, camids, epoch, k=k)(feat).item() == pytest.approx(expected, abs=5e-7)


def test_golden_distances_of_every_anchor_are_met():
    d_ap, d_an, valid = mine(torch.nn.functional.normalize(golden_features()), LABELS, CAMIDS, 2, True, 1.2)
    assert d_ap.tolist() == pytest.approx(GOLDEN_D_AP, abs=5e-5)
    assert d_an.tolist() == pytest.approx(GOLDEN_D_AN, abs=5e-5)
    assert valid.all()
    anchors = slow_model_b.tripletx_anchors(
        golden_features(), GOLDEN_LABELS, GOLDEN_CAMIDS, 1, slow_model_b.TripletXOptions(k=2)
    )
    assert [anchor.d_ap.item() for anchor in anchors] == pytest.approx(d_ap.tolist(), abs=1e-12)
    assert [anchor.d_an.item() for anchor in anchors] == pytest.approx(d_an.tolist(), abs=1e-12)


def test_defaults_of_the_module_and_of_the_function_are_one_set():
    feat = random_features(8)
    for epoch in (None, 1, 10):
        module, function = TripletXLoss()(feat, LABELS, CAMIDS, epoch), tripletx_loss(feat, LABELS, CAMIDS, epoch)
        assert module.item() == function.item()
        assert module.item() == pytest.approx(slow(LABELS, CAMIDS, epoch)(feat).item(), abs=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": 1},
        {"k": 2},
        {"k": 100},
        {"margin": 0.0},
        {"margin": 1.5},
        {"alpha": 0.0},
        {"alpha": 9.0},
        {"cross_cam_pos": False},
        {"same_cam_neg_boost": 1.0},
        {"same_cam_neg_boost": 3.0},
        {"normalize": False},
        {"normalize": False, "k": 2, "cross_cam_pos": False, "alpha": 0.3},
    ],
)
@pytest.mark.parametrize("camids", [UNEQUAL_CAMIDS, None])
@pytest.mark.parametrize("epoch", [1, 10])
def test_values_and_gradients_match_the_loop(options, camids, epoch):
    loss = TripletXLoss(**options)
    assert_same(lambda x: loss(x, UNEQUAL, camids, epoch), slow(UNEQUAL, camids, epoch, **options), random_features(10))


@settings(deadline=None, max_examples=80)
@given(batch=batches(), k=st.integers(1, 4), epoch=st.sampled_from([None, 1, 12]), with_cameras=st.booleans())
def test_any_split_matches_the_loop(batch, k, epoch, with_cameras):
    camids = batch.camids if with_cameras else None
    assert_same(
        lambda x: tripletx_loss(x, batch.labels, camids, epoch, k=k),
        slow(batch.labels, camids, epoch, k=k),
        batch.feat,
    )


@settings(deadline=None, max_examples=80)
@given(case=reorderings(), epoch=st.sampled_from([1, 12]))
def test_order_of_the_samples_does_not_matter(case, epoch):
    assert_order_does_not_matter(lambda b: tripletx_loss(b.feat, b.labels, b.camids, epoch, k=2), *case)


@settings(deadline=None, max_examples=80)
@given(batch=batches(distinct=False), epoch=st.sampled_from([1, 12]), normalize=st.booleans())
def test_repeated_and_zero_features_leave_value_and_gradient_finite(batch, epoch, normalize):
    assert_finite(lambda b: tripletx_loss(b.feat, b.labels, b.camids, epoch, normalize=normalize), batch)


@settings(deadline=None, max_examples=80)
@given(batch=batches(), data=st.data())
def test_subset_is_mined_as_if_it_were_the_batch(batch, data):
    chosen = [data.draw(st.booleans()) for _ in batch.labels]
    members, among = [i for i, taken in enumerate(chosen) if taken], torch.tensor(chosen, dtype=torch.bool)
    assert_same(
        lambda x: tripletx_loss(x, batch.labels, batch.camids, 1, k=2, among=among),
        slow(batch.labels, batch.camids, 1, members, k=2),
        batch.feat,
    )


def test_positive_outside_the_subset_does_not_stop_the_camera_fallback():
    # sample 2 is the only positive from another camera; without it the anchors of identity 0 use each other
    feat = random_features(5)
    labels, camids = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 0, 1])
    among = torch.tensor([True, True, False, True, True])
    _, weight = tripletx_anchors(feat, labels, camids, among=among)
    alone = tripletx_loss(feat[among], labels[among], camids[among])
    assert (weight > 0).tolist() == among.tolist()
    assert tripletx_loss(feat, labels, camids, among=among).item() == pytest.approx(alone.item(), abs=1e-12)


def test_positives_pull_when_there_are_fewer_than_k():
    # K = 4 gives 3 positives for k = 5; with a margin that every anchor violates, l_0 falls by 1/3 per unit of approach
    feat = random_features(16, seed=3).requires_grad_()
    labels = torch.arange(4).repeat_interleave(4)
    d_ap, _, _ = mine(feat, labels, None, 5, True, 1.2)
    expected = [[(feat[i] - feat[j]).norm() for j in range(16) if j // 4 == i // 4 and j != i] for i in range(16)]
    assert d_ap.tolist() == pytest.approx([sum(row).item() / 3 for row in expected], abs=1e-9)
    assert (d_ap > 0).all()
    loss, _ = tripletx_anchors(feat, labels, margin=100.0, k=5, normalize=False)
    (gradient,) = torch.autograd.grad(loss[0], feat)
    for j in (1, 2, 3):
        away = (feat[j] - feat[0]).detach()
        torch.testing.assert_close(gradient[j], away / away.norm() / 3, rtol=0, atol=1e-9)


def test_fewer_negatives_than_k_are_averaged_too():
    feat = torch.tensor([[0.0], [1.0], [3.0], [5.0]], dtype=torch.float64)
    loss, weight = tripletx_anchors(feat, torch.tensor([0, 0, 1, 1]), margin=10.0, k=5, normalize=False)
    # d_ap 1, 1, 2, 2; d_an (3 + 5) / 2, (2 + 4) / 2, (3 + 2) / 2, (5 + 4) / 2
    assert loss.tolist() == pytest.approx([7.0, 8.0, 9.5, 7.5], abs=1e-9)
    assert weight.tolist() == pytest.approx(torch.tensor([-6.0, -4.0, -1.0, -5.0]).sigmoid().tolist(), abs=1e-7)


def test_positives_come_from_other_cameras_where_an_anchor_has_any():
    feat = torch.tensor([[0.0], [1.0], [4.0], [9.0]], dtype=torch.float64)
    labels, camids = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 5])
    d_ap, _, valid = mine(feat, labels, camids, 5, True, 1.0)
    assert d_ap.tolist() == pytest.approx([4, 3, 3.5, 0], abs=1e-9)
    assert valid.tolist() == [True, True, True, False]
    d_ap, _, _ = mine(feat, labels, torch.tensor([0, 0, 0, 5]), 5, True, 1.0)
    assert d_ap.tolist() == pytest.approx([2.5, 2, 3.5, 0], abs=1e-9)


def test_negatives_of_the_same_camera_count_as_nearer_and_their_gradient_shrinks_alike():
    feat = torch.tensor([[0.0], [1.0], [6.0], [4.0]], dtype=torch.float64, requires_grad=True)
    labels, camids = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 2])
    d_ap, d_an, _ = mine(feat, labels, camids, 1, True, 2.0)
    # anchor 0: 6 / 2 = 3 from its own camera beats 4; anchor 1 has no negative of its camera
    assert d_an.tolist() == pytest.approx([3.0, 3.0, 3.0, 3.0], abs=1e-9)
    assert d_ap.tolist() == pytest.approx([1.0, 1.0, 2.0, 2.0], abs=1e-9)
    (gradient,) = torch.autograd.grad(d_an[0], feat)
    assert gradient.flatten().tolist() == pytest.approx([-0.5, 0, 0.5, 0], abs=1e-9)


def test_anchor_without_a_positive_weighs_zero():
    feat = random_features(5)
    labels = torch.tensor([0, 0, 1, 1, 2])
    loss, weight = tripletx_anchors(feat, labels)
    assert (weight > 0).tolist() == [True, True, True, True, False]
    expected = (weight[:4] * loss[:4]).sum() / weight[:4].sum()
    assert tripletx_loss(feat, labels).item() == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize(
    ("options", "epoch", "soft"),
    [
        ({}, 1, True),
        ({}, 9, True),
        ({}, 10, False),
        ({}, 120, False),
        ({}, None, False),
        ({"warmup_epochs": 5}, 4, True),
        ({"warmup_epochs": 5}, 5, False),
        ({"warmup_epochs": 0}, 1, False),
        ({"soft_warmup": False}, 1, False),
    ],
)
def test_warm_up_is_soft_below_its_epoch_only(options, epoch, soft):
    feat = random_features(8)
    gap = torch.sub(*mine(torch.nn.functional.normalize(feat), LABELS, CAMIDS, 5, True, 1.2)[:2])
    loss, _ = tripletx_anchors(feat, LABELS, CAMIDS, epoch, **options)
    expected = torch.log(1 + gap.exp()) if soft else (gap + 0.3).clamp(min=0)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)


def test_weights_are_the_hardness_and_carry_no_gradient():
    feat = golden_features().requires_grad_()
    _, weight = tripletx_anchors(feat, LABELS, CAMIDS, 1, k=2, alpha=3.0)
    gap = torch.tensor(GOLDEN_D_AP) - torch.tensor(GOLDEN_D_AN)
    assert weight.tolist() == pytest.approx(torch.sigmoid(3 * gap).tolist(), abs=1e-4)
    assert not weight.requires_grad


def test_scale_of_the_features_matters_only_without_normalisation():
    feat = random_features(8)
    near, far = (TripletXLoss()(scale * feat, LABELS, CAMIDS).item() for scale in (1, 7))
    assert far == pytest.approx(near, abs=1e-12)
    near, far = (TripletXLoss(normalize=False)(scale * feat, LABELS, CAMIDS).item() for scale in (1, 7))
    assert far > 2 * near


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [5], []])
@pytest.mark.parametrize("epoch", [1, 10])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_batch_without_a_valid_anchor_gives_a_differentiable_zero(labels, epoch, dtype):
    feat = random_features(len(labels)).to(dtype).requires_grad_()
    targets = torch.tensor(labels, dtype=torch.int64)
    loss = TripletXLoss()(feat, targets, torch.zeros_like(targets), epoch)
    loss.backward()
    assert loss.item() == 0 and loss.ndim == 0
    assert torch.equal(feat.grad, torch.zeros_like(feat))


def test_empty_subset_gives_a_differentiable_zero():
    feat = random_features(8).requires_grad_()
    loss = tripletx_loss(feat, LABELS, CAMIDS, 1, among=torch.zeros(8, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(feat.grad, torch.zeros_like(feat))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_narrow_types_and_autocast_compute_in_float32(dtype, autocast, normalize):
    feat = golden_features(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = TripletXLoss(normalize=normalize)(feat, LABELS, CAMIDS, 1)
    loss.backward()
    wide = dtype == torch.float64
    assert loss.dtype == (dtype if wide else torch.float32)
    expected = slow(LABELS, CAMIDS, 1, normalize=normalize)(feat.detach().double())
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12 if wide else 1e-5)
    assert feat.grad.dtype == dtype and torch.isfinite(feat.grad).all()


@pytest.mark.parametrize(
    "options",
    [
        {"margin": -0.1},
        {"margin": float("nan")},
        {"margin": float("inf")},
        {"k": 0},
        {"alpha": -1.0},
        {"same_cam_neg_boost": 0.9},
        {"same_cam_neg_boost": float("inf")},
        {"warmup_epochs": -1},
    ],
)
def test_impossible_hyper_parameters_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        TripletXLoss(**options)


@pytest.mark.parametrize("shape", [(8, 1), (7,), ()])
def test_labels_and_cameras_that_would_broadcast_are_refused(shape):
    wrong = torch.zeros(shape, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"labels \[N\]"):
        TripletXLoss()(golden_features(), wrong)
    with pytest.raises(ValueError, match=r"camids \[N\]"):
        TripletXLoss()(golden_features(), LABELS, wrong)


@pytest.mark.parametrize(
    "options", [{"margin": 0}, {"k": 1}, {"alpha": 0}, {"same_cam_neg_boost": 1}, {"warmup_epochs": 0}]
)
def test_hyper_parameters_at_the_ends_of_their_ranges_are_kept(options):
    assert options.items() <= TripletXLoss(**options).options.items()


def test_options_are_printed():
    assert repr(TripletXLoss(k=3)) == (
        "TripletXLoss(margin=0.3, soft_warmup=True, warmup_epochs=10, k=3, alpha=2.0, cross_cam_pos=True, "
        "same_cam_neg_boost=1.2, normalize=True)"
    )


@pytest.mark.parametrize("epoch", [1, 12])
def test_anchors_of_the_module_have_its_options_and_see_cameras_epoch_and_subset(epoch):
    feat, options = random_features(10), {"k": 2, "margin": 0.7, "alpha": 3.0, "same_cam_neg_boost": 1.5}
    among = torch.tensor([True] * 7 + [False, True, True])
    loss, weight = TripletXLoss(**options).anchors(feat, UNEQUAL, UNEQUAL_CAMIDS, epoch, among)
    members = among.nonzero().flatten().tolist()
    chosen = slow_model_b.TripletXOptions(**options)
    slow_anchors = slow_model_b.tripletx_anchors(
        feat, UNEQUAL.tolist(), UNEQUAL_CAMIDS.tolist(), epoch, chosen, members
    )
    found = [(row, loss[row].item(), weight[row].item()) for row in (weight > 0).nonzero().flatten().tolist()]
    assert [row for row, *_ in found] == [anchor.index for anchor in slow_anchors]
    for (_, value, share), anchor in zip(found, slow_anchors, strict=True):
        assert value == pytest.approx(anchor.loss.item(), abs=1e-9)
        assert share == pytest.approx(anchor.weight.item(), abs=1e-9)
