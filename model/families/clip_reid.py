"""MODEL.NAME clip_reid, ViT-B-16, RN50: CLIP-ReID on an open_clip model."""

import logging

from yacs.config import CfgNode

from configs.clip_reid import clip_of, needs_text, prompt_of
from configs.keys.clip_reid import STAGE1
from configs.rules.clip_reid import resnet_problems
from configs.stages import stages_of
from model.backbones.clip_levels import is_resnet, positions_of
from model.backbones.clip_pair import TextUse, clip_pair
from model.backbones.clip_text import PromptLearner, TextEncoder, make_sentence
from model.clip_reid import ClipReID
from model.families.common import Counts, head_settings, side_count, with_fitted_positions
from model.weights.clip_reid import BEYOND_THE_TOWER, PROMPTS, TEXT, TOWER
from model.weights.load import Weights, load_weights, log_report
from model.weights.pretrained import PATH_KEY, load_rest, source_of
from utils.checkpoint import read_weights
from utils.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

CLS_CTX = f"{PROMPTS}cls_ctx"
TEXT_USE = TextUse("the stages stage1 and stage2", "set SOLVER.STAGES ['main']")


def make_clip_reid(cfg: CfgNode, counts: Counts, choice: str) -> ClipReID:
    """Return CLIP-ReID on the CLIP of cfg.MODEL, with prompts and text tower where a stage needs them."""
    name, tag = clip_of(cfg)
    with_text = needs_text(cfg)
    clip, grid = clip_pair(
        name,
        tag,
        cfg.MODEL.CLIP_LOCAL_PATH,
        tuple(cfg.INPUT.SIZE_TRAIN),
        tuple(cfg.MODEL.STRIDE_SIZE),
        text=TEXT_USE if with_text else None,
        weights=choice == "imagenet",
    )
    if is_resnet(clip.visual):
        for _, text in resnet_problems(cfg):  # of a .json only its tower tells
            raise ConfigError(text)
    sides = (
        side_count(cfg.MODEL.SIE_CAMERA, counts.camera_num, "MODEL.SIE_CAMERA", "camera"),
        side_count(cfg.MODEL.SIE_VIEW, counts.view_num, "MODEL.SIE_VIEW", "view"),
        cfg.MODEL.SIE_COE,
    )
    text = None
    if with_text:
        count = cfg.MODEL.PROMPT_TOKENS
        sentence = make_sentence(prompt_of(cfg), count, clip)
        text = (TextEncoder(clip), PromptLearner(counts.num_class, count, sentence, clip.token_embedding))
    model = ClipReID(clip.visual, text=text, sides=sides, **head_settings(cfg, counts.num_class))
    logger.info(
        "CLIP-ReID on %s: %d x %d %s, features of width %s, %d side information rows; %s",
        *(name, *grid, "positions" if model.depth == 0 else f"patches of stride {list(cfg.MODEL.STRIDE_SIZE)}"),
        *(" + ".join(map(str, model.branches.values())), model.side_rows),
        f"prompts '{prompt_of(cfg)}' with {cfg.MODEL.PROMPT_TOKENS} tokens" if with_text else "without text",
    )
    if choice in BEYOND_THE_TOWER:
        _load_reid_file(cfg, model, grid, choice)
    return model


def _load_reid_file(cfg: CfgNode, model: ClipReID, grid: tuple[int, int], choice: str) -> None:
    """Load the image tower of MODEL.PRETRAIN_PATH and what else PRETRAIN_CHOICE takes of it."""
    path = cfg.MODEL.PRETRAIN_PATH
    weights, rules = read_weights(path, PATH_KEY), model.weight_rules()
    refusal = rules.refusal(weights)
    if refusal:
        raise DataError(f"{source_of(path)}{refusal}")
    positions = f"{TOWER}{positions_of(model.image_encoder)}"
    weights = with_fitted_positions(weights, positions, model.get_parameter(positions), grid)
    log_report(load_weights(model, weights, source_of(path), rules.deciding_keys, prefixes=(TOWER,)))
    if model.has_text:
        _check_text(cfg, model, weights)
    load_rest(model, rules, weights, BEYOND_THE_TOWER[choice], path)


def _check_text(cfg: CfgNode, model: ClipReID, weights: Weights) -> None:
    """Raise DataError where a file lacks what the stages need of its text side, or has other prompts than they need."""
    source, ours = source_of(cfg.MODEL.PRETRAIN_PATH), model.state_dict()
    needed = [name for name in ours if name.startswith((TEXT, f"{PROMPTS}token_"))]
    lacking = [name for name in needed if name not in weights or weights[name].shape != ours[name].shape]
    if lacking:
        raise DataError(
            f"{source}: its {lacking[0]} is missing or of another shape, but the stages {', '.join(stages_of(cfg))} "
            "need its text tower and sentence; name a file of stage 1 or of both stages, with its MODEL.PROMPT, or set "
            "SOLVER.STAGES ['main']"
        )
    deeper = [name for name in weights if name.startswith(TEXT) and name not in ours]
    if deeper:
        raise DataError(f"{source}: {deeper[0]} is in the file, but not in this model; MODEL.CLIP_BACKBONE decides it")
    if STAGE1 in stages_of(cfg) or cfg.MODEL.PRETRAIN_CHOICE != "finetune":
        return
    prompts, wanted = weights.get(CLS_CTX), ours[CLS_CTX]
    if prompts is None or prompts.shape != wanted.shape:
        has = "no prompts" if prompts is None else f"prompts {list(prompts.shape)}"
        raise DataError(
            f"{source} has {has}, SOLVER.STAGES ['stage2'] needs those of this training set, {list(wanted.shape)} "
            "(identities, MODEL.PROMPT_TOKENS, width of the text tower); train stage1 on it first"
        )
