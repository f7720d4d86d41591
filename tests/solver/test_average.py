"""The moving average of a model's weights, against a slow loop in float64."""

import copy

import pytest
import torch
from torch import nn

from solver.average import Average


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def change(model: nn.Module, seed: int) -> None:
    """Give all weights and statistics other values."""
    generator = torch.Generator().manual_seed(seed)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator))
        else:
            value.add_(seed)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9])
def test_the_average_is_that_of_the_announced_rule(decay):
    model = make_model()
    average = Average(model, decay)
    slow = {name: value.double() for name, value in model.state_dict().items()}
    for update in range(1, 12):
        change(model, update)
        average.update(model)
        kept = min(decay, 1 - update ** (-2 / 3))
        for name, value in model.state_dict().items():
            slow[name] = kept * slow[name] + (1 - kept) * value.double() if value.is_floating_point() else value.clone()
    for name, value in average.model.state_dict().items():
        bound = 12 * torch.finfo(torch.float32).eps * 4  # a rounding of 4 at most, the largest value, in each update
        assert (value.double() - slow[name]).abs().max() <= bound, name


def test_the_model_is_left_alone_and_the_average_needs_no_gradient():
    model = make_model()
    average = Average(model, 0.9)
    change(model, 1)
    before = copy.deepcopy(model.state_dict())
    average.update(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training and not average.model.training
    average.model(torch.ones(2, 5))
    assert all(weight.grad is None for weight in average.model.parameters())


def test_an_average_that_goes_on_ends_where_the_unbroken_one_does():
    model, averages = make_model(), []
    unbroken = Average(model, 0.99)
    for update in range(1, 9):
        change(model, update)
        unbroken.update(model)
        if update == 4:
            state = copy.deepcopy(unbroken.state_dict())
            averages = [Average(make_model(), 0.99)]
            averages[0].load_state_dict(state)
        elif averages:
            averages[0].update(model)
    one, two = unbroken.model.state_dict(), averages[0].model.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
