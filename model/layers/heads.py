"""Necks and identity heads. Heads with a margin return cosines; the margin itself belongs to the loss."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from utils.errors import ConfigError
from utils.precision import at_least_float32, without_autocast

PROJECTION_HIDDEN, PROJECTION_WIDTH = 2048, 128  # as in Model B's checkpoints


def make_neck(width: int, norm: type[nn.BatchNorm1d] = nn.BatchNorm1d) -> nn.BatchNorm1d:
    """Return a BNNeck [B, D] -> [B, D], a `norm` whose bias stays 0.

    Reference: Luo et al., Bag of Tricks and A Strong Baseline for Deep Person Re-identification, CVPRW 2019.
    """
    neck = norm(width)
    neck.bias.requires_grad_(False)
    return neck


def make_linear(width: int, num_class: int) -> nn.Linear:
    """Return the softmax head [B, D] -> logits [B, C], without bias, weights from N(0, 0.001)."""
    head = nn.Linear(width, num_class, bias=False)
    nn.init.normal_(head.weight, std=0.001)
    return head


def make_projection(width: int) -> nn.Sequential:
    """Return SupCon's projection head [B, D] -> [B, 128], not normalised: Linear, ReLU, Linear in torch's first values.

    Reference: Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, section 3.1.
    """
    return nn.Sequential(nn.Linear(width, PROJECTION_HIDDEN), nn.ReLU(), nn.Linear(PROJECTION_HIDDEN, PROJECTION_WIDTH))


class CosineHead(nn.Module):
    """Cosines in [-1, 1] between features [B, D] and the class weights: [B, C], at least float32 under autocast."""

    def __init__(self, width: int, num_class: int, init: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_class, width))
        init(self.weight)

    def forward(self, feat: torch.Tensor) -> torch.Tensor:
        return cosine(feat, self.weight)


class AMSoftmaxHead(nn.Module):
    """As CosineHead, with the class weights in the columns of `W` [D, C], TransReID's layout for amsoftmax."""

    def __init__(self, width: int, num_class: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(width, num_class))
        nn.init.xavier_normal_(self.W)

    def forward(self, feat: torch.Tensor) -> torch.Tensor:
        return cosine(feat, self.W.t())


def cosine(feat: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the cosines [B, C] of feat [B, D] and weight [C, D]; half types are raised to float32."""
    with without_autocast(feat):
        feat = at_least_float32(feat)
        return F.linear(F.normalize(feat, dim=1), F.normalize(weight.to(feat.dtype), dim=1))


def _circle(width: int, num_class: int) -> CosineHead:
    return CosineHead(width, num_class, lambda weight: nn.init.kaiming_uniform_(weight, a=math.sqrt(5)))


def _xavier(width: int, num_class: int) -> CosineHead:
    return CosineHead(width, num_class, nn.init.xavier_uniform_)


HEADS: dict[str, Callable[[int, int], nn.Module]] = {
    "softmax": make_linear,
    "arcface": _xavier,
    "cosface": _xavier,
    "amsoftmax": AMSoftmaxHead,
    "circle": _circle,
}


def make_head(kind: str, width: int, num_class: int) -> nn.Module:
    """Return the identity head [B, D] -> [B, C] that MODEL.ID_LOSS_TYPE names; ConfigError for an unknown one."""
    if kind not in HEADS:
        raise ConfigError(f"MODEL.ID_LOSS_TYPE got '{kind}', allowed: {', '.join(HEADS)}")
    return HEADS[kind](width, num_class)
