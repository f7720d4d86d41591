"""The step of the class centres: by hand, under loss scaling, over the phases."""

import pytest
import torch

from configs.phases import Phase, PhasePlan
from losses import make_loss
from losses.criterion import Criterion
from model import ModelOutput
from solver import make_optimizer
from solver.centers import find_centers, step_centers
from tests.cfgs import cfg_with
from tests.solver.models import OneLayer

CLASSES, WIDTH = 3, 2
PIDS = torch.tensor([0, 0, 1, 0])
FEAT = torch.tensor([[1.0, 2.0], [3.0, 2.0], [0.0, 1.0], [2.0, 0.0]])
START = torch.tensor([[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]])
# mean over 4 samples: gradient of centre 0 is 2/4 sum(c - x) = (-3, -2), of centre 1 (.5, 0)
GRADIENT = torch.tensor([[-3.0, -2.0], [0.5, 0.0], [0.0, 0.0]])
PLAIN = torch.amp.GradScaler("cpu", enabled=False)


def make_centers(weight: float = 0.0005) -> tuple[Criterion, torch.optim.Optimizer, Phase]:
    """Return (criterion with the centre loss alone at START, optimizer of its centres, phase 1)."""
    cfg = cfg_with(
        *("SOLVER.CENTER_LOSS_WEIGHT", weight, "SOLVER.CENTER_LR", 0.5, "SOLVER.OPTIMIZER_NAME", "SGD"),
        *("MODEL.METRIC_LOSS_TYPE", "center", "MODEL.ID_LOSS_WEIGHT", 0.0),
    )
    criterion = make_loss(cfg, CLASSES, WIDTH)
    criterion.center.centers.data.copy_(START)
    _, optimizer = make_optimizer(cfg, OneLayer(), criterion)
    return criterion, optimizer, PhasePlan(cfg).at(1)


def add_gradient(criterion: Criterion, phase: Phase, scale: float = 1.0) -> None:
    output = ModelOutput([], [FEAT.clone().requires_grad_()], [])
    (scale * criterion(output, {"pids": PIDS}, phase)[0]).backward()


@pytest.mark.parametrize("weight", [0.0005, 0.3, 2.0])
def test_centres_move_by_the_gradient_of_the_unweighted_loss(weight):
    criterion, optimizer, phase = make_centers(weight)
    add_gradient(criterion, phase)
    step_centers(optimizer, PLAIN)
    torch.testing.assert_close(criterion.center.centers.detach(), START - 0.5 * GRADIENT, rtol=0, atol=1e-5)
    assert criterion.center.centers.grad is None


def test_a_weight_that_moves_with_the_phase_leaves_their_speed_as_it_is():
    criterion, optimizer, phase = make_centers()
    add_gradient(criterion, phase._replace(weights={"center": 0.125}))
    step_centers(optimizer, PLAIN)
    torch.testing.assert_close(criterion.center.centers.detach(), START - 0.5 * GRADIENT, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_phase_without_the_centre_loss_leaves_them_alone(scaled):
    criterion, optimizer, phase = make_centers()
    output = ModelOutput([], [FEAT.clone().requires_grad_()], [])
    criterion(output, {"pids": PIDS}, phase._replace(weights={"center": 0.0}))[0].backward()
    step_centers(optimizer, torch.amp.GradScaler("cpu", enabled=scaled))
    assert torch.equal(criterion.center.centers, START)


@pytest.mark.parametrize("overflow", [False, True])
def test_the_scaler_takes_the_step_and_leaves_it_out_where_a_gradient_overflowed(overflow):
    criterion, optimizer, phase = make_centers()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.zeros(()))  # makes the scale
    add_gradient(criterion, phase, scale=4.0)
    if overflow:
        criterion.center.centers.grad[0, 0] = torch.inf
    step_centers(optimizer, scaler)
    scaler.update()
    expected = START if overflow else START - 0.5 * GRADIENT
    torch.testing.assert_close(criterion.center.centers.detach(), expected, rtol=0, atol=1e-5)
    assert scaler.get_scale() == (2.0 if overflow else 4.0)


def test_gradients_are_averaged_over_the_processes_before_the_scaler_looks_at_them(monkeypatch):
    monkeypatch.setattr("solver.centers.mean_over_ranks", lambda grad: grad / 2 + torch.inf)
    criterion, optimizer, phase = make_centers()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.zeros(()))
    add_gradient(criterion, phase, scale=4.0)
    step_centers(optimizer, scaler)
    assert torch.equal(criterion.center.centers, START)


def test_only_parameters_of_that_name_are_centres():
    criterion, _, _ = make_centers()
    criterion.head = torch.nn.Linear(2, 2)
    assert find_centers(criterion) == [criterion.center.centers]
    assert find_centers(make_loss(cfg_with(), CLASSES, WIDTH)) == []
