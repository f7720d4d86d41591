"""MODEL.NAME multimodal: adapters for each modality on an open_clip model, and the fusion of several."""

import logging

from torch import nn
from yacs.config import CfgNode

from configs.modalities import TEXT
from model.backbones.clip_adapted import AdaptedTower
from model.backbones.clip_joint import JointClip, check_vit
from model.backbones.clip_pair import TextUse, clip_pair
from model.backbones.clip_sources import BACKBONE_KEY, import_open_clip, open_clip_config
from model.families.common import Counts, with_fitted_positions
from model.layers.masked_fusion import MaskedFusion
from model.layers.semantic import SemanticHead
from model.multimodal import MultiModalReID
from model.weights.load import load_weights, log_report
from model.weights.multimodal import BEYOND_THE_TOWERS, POSITIONS, TEXT_TOWER, TOKENIZERS, VISION
from model.weights.pretrained import PATH_KEY, load_rest, source_of
from utils.checkpoint import read_weights
from utils.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

TEXT_USE = TextUse("the modality text of MODEL.NAME multimodal", "leave text out of MODEL.MULTIMODAL.MODALITIES")
HEAD_WIDTH = 64  # of open_clip's attention, where a description does not say another


def make_multimodal(cfg: CfgNode, counts: Counts, choice: str) -> MultiModalReID:
    """Return the model of MODEL.MULTIMODAL on the CLIP of cfg.MODEL."""
    settings, name = cfg.MODEL.MULTIMODAL, cfg.MODEL.CLIP_BACKBONE
    clip, grid = clip_pair(
        name,
        cfg.MODEL.CLIP_PRETRAIN,
        cfg.MODEL.CLIP_LOCAL_PATH,
        tuple(cfg.INPUT.SIZE_TRAIN),
        tuple(cfg.MODEL.STRIDE_SIZE),
        text=TEXT_USE if TEXT in settings.MODALITIES else None,
        weights=choice == "imagenet",
    )
    check_vit(clip.visual)
    _check_heads(name, clip.visual)
    images = [modality for modality in settings.MODALITIES if modality != TEXT]
    vision = AdaptedTower(clip.visual, images, settings.RANK, settings.ALPHA, cfg.MODEL.DROP_PATH)
    text = None
    if TEXT in settings.MODALITIES:
        text = JointClip(clip, cfg.INPUT.TEXT.LENGTH)
        text.remove_image_tower()
    model = MultiModalReID(
        vision,
        text,
        counts.num_class,
        MaskedFusion(vision.width, settings.HEADS, settings.MLP_RATIO, settings.DROPOUT),
        SemanticHead(vision.width, dropout=settings.DROPOUT) if settings.SEMANTIC else None,
        settings.HEAD_DROPOUT,
    )
    logger.info(
        "%s on %s: %d x %d patches of stride %s%s, features of width %d, %d sets of modalities, adapters of rank %d",
        *(", ".join(model.modalities), name, *grid, list(cfg.MODEL.STRIDE_SIZE)),
        *("" if text is None else f", captions of {text.length} tokens", model.feat_dim, len(model.sets)),
        settings.RANK,
    )
    if text is not None and text.length != clip.context_length:
        logger.warning("INPUT.TEXT.LENGTH %d, but %s reads captions of %d", text.length, name, clip.context_length)
    if choice in BEYOND_THE_TOWERS:
        _load_reid_file(cfg, model, grid, choice)
    _freeze(model, text=settings.FREEZE_TEXT, shared=settings.FREEZE_SHARED)
    return model


def _check_heads(backbone: str, visual: nn.Module) -> None:
    """Raise ConfigError where heads of the described width do not fill the tower: others would load without a word."""
    vision = open_clip_config(import_open_clip(), backbone)["vision_cfg"]
    head_width, width = vision.get("head_width", HEAD_WIDTH), visual.conv1.out_channels
    if visual.transformer.resblocks[0].attn.num_heads * head_width != width:
        raise ConfigError(
            f"{BACKBONE_KEY} {backbone}: heads of head_width {head_width} do not fill the width {width} of its "
            "vision_cfg; set a head_width that divides it"
        )


def _freeze(model: MultiModalReID, text: bool, shared: bool) -> None:
    """Let CLIP's own weights in the text tower, or in what all images go through, keep their values."""
    frozen = tuple(tower for tower, asked in ((TEXT_TOWER, text), (VISION, shared)) if asked)
    for name, weight in model.named_parameters():
        if name.startswith(frozen) and model.part_of(name).kind == "trunk":
            weight.requires_grad_(False)


def _load_reid_file(cfg: CfgNode, model: MultiModalReID, grid: tuple[int, int], choice: str) -> None:
    """Load the towers of MODEL.PRETRAIN_PATH and what else PRETRAIN_CHOICE takes of it."""
    path = cfg.MODEL.PRETRAIN_PATH
    rules = model.weight_rules()
    weights = rules.translate(read_weights(path, PATH_KEY))
    refusal = rules.refusal(weights)
    if refusal:
        raise DataError(f"{source_of(path)}{refusal}")
    for modality in model.vision.tokenizers:
        name = f"{TOKENIZERS}{modality}{POSITIONS}"
        weights = with_fitted_positions(weights, name, model.get_parameter(name), grid)
    log_report(load_weights(model, weights, source_of(path), rules.deciding_keys, prefixes=(VISION, TEXT_TOWER)))
    if BEYOND_THE_TOWERS[choice]:
        load_rest(model, rules, weights, BEYOND_THE_TOWERS[choice], path)
