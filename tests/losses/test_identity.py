"""Cross-entropy, label smoothing and the margins of cosine classifiers."""

import pytest
import torch

from configs.phases import Phase
from losses.branches import Reduce
from losses.identity import IdentityLoss, IdentityTerm, identity_loss, warmed_margin
from losses.margin_softmax import MARGINS, amsoftmax, arcface, circle
from model import ModelOutput
from tests.reference import slow_losses
from tests.tolerance import rounding

LABELS = torch.tensor([2, 0, 4, 4])
KINDS = sorted(MARGINS)


def random_logits(scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def cosines() -> torch.Tensor:
    """Target cosines on both sides of cos(pi - m) for m up to 0.5, and in between."""
    cosine = torch.tanh(random_logits(1.0))
    cosine[torch.arange(4), LABELS] = torch.tensor([-0.99, 0.99, -0.5, 0.3], dtype=torch.float64)
    return cosine


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_identity_loss_is_minus_sum_q_log_p(smoothing):
    logits = random_logits()
    expected = slow_losses.cross_entropy(logits.tolist(), LABELS.tolist(), smoothing)
    assert IdentityLoss(smoothing)(logits, LABELS).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["softmax", *KINDS])
def test_narrow_types_compute_in_float32_under_autocast(kind, dtype):
    margin = MARGINS.get(kind)
    logits = (random_logits() if margin is None else cosines()).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = IdentityLoss(0.1, margin)(logits, LABELS)
    loss.backward()
    assert loss.dtype == torch.float32
    expected = IdentityLoss(0.1, margin)(logits.detach().double(), LABELS)
    assert loss.item() == pytest.approx(expected.item(), rel=rounding(32))
    assert torch.isfinite(logits.grad).all()


def test_large_half_logits_do_not_overflow():
    logits = torch.tensor([[60000.0, -60000.0]], dtype=torch.float16)
    assert identity_loss(logits, torch.tensor([1])).item() == pytest.approx(120000, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("scale", "margin"), [(30.0, 0.5), (30.0, 0.3), (256.0, 0.25), (1.0, 0.0)])
def test_margin_logits_match_the_formula(kind, scale, margin):
    logits = MARGINS[kind](cosines(), LABELS, scale, margin)
    expected = slow_losses.margin_logits(kind, cosines().tolist(), LABELS.tolist(), scale, margin)
    torch.testing.assert_close(logits, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_margin_lowers_only_the_target_or_keeps_the_input(kind):
    cosine = cosines()
    untouched = cosine.clone()
    logits = MARGINS[kind](cosine, LABELS, 1.0, 0.3)
    assert torch.equal(cosine, untouched)
    target = logits.gather(1, LABELS[:, None])
    if kind != "circle":
        others = torch.ones_like(logits, dtype=torch.bool).scatter(1, LABELS[:, None], False)
        assert (target < cosine.gather(1, LABELS[:, None])).all()
        assert torch.equal(logits[others], cosine[others])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [1.0, -1.0, 1 + 1e-6, -1 - 1e-6])
def test_gradients_stay_finite_at_cosine_plus_minus_one(kind, dtype, value):
    cosine = torch.full((2, 3), value, dtype=dtype, requires_grad=True)
    IdentityLoss(0.0, MARGINS[kind])(cosine, torch.tensor([0, 2])).backward()
    assert torch.isfinite(cosine.grad).all()


@pytest.mark.parametrize("kind", ["arcface", "cosface", "amsoftmax"])
def test_gradient_matches_finite_differences(kind):
    cosine = cosines().requires_grad_()
    assert torch.autograd.gradcheck(lambda c: IdentityLoss(0.1, MARGINS[kind], 8.0, 0.4)(c, LABELS), (cosine,))


def test_factors_of_circle_carry_no_gradient():
    cosine = torch.tensor([[0.2, 0.6]], dtype=torch.float64, requires_grad=True)
    circle(cosine, torch.tensor([0]), 10.0, 0.25).sum().backward()
    # 10 * max(0, 1 + .25 - .2) for the target, 10 * max(0, .6 + .25) for the other
    torch.testing.assert_close(cosine.grad, torch.tensor([[10.5, 8.5]], dtype=torch.float64))


@pytest.mark.parametrize(
    "options",
    [
        *({"smoothing": 1.0}, {"smoothing": -0.1}, {"scale": 0.0}, {"scale": -1.0}, {"margin_size": -0.1}),
        {"warmup_epochs": -1},
    ],
)
def test_impossible_hyper_parameters_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        IdentityLoss(**options)


@pytest.mark.parametrize("options", [{"smoothing": 0}, {"smoothing": 0.99}, {"scale": 0.01}, {"margin_size": 0}])
def test_hyper_parameters_at_the_ends_of_their_ranges_are_kept(options):
    assert options.items() <= vars(IdentityLoss(**options)).items()


def test_defaults_are_a_plain_softmax_and_are_printed():
    logits = random_logits()
    expected = pytest.approx(slow_losses.cross_entropy(logits.tolist(), LABELS.tolist()), abs=1e-12)
    assert identity_loss(logits, LABELS).item() == expected and IdentityLoss()(logits, LABELS).item() == expected
    assert repr(IdentityLoss()) == "IdentityLoss(softmax, smoothing=0.0)"
    assert repr(IdentityLoss(0.1, arcface)) == "IdentityLoss(arcface s=30.0 m=0.5, smoothing=0.1)"
    warming = IdentityLoss(0.1, arcface, warmup_epochs=4)
    assert repr(warming) == "IdentityLoss(arcface s=30.0 m=0.5 over 4 epochs, smoothing=0.1)"


def test_a_margin_by_hand():
    cosine = torch.tensor([[0.948683, -0.316228, -0.447214]], dtype=torch.float64)
    expected = torch.tensor([[17.960499, -9.486833, -13.416408]], dtype=torch.float64)
    torch.testing.assert_close(amsoftmax(cosine, torch.tensor([0]), 30.0, 0.35), expected, rtol=0, atol=3e-5)


def test_the_margin_grows_from_0_by_a_share_each_epoch_and_stays():
    margins = [warmed_margin(0.3, epoch, 4) for epoch in range(1, 8)]
    assert margins == pytest.approx([0.0, 0.075, 0.15, 0.225, 0.3, 0.3, 0.3]) and margins[4:] == [0.3] * 3
    assert [warmed_margin(0.3, epoch, 0) for epoch in (1, 2)] == [0.3, 0.3]


@pytest.mark.parametrize("kind", KINDS)
def test_a_term_has_the_margin_of_its_epoch(kind):
    term = IdentityTerm(IdentityLoss(0.1, MARGINS[kind], 8.0, 0.4, warmup_epochs=3))
    for epoch, margin in ((1, 0.0), (2, 0.4 / 3), (4, 0.4), (9, 0.4)):
        phase = Phase(epoch, 0, "static", {"id": 1.0}, 2, False)
        logits = slow_losses.margin_logits(kind, cosines().tolist(), LABELS.tolist(), 8.0, margin)
        expected = slow_losses.cross_entropy(logits, LABELS.tolist(), 0.1)
        value = term(ModelOutput([cosines()], [], []), {"pids": LABELS}, phase)["id"]
        assert value.item() == pytest.approx(expected, rel=1e-9)
    assert term.loss(cosines(), LABELS).item() == pytest.approx(value.item(), rel=1e-12)  # no epoch: past the warm-up


@pytest.mark.parametrize("weight", [None, 0.0, 0.3, 1.0])
def test_term_weighs_the_global_branch_against_the_mean_of_the_others(weight):
    branches = [random_logits(scale) for scale in (1.0, 2.0, 5.0)]
    term = (
        IdentityTerm(IdentityLoss()) if weight is None else IdentityTerm(IdentityLoss(), Reduce(global_weight=weight))
    )
    value = term(ModelOutput(branches, [], [], None), {"pids": LABELS}, None)
    each = [slow_losses.cross_entropy(logits.tolist(), LABELS.tolist()) for logits in branches]
    expected = slow_losses.combine(each, 0.5 if weight is None else weight)
    assert list(value) == ["id"] and value["id"].item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("weight", [-0.01, 1.01, float("nan")])
def test_share_of_the_global_branch_outside_its_range_is_refused(weight):
    with pytest.raises(ValueError, match="global_weight"):
        Reduce(global_weight=weight)


@pytest.mark.parametrize(("kind", "share"), [("sum", 1.0), ("mean", 1 / 3)])
def test_term_adds_the_branches_up_or_takes_their_mean(kind, share):
    branches = [random_logits(scale) for scale in (1.0, 2.0, 5.0)]
    value = IdentityTerm(IdentityLoss(), Reduce(kind))(ModelOutput(branches, [], [], None), {"pids": LABELS}, None)
    each = [slow_losses.cross_entropy(logits.tolist(), LABELS.tolist()) for logits in branches]
    assert value["id"].item() == pytest.approx(share * sum(each), abs=1e-9)


def test_an_unknown_way_to_add_branches_up_is_refused():
    with pytest.raises(ValueError, match="kind got 'product', expected halves, sum, mean"):
        Reduce("product")
