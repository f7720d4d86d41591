"""open_clip's image towers for any grid of patches: features of three levels, side information, all tokens.

References: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021; Li et al.,
CLIP-ReID, AAAI 2023.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from model.backbones.vit import patch_grid
from model.weights.convert import resize_pos_embed
from utils.errors import ConfigError

if TYPE_CHECKING:
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.transformer import ResidualAttentionBlock
    from open_clip.transformer import VisionTransformer as ClipViT

RESNET_STRIDE = 16  # of the last stage here; CLIP's own is 32


class Levels(NamedTuple):
    """Features of one image tower, for B images."""

    last: torch.Tensor  # [B, W'] of the last but one layer, not normalised
    own: torch.Tensor  # [B, W] of the last layer
    projected: torch.Tensor  # [B, D] in the space of CLIP's texts


def is_resnet(visual: nn.Module) -> bool:
    """Return whether a tower of open_clip is a ModifiedResNet."""
    return hasattr(visual, "attnpool")


def fit_tower(visual: nn.Module, size: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int]:
    """Give a tower of open_clip the grid of images of `size` and patches of `stride`, (y, x) in pixels; return it.

    A ViT's patches overlap where the stride is smaller than they are, the last stage of a ResNet does not stride. The
    position table is drawn anew where it has other rows than the grid. Raises ConfigError for a tower that has other
    parts than CLIP's, and for patches that do not fit.
    """
    if is_resnet(visual):
        first = visual.layer4[0]
        first.avgpool, first.downsample[0] = nn.Identity(), nn.Identity()
        grid = (size[0] // RESNET_STRIDE, size[1] // RESNET_STRIDE)
        _fit_positions(visual.attnpool, grid)
        return grid
    _check_vit(visual)
    grid = patch_grid(size, tuple(visual.conv1.kernel_size), stride)
    visual.conv1.stride = stride
    _fit_positions(visual, grid)
    return grid


def positions_of(visual: nn.Module) -> str:
    """Return the name of a tower's position table."""
    return "attnpool.positional_embedding" if is_resnet(visual) else "positional_embedding"


def resized(table: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Return a position table [1 + N, W] for a grid of (rows, columns); one of that many rows stays as it is.

    The first row is kept, the others are resized as TransReID's: bilinear, not antialiased.
    """
    if len(table) == 1 + grid[0] * grid[1]:
        return table
    return resize_pos_embed(table[None], grid)[0]


def _fit_positions(owner: nn.Module, grid: tuple[int, int]) -> None:
    rows, width = 1 + grid[0] * grid[1], owner.positional_embedding.shape[1]
    if len(owner.positional_embedding) != rows:
        owner.positional_embedding = nn.Parameter(torch.randn(rows, width) * width**-0.5)


def _check_vit(visual: nn.Module) -> None:
    from open_clip.transformer import ResidualAttentionBlock
    from open_clip.transformer import VisionTransformer as ClipViT

    known = isinstance(visual, ClipViT) and visual.attn_pool is None and visual.pool_type == "tok"
    known = (
        known and not visual.final_ln_after_pool and visual.proj is not None and len(visual.transformer.resblocks) > 1
    )
    if not known or not all(type(block) is ResidualAttentionBlock for block in visual.transformer.resblocks):
        raise ConfigError(
            "MODEL.CLIP_BACKBONE names an image tower without CLIP's class token, blocks and projection; only "
            "open_clip's own ViTs and ResNets can be trained here"
        )


def widths_of(visual: nn.Module) -> tuple[int, int]:
    """Return the widths (W, D) of `Levels.own` and `Levels.projected`."""
    if is_resnet(visual):
        return visual.attnpool.c_proj.in_features, visual.attnpool.c_proj.out_features
    return tuple(visual.proj.shape)


def levels(visual: nn.Module, images: torch.Tensor, side: torch.Tensor | None = None) -> Levels:
    """Return the features of images [B, 3, H, W] from a tower that `fit_tower` fitted.

    `side` [B, 1, W] joins the class token of a ViT before positions and norm.
    """
    return _resnet_levels(visual, images) if is_resnet(visual) else _vit_levels(visual, images, side)


def joint_tokens(visual: "ClipViT", images: torch.Tensor) -> torch.Tensor:
    """Return the class token and all patches of images [B, 3, H, W] in the space of CLIP's texts: [B, 1 + N, D]."""
    tokens = visual.transformer.resblocks[-1](_before_the_last_block(visual, images, None))
    return visual.ln_post(tokens) @ visual.proj


def _vit_levels(visual: "ClipViT", images: torch.Tensor, side: torch.Tensor | None) -> Levels:
    tokens = _before_the_last_block(visual, images, side)
    own = visual.ln_post(row_behind(visual.transformer.resblocks[-1], tokens, 0))
    return Levels(tokens[:, 0], own, own @ visual.proj)


def _before_the_last_block(visual: "ClipViT", images: torch.Tensor, side: torch.Tensor | None) -> torch.Tensor:
    patches = visual.conv1(images).flatten(2).transpose(1, 2)  # [B, N, W]
    first = visual.class_embedding.expand(patches.shape[0], 1, -1)  # not len: exported graphs take any B
    first = first if side is None else first + side
    tokens = visual.ln_pre(torch.cat([first, patches], dim=1) + visual.positional_embedding)
    for block in list(visual.transformer.resblocks)[:-1]:
        tokens = block(tokens)
    return tokens


def row_behind(block: "ResidualAttentionBlock", tokens: torch.Tensor, place: int) -> torch.Tensor:
    """Return the row `place` [B, W] of what a block makes of tokens [B, T, W], where that row sees all of them."""
    normal = block.ln_1(tokens)
    row = tokens[:, place : place + 1]
    row = row + block.ls_1(block.attn(normal[:, place : place + 1], normal, normal, need_weights=False)[0])
    return (row + block.ls_2(block.mlp(block.ln_2(row)))).squeeze(1)


def _resnet_levels(visual: "ModifiedResNet", images: torch.Tensor) -> Levels:
    last = visual.layer3(visual.layer2(visual.layer1(visual.stem(images))))
    own = visual.layer4(last)  # [B, W, h, w]
    return Levels(last.mean((2, 3)), own.mean((2, 3)), _attention_pool(visual.attnpool, own))


def _attention_pool(pool: nn.Module, maps: torch.Tensor) -> torch.Tensor:
    """Return what the mean of maps [B, W, h, w] reads from them and itself: [B, D], the only row that is used."""
    tokens = maps.flatten(2).permute(2, 0, 1)  # [N, B, W]
    tokens = torch.cat([tokens.mean(0, keepdim=True), tokens]) + pool.positional_embedding[:, None]
    return F.multi_head_attention_forward(
        query=tokens[:1],
        key=tokens,
        value=tokens,
        embed_dim_to_check=tokens.shape[-1],
        num_heads=pool.num_heads,
        in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=pool.c_proj.weight,
        out_proj_bias=pool.c_proj.bias,
        need_weights=False,
        use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
    )[0].squeeze(0)
