"""How the values of branches add up, of equal and of unequal widths, and the features that join the metric losses."""

import pytest
import torch

from configs.phases import Phase
from losses import TripletLoss, TripletXLoss
from losses.branches import Reduce, Views, combine_branches
from losses.identity import IdentityLoss, IdentityTerm
from losses.metric import MetricLosses
from losses.readings import accuracy, mean_accuracy
from losses.routing import Anchors, Routing, route
from losses.transreid import make_terms
from model import ModelOutput
from tests.cfgs import cfg_with
from tests.losses.batches import random_features
from tests.reference import slow_branches
from tests.reference import slow_clip_reid as slow

LABELS = [0, 0, 1, 1, 2, 2]
PIDS, CAMIDS = torch.tensor(LABELS), torch.tensor([0, 1, 0, 1, 0, 1])
WIDTHS = (7, 4, 5)  # of last, own, projected
HARD = Routing()
PLAIN = Phase(1, 0, "static", {"triplet": 1.0, "tripletx": 0.0}, 2, False)
ROUTED = PLAIN._replace(weights={"triplet": 1.0, "tripletx": 1.0}, routed=True)
BY_HAND = {
    "sum": lambda values: sum(values),
    "mean": lambda values: sum(values) / len(values),
    "halves": lambda values: values[0] / 2 + sum(values[1:]) / len(values[1:]) / 2,
}


def make_output() -> ModelOutput:
    """Return two branches of unequal widths, and the feature `last` of a third."""
    last, own, projected = (random_features(6, width, seed) for seed, width in enumerate(WIDTHS))
    logits = [random_features(6, 3, seed=8), random_features(6, 3, seed=9)]
    return ModelOutput(logits, [own, projected], [own.square(), projected.square()], extra={"last": last})


def metric_losses(routing: Routing = HARD, **sources: str) -> MetricLosses:
    """Return the metric losses with plain sums; both on pre_bn unless `sources` say otherwise."""
    sources = {"triplet": "pre_bn", "tripletx": "pre_bn"} | sources
    return MetricLosses(TripletLoss(0.3), TripletXLoss(k=2), routing, sources, Reduce("sum"), ("last",))


def routed_by_hand(pairs: list[tuple[torch.Tensor, torch.Tensor]], brightness: torch.Tensor) -> tuple:
    """Return the sums over pairs (features of triplet, of TripletX) of a routed batch, a branch at a time."""
    anchors = Anchors(PIDS, CAMIDS, brightness, 1)
    values = [route(pair, anchors, TripletLoss(0.3), TripletXLoss(k=2), Routing()) for pair in pairs]
    return tuple(sum(part) for part in zip(*values, strict=True))


@pytest.mark.parametrize("kind", BY_HAND)
@pytest.mark.parametrize("widths", [(4, 4, 4), (4, 6, 5)], ids=["equal widths", "unequal widths"])
def test_values_and_gradients_of_branches_add_up_as_asked(kind, widths):
    branches = [random_features(6, width, seed).requires_grad_() for seed, width in enumerate(widths)]
    value = combine_branches(TripletLoss(0.3), branches, PIDS, Reduce(kind))
    expected = BY_HAND[kind]([slow.triplet(branch, LABELS) for branch in branches])
    torch.testing.assert_close(value, expected)
    for got, exact in zip(torch.autograd.grad(value, branches), torch.autograd.grad(expected, branches), strict=True):
        torch.testing.assert_close(got, exact)


def test_halves_weigh_the_first_branch_by_its_share():
    branches = [random_features(6, width, width) for width in (4, 5, 6)]
    first, *others = (slow.triplet(branch, LABELS) for branch in branches)
    value = combine_branches(TripletLoss(0.3), branches, PIDS, Reduce("halves", 0.8))
    torch.testing.assert_close(value, 0.8 * first + 0.2 * (others[0] + others[1]) / 2)


@pytest.mark.parametrize("kind", BY_HAND)
def test_one_branch_is_its_own_value(kind):
    feat = random_features(6)
    torch.testing.assert_close(
        combine_branches(TripletLoss(0.3), [feat], PIDS, Reduce(kind, 0.3)), slow.triplet(feat, LABELS)
    )


def test_unknown_kinds_and_shares_are_refused():
    with pytest.raises(ValueError, match="median"):
        Reduce("median")
    with pytest.raises(ValueError, match="global_weight"):
        Reduce("halves", 1.5)


@pytest.mark.parametrize("kind", BY_HAND)
def test_the_identity_loss_follows_the_same_rule(kind):
    output = make_output()
    value = IdentityTerm(IdentityLoss(0.1), Reduce(kind))(output, {"pids": PIDS}, PLAIN)["id"]
    values = [slow.cross_entropy(logits, LABELS, 0.1) for logits in output.logits]
    torch.testing.assert_close(value, BY_HAND[kind](values))


@pytest.mark.parametrize(
    "name, opts, kind",
    [
        ("clip_reid", (), "sum"),
        ("pcb", (), "sum"),
        ("ViT-B-16", (), "sum"),
        ("RN50", (), "sum"),
        ("transformer", (), "halves"),
        ("clip_reid", ("LOSS.BRANCHES.REDUCE", "halves"), "halves"),
        ("clip_reid", ("LOSS.BRANCHES.REDUCE", "mean"), "mean"),
        ("transformer", ("LOSS.BRANCHES.REDUCE", "sum"), "sum"),
    ],
)
def test_the_key_or_the_system_decides_how_branches_add_up(name, opts, kind):
    cfg = cfg_with("MODEL.NAME", name, "MODEL.IF_LABELSMOOTH", "on", *opts)
    terms, output, batch = make_terms(cfg, 3, 4, further=("last",)), make_output(), {"pids": PIDS, "camids": CAMIDS}
    values = [slow.cross_entropy(logits, LABELS, 0.1) for logits in output.logits]
    torch.testing.assert_close(terms["id"](output, batch, PLAIN)["id"], BY_HAND[kind](values))


def test_a_further_feature_joins_the_branches_before_the_necks():
    output = make_output()
    features = [*output.pre_bn, output.extra["last"]]
    value = metric_losses()(output, {"pids": PIDS, "camids": CAMIDS}, PLAIN)["triplet"]
    torch.testing.assert_close(value, sum(slow.triplet(feat, LABELS) for feat in features))


def test_a_further_feature_does_not_join_the_branches_behind_the_necks():
    output = make_output()
    value = metric_losses(triplet="bnneck")(output, {"pids": PIDS, "camids": CAMIDS}, PLAIN)["triplet"]
    torch.testing.assert_close(value, sum(slow.triplet(feat, LABELS) for feat in output.bnneck))


BRIGHTNESS = torch.tensor([0.1, 0.1, 0.9, 0.9, 0.1, 0.9], dtype=torch.float64)


def test_a_further_feature_is_routed_as_the_others():
    output = make_output()
    batch = {"pids": PIDS, "camids": CAMIDS, "brightness": BRIGHTNESS}
    got = metric_losses()(output, batch, ROUTED)
    bright, dark = routed_by_hand([(feat, feat) for feat in [*output.pre_bn, output.extra["last"]]], BRIGHTNESS)
    torch.testing.assert_close(got["triplet"], bright)
    torch.testing.assert_close(got["tripletx"], dark)
    assert bright > 0 and dark > 0


def test_between_two_sources_only_branches_of_both_are_routed():
    output = make_output()
    batch = {"pids": PIDS, "camids": CAMIDS, "brightness": BRIGHTNESS}
    got = metric_losses(tripletx="bnneck")(output, batch, ROUTED)
    bright, dark = routed_by_hand(list(zip(output.pre_bn, output.bnneck, strict=True)), BRIGHTNESS)
    torch.testing.assert_close(got["triplet"], bright)
    torch.testing.assert_close(got["tripletx"], dark)


def test_routing_of_the_global_branch_alone_leaves_further_features_out():
    output = make_output()
    batch = {"pids": PIDS, "camids": CAMIDS, "brightness": BRIGHTNESS}
    got = metric_losses(HARD._replace(global_only=True))(output, batch, ROUTED)
    bright, dark = routed_by_hand([(output.pre_bn[0], output.pre_bn[0])], BRIGHTNESS)
    torch.testing.assert_close(got["triplet"], bright)
    torch.testing.assert_close(got["tripletx"], dark)


VIEWED = ("each", "global", "concat", "global+concat")
UNEQUAL = (6, 3, 4, 3)  # widths of the global branch and three parts


@pytest.mark.parametrize("margin", [0.16, None], ids=["hard margin", "soft margin"])
@pytest.mark.parametrize("views", VIEWED)
def test_the_triplet_loss_sees_the_branches_that_it_is_told(views, margin):
    branches = [random_features(6, width, seed) for seed, width in enumerate(UNEQUAL)]
    sources = {"triplet": "bnneck", "tripletx": "pre_bn"}
    losses = MetricLosses(TripletLoss(margin), TripletXLoss(), HARD, sources, Reduce("sum"), views=Views(views))
    value = losses(ModelOutput([], [], branches), {"pids": PIDS, "camids": CAMIDS}, PLAIN)["triplet"]
    expected = slow_branches.triplets([branch.tolist() for branch in branches], LABELS, margin, views)
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_global_and_concat_are_summed_whatever_reduces_the_branches():
    branches = [random_features(6, width, seed) for seed, width in enumerate(UNEQUAL)]
    both = [
        MetricLosses(TripletLoss(0.3), TripletXLoss(), HARD, {"triplet": "pre_bn"}, Reduce(kind), (), Views(VIEWED[3]))
        for kind in BY_HAND
    ]
    values = [one(ModelOutput([], branches, []), {"pids": PIDS}, PLAIN)["triplet"] for one in both]
    assert values[0] == values[1] == values[2]


def test_without_a_global_branch_all_are_parts():
    parts = [random_features(6, width, seed) for seed, width in enumerate(UNEQUAL)]
    (side_by_side,) = Views("concat", has_global=False)(parts)
    torch.testing.assert_close(side_by_side, torch.cat(parts, 1))
    assert side_by_side.shape == (6, sum(UNEQUAL))
    for kind in ("global", "global+concat"):
        with pytest.raises(ValueError, match="without a global branch"):
            Views(kind, has_global=False)


def test_views_of_parts_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="no part"):
        Views("concat")([random_features(6)])
    with pytest.raises(ValueError, match="expected each, global, concat"):
        Views("all")


def test_tripletx_sees_each_branch_whatever_the_views_of_the_triplet_loss():
    branches = [random_features(6, width, seed) for seed, width in enumerate(UNEQUAL)]
    phase, batch = PLAIN._replace(weights={"triplet": 0.0, "tripletx": 1.0}), {"pids": PIDS, "camids": CAMIDS}
    losses = MetricLosses(
        TripletLoss(), TripletXLoss(), HARD, {"tripletx": "pre_bn"}, Reduce("sum"), (), Views("concat")
    )
    expected = sum(TripletXLoss()(branch, PIDS, CAMIDS, 1) for branch in branches)
    torch.testing.assert_close(losses(ModelOutput([], branches, []), batch, phase)["tripletx"], expected)


def test_the_mean_accuracy_counts_every_classifier():
    logits = [random_features(6, 3, seed) for seed in range(5)]
    output = ModelOutput(logits, [], [])
    right = [float(one[row].argmax() == LABELS[row]) for one in logits for row in range(6)]
    assert mean_accuracy(output, {"pids": PIDS}).item() == pytest.approx(sum(right) / len(right))
    assert accuracy(output, {"pids": PIDS}).item() == pytest.approx(sum(right[:6]) / 6)
