"""Vision transformers of timm by name: which of them fit, their sizes, and how their weights were trained."""

import difflib
from collections.abc import Mapping
from functools import lru_cache

import timm
import torch
from timm.layers import PatchEmbed
from timm.models import is_model_in_modules, split_model_name_tag
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import nn

from model.backbones.vit import Trunk
from utils.errors import ConfigError

MODULES = ("vision_transformer", "deit", "eva")  # where timm keeps what fits
EXAMPLES = "vit_base_patch16_224, vit_base_patch14_reg4_dinov2, vit_base_patch16_dinov3"


@lru_cache
def native_sizes(name: str) -> Mapping[str, float]:
    """Return embed_dim, depth, num_heads, mlp_ratio and patch_size of the timm model `name`.

    Raises ConfigError for a model or weights that timm does not have, and for a model that is no vision transformer of
    the kinds that fit.
    """
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
    if is_model_in_modules(architecture, MODULES):
        with torch.device("meta"):
            model = timm.create_model(architecture, num_classes=0)
    obstacle = _obstacle(model)
    if obstacle:
        raise ConfigError(
            f"MODEL.TRANSFORMER_TYPE: timm/{architecture} has {obstacle}; a ViT with one stack of blocks is needed, "
            f"e.g. {EXAMPLES}"
        )
    block = model.blocks[0]
    return {
        "embed_dim": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": block.attn.num_heads,
        "mlp_ratio": block.mlp.fc2.in_features / model.embed_dim,
        "patch_size": model.patch_embed.patch_size[0],
    }


def _obstacle(model: nn.Module | None) -> str:
    """Return what keeps a timm model from serving as a trunk, or ''."""
    if type(model) not in (TimmVisionTransformer, Eva):
        return "another architecture than timm's VisionTransformer and Eva"
    block = model.blocks[0]
    norms = [norm for norm in (model.norm, model.fc_norm) if not isinstance(norm, nn.Identity)]
    obstacles = {
        "another stem than one patch embedding": type(model.patch_embed) is not PatchEmbed,
        "blocks of another kind": not all(hasattr(block, part) for part in ("attn", "mlp")),
        "an MLP of another kind": not hasattr(getattr(block, "mlp", None), "fc2"),
        f"{model.global_pool} pooling": model.global_pool not in ("token", "avg", "map"),
        "two norms behind its blocks": len(norms) > 1,
    }
    return next((text for text, found in obstacles.items() if found), "")


def create(name: str, settings: Mapping[str, float]) -> Trunk:
    """Return the timm model `name`, randomly initialised, with sizes and dropout rates by timm's names.

    Raises ConfigError when timm cannot build it with these.
    """
    try:
        return timm.create_model(name, num_classes=0, **settings)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        given = ", ".join(f"{key} {value}" for key, value in settings.items())
        raise ConfigError(
            f"MODEL.TRANSFORMER_TYPE: timm cannot build {name} with {given} ({error or type(error).__name__}); "
            "leave MODEL.VIT, DROP_OUT, ATT_DROP_RATE or DROP_PATH as they are"
        ) from error


def published_name(name: str) -> str:
    """Return the name of timm's published weights for `name`; ConfigError when there are none."""
    if not timm.list_pretrained(name if "." in name else f"{name}.*"):
        raise ConfigError(
            f"MODEL.PRETRAIN_CHOICE imagenet: timm publishes no weights for {name}; "
            "set MODEL.PRETRAIN_CHOICE none, or MODEL.PRETRAIN_PATH to a file"
        )
    return name


def pixel_statistics(name: str) -> tuple[list[float], list[float]]:
    """Return the RGB mean and standard deviation in [0, 1] that timm's weights for `name` were trained with."""
    config = timm.get_pretrained_cfg(name)
    return list(config.mean), list(config.std)
