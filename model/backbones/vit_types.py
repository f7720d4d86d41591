"""Which transformer a name stands for: TransReID's types, and the vision transformers of timm as `timm/<name>`."""

import difflib
import math
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import nn

from model.backbones import timm_trunks
from model.backbones.vit import Trunk
from utils.errors import ConfigError

TIMM_PREFIX = "timm/"
SIZE_KEYS = {
    "embed_dim": "MODEL.VIT.EMBED_DIM",
    "depth": "MODEL.VIT.DEPTH",
    "num_heads": "MODEL.VIT.NUM_HEADS",
    "mlp_ratio": "MODEL.VIT.MLP_RATIO",
    "patch_size": "MODEL.VIT.PATCH_SIZE",
}


class VitType(NamedTuple):
    """One of TransReID's transformers; `hub` names timm's published weights, '' = there are none."""

    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float
    hub: str
    patch_size: int = 16
    qkv_bias: bool = True
    width_scale: bool = False  # attention scale width^-1/2 in place of (width / heads)^-1/2


VIT_TYPES = {
    "vit_tiny_patch16_224_TransReID": VitType(192, 12, 3, 4.0, "vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
    "vit_small_patch16_224_TransReID": VitType(768, 8, 8, 3.0, "", qkv_bias=False, width_scale=True),
    "vit_base_patch16_224_TransReID": VitType(768, 12, 12, 4.0, "vit_base_patch16_224.orig_in21k_ft_in1k"),
    "deit_tiny_patch16_224_TransReID": VitType(192, 12, 3, 4.0, "deit_tiny_distilled_patch16_224.fb_in1k"),
    "deit_small_patch16_224_TransReID": VitType(384, 12, 6, 4.0, "deit_small_distilled_patch16_224.fb_in1k"),
    "deit_base_patch16_224_TransReID": VitType(768, 12, 12, 4.0, "deit_base_distilled_patch16_224.fb_in1k"),
}


class Dropping(NamedTuple):
    """Rates in [0, 1): dropout after projections, of attention weights, and stochastic depth of the last block."""

    out: float = 0.0
    attention: float = 0.0
    path: float = 0.0


class QueryScale(nn.Module):
    """Multiply the queries by a constant: another attention scale for fused kernels, which know only their own."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, query: torch.Tensor) -> torch.Tensor:
        return query * self.factor


def build_trunk(kind: str, overrides: Mapping[str, float], dropping: Dropping) -> Trunk:
    """Return a randomly initialised trunk of timm's classes for MODEL.TRANSFORMER_TYPE `kind`.

    `overrides` holds embed_dim, depth, num_heads, mlp_ratio, patch_size; 0 = the value of the type. Raises ConfigError
    for an unknown type, a timm model that is no such ViT, and a width that the heads do not divide.
    """
    own = _native_sizes(kind)
    sizes = {name: overrides.get(name) or value for name, value in own.items()}
    if sizes["embed_dim"] % sizes["num_heads"]:
        raise ConfigError(
            f"MODEL.VIT.NUM_HEADS: {sizes['num_heads']} heads do not divide the width {sizes['embed_dim']} "
            f"(MODEL.VIT.EMBED_DIM, {kind}); set both so that they do"
        )
    rates = {
        "proj_drop_rate": dropping.out,
        "attn_drop_rate": dropping.attention,
        "drop_path_rate": dropping.path,
    }
    if kind.startswith(TIMM_PREFIX):
        changed = {name: value for name, value in sizes.items() if value != own[name]}
        return timm_trunks.create(kind.removeprefix(TIMM_PREFIX), {**rates, **changed})
    return _build_transreid(VIT_TYPES[kind], sizes, rates)


def published_weights(kind: str, overrides: Mapping[str, float]) -> str:
    """Return timm's name of the ImageNet weights for this type; ConfigError when none fit, saying what to do."""
    own = _native_sizes(kind)
    changed = [SIZE_KEYS[name] for name, value in own.items() if overrides.get(name) and overrides[name] != value]
    if changed:
        raise ConfigError(
            f"MODEL.PRETRAIN_CHOICE imagenet: no published weights fit {kind} with another {', '.join(changed)}; "
            "set MODEL.PRETRAIN_CHOICE none, or MODEL.PRETRAIN_PATH to weights of this size"
        )
    if kind.startswith(TIMM_PREFIX):
        return timm_trunks.published_name(kind.removeprefix(TIMM_PREFIX))
    if not VIT_TYPES[kind].hub:
        raise ConfigError(
            f"MODEL.PRETRAIN_PATH is empty and timm's hub has no weights for {kind}; get vit_small_p16_224-15ec54c9.pth"
            " (timm's release v0.1-weights) and set MODEL.PRETRAIN_PATH to it, or MODEL.PRETRAIN_CHOICE none"
        )
    return VIT_TYPES[kind].hub


def _native_sizes(kind: str) -> Mapping[str, float]:
    """Return the sizes of a type without overrides, by the names of SIZE_KEYS."""
    if kind.startswith(TIMM_PREFIX):
        return timm_trunks.native_sizes(kind.removeprefix(TIMM_PREFIX))
    if kind not in VIT_TYPES:
        near = difflib.get_close_matches(kind, VIT_TYPES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"MODEL.TRANSFORMER_TYPE got '{kind}', allowed: {', '.join(VIT_TYPES)} or timm/<name>{hint}")
    return {name: getattr(VIT_TYPES[kind], name) for name in SIZE_KEYS}


def _build_transreid(kind: VitType, sizes: Mapping[str, float], rates: Mapping[str, float]) -> TimmVisionTransformer:
    patch_size = sizes["patch_size"]
    trunk = TimmVisionTransformer(
        img_size=patch_size,  # the position embedding is made for the true grid by whoever uses the trunk
        num_classes=0,
        qkv_bias=kind.qkv_bias,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        weight_init="skip",
        **sizes,
        **rates,
    )
    if kind.width_scale:
        for block in trunk.blocks:  # timm divides by sqrt(width / heads)
            block.attn.q_norm = QueryScale(sizes["num_heads"] ** -0.5)
    for module in trunk.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(trunk.cls_token, std=0.02)
    nn.init.trunc_normal_(trunk.pos_embed, std=0.02)
    nn.init.normal_(trunk.patch_embed.proj.weight, std=math.sqrt(2 / (patch_size**2 * sizes["embed_dim"])))
    return trunk
