"""Which transformer a name stands for: TransReID's types, and every plain ViT of timm as `timm/<name>`."""

import difflib
import math
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import timm
import torch
from timm.models import is_model_in_modules, split_model_name_tag
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import nn

from utils.errors import ConfigError

TIMM_PREFIX = "timm/"
TIMM_MODULES = ("vision_transformer", "deit")  # where timm keeps plain ViTs
EXAMPLE = "timm/vit_base_patch16_224"
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


def build_trunk(kind: str, overrides: Mapping[str, float], dropping: Dropping) -> TimmVisionTransformer:
    """Return a randomly initialised timm VisionTransformer for MODEL.TRANSFORMER_TYPE `kind`.

    `overrides` holds embed_dim, depth, num_heads, mlp_ratio, patch_size; 0 = the value of the type. Raises ConfigError
    for an unknown type, a timm model that is no plain ViT, and a width that the heads do not divide.
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
        return timm.create_model(kind.removeprefix(TIMM_PREFIX), num_classes=0, **rates, **changed)
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
        name = kind.removeprefix(TIMM_PREFIX)
        if not timm.list_pretrained(name if "." in name else f"{name}.*"):
            raise ConfigError(
                f"MODEL.PRETRAIN_CHOICE imagenet: timm publishes no weights for {name}; "
                "set MODEL.PRETRAIN_CHOICE none, or MODEL.PRETRAIN_PATH to a file"
            )
        return name
    if not VIT_TYPES[kind].hub:
        raise ConfigError(
            f"MODEL.PRETRAIN_PATH is empty and timm's hub has no weights for {kind}; get vit_small_p16_224-15ec54c9.pth"
            " (timm's release v0.1-weights) and set MODEL.PRETRAIN_PATH to it, or MODEL.PRETRAIN_CHOICE none"
        )
    return VIT_TYPES[kind].hub


def _native_sizes(kind: str) -> dict[str, float]:
    """Return the sizes of a type without overrides, by the names of SIZE_KEYS."""
    if not kind.startswith(TIMM_PREFIX):
        if kind not in VIT_TYPES:
            near = difflib.get_close_matches(kind, VIT_TYPES, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"MODEL.TRANSFORMER_TYPE got '{kind}', allowed: {', '.join(VIT_TYPES)} or timm/<name>{hint}"
            )
        return {name: getattr(VIT_TYPES[kind], name) for name in SIZE_KEYS}
    model = _outline(kind.removeprefix(TIMM_PREFIX))
    block = model.blocks[0]
    return {
        "embed_dim": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": block.attn.num_heads,
        "mlp_ratio": block.mlp.fc1.out_features / model.embed_dim,
        "patch_size": model.patch_embed.patch_size[0],
    }


def _outline(name: str) -> TimmVisionTransformer:
    """Return the timm model `name` without memory for its weights, checked to be a plain ViT."""
    architecture, tag = split_model_name_tag(name)
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models('vit*') lists them"
        raise ConfigError(f"MODEL.TRANSFORMER_TYPE: timm has no model '{architecture}'; {hint}")
    published = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in published:
        raise ConfigError(
            f"MODEL.TRANSFORMER_TYPE: timm's {architecture} has no weights '{tag}'; published: {', '.join(published)}"
        )
    model = None
    if is_model_in_modules(architecture, TIMM_MODULES):
        with torch.device("meta"):
            model = timm.create_model(architecture, num_classes=0)
    obstacle = _obstacle(model)
    if obstacle:
        raise ConfigError(
            f"MODEL.TRANSFORMER_TYPE: timm/{architecture} has {obstacle}; a plain ViT with a class token is needed, "
            f"e.g. {EXAMPLE}"
        )
    return model


def _obstacle(model: nn.Module | None) -> str:
    """Return what keeps a timm model from being a plain ViT with class token, or ''."""
    if type(model) is not TimmVisionTransformer:
        return "another architecture (or further tokens) than timm's VisionTransformer"
    obstacles = {
        "no class token": not model.has_class_token,
        "register tokens": model.num_reg_tokens > 0,
        f"{model.global_pool} pooling in place of the class token": model.global_pool != "token",
        "no learnt position embedding": model.pos_embed is None,
        "no position for the class token": model.no_embed_class,
        "blocks of another kind": not _has_plain_blocks(model),
    }
    return next((text for text, found in obstacles.items() if found), "")


def _has_plain_blocks(model: TimmVisionTransformer) -> bool:
    block = model.blocks[0]
    return hasattr(block, "attn") and hasattr(block, "mlp") and hasattr(block.mlp, "fc1")


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
