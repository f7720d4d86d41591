"""Stochastic depth that saves time: on a CPU, what it drops is not computed.

On a GPU the number of kept images would have to reach the host first, so there timm's own masks stay.
Reference: Huang et al., Deep Networks with Stochastic Depth, ECCV 2016, section 3.
"""

from collections.abc import Callable

import torch
from timm.layers import DropPath
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import nn

from model.layers.class_token import is_watched, scaled


def skips_dropped(block: nn.Module, tokens: torch.Tensor, rotation: torch.Tensor | None) -> bool:
    """Return whether `run_kept` can do this block and gains anything: one of timm's that drops images, on a CPU.

    A block with hooks has to run whole.
    """
    if type(block) not in (Block, EvaBlock) or not block.training or tokens.device.type != "cpu" or is_watched(block):
        return False
    drops = [drop for drop in (block.drop_path1, block.drop_path2) if isinstance(drop, DropPath)]
    shared_rotation = rotation is None or rotation.dim() < 4  # not one for each image
    return bool(drops) and shared_rotation and not torch.compiler.is_compiling()


def run_kept(block: nn.Module, tokens: torch.Tensor, rotation: torch.Tensor | None = None) -> torch.Tensor:
    """Return tokens [B, T, D] after a block that `skips_dropped`.

    x_i + f(x_i) / (1 - p) for the images that are kept, each with probability 1 - p and anew for attention and MLP, and
    x_i for the others, as timm's DropPath does it. `rotation` is as in `model.layers.pooling.run_block`.
    """
    options = {} if rotation is None else {"rope": rotation}
    tokens = _add(tokens, block.drop_path1, lambda x: scaled(block, 1, block.attn(block.norm1(x), **options)))
    return _add(tokens, block.drop_path2, lambda x: scaled(block, 2, block.mlp(block.norm2(x))))


def add_update(
    tokens: torch.Tensor,
    drop: nn.Module,
    update: Callable[[torch.Tensor], torch.Tensor],
    seen: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return tokens [B, T, D] + drop(update(seen)), `seen` [B, ...] the tokens themselves where it is left out.

    `drop` is timm's DropPath or passes everything on. In training on a CPU `update` gets the kept images alone.
    """
    skips = isinstance(drop, DropPath) and drop.training and tokens.device.type == "cpu"
    if skips and not torch.compiler.is_compiling():
        return _add(tokens, drop, update, seen)
    return tokens + drop(update(tokens if seen is None else seen))


def _add(
    tokens: torch.Tensor,
    drop: nn.Module,
    update: Callable[[torch.Tensor], torch.Tensor],
    seen: torch.Tensor | None = None,
) -> torch.Tensor:
    seen = tokens if seen is None else seen
    if not isinstance(drop, DropPath):
        return tokens + update(seen)
    keep = 1 - drop.drop_prob
    kept = (torch.rand(len(tokens)) < keep).nonzero().squeeze(1)
    if len(kept) == len(tokens):
        return torch.add(tokens, update(seen), alpha=1 / keep)
    if len(kept) == 0:  # one image times 0: timm's layers need not take an empty batch, and each weight has a gradient
        return torch.add(tokens, update(seen[:1]), alpha=0)
    return tokens.index_add(0, kept, update(seen[kept]).to(tokens.dtype), alpha=1 / keep)
