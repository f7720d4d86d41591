"""What guesses masked words from words and patches: a cross encoder and its head, in IRRA's first values.

Reference: Jiang and Ye, Cross-Modal Implicit Relation Reasoning and Aligning for Text-to-Image Person Retrieval, CVPR
2023, section 3.2.
"""

from collections import OrderedDict

import torch
from torch import nn

from utils.errors import ConfigError

HEAD_WIDTH = 64


def heads_of(width: int) -> int:
    """Return the heads of attention over tokens of `width`, one for 64; ConfigError where they do not divide it."""
    heads = max(1, width // HEAD_WIDTH)
    if width % heads:
        raise ConfigError(
            f"MODEL.CLIP_BACKBONE: {heads} heads of the cross encoder do not divide its embed_dim {width}; take a "
            f"multiple of {HEAD_WIDTH}"
        )
    return heads


def output_std(width: int, depth: int) -> float:
    """Return the standard deviation of first weights that write into a stream of `depth` blocks."""
    return width**-0.5 * (2 * depth) ** -0.5


def make_cross_attention(width: int, depth: int) -> nn.MultiheadAttention:
    """Return attention of words [B, L, width] on patches, which `depth` blocks follow."""
    attention = nn.MultiheadAttention(width, heads_of(width), batch_first=True)
    _draw_attention(attention, width, depth)
    return attention


def make_cross_blocks(width: int, depth: int) -> nn.Module:
    """Return open_clip's transformer of `depth` blocks over words [B, L, width]: QuickGELU, hidden width 4 x width."""
    from open_clip.transformer import QuickGELU, Transformer

    blocks = Transformer(width, depth, heads_of(width), act_layer=QuickGELU)
    for block in blocks.resblocks:
        _draw_attention(block.attn, width, depth)
        nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(block.mlp.c_proj.weight, std=output_std(width, depth))
    return blocks


def make_word_head(width: int, depth: int, vocab_size: int) -> nn.Sequential:
    """Return the head [M, width] -> logits of words [M, vocab_size] behind `depth` blocks."""
    from open_clip.transformer import QuickGELU

    dense, fc = nn.Linear(width, width), nn.Linear(width, vocab_size)
    nn.init.normal_(dense.weight, std=(2 * width) ** -0.5)
    nn.init.normal_(fc.weight, std=output_std(width, depth))
    parts = {"dense": dense, "gelu": QuickGELU(), "ln": nn.LayerNorm(width), "fc": fc}
    return nn.Sequential(OrderedDict(parts))


def padding_mask(ends: torch.Tensor, length: int, heads: int) -> torch.Tensor:
    """Return what is added to attention scores [B * heads, length, length] so that nothing behind `ends` [B] counts."""
    behind = torch.arange(length, device=ends.device) > ends[:, None]  # [B, length]
    mask = torch.zeros(behind.shape, device=ends.device).masked_fill(behind, -torch.inf)
    return mask[:, None, None].expand(-1, heads, length, -1).reshape(-1, length, length)


def _draw_attention(attention: nn.MultiheadAttention, width: int, depth: int) -> None:
    """Draw the weights of an attention anew; its biases are 0 as torch made them."""
    nn.init.normal_(attention.in_proj_weight, std=width**-0.5)
    nn.init.normal_(attention.out_proj.weight, std=output_std(width, depth))
