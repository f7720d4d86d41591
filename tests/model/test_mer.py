"""Adapters of several modalities on one layer: their formula, their first values, their gradients, their folding."""

import math

import pytest
import torch
from torch import nn

from model.layers.mer import MERLinear
from tests.model.clip_reids import in_float64
from tests.reference import slow_multimodal as slow
from tests.tolerance import assert_rounded, bounds
from utils.errors import ConfigError

NAMES = ("vis", "nir", "sk")
WIDTH, HEIGHT, RANK = 10, 7, 3


def make_layer(alpha: float = 1.5, drawn: bool = True, bias: bool = True) -> MERLinear:
    torch.manual_seed(0)
    layer = MERLinear(nn.Linear(WIDTH, HEIGHT, bias), NAMES, RANK, alpha)
    if drawn:
        for factor in layer.lora_b.values():
            nn.init.normal_(factor)
    return layer


def rows() -> torch.Tensor:
    return torch.randn(4, 5, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradients_are_those_of_the_formula(name, frozen):
    layer, x = make_layer(), rows().requires_grad_()
    layer.weight.requires_grad_(not frozen)
    exact_x, exact = rows().double().requires_grad_(), {n: v.requires_grad_() for n, v in in_float64(layer).items()}
    expected = slow.mer(exact_x, {f"m.{n}": v for n, v in exact.items()}, "m", name, 1.5 / RANK)
    got = layer(x, name)
    assert_rounded(got.detach(), expected.detach(), terms=WIDTH)
    got.cos().sum().backward()
    expected.cos().sum().backward()
    assert_rounded(x.grad, exact_x.grad, terms=4 * WIDTH)
    for weight, value in layer.named_parameters():
        used = "lora" not in weight or weight.endswith(f".{name}")
        if (frozen and weight == "weight") or not used:
            assert value.grad is None, weight
        else:
            assert_rounded(value.grad, exact[weight].grad, terms=40 * WIDTH, name=weight)


def test_it_begins_as_the_layer_that_it_adapts():
    torch.manual_seed(0)
    linear = nn.Linear(WIDTH, HEIGHT)
    before = {name: value.clone() for name, value in linear.state_dict().items()}
    layer = MERLinear(linear, NAMES, RANK, 2.0)
    for name in NAMES:
        assert torch.equal(layer(rows(), name), linear(rows()))
        assert layer.lora_a[name].shape == (RANK, WIDTH) and layer.lora_b[name].shape == (HEIGHT, RANK)
        assert not layer.lora_b[name].any()
    assert layer.weight is linear.weight and layer.bias is linear.bias
    assert repr(layer).startswith(f"MERLinear(\n  in_features={WIDTH}, out_features={HEIGHT}, scale={2 / RANK:g}\n")
    assert all(torch.equal(layer.get_parameter(name), value) for name, value in before.items())


def test_first_values_are_uniform_within_one_over_the_root_of_the_width():
    torch.manual_seed(3)
    layer = MERLinear(nn.Linear(400, 300), ("vis", "nir"), 50, 1.0)
    bound = 1 / math.sqrt(400)
    for factor in layer.lora_a.values():
        assert bound * 0.999 < factor.abs().max() <= bound
        assert factor.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)  # 20,000 draws: 0.5 % is one sigma
    assert not torch.equal(layer.lora_a["vis"], layer.lora_a["nir"])


def test_names_are_those_of_the_layer_and_one_pair_for_each_modality():
    expected = {"weight", "bias", *(f"lora_{kind}.{name}" for kind in "ab" for name in NAMES)}
    assert set(make_layer().state_dict()) == expected
    assert set(make_layer(bias=False).state_dict()) == expected - {"bias"}


@pytest.mark.parametrize("name", NAMES)
def test_folded_weight_gives_the_same_values(name):
    layer = make_layer()
    folded = layer.merged(name)
    assert not folded.requires_grad
    exact = nn.functional.linear(rows(), folded, layer.bias)
    torch.testing.assert_close(layer(rows(), name), exact, **bounds(WIDTH, 10.0))


def test_another_modality_is_another_layer():
    layer = make_layer()
    assert not torch.allclose(layer(rows(), "vis"), layer(rows(), "nir"))


@pytest.mark.parametrize("ask", ["forward", "merged"])
def test_unknown_modality_is_quoted(ask):
    layer = make_layer()
    with pytest.raises(ValueError, match="'cp' has no adapters here; there are .*vis"):
        layer(rows(), "cp") if ask == "forward" else layer.merged("cp")


@pytest.mark.parametrize("rank", [0, 8])
def test_rank_that_the_layer_cannot_have_is_refused(rank):
    with pytest.raises(ConfigError, match=rf"MODEL.MULTIMODAL.RANK got {rank}, allowed: 1 to 7 for a layer from 10"):
        MERLinear(nn.Linear(WIDTH, HEIGHT), NAMES, rank, 1.0)
