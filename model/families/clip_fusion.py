"""From cfg.MODEL.CLIP_* to a model with CLIP's image tower."""

import logging
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from model.backbones.clip import Normalisation, Tower
from model.backbones.clip_sources import hf_tower, open_clip_tower
from model.clip_transreid import ClipTransReID, Concatenation, GatedFusion, MinimalFusion, RefineFusion
from utils.errors import ConfigError

logger = logging.getLogger(__name__)

FUSIONS = {  # (MODEL.CLIP_IMPL, MODEL.CLIP_FUSION) -> model
    ("open_clip", "minimal"): MinimalFusion,
    ("open_clip", "quickwin"): GatedFusion,
    ("open_clip", "concat"): Concatenation,
    ("hf", "minimal"): RefineFusion,
    ("hf", "concat"): Concatenation,
}


def make_fused(cfg: CfgNode, base: nn.Module, common: dict[str, Any], trained_elsewhere: bool = False) -> ClipTransReID:
    """Return TransReID(base, **common) with the CLIP tower and the fusion of cfg.MODEL.

    `trained_elsewhere`: a checkpoint will bring all that is trained, so that a trained tower needs no weights of its
    own. Trunk and heads get the first weights that the same seed gives without CLIP. Raises ConfigError or DataError
    for a tower that cannot be built or found.
    """
    kind = (cfg.MODEL.CLIP_IMPL, cfg.MODEL.CLIP_FUSION)
    if kind not in FUSIONS:
        known = ", ".join(f"{fusion} with CLIP_IMPL {impl}" for impl, fusion in FUSIONS)
        raise ConfigError(f"MODEL.CLIP_FUSION got '{kind[1]}' with CLIP_IMPL '{kind[0]}', known: {known}")
    fusion = FUSIONS[kind]
    trained = cfg.MODEL.CLIP_FINETUNE and fusion is not Concatenation
    with torch.random.fork_rng(devices=[]):
        tower = _make_tower(cfg, weights=not (trained and trained_elsewhere))
    options = {}
    if fusion is RefineFusion:
        options = {"afem": cfg.MODEL.CLIP_USE_AFEM, "refine": cfg.MODEL.CLIP_USE_SEM_REFINE}
    elif fusion is Concatenation:
        options = {"weight": cfg.MODEL.CLIP_CONCAT_WEIGHT}
    pixel = Normalisation(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD)
    logger.info(
        "CLIP tower %s: %s parameters%s, %d x %d pixels, width %d; fusion %s",
        tower.info.source,
        f"{sum(weight.numel() for weight in tower.parameters()):,}",
        "" if trained else " (frozen)",
        *(*tower.info.image_size, tower.info.feat_dim, cfg.MODEL.CLIP_FUSION),
    )
    return fusion(base, tower, trained, pixel, **options, **common)


def _make_tower(cfg: CfgNode, weights: bool) -> Tower:
    size, path = tuple(cfg.MODEL.CLIP_INPUT_SIZE), cfg.MODEL.CLIP_LOCAL_PATH
    if cfg.MODEL.CLIP_IMPL == "open_clip":
        return open_clip_tower(cfg.MODEL.CLIP_BACKBONE, cfg.MODEL.CLIP_PRETRAIN, path, size, weights)
    return hf_tower(cfg.MODEL.CLIP_HF_ID, path, size, weights)
