"""Choices, ranges and rules between keys: everything that can be known wrong before data or weights are read."""

import difflib
import math
import sys
from collections.abc import Iterable, Iterator

from yacs.config import CfgNode

from configs.clip_rules import find_clip_problems
from configs.limits import (
    CHOICES,
    DEFAULT_PATCH_SIZE,
    LENGTHS,
    MAY_BE_ZERO,
    RANGES,
    TIMM_PREFIX,
    TRANSFORMER_TYPES,
)
from configs.schedule import Problem, center_weight, find_schedule_problems, resolve


def find_problems(cfg: CfgNode) -> list[Problem]:
    """Return every rule that `cfg` breaks, as (keys concerned, one line that says what to do)."""
    problems = [*_bad_choices(cfg), *_bad_ranges(cfg)]
    if problems:  # the rules between keys presume that each key is sound
        return problems
    problems = [*_model_rules(cfg), *find_clip_problems(cfg), *_input_rules(cfg), *_data_rules(cfg)]
    schedule = [*_ssl_rules(cfg), *find_schedule_problems(cfg)]
    return [*problems, *(schedule or _loss_rules(cfg))]


def value_of(cfg: CfgNode, key: str):
    """Return the value of a dotted key."""
    node = cfg
    for part in key.split("."):
        node = node[part]
    return node


def _bad_choices(cfg: CfgNode) -> Iterator[Problem]:
    for key, allowed in CHOICES.items():
        value = value_of(cfg, key)
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if item not in allowed:
                near = [name for name in allowed if name.lower() == str(item).lower()]
                near += difflib.get_close_matches(str(item), allowed, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                yield (key,), f"{key} got '{item}', allowed: {', '.join(allowed)}{hint}"


def _bad_ranges(cfg: CfgNode) -> Iterator[Problem]:
    for key, length in LENGTHS.items():
        value = value_of(cfg, key)
        if len(value) != length:
            yield (key,), f"{key} got {value}, expected {length} numbers"
        elif not all(math.isfinite(item) and (item > 0 or key in MAY_BE_ZERO) for item in value):
            yield (key,), f"{key} got {value}, expected numbers above 0"
    for key, (lowest, highest) in RANGES.items():
        value = value_of(cfg, key)
        items = value if isinstance(value, list) else [value]
        most = sys.float_info.max if highest is None else highest
        if not all(lowest <= item <= most for item in items):  # NaN is in no range
            bounds = f"at least {lowest}" if highest is None else f"{lowest} to {highest}"
            yield (key,), f"{key} got {value}, allowed: {bounds}"


def _model_rules(cfg: CfgNode) -> Iterator[Problem]:
    model = cfg.MODEL
    if model.PRETRAIN_CHOICE in ("self", "finetune") and not model.PRETRAIN_PATH:
        yield (
            ("MODEL.PRETRAIN_CHOICE",),
            f"MODEL.PRETRAIN_CHOICE {model.PRETRAIN_CHOICE} needs the checkpoint's path in MODEL.PRETRAIN_PATH",
        )
    if model.NAME == "transformer":
        yield from _transformer_rules(cfg)
        return
    for key in ("JPM", "SIE_CAMERA", "SIE_VIEW"):
        if model[key]:
            yield (f"MODEL.{key}",), f"MODEL.{key} True needs MODEL.NAME transformer, got {model.NAME}"
    for key, off in (("MODEL.LORA.RANK", 0), ("MODEL.FREEZE_BLOCKS", 0), ("SOLVER.LAYER_DECAY", 1.0)):
        value = value_of(cfg, key)
        if value != off:
            yield (key,), f"{key} {value} needs the blocks of MODEL.NAME transformer, got {model.NAME}; set it to {off}"


def _transformer_rules(cfg: CfgNode) -> Iterator[Problem]:
    kind = cfg.MODEL.TRANSFORMER_TYPE
    if not kind.startswith(TIMM_PREFIX) and kind not in TRANSFORMER_TYPES:
        near = difflib.get_close_matches(kind, TRANSFORMER_TYPES, n=1)
        yield (
            ("MODEL.TRANSFORMER_TYPE",),
            f"MODEL.TRANSFORMER_TYPE got '{kind}', allowed: {', '.join(TRANSFORMER_TYPES)} or timm/<name of a timm ViT>"
            + (f"; did you mean {near[0]}?" if near else ""),
        )
    if list(cfg.INPUT.SIZE_TRAIN) != list(cfg.INPUT.SIZE_TEST):
        yield (
            ("INPUT.SIZE_TRAIN", "INPUT.SIZE_TEST"),
            f"INPUT.SIZE_TEST {cfg.INPUT.SIZE_TEST} differs from INPUT.SIZE_TRAIN {cfg.INPUT.SIZE_TRAIN}; "
            "a transformer's position embedding has one size, so set both alike",
        )
    vit = cfg.MODEL.VIT
    if vit.EMBED_DIM and vit.NUM_HEADS and vit.EMBED_DIM % vit.NUM_HEADS:
        yield (
            ("MODEL.VIT.EMBED_DIM", "MODEL.VIT.NUM_HEADS"),
            f"MODEL.VIT.EMBED_DIM {vit.EMBED_DIM} is not a multiple of MODEL.VIT.NUM_HEADS {vit.NUM_HEADS}",
        )
    if cfg.MODEL.LORA.RANK and not cfg.MODEL.LORA.TARGETS:
        yield (
            ("MODEL.LORA.RANK", "MODEL.LORA.TARGETS"),
            f"MODEL.LORA.RANK {cfg.MODEL.LORA.RANK} adapts no layer: MODEL.LORA.TARGETS is empty; name some "
            "(attn, mlp, attn.qkv, ...), or set RANK to 0",
        )
    if not kind.startswith(TIMM_PREFIX) or vit.PATCH_SIZE:
        yield from _grid_rules(cfg, vit.PATCH_SIZE or DEFAULT_PATCH_SIZE)


def _grid_rules(cfg: CfgNode, patch: int) -> Iterator[Problem]:
    stride, size = cfg.MODEL.STRIDE_SIZE, cfg.INPUT.SIZE_TRAIN
    keys = ("MODEL.STRIDE_SIZE", "MODEL.VIT.PATCH_SIZE", "INPUT.SIZE_TRAIN")
    if max(stride) > patch:
        yield keys, f"MODEL.STRIDE_SIZE {stride} exceeds the patch size {patch}, so pixels would be skipped"
        return
    if min(size) < patch:
        yield keys, f"INPUT.SIZE_TRAIN {size} is smaller than one patch of {patch} x {patch} pixels"
        return
    rows, columns = ((side - patch) // step + 1 for side, step in zip(size, stride, strict=True))
    if cfg.MODEL.JPM and rows * columns < cfg.MODEL.DEVIDE_LENGTH:
        yield (
            ("MODEL.JPM", "MODEL.DEVIDE_LENGTH", *keys),
            f"MODEL.JPM divides {rows * columns} patches ({rows} x {columns}) into MODEL.DEVIDE_LENGTH "
            f"{cfg.MODEL.DEVIDE_LENGTH} branches; use larger images, a smaller stride or fewer branches",
        )
    if cfg.MODEL.JPM and cfg.MODEL.RE_ARRANGE and rows * columns < cfg.MODEL.SHIFT_NUM:
        yield (
            ("MODEL.SHIFT_NUM", *keys),
            f"MODEL.SHIFT_NUM {cfg.MODEL.SHIFT_NUM} exceeds the {rows * columns} patches ({rows} x {columns})",
        )


def _input_rules(cfg: CfgNode) -> Iterator[Problem]:
    steps = cfg.SOLVER.STEPS
    if cfg.SOLVER.SCHEDULER == "multistep" and (list(steps) != sorted(set(steps)) or min(steps, default=1) < 1):
        yield ("SOLVER.STEPS",), f"SOLVER.STEPS got {steps}, expected ascending epochs from 1"
    if cfg.SOLVER.BASE_LR == 0:
        yield ("SOLVER.BASE_LR",), "SOLVER.BASE_LR is 0, so nothing would be learnt"


def _loss_rules(cfg: CfgNode) -> Iterator[Problem]:
    center = center_weight(cfg) > 0
    idle = [
        epoch
        for epoch in range(1, cfg.SOLVER.MAX_EPOCHS + 1)
        if not (center or any(resolve(cfg, epoch).weights.values()))
    ]
    if idle:
        yield (
            (
                *("DATALOADER.SAMPLER", "MODEL.METRIC_LOSS_TYPE", "MODEL.ID_LOSS_WEIGHT", "MODEL.TRIPLET_LOSS_WEIGHT"),
                *("LOSS.PHASED.METRIC_SEQ", "LOSS.PHASED.W_METRIC_SEQ", "LOSS.PHASED.W_SUP_SPEC"),
            ),
            f"no loss is left in epoch {_some(map(str, idle), 3)}: DATALOADER.SAMPLER {cfg.DATALOADER.SAMPLER}, "
            f"MODEL.METRIC_LOSS_TYPE {cfg.MODEL.METRIC_LOSS_TYPE}, MODEL.ID_LOSS_WEIGHT {cfg.MODEL.ID_LOSS_WEIGHT}, "
            f"MODEL.TRIPLET_LOSS_WEIGHT {cfg.MODEL.TRIPLET_LOSS_WEIGHT}, LOSS.SUPCON.ENABLE {cfg.LOSS.SUPCON.ENABLE}, "
            f"LOSS.PHASED.ENABLE {cfg.LOSS.PHASED.ENABLE}",
        )
    if cfg.LOSS.SUPCON.ENABLE and cfg.LOSS.SUPCON.DARK_GAMMA > 1 and not cfg.LOSS.BRIGHTNESS.ENABLE:
        yield (
            ("LOSS.SUPCON.DARK_GAMMA", "LOSS.BRIGHTNESS.ENABLE"),
            f"LOSS.SUPCON.DARK_GAMMA {cfg.LOSS.SUPCON.DARK_GAMMA} boosts dark images, which only "
            "LOSS.BRIGHTNESS.ENABLE True tells apart; set it, or DARK_GAMMA 1.0",
        )


def _ssl_rules(cfg: CfgNode) -> Iterator[Problem]:
    views = cfg.INPUT.SSL
    for name in ("CROP_SCALE", "CROP_RATIO"):
        if views[name][0] > views[name][1]:
            yield (f"INPUT.SSL.{name}",), f"INPUT.SSL.{name} got {views[name]}, expected [lowest, highest]"
    if views.JITTER[3] > 0.5:
        yield ("INPUT.SSL.JITTER",), f"INPUT.SSL.JITTER got hue {views.JITTER[3]}, expected 0 to 0.5 turns"
    if cfg.MODEL.TRAINING_MODE != "self_supervised":
        return
    if cfg.DATALOADER.SAMPLER != "random":
        yield (
            ("MODEL.TRAINING_MODE", "DATALOADER.SAMPLER"),
            f"MODEL.TRAINING_MODE self_supervised knows no identities to sample by, so DATALOADER.SAMPLER "
            f"{cfg.DATALOADER.SAMPLER} cannot serve; set it to random",
        )
    for key, on, why in (
        ("LOSS.BRIGHTNESS.ENABLE", cfg.LOSS.BRIGHTNESS.ENABLE, "there is no metric loss to route; set it False"),
        (
            "MODEL.JPM",
            cfg.MODEL.JPM,
            "SupCon trains no local branch; set it False (a run with JPM can start from it)",
        ),
        ("SOLVER.CENTER_LOSS_WEIGHT", center_weight(cfg) > 0, "the centre loss needs identities; set it to 0"),
    ):
        if on:
            yield ("MODEL.TRAINING_MODE", key), f"MODEL.TRAINING_MODE self_supervised with {key}: {why}"
    if not cfg.LOSS.SUPCON.ENABLE:
        yield (
            ("MODEL.TRAINING_MODE", "LOSS.SUPCON.ENABLE"),
            "MODEL.TRAINING_MODE self_supervised trains with SupCon alone; set LOSS.SUPCON.ENABLE True",
        )


def _data_rules(cfg: CfgNode) -> Iterator[Problem]:
    names = cfg.DATASETS.NAMES
    if not names or len(set(names)) != len(names):
        yield ("DATASETS.NAMES",), f"DATASETS.NAMES got {names}, expected one or several different data sets"
    tests = cfg.DATASETS.TESTS
    if len(set(tests)) != len(tests):
        yield ("DATASETS.TESTS",), f"DATASETS.TESTS got {tests}, expected different data sets"
    if cfg.DATASETS.VAL_IDS and not cfg.SOLVER.EVAL_PERIOD:
        yield (
            ("DATASETS.VAL_IDS", "SOLVER.EVAL_PERIOD"),
            f"DATASETS.VAL_IDS {cfg.DATASETS.VAL_IDS} holds identities out to pick an epoch by, but SOLVER.EVAL_PERIOD "
            "0 never looks at them; set a period, or VAL_IDS 0",
        )
    if cfg.DATASETS.VAL_IDS and cfg.MODEL.TRAINING_MODE == "self_supervised":
        yield (
            ("DATASETS.VAL_IDS", "MODEL.TRAINING_MODE"),
            f"DATASETS.VAL_IDS {cfg.DATASETS.VAL_IDS} needs identities, which MODEL.TRAINING_MODE self_supervised does "
            "not use; set it to 0",
        )
    if "table" in (*names, *tests) and not cfg.DATASETS.TABLE:
        yield (
            ("DATASETS.NAMES", "DATASETS.TABLE"),
            "the data set 'table' needs the CSV's path in DATASETS.TABLE (columns path,pid,camid,viewid,split)",
        )
    if cfg.DATASETS.VEHICLEID_TEST_SIZE not in (800, 1600, 2400):
        yield (
            ("DATASETS.VEHICLEID_TEST_SIZE",),
            f"DATASETS.VEHICLEID_TEST_SIZE got {cfg.DATASETS.VEHICLEID_TEST_SIZE}, allowed: 800, 1600, 2400",
        )


def _some(values: Iterable[str], most: int = 8) -> str:
    values = list(values)
    return ", ".join(values[:most]) + (", ..." if len(values) > most else "")
