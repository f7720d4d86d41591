"""The updater: which batches share a step, clipping, loss scaling, and the state that goes on."""

import copy

import pytest
import torch
from torch import nn

from losses import make_loss
from losses.criterion import Criterion
from solver import Updater, make_updater
from solver.update import clip_norm, group_size
from tests.cfgs import cfg_with
from tests.solver.models import OneLayer

CPU = torch.device("cpu")
TARGETS = torch.tensor([1.0, -2.0, 4.0, 0.5, -1.0, 3.0, 2.0])


def make_weight() -> nn.Parameter:
    return nn.Parameter(torch.tensor([0.5, -1.0]))


def loss_of(weight: nn.Parameter, target: torch.Tensor) -> torch.Tensor:
    return (weight * torch.tensor([1.0, 3.0]) - target).square().sum()


def train(updater: Updater, weight: nn.Parameter, targets: torch.Tensor = TARGETS) -> list[int]:
    """Run an epoch and return the batches after which the weight was updated."""
    updates = []
    for step, target in enumerate(targets, start=1):
        updater.backward(loss_of(weight, target), step, len(targets))
        if updater.updates_at(step, len(targets)):
            updates.append(step)
            updater.step()
    return updates


@pytest.mark.parametrize(("accum_steps", "expected"), [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6, 7]), (9, [7])])
def test_each_step_is_that_of_the_mean_loss_of_its_batches(accum_steps, expected):
    weight, plain = make_weight(), make_weight()
    updates = train(Updater(torch.optim.SGD([weight], lr=0.02), accum_steps=accum_steps), weight)
    assert updates == expected
    start = 0
    for end in updates:
        (gradient,) = torch.autograd.grad(loss_of(plain, TARGETS[start:end, None]) / (end - start), plain)
        plain.data -= 0.02 * gradient
        start = end
    torch.testing.assert_close(weight, plain)
    assert weight.grad is None


def test_the_last_group_of_an_epoch_may_be_smaller():
    assert [group_size(step, 7, 3) for step in range(1, 8)] == [3, 3, 3, 3, 3, 3, 1]
    assert [group_size(step, 2, 8) for step in (1, 2)] == [2, 2]


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_clipping_sees_unscaled_gradients_of_the_named_parameters(scale):
    weight = make_weight()
    seen = []

    def clip(parameters: list[nn.Parameter]) -> None:
        seen.append([parameter.grad.clone() for parameter in parameters])
        clip_norm(parameters, 0.5)

    scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale > 1)
    updater = Updater(torch.optim.SGD([weight], lr=1.0), scaler=scaler, clip=clip)
    (expected,) = torch.autograd.grad(loss_of(weight, TARGETS[0]), weight)
    before = weight.detach().clone()
    train(updater, weight, TARGETS[:1])
    torch.testing.assert_close(seen, [[expected]])
    torch.testing.assert_close(before - weight.detach(), 0.5 * expected / expected.norm(), rtol=1e-4, atol=0)


def test_the_order_of_the_clipped_parameters_is_the_callers():
    first, second = make_weight(), make_weight()
    seen = []
    optimizer = torch.optim.SGD([first, second], lr=0.1)
    train(Updater(optimizer, clip=lambda parameters: seen.append([*map(id, parameters)])), first, TARGETS[:1])
    other = Updater(optimizer, clip=lambda parameters: seen.append([*map(id, parameters)]), parameters=[second, first])
    train(other, first, TARGETS[:1])
    assert seen == [[id(first), id(second)], [id(second), id(first)]]


def test_an_overflow_leaves_the_weight_and_lowers_the_scale():
    weight = make_weight()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    train(Updater(torch.optim.SGD([weight], lr=0.1), scaler=scaler), weight, torch.tensor([torch.inf]))
    assert torch.equal(weight, make_weight()) and scaler.get_scale() == 4.0


def make_whole(*opts: object) -> tuple[nn.Module, Criterion, Updater]:
    """Return (model, criterion, updater) as a run makes them, with the centre loss."""
    cfg = cfg_with("SOLVER.OPTIMIZER_NAME", "AdamW", "MODEL.IF_WITH_CENTER", "yes", *opts)
    torch.manual_seed(0)
    model = OneLayer()
    criterion = make_loss(cfg, 3, 2)
    return model, criterion, make_updater(cfg, "", model, criterion, CPU)


def learn(model: nn.Module, criterion: Criterion, updater: Updater) -> None:
    """Do two steps of model and centres."""
    for number in (1.0, 2.0):
        criterion.center.centers.loss_weight = 0.1
        feat = model(torch.tensor([[number, 1.0]]))
        updater.backward((feat - criterion.center.centers).square().sum(), 1, 1)
        updater.step()


def test_a_state_goes_on_bit_for_bit_and_its_entries_are_those_of_a_training_state():
    model, criterion, updater = make_whole()
    learn(model, criterion, updater)
    state = copy.deepcopy(updater.state_dict())
    assert list(state) == ["optimizer", "center_optimizer", "scaler"]
    other_model, other_criterion, other = make_whole()
    other_model.load_state_dict(model.state_dict())
    other_criterion.load_state_dict(criterion.state_dict())
    other.load_state_dict(state | {"epoch": 3})
    learn(model, criterion, updater)
    learn(other_model, other_criterion, other)
    for one, two in zip(
        (*model.parameters(), *criterion.parameters()),
        (*other_model.parameters(), *other_criterion.parameters()),
        strict=True,
    ):
        assert torch.equal(one, two)


def test_a_state_sets_the_rate_of_the_centres_and_the_scale_of_the_losses():
    def make(lr: float, scale: float) -> Updater:
        optimizers = [torch.optim.SGD([make_weight()], lr=lr) for _ in range(2)]
        return Updater(*optimizers, torch.amp.GradScaler("cpu", init_scale=scale))

    saved, other = make(0.25, 8.0), make(0.5, 16.0)
    saved.scaler.scale(torch.zeros(()))  # makes the scale
    other.load_state_dict(saved.state_dict())
    assert other.center_optimizer.param_groups[0]["lr"] == 0.25 and other.scaler.get_scale() == 8.0


def test_without_centres_their_state_is_empty():
    weight = make_weight()
    updater = Updater(torch.optim.SGD([weight], lr=0.1))
    assert updater.state_dict()["center_optimizer"] == {}
    updater.load_state_dict(updater.state_dict())
    with pytest.raises(KeyError):
        updater.load_state_dict({})


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_the_configuration_says_how_far_and_how_often_an_updater_steps(clip):
    model, criterion, updater = make_whole(
        *("SOLVER.OPTIMIZER_NAME", "SGD", "SOLVER.BASE_LR", 1.0, "SOLVER.WEIGHT_DECAY", 0.0, "SOLVER.MOMENTUM", 0.0),
        *("SOLVER.WEIGHT_DECAY_BIAS", 0.0, "SOLVER.GRAD_CLIP", clip, "SOLVER.ACCUM_STEPS", 2),
    )
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    assert [updater.updates_at(step, 5) for step in range(1, 6)] == [False, True, False, True, True]
    updater.backward(100 * model(torch.ones(1, 2)).sum(), 1, 1)
    updater.step()
    moved = (nn.utils.parameters_to_vector(model.parameters()).detach() - before).norm().item()
    assert moved == pytest.approx(clip, rel=1e-3) if clip else moved > 1
