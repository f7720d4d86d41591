"""CLIP's two towers together, as systems train them that read its text side too."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from model.backbones.clip_levels import fit_tower, positions_of, resized
from model.backbones.clip_sources import (
    BACKBONE_KEY,
    PATH_KEY,
    import_open_clip,
    open_clip_config,
    published_cfg,
    understood,
    uses_quick_gelu,
    weight_file,
)
from model.weights.clip_names import openai_names
from model.weights.load import load_weights, log_report
from utils.checkpoint import read_weights
from utils.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

TEXT_SETTINGS = ("hf_model_name", "hf_tokenizer_name", "embed_cls", "proj_bias")  # of text towers that are not CLIP's
STUMP = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}  # of a text tower nobody reads
UNUSED = ("logit_scale", "logit_bias")
VISUAL = "visual."
TEXT_BLOCKS = "transformer.resblocks."


class TextUse(NamedTuple):
    """Why a text tower is built, for messages."""

    reader: str  # what needs it
    instead: str  # what to do without it


def clip_pair(
    backbone: str,
    tag: str,
    local_path: str,
    size: tuple[int, int],
    stride: tuple[int, int],
    text: TextUse | None,
    weights: bool,
) -> tuple[nn.Module, tuple[int, int]]:
    """Return (open_clip's model, grid of its image tower fitted to images of `size` and patches of `stride`).

    `backbone`, `tag` and `local_path` as in `clip_sources.open_clip_tower`; files may have the names of OpenAI,
    open_clip, Hugging Face or CLIP-ReID. Without `text` the text tower is a stump. `weights` False leaves the first,
    random ones. Raises ConfigError for names, sizes and downloads that do not work and a description without the text
    tower that is asked for, DataError for a file that does not fit.
    """
    open_clip = import_open_clip()
    config = open_clip_config(open_clip, backbone)
    published = published_cfg(open_clip, backbone, tag, local_path)
    text_cfg = STUMP if text is None else _text_settings(config, backbone, text)
    with understood(f"{BACKBONE_KEY} {backbone} cannot be built"):
        clip = open_clip.CLIP(
            config["embed_dim"], config["vision_cfg"], text_cfg, quick_gelu=uses_quick_gelu(config, published)
        )
    is_given = bool(local_path or tag)
    table = None
    if weights and is_given:
        source = f"{PATH_KEY} '{local_path}'" if local_path else f"{backbone} with MODEL.CLIP_PRETRAIN '{tag}'"
        table = _load(clip, weight_file(open_clip, backbone, tag, published, local_path), source, text is not None)
    elif weights:
        logger.info("%s: its weights are random, MODEL.CLIP_LOCAL_PATH and MODEL.CLIP_PRETRAIN are empty", backbone)
    grid = fit_tower(clip.visual, size, stride)
    if table is not None:
        positions = clip.visual.get_parameter(positions_of(clip.visual))
        with torch.no_grad():
            positions.copy_(_fitting(table, positions, grid))
    return clip, grid


def _text_settings(config: dict[str, Any], backbone: str, text: TextUse) -> dict[str, Any]:
    text_cfg = config.get("text_cfg")
    if not isinstance(text_cfg, dict):
        raise ConfigError(
            f"{BACKBONE_KEY}: '{backbone}' describes no text tower (text_cfg), which {text.reader} cannot do without; "
            f"add it, or {text.instead}"
        )
    others = [name for name in TEXT_SETTINGS if text_cfg.get(name)]
    if others:
        raise ConfigError(
            f"{BACKBONE_KEY} {backbone}: its text tower is not CLIP's own ({', '.join(others)}), which "
            f"{text.reader} cannot do without; {text.instead}, or take another CLIP"
        )
    return text_cfg


def _load(clip: nn.Module, path: Path, source: str, text: bool) -> torch.Tensor:
    """Load the weights of a file, the image tower alone without `text`; return its position table, which is not."""
    weights = openai_names(read_weights(path, source))
    name = f"{VISUAL}{positions_of(clip.visual)}"
    table = weights.pop(name, None)
    prefixes = ("",) if text else (VISUAL,)

    def deciding_keys(weight: str) -> str:
        return "" if weight == name or weight in UNUSED else f"{BACKBONE_KEY} decides it"

    report = load_weights(clip, weights, source, deciding_keys, prefixes=prefixes)
    unknown = [weight for weight in report.surplus if weight.startswith((VISUAL, TEXT_BLOCKS) if text else VISUAL)]
    if unknown or table is None or table.dim() != 2 or len(table) < 2:
        wrong = (
            f"{unknown[0]} is in the file, but not in this CLIP" if unknown else f"{name} is not a table in the file"
        )
        raise DataError(f"{source}: {wrong}; {BACKBONE_KEY} decides it")
    log_report(report._replace(missing=(), surplus=report.surplus if text else ()))
    return table


def _fitting(table: torch.Tensor, positions: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    if table.shape[1] != positions.shape[1]:
        raise DataError(
            f"{PATH_KEY}: the position table is {table.shape[1]} wide in the file, but {positions.shape[1]} in this "
            f"CLIP; {BACKBONE_KEY} decides it"
        )
    return resized(table, grid)
