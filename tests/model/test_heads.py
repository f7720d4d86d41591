"""Initial weights of the identity heads."""

import math

import pytest
import torch

from model.layers.heads import cosine, make_head, make_neck

WIDTH, CLASSES = 64, 400


@pytest.mark.parametrize(
    ("kind", "std"),
    [
        ("softmax", 0.001),
        ("arcface", math.sqrt(2 / (WIDTH + CLASSES))),
        ("cosface", math.sqrt(2 / (WIDTH + CLASSES))),
        ("amsoftmax", math.sqrt(2 / (WIDTH + CLASSES))),
        ("circle", math.sqrt(1 / (3 * WIDTH))),
    ],
)
def test_initial_spread_is_transreids(kind, std):
    torch.manual_seed(0)
    (weight,) = make_head(kind, WIDTH, CLASSES).parameters()
    assert weight.std().item() == pytest.approx(std, rel=0.03)
    assert abs(weight.mean().item()) < std / 20


@pytest.mark.parametrize(("kind", "uniform"), [("arcface", True), ("amsoftmax", False), ("circle", True)])
def test_uniform_heads_are_bounded_and_normal_ones_are_not(kind, uniform):
    torch.manual_seed(0)
    (weight,) = make_head(kind, WIDTH, CLASSES).parameters()
    assert (weight.abs().max() <= math.sqrt(3) * weight.std() * 1.05) == uniform


def test_cosine_of_hand_computed_vectors():
    feat = torch.tensor([[3.0, 4.0], [0.0, -2.0]])
    weight = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    torch.testing.assert_close(cosine(feat, weight), torch.tensor([[0.6, 0.8], [0.0, -1.0]]))


def test_cosine_raises_half_types_and_keeps_float64():
    weight = torch.randn(3, 4)
    assert cosine(torch.randn(2, 4).bfloat16(), weight).dtype == torch.float32
    assert cosine(torch.randn(2, 4).double(), weight).dtype == torch.float64


def test_cosine_of_a_zero_feature_is_zero():
    assert torch.equal(cosine(torch.zeros(1, 4), torch.randn(3, 4)), torch.zeros(1, 3))


def test_neck_bias_is_frozen_at_zero():
    neck = make_neck(8)
    assert not neck.bias.requires_grad and neck.weight.requires_grad
    assert torch.equal(neck.bias, torch.zeros(8))
