"""MODEL.NAME irra: IRRA on an open_clip model."""

import logging

from yacs.config import CfgNode

from configs.keys.irra import MASKED_WORDS
from model.backbones.clip_joint import JointClip
from model.backbones.clip_pair import TextUse, clip_pair
from model.families.common import Counts, with_fitted_positions
from model.irra import Irra
from model.weights.irra import BEYOND_THE_TOWERS, IMAGE_POSITIONS, TOWERS
from model.weights.load import load_weights, log_report
from model.weights.pretrained import PATH_KEY, load_rest, source_of
from utils.checkpoint import read_weights
from utils.errors import DataError

logger = logging.getLogger(__name__)

TEXT_USE = TextUse("MODEL.NAME irra", "set another MODEL.NAME")


def make_irra(cfg: CfgNode, counts: Counts, choice: str) -> Irra:
    """Return IRRA on the CLIP of cfg.MODEL, with the parts that the losses of LOSS.TEXT.NAMES need."""
    name, losses = cfg.MODEL.CLIP_BACKBONE, cfg.LOSS.TEXT.NAMES
    clip, grid = clip_pair(
        name,
        cfg.MODEL.CLIP_PRETRAIN,
        cfg.MODEL.CLIP_LOCAL_PATH,
        tuple(cfg.INPUT.SIZE_TRAIN),
        tuple(cfg.MODEL.STRIDE_SIZE),
        text=TEXT_USE,
        weights=choice == "imagenet",
    )
    own = clip.context_length
    model = Irra(
        JointClip(clip, cfg.INPUT.TEXT.LENGTH),
        counts.num_class,
        classifies="id" in losses,
        cross_depth=cfg.MODEL.CMT_DEPTH if MASKED_WORDS in losses else 0,
        mask_padding=cfg.MODEL.CMT_MASK_PADDING,
        mask_caption=cfg.INPUT.TEXT.MASK_CAPTION,
    )
    logger.info(
        "IRRA on %s: %d x %d patches of stride %s, captions of %d tokens, features of width %d; %s",
        *(name, *grid, list(cfg.MODEL.STRIDE_SIZE), model.base_model.length, model.feat_dim),
        f"a cross encoder of {model.cross_depth} blocks" if model.cross_depth else "no cross encoder",
    )
    if own != model.base_model.length:
        logger.warning("INPUT.TEXT.LENGTH %d, but %s reads captions of %d", model.base_model.length, name, own)
    if choice in BEYOND_THE_TOWERS:
        _load_reid_file(cfg, model, grid, choice)
    return model


def _load_reid_file(cfg: CfgNode, model: Irra, grid: tuple[int, int], choice: str) -> None:
    """Load the towers of MODEL.PRETRAIN_PATH and what else PRETRAIN_CHOICE takes of it."""
    path = cfg.MODEL.PRETRAIN_PATH
    rules = model.weight_rules()
    weights = rules.translate(read_weights(path, PATH_KEY))
    refusal = rules.refusal(weights)
    if refusal:
        raise DataError(f"{source_of(path)}{refusal}")
    weights = with_fitted_positions(weights, IMAGE_POSITIONS, model.get_parameter(IMAGE_POSITIONS), grid)
    log_report(load_weights(model, weights, source_of(path), rules.deciding_keys, prefixes=(TOWERS,)))
    if BEYOND_THE_TOWERS[choice]:
        load_rest(model, rules, weights, BEYOND_THE_TOWERS[choice], path)
