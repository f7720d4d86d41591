"""From the tokens of a transformer to one feature: its last block, the norm and the pooling."""

from typing import NamedTuple

import torch
from torch import nn


class Pooling(NamedTuple):
    """How the tokens [B, T, D] become a feature [B, D]."""

    kind: str = "token"  # token (the first one) | avg | map (attention pooling)
    first: int = 0  # avg, map: the first token that is pooled
    norm_last: bool = False  # avg: the norm sees the mean, not the tokens


class Branch(nn.Sequential):
    """Tokens [B, T, D] -> feature [B, D] by a block, a norm and, for attention pooling, its module, in this order."""

    def __init__(self, pooling: Pooling, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.pooling = pooling

    def forward(self, tokens: torch.Tensor, rotation: torch.Tensor | None = None) -> torch.Tensor:
        """Return [B, D]; `rotation` is as in `run_block`."""
        block, *tail = self
        return pool(run_block(block, tokens, rotation), self.pooling, *tail)


def run_block(block: nn.Module, tokens: torch.Tensor, rotation: torch.Tensor | None = None) -> torch.Tensor:
    """Return tokens [B, T, D] after one of timm's blocks.

    `rotation` is the rotary position embedding (sines and cosines) of the patches among the tokens: [N, 2d],
    [heads, N, 2d] or [B, 1 or heads, N, 2d] for d dimensions of a head. None for a block that takes none.
    """
    return block(tokens) if rotation is None else block(tokens, rope=rotation)


def pool(tokens: torch.Tensor, how: Pooling, norm: nn.Module, attn_pool: nn.Module | None = None) -> torch.Tensor:
    """Return the feature [B, D] of tokens [B, T, D] after the last block."""
    if how.kind == "token":
        return norm(tokens[:, 0])
    if how.kind == "map":
        return attn_pool(norm(tokens)[:, how.first :])
    if how.norm_last:
        return norm(tokens[:, how.first :].mean(dim=1))
    return norm(tokens)[:, how.first :].mean(dim=1)
