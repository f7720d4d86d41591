"""The criterion: terms, weights, branches and the configuration behind them."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from configs import get_cfg_defaults
from losses import make_loss
from losses.branches import Reduce, combine_branches
from losses.criterion import Criterion, Reading
from losses.margin_softmax import MARGINS
from losses.numeric import attached_zero
from model import ModelOutput
from tests.cfgs import cfg_with
from tests.reference import slow_losses
from tests.tolerance import rounding
from utils.errors import ConfigError

PIDS = torch.tensor([0, 0, 1, 1, 2, 2])
CLASSES, WIDTH = 3, 4


class Output(NamedTuple):
    logits: list[torch.Tensor]
    pre_bn: list[torch.Tensor]
    bnneck: list[torch.Tensor] = []
    projection: torch.Tensor | None = None


class Weights(NamedTuple):
    weights: dict[str, float]
    epoch: int = 1
    routed: bool = False


BOTH = Weights({"id": 1.0, "triplet": 1.0, "tripletx": 0.0, "supcon": 0.0})
WITH_CENTER = Weights(BOTH.weights | {"center": 0.3})


def make_output(branches: int = 5, dtype: torch.dtype = torch.float64) -> Output:
    generator = torch.Generator().manual_seed(0)

    def tensors(width: int) -> list[torch.Tensor]:
        shape = (len(PIDS), width)
        drawn = [torch.randn(shape, dtype=torch.float64, generator=generator).tanh() for _ in range(branches)]
        return [tensor.to(dtype).requires_grad_() for tensor in drawn]

    return Output(tensors(CLASSES), tensors(WIDTH))


def make_criterion(*opts: object) -> Criterion:
    torch.manual_seed(0)
    return make_loss(cfg_with(*opts), CLASSES, WIDTH).double()


def evaluate(
    criterion: Criterion, phase: Weights = BOTH, output: Output | None = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return criterion(output or make_output(), {"pids": PIDS, "camids": torch.zeros_like(PIDS)}, phase)


def slow_identity(output: Output, smoothing: float = 0.0, global_weight: float = 0.5) -> float:
    values = [slow_losses.cross_entropy(logits.tolist(), PIDS.tolist(), smoothing) for logits in output.logits]
    return slow_losses.combine(values, global_weight)


def slow_triplet(output: Output, margin: float | None, hard_factor: float = 0.0, global_weight: float = 0.5) -> float:
    values = [slow_losses.triplet(feat.tolist(), PIDS.tolist(), margin, hard_factor) for feat in output.pre_bn]
    return slow_losses.combine(values, global_weight)


@pytest.mark.parametrize("branches", [1, 2, 5])
@pytest.mark.parametrize("global_weight", [0.5, 0.2, 1.0])
def test_total_is_the_weighted_sum_of_both_terms_over_all_branches(branches, global_weight):
    criterion = make_criterion("LOSS.GLOBAL_WEIGHT", global_weight, "LOSS.TRIPLET.HARD_FACTOR", 0.1)
    output = make_output(branches)
    total, parts = evaluate(criterion, Weights({"id": 0.7, "triplet": 1.3}), output)
    identity = slow_identity(output, smoothing=0.1, global_weight=global_weight)
    triplet = slow_triplet(output, 0.3, hard_factor=0.1, global_weight=global_weight)
    assert set(parts) == {"id", "triplet"}
    assert parts["id"].item() == pytest.approx(identity, abs=1e-9)
    assert parts["triplet"].item() == pytest.approx(triplet, abs=1e-9)
    assert total.item() == pytest.approx(0.7 * identity + 1.3 * triplet, abs=1e-9)


def test_switches_choose_soft_margin_and_plain_cross_entropy():
    criterion = make_criterion("MODEL.NO_MARGIN", True, "MODEL.IF_LABELSMOOTH", "off")
    output = make_output()
    _, parts = evaluate(criterion, BOTH, output)
    assert parts["id"].item() == pytest.approx(slow_identity(output), abs=1e-9)
    assert parts["triplet"].item() == pytest.approx(slow_triplet(output, None), abs=1e-9)


@pytest.mark.parametrize("kind", sorted(MARGINS))
def test_margin_applies_to_every_branch(kind):
    criterion = make_criterion(
        *("MODEL.ID_LOSS_TYPE", kind, "MODEL.IF_LABELSMOOTH", "off"),
        *("SOLVER.COSINE_SCALE", 12.0, "SOLVER.COSINE_MARGIN", 0.4),
    )
    output = make_output()
    logits = [slow_losses.margin_logits(kind, x.tolist(), PIDS.tolist(), 12.0, 0.4) for x in output.logits]
    expected = slow_losses.combine([slow_losses.cross_entropy(x, PIDS.tolist()) for x in logits], 0.5)
    assert evaluate(criterion, BOTH, output)[1]["id"].item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("active", "idle"), [("id", "triplet"), ("triplet", "id")])
def test_term_with_weight_zero_is_skipped(active, idle):
    criterion = make_criterion()
    weights = {active: 2.0, idle: 0.0, "tripletx": 0.0, "supcon": 0.0}
    total, parts = evaluate(criterion, Weights(weights))
    assert list(parts) == [active]
    assert total.item() == pytest.approx(2 * parts[active].item(), abs=1e-12)


@pytest.mark.parametrize("weights", [{"id": 1.0, "triplet": 0.0}, {"id": 0.0, "triplet": 1.0}, {"id": 0.0}])
def test_every_logit_gets_a_gradient_whichever_terms_are_on(weights):
    criterion = make_criterion()
    output = make_output()
    evaluate(criterion, Weights(weights), output)[0].backward()
    for logits in output.logits:
        assert logits.grad is not None
        assert bool(logits.grad.any()) == (weights["id"] > 0)


def test_no_term_at_all_is_a_differentiable_zero():
    criterion = make_criterion()
    output = make_output()
    total, parts = evaluate(criterion, Weights({"id": 0.0, "triplet": 0.0}), output)
    total.backward()
    assert total.item() == 0 and parts == {}
    assert torch.equal(output.pre_bn[0].grad, torch.zeros(len(PIDS), WIDTH, dtype=torch.float64))


def test_skipped_term_cannot_make_the_total_non_finite():
    criterion = make_criterion()
    output = make_output()
    output.logits[0].data[0, 0] = float("inf")
    total, _ = evaluate(criterion, Weights({"id": 0.0, "triplet": 1.0}), output)
    assert torch.isfinite(total)
    assert attached_zero([torch.tensor([float("nan")])]).item() == 0


def test_weight_for_a_loss_that_does_not_exist_is_an_error():
    criterion = make_criterion()
    with pytest.raises(ValueError, match="'contrast'.*id, triplet"):
        evaluate(criterion, Weights({"id": 1.0, "contrast": 0.5}))


def test_parts_are_detached_and_the_total_is_not():
    criterion = make_criterion("MODEL.IF_WITH_CENTER", "yes")
    total, parts = evaluate(criterion, WITH_CENTER)
    assert total.requires_grad
    assert not any(part.requires_grad for part in parts.values())


@pytest.mark.parametrize("opts", [("MODEL.IF_WITH_CENTER", "yes"), ("MODEL.METRIC_LOSS_TYPE", "triplet_center")])
def test_centre_loss_is_in_the_total_with_its_weight(opts):
    weight = 0.25
    criterion = make_criterion(*opts, "SOLVER.CENTER_LOSS_WEIGHT", weight)
    plain = make_criterion()
    output = make_output()
    total, parts = evaluate(criterion, Weights(BOTH.weights | {"center": weight}), output)
    expected = slow_losses.center(output.pre_bn[0].tolist(), PIDS.tolist(), criterion.center.centers.tolist())
    assert parts["center"].item() == pytest.approx(expected, abs=1e-9)
    assert (total - evaluate(plain, BOTH, output)[0]).item() == pytest.approx(weight * expected, abs=1e-9)
    total.backward()
    assert criterion.center.centers.grad.abs().sum() > 0


def test_centre_loss_alone_needs_no_triplet():
    criterion = make_criterion("MODEL.METRIC_LOSS_TYPE", "center")
    total, parts = evaluate(criterion, Weights({"id": 0.0, "triplet": 0.0, "center": 0.0005}))
    assert list(parts) == ["center"]
    assert total.item() == pytest.approx(0.0005 * parts["center"].item(), rel=1e-9)


def test_criterion_without_centre_loss_has_no_parameter():
    assert list(make_criterion().parameters()) == []
    criterion = make_criterion("MODEL.IF_WITH_CENTER", "yes", "SOLVER.CENTER_LOSS_WEIGHT", 0.0)
    assert list(criterion.parameters()) == []
    assert "center" not in evaluate(criterion)[1]


def test_state_dict_of_the_centres_has_one_name():
    criterion = make_criterion("MODEL.IF_WITH_CENTER", "yes")
    assert {name: tuple(value.shape) for name, value in criterion.state_dict().items()} == {
        "center.centers": (CLASSES, WIDTH)
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_outputs_and_autocast_give_a_float32_total(dtype):
    criterion = make_criterion("MODEL.IF_WITH_CENTER", "yes")
    output = make_output(dtype=dtype)
    reference = Output([x.detach().double() for x in output.logits], [x.detach().double() for x in output.pre_bn])
    expected, _ = evaluate(criterion, WITH_CENTER, reference)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, parts = evaluate(criterion.float(), WITH_CENTER, output)
    assert total.dtype == torch.float32 and {part.dtype for part in parts.values()} == {torch.float32}
    assert total.item() == pytest.approx(expected.item(), rel=rounding(32))


def test_gradient_of_the_total_matches_finite_differences():
    criterion = make_criterion("MODEL.IF_WITH_CENTER", "yes")
    output = make_output(2)

    def total(*tensors: torch.Tensor) -> torch.Tensor:
        return evaluate(criterion, WITH_CENTER, Output(list(tensors[:2]), list(tensors[2:])))[0]

    assert torch.autograd.gradcheck(total, (*output.logits, *output.pre_bn))


def test_loss_without_a_branch_is_refused():
    with pytest.raises(ValueError, match="no branch"):
        combine_branches(lambda branch, labels: branch.sum(), [], PIDS, Reduce())


def test_unknown_identity_loss_lists_the_choices():
    cfg = get_cfg_defaults()
    cfg.MODEL.ID_LOSS_TYPE = "arcfase"
    with pytest.raises(ConfigError, match="MODEL.ID_LOSS_TYPE got 'arcfase', allowed: softmax, arcface"):
        make_loss(cfg, CLASSES, WIDTH)


def test_terms_are_functions_or_modules_and_one_of_several_values_is_asked_once():
    asked = []

    def pair(output: Output, batch: dict, phase: Weights) -> dict[str, torch.Tensor]:
        asked.append(phase.epoch)
        return {"first": output.pre_bn[0].sum(), "second": output.pre_bn[0].square().sum()}

    class Learnt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

        def forward(self, output: Output, batch: dict, phase: Weights) -> dict[str, torch.Tensor]:
            return {"learnt": self.factor * output.logits[0].mean()}

    criterion = Criterion({"first": pair, "second": pair, "learnt": Learnt()}, {})
    output = make_output()
    total, parts = evaluate(criterion, Weights({"learnt": 0.5, "second": 2.0, "first": 1.0}, epoch=7), output)
    assert asked == [7] and list(parts) == ["learnt", "second", "first"]
    feat, logits = output.pre_bn[0], output.logits[0]
    expected = 1.5 * logits.mean() + 2 * feat.square().sum() + feat.sum()
    assert total.item() == pytest.approx(expected.item(), abs=1e-9)
    assert list(criterion.state_dict()) == ["learnt.factor"]


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_readings_and_parts_are_those_that_are_named_before_the_step(weight):
    readings = {
        "width": Reading(lambda output, batch: torch.tensor(float(output.pre_bn[0].shape[1]))),
        "mean": Reading(lambda output, batch: output.logits[0].mean(), of="id"),
    }
    criterion = Criterion({"id": lambda output, batch, phase: {"id": output.logits[0].sum()}}, readings)
    phase, output = Weights({"id": weight}), make_output()
    read = criterion.readings(output, {}, phase)
    assert criterion.names(phase) == [*evaluate(criterion, phase, output)[1], *read]
    assert list(read) == (["width", "mean"] if weight else ["width"])
    assert read["width"].item() == WIDTH


def test_accuracy_is_read_with_the_identity_loss_and_the_dark_share_with_brightness():
    output, batch = make_output(), {"pids": PIDS, "brightness": torch.tensor([0.1, 0.2, 0.35, 0.3, 0.9, 0.5])}
    hits = [row.index(max(row)) == pid for row, pid in zip(output.logits[0].tolist(), PIDS.tolist(), strict=True)]
    read = make_criterion("LOSS.BRIGHTNESS.ENABLE", True).readings(output, batch, BOTH)
    assert list(read) == ["dark", "acc"]
    assert read["dark"].item() == pytest.approx(3 / 6) and read["acc"].item() == pytest.approx(sum(hits) / 6)
    assert make_criterion().names(Weights({"id": 0.0, "supcon": 0.3})) == ["supcon"]


def test_every_output_of_the_model_gets_a_gradient_and_only_that_of_the_terms():
    output = make_output(2)
    more = {"tokens": torch.ones(6, 2, 3, requires_grad=True), "targets": torch.zeros(4, dtype=torch.int64)}
    whole = ModelOutput(*output[:2], bnneck=[torch.ones(6, 5, requires_grad=True)], extra=more)
    evaluate(make_criterion(), Weights({"id": 1.0}), whole)[0].backward()
    reached = [tensor.grad.any().item() for tensor in (*whole.logits, *whole.pre_bn, *whole.bnneck, more["tokens"])]
    assert reached == [True, True, False, False, False, False]
