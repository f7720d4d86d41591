"""The triplet loss and its distances."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losses import TripletLoss
from losses.distance import euclidean_distance
from losses.triplet import batch_hard, triplet_anchors, triplet_loss
from tests.losses.batches import (
    assert_finite,
    assert_order_does_not_matter,
    assert_same,
    batches,
    golden_features,
    random_features,
    reorderings,
    value_and_gradient,
)
from tests.reference import slow_losses, slow_model_b
from tests.tolerance import rounding

LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
GOLDEN = {None: 1.880786, 0.3: 2.003082}


@pytest.mark.parametrize("margin", [None, 0.3])
def test_golden_values_are_met(margin):
    loss = TripletLoss(margin)(golden_features(), LABELS)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(GOLDEN[margin], abs=5e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_narrow_types_and_autocast_compute_in_float32(dtype, autocast):
    feat = golden_features(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = TripletLoss()(feat, LABELS)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(
        slow_losses.triplet(feat.double().tolist(), LABELS.tolist(), None), abs=rounding(32)
    )
    assert feat.grad.dtype == dtype


def test_distance_of_close_long_vectors_survives_autocast():
    # |x|^2 is near 768 and the true distance .28: in a half type the difference of the squares would vanish
    x = 1 + 0.05 * random_features(1, 768)
    y = x + 0.01 * random_features(1, 768, seed=1)
    expected = (x - y).norm().item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert euclidean_distance(x.float(), y.float()).item() == pytest.approx(
            expected, abs=rounding(3) * 768 / (2 * expected)
        )


def test_distance_matches_a_loop_and_has_a_finite_gradient_at_zero():
    x, y = random_features(4), random_features(3, seed=1)
    slow = torch.tensor([[slow_losses.euclidean(a, b) for b in y.tolist()] for a in x.tolist()]).double()
    torch.testing.assert_close(euclidean_distance(x, y), slow, rtol=0, atol=1e-6)
    same = torch.ones(2, 3, requires_grad=True)
    distance = euclidean_distance(same, same)
    distance.sum().backward()
    torch.testing.assert_close(distance, torch.full((2, 2), 1e-6), rtol=1e-5, atol=0)
    assert torch.equal(same.grad, torch.zeros(2, 3))


@pytest.mark.parametrize("labels", [[0, 0, 0, 0, 1, 2], [3, 3, 1, 1, 1, 3], [0, 1, 2, 3, 4, 0], [7, 7, 7, 7, 7, 2]])
@pytest.mark.parametrize(("margin", "hard_factor"), [(None, 0.0), (0.3, 0.0), (None, 0.2), (1.0, 0.5)])
def test_unequal_counts_match_the_loop(labels, margin, hard_factor):
    feat = random_features(6)
    loss = TripletLoss(margin, hard_factor)(feat, torch.tensor(labels))
    assert loss.item() == pytest.approx(slow_losses.triplet(feat.tolist(), labels, margin, hard_factor), abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=9), data=st.data())
def test_any_labels_match_the_loop_and_their_order_does_not_matter(labels, data):
    feat, targets = random_features(len(labels)), torch.tensor(labels)
    order = torch.tensor(data.draw(st.permutations(range(len(labels)))))
    loss = triplet_loss(feat, targets)
    assert loss.item() == pytest.approx(slow_losses.triplet(feat.tolist(), labels, None), abs=1e-9)
    assert triplet_loss(feat[order], targets[order]).item() == pytest.approx(loss.item(), abs=1e-12)


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [5], []])
@pytest.mark.parametrize("margin", [None, 0.3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_batch_without_a_valid_anchor_gives_a_differentiable_zero(labels, margin, dtype):
    feat = random_features(len(labels)).to(dtype).requires_grad_()
    loss = TripletLoss(margin)(feat, torch.tensor(labels, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(feat.grad, torch.zeros_like(feat))


def test_anchor_without_positive_weighs_zero():
    feat = random_features(5).requires_grad_()
    labels = torch.tensor([0, 0, 1, 1, 2])
    d_ap, d_an, valid = batch_hard(euclidean_distance(feat, feat), labels)
    assert valid.tolist() == [True, True, True, True, False]
    expected = torch.nn.functional.softplus(d_ap[:4] - d_an[:4]).mean()
    assert TripletLoss()(feat, labels).item() == pytest.approx(expected.item(), abs=1e-12)


def test_far_lone_sample_gets_no_gradient():
    feat = random_features(5)
    feat[4] = 100
    feat.requires_grad_()
    TripletLoss()(feat, torch.tensor([0, 0, 1, 1, 2])).backward()
    assert torch.equal(feat.grad[4], torch.zeros(5, dtype=torch.float64))
    assert torch.isfinite(feat.grad).all() and feat.grad[:4].abs().sum() > 0


def test_identical_features_give_the_margin_and_finite_gradients():
    feat = torch.ones(4, 3, requires_grad=True)
    loss = TripletLoss(0.3)(feat, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(0.3, abs=1e-6)
    assert torch.isfinite(feat.grad).all()


@pytest.mark.parametrize(("margin", "hard_factor"), [(None, 0.0), (0.3, 0.1)])
def test_gradient_matches_finite_differences(margin, hard_factor):
    feat = golden_features().requires_grad_()
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3])
    assert torch.autograd.gradcheck(lambda x: TripletLoss(margin, hard_factor)(x, labels), (feat,))


def test_non_finite_feature_reaches_the_loss():
    feat = golden_features()
    feat[0, 0] = float("nan")
    assert not torch.isfinite(TripletLoss()(feat, LABELS))


def loss_among(
    feat: torch.Tensor, labels: torch.Tensor, among: torch.Tensor, margin: float | None = None, hard_factor: float = 0.0
) -> torch.Tensor:
    loss, valid = triplet_anchors(feat, labels, margin, hard_factor, among)
    return (loss * valid).sum() / valid.sum().clamp(min=1)


@settings(deadline=None, max_examples=80)
@given(batch=batches(), data=st.data(), margin=st.sampled_from([None, 0.3]), hard_factor=st.sampled_from([0.0, 0.2]))
def test_subset_is_mined_as_if_it_were_the_batch(batch, data, margin, hard_factor):
    chosen = [data.draw(st.booleans()) for _ in batch.labels]
    if not chosen:
        return
    members, among = [i for i, taken in enumerate(chosen) if taken], torch.tensor(chosen)
    labels = batch.labels.tolist()
    assert_same(
        lambda x: loss_among(x, batch.labels, among, margin, hard_factor),
        lambda x: slow_model_b.triplet(x, labels, margin, hard_factor, members),
        batch.feat,
    )
    _, valid = triplet_anchors(batch.feat, batch.labels, margin, hard_factor, among)
    anchors = slow_model_b.triplet_anchors(batch.feat, labels, margin, hard_factor, members)
    assert valid.nonzero().flatten().tolist() == [anchor.index for anchor in anchors]


def test_sample_outside_the_subset_is_no_anchor_no_positive_and_no_negative():
    feat = random_features(6)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    among = torch.tensor([True, True, False, True, True, False])
    value, gradient = value_and_gradient(lambda x: loss_among(x, labels, among), feat)
    assert value.item() == pytest.approx(TripletLoss()(feat[among], labels[among]).item(), abs=1e-12)
    assert gradient[among].abs().sum(1).all() and not gradient[~among].any()


def test_subset_of_all_is_the_batch_and_an_empty_one_has_no_anchor():
    feat = random_features(8)
    everyone = triplet_anchors(feat, LABELS, among=torch.ones(8, dtype=torch.bool))
    assert all(map(torch.equal, everyone, triplet_anchors(feat, LABELS)))
    loss, valid = triplet_anchors(feat, LABELS, among=torch.zeros(8, dtype=torch.bool))
    assert torch.isfinite(loss).all() and not valid.any()


@settings(deadline=None, max_examples=80)
@given(case=reorderings())
def test_order_of_the_samples_reorders_the_gradient(case):
    assert_order_does_not_matter(lambda b: triplet_loss(b.feat, b.labels, 0.3), *case)


@settings(deadline=None, max_examples=80)
@given(batch=batches(distinct=False), margin=st.sampled_from([None, 0.3]))
def test_repeated_and_zero_features_leave_value_and_gradient_finite(batch, margin):
    assert_finite(lambda b: triplet_loss(b.feat, b.labels, margin), batch)


@pytest.mark.parametrize(
    "options",
    [
        {"margin": -0.1},
        {"margin": float("nan")},
        {"margin": float("inf")},
        {"hard_factor": 1.0},
        {"hard_factor": -0.01},
        {"hard_factor": float("nan")},
    ],
)
def test_impossible_hyper_parameters_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        TripletLoss(**options)


@pytest.mark.parametrize("shape", [(8, 1), (7,), ()])
def test_labels_that_would_broadcast_are_refused(shape):
    with pytest.raises(ValueError, match=r"labels \[N\]"):
        triplet_loss(golden_features(), torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("options", [{"margin": 0}, {"margin": 1e9}, {"hard_factor": 0}, {"hard_factor": 0.999}])
def test_hyper_parameters_at_the_ends_of_their_ranges_are_kept(options):
    assert options.items() <= vars(TripletLoss(**options)).items()


def test_anchors_of_the_module_have_its_margin_and_its_hard_factor():
    feat, among = random_features(8), torch.tensor([True] * 6 + [False, True])
    module = TripletLoss(0.4, 0.3)
    loss, valid = module.anchors(feat, LABELS, among)
    members = among.nonzero().flatten().tolist()
    slow = slow_model_b.triplet_anchors(feat, LABELS.tolist(), 0.4, 0.3, members)
    assert loss[valid].tolist() == pytest.approx([anchor.loss.item() for anchor in slow], abs=1e-9)
    everyone, _ = module.anchors(feat, LABELS)
    slow = slow_model_b.triplet_anchors(feat, LABELS.tolist(), 0.4, 0.3)
    assert everyone.tolist() == pytest.approx([anchor.loss.item() for anchor in slow], abs=1e-9)


def test_defaults_are_a_soft_margin_without_a_hard_factor_and_are_printed():
    feat = random_features(8)
    expected = slow_losses.triplet(feat.tolist(), LABELS.tolist(), None)
    assert triplet_loss(feat, LABELS).item() == pytest.approx(expected, abs=1e-9)
    anchors, _ = triplet_anchors(feat, LABELS)
    assert anchors.mean().item() == pytest.approx(expected, abs=1e-9)
    assert repr(TripletLoss()) == "TripletLoss(margin=soft, hard_factor=0.0)"
    assert repr(TripletLoss(0.3, 0.1)) == "TripletLoss(margin=0.3, hard_factor=0.1)"
