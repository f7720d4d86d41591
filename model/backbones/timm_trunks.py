"""Vision transformers of timm by name: which of them fit, their sizes, and weight files by timm's names."""

import contextlib
import difflib
import io
import math
from collections.abc import Mapping
from functools import lru_cache

import timm
import torch
from timm.layers import PatchEmbed
from timm.models import eva, is_model_in_modules, split_model_name_tag, vision_transformer
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import nn

from model.backbones.vit import Trunk
from model.convert import Weights, resize_pos_embed, without_distillation
from utils.errors import ConfigError, DataError

MODULES = ("vision_transformer", "deit", "eva")  # where timm keeps what fits
AUTHORS_NAMES = ("mask_token", "register_tokens", "storage_tokens")  # in files that are not by timm's names
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


def by_timm_names(weights: Weights, trunk: Trunk, grid: tuple[int, int], source: str) -> Weights:
    """Return the trunk in a file of timm or of the authors (DINOv2, DINOv3, CLIP, EVA, SigLIP, ...) by timm's names.

    `trunk` is timm's model as it was created and converts the names. The position embedding is resized to `grid` (rows,
    columns) as timm does it, bicubic with antialiasing; a distilled DeiT's slot of its second token is dropped. Raises
    DataError, opened by `source`, for a file that timm cannot make anything of.
    """
    convert = (eva if isinstance(trunk, Eva) else vision_transformer).checkpoint_filter_fn
    weights = {name.removeprefix("backbone."): value for name, value in weights.items()}
    num_prefix = 0 if trunk.no_embed_class else trunk.num_prefix_tokens
    positions = None  # timm would take those of its own layout to the grid of `trunk` first
    if not any(name in weights for name in AUTHORS_NAMES):
        positions = weights.pop("pos_embed", None)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # timm prints about each bias that a DINOv3 does not have
            converted = convert(weights, trunk)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{source} does not fit MODEL.TRANSFORMER_TYPE: timm cannot convert it ({reason})") from error
    if positions is not None and positions.dim() == 3:
        fits = positions.shape[1] == num_prefix + math.prod(grid)
        if num_prefix == 1 and not fits:
            positions = without_distillation(positions, "dist_token" in weights)
    positions = converted.pop("pos_embed", None) if positions is None else positions
    if positions is not None:
        if (
            positions.dim() == 3
            and positions.shape[1] > num_prefix
            and positions.shape[1] != num_prefix + math.prod(grid)
        ):
            positions = resize_pos_embed(positions, grid, num_prefix=num_prefix, mode="bicubic", antialias=True)
        converted["pos_embed"] = positions
    return {name: value for name, value in converted.items() if not name.startswith(("head.", "head_dist."))}
