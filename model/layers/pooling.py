"""From the tokens of a transformer to one feature: its last block, the norm and the pooling."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import nn

from model.layers.class_token import asks_alone, class_token_rows
from model.layers.depth import run_kept, skips_dropped


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
        return end(self, self.pooling, tokens, rotation)


def end(
    layers: Iterable[nn.Module], how: Pooling, tokens: torch.Tensor, rotation: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the feature [B, D] of tokens [B, T, D] by the layers of a `Branch`; `rotation` is as in `run_block`.

    Where only the class token counts, only that is computed.
    """
    block, *tail = layers
    if reads_first_token(block, how):
        return tail[0](class_token_rows(block, tokens, rotation).squeeze(1))
    return pool(run_block(block, tokens, rotation), how, *tail)


def ends_in_groups(
    branch: Branch, tokens: torch.Tensor, groups: torch.Tensor, bias: torch.Tensor, rotation: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the features [B, G, D] of G groups of tokens [B, T, D], each as if the other tokens were not there.

    `groups` are the token numbers [G, L] that each sees, all P prefix tokens first, and `bias` [G, T] is the logarithm
    of how often it sees each. `rotation` is as in `run_block`, for all patches.
    """
    block, *tail = branch
    if reads_first_token(block, branch.pooling):
        return tail[0](class_token_rows(block, tokens, rotation, bias))
    batch_size = tokens.shape[0]  # len(tokens) would be a constant of an exported graph
    parts = tokens.index_select(1, groups.flatten()).reshape(-1, groups.shape[1], tokens.shape[2])  # [B * G, L, D]
    if rotation is not None:
        num_prefix = tokens.shape[1] - rotation.shape[-2]
        turns = rotation[..., groups[:, num_prefix:] - num_prefix, :].movedim(-3, 0)  # [G, L, 2d] or [G, heads, L, 2d]
        rotation = (turns.unsqueeze(1) if turns.dim() == 3 else turns).repeat(batch_size, 1, 1, 1)
    return branch(parts, rotation).unflatten(0, (batch_size, len(groups)))


def reads_first_token(block: nn.Module, how: Pooling) -> bool:
    """Return whether of all that comes out of `block` only the first token is computed."""
    return how.kind == "token" and asks_alone(block)


def run_block(block: nn.Module, tokens: torch.Tensor, rotation: torch.Tensor | None = None) -> torch.Tensor:
    """Return tokens [B, T, D] after one of timm's blocks.

    `rotation` is the rotary position embedding (sines and cosines) of the patches among the tokens: [N, 2d],
    [heads, N, 2d] or [B, 1 or heads, N, 2d] for d dimensions of a head. None for a block that takes none.
    """
    if skips_dropped(block, tokens, rotation):
        return run_kept(block, tokens, rotation)
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
