"""Closed choices, ranges and rules between keys: everything that can be known wrong before data or weights are read."""

import difflib
import math
import sys
from collections.abc import Iterable, Iterator

from yacs.config import CfgNode

from configs.schedule import METRICS, Problem, find_schedule_problems, resolve

TRANSFORMER_TYPES = tuple(
    f"{family}_{size}_patch16_224_TransReID" for family in ("vit", "deit") for size in ("tiny", "small", "base")
)
TIMM_PREFIX = "timm/"
DEFAULT_PATCH_SIZE = 16  # of every TransReID type
FILTERS = ("bicubic", "bilinear", "lanczos")
YES_NO = ("yes", "no")
FEAT_SRCS = ("pre_bn", "bnneck")

CHOICES = {
    "MODEL.DEVICE": ("auto", "cuda", "mps", "cpu"),
    "MODEL.TRAINING_MODE": ("supervised", "self_supervised"),
    "MODEL.NAME": ("transformer", "resnet50"),
    "MODEL.RESNET_STEM": ("standard", "transreid"),
    "MODEL.PRETRAIN_CHOICE": ("none", "imagenet", "self", "finetune", "resume"),
    "MODEL.NECK": ("bnneck", "no"),
    "MODEL.IF_WITH_CENTER": YES_NO,
    "MODEL.ID_LOSS_TYPE": ("softmax", "arcface", "cosface", "amsoftmax", "circle"),
    "MODEL.METRIC_LOSS_TYPE": ("triplet", "center", "triplet_center", "none"),
    "MODEL.IF_LABELSMOOTH": ("on", "off"),
    "INPUT.FILTER_TRAIN": FILTERS,
    "INPUT.FILTER_TEST": FILTERS,
    "DATASETS.NAMES": (
        "market1501",
        "dukemtmc",
        "occ_duke",
        "msmt17",
        "msmt17_v2",
        "veri",
        "VehicleID",
        "table",
        "synthetic",
    ),
    "DATASETS.UNLABELLED_VIEW": ("drop", "neutral"),
    "DATALOADER.SAMPLER": ("softmax", "softmax_triplet", "triplet", "random"),
    "SOLVER.OPTIMIZER_NAME": (
        *("SGD", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop"),
    ),
    "SOLVER.SCHEDULER": ("cosine", "multistep"),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
    "SOLVER.AMP": ("auto", "off", "fp16", "bf16"),
    **dict.fromkeys(("LOSS.TRIPLET.FEAT_SRC", "LOSS.TRIPLETX.FEAT_SRC", "LOSS.SUPCON.FEAT_SRC"), FEAT_SRCS),
    "LOSS.SUPCON.POS_RULE": ("class", "class+camera"),
    "LOSS.SUPCON.DECAY_TYPE": ("linear", "const", "exp"),
    "LOSS.PHASED.METRIC_SEQ": METRICS,
    "LOSS.BRIGHTNESS.MODE": ("hard", "soft"),
    "LOSS.BRIGHTNESS.BRANCHES": ("all", "global"),
    "LOSS.BRIGHTNESS.SOURCE": ("augmented", "clean"),
    "TEST.NECK_FEAT": ("before", "after"),
    "TEST.FEAT_NORM": YES_NO,
}

# (lowest, highest) allowed value, both included; None = open
RANGES = {
    **dict.fromkeys(
        ("MODEL.DROP_PATH", "MODEL.DROP_OUT", "MODEL.ATT_DROP_RATE", "LOSS.TRIPLET.HARD_FACTOR"), (0, 0.99)
    ),
    **dict.fromkeys(("INPUT.PROB", "INPUT.RE_PROB", "LOSS.GLOBAL_WEIGHT", "TEST.RERANK.LAMBDA"), (0, 1)),
    **dict.fromkeys(("MODEL.ID_LOSS_WEIGHT", "MODEL.TRIPLET_LOSS_WEIGHT", "MODEL.SIE_COE", "SOLVER.MARGIN"), (0, None)),
    **dict.fromkeys(
        ("MODEL.VIT.EMBED_DIM", "MODEL.VIT.DEPTH", "MODEL.VIT.NUM_HEADS", "MODEL.VIT.MLP_RATIO"), (0, None)
    ),
    **dict.fromkeys(("MODEL.SHIFT_NUM", "MODEL.SHUFFLE_GROUP", "MODEL.DEVIDE_LENGTH"), (1, None)),
    **dict.fromkeys(("INPUT.PADDING", "DATALOADER.NUM_WORKERS", "MODEL.VIT.PATCH_SIZE"), (0, None)),
    **dict.fromkeys(("DATALOADER.NUM_INSTANCE", "SOLVER.MAX_EPOCHS", "SOLVER.IMS_PER_BATCH"), (1, None)),
    **dict.fromkeys(("SOLVER.LOG_PERIOD", "SOLVER.ACCUM_STEPS", "TEST.IMS_PER_BATCH", "TEST.MAX_RANK"), (1, None)),
    **dict.fromkeys(("TEST.RERANK.K1", "TEST.RERANK.K2", "TEST.VEHICLEID_TRIALS"), (1, None)),
    **dict.fromkeys(("SOLVER.CHECKPOINT_PERIOD", "SOLVER.EVAL_PERIOD", "SOLVER.WARMUP_EPOCHS"), (0, None)),
    **dict.fromkeys(("SOLVER.BASE_LR", "SOLVER.CENTER_LR", "SOLVER.CENTER_LOSS_WEIGHT"), (0, None)),
    **dict.fromkeys(("SOLVER.WEIGHT_DECAY", "SOLVER.WEIGHT_DECAY_BIAS", "SOLVER.GRAD_CLIP"), (0, None)),
    **dict.fromkeys(("SOLVER.FC_LR_FACTOR", "SOLVER.BIAS_LR_FACTOR", "SOLVER.COSINE_MARGIN"), (0, None)),
    **dict.fromkeys(("SOLVER.MIN_LR_FACTOR", "SOLVER.WARMUP_FACTOR", "SOLVER.GAMMA", "SOLVER.MOMENTUM"), (0, 1)),
    **dict.fromkeys(("LOSS.TRIPLETX.W", "LOSS.TRIPLETX.MARGIN", "LOSS.TRIPLETX.ALPHA"), (0, None)),
    **dict.fromkeys(("LOSS.TRIPLETX.WARMUP_EPOCHS", "LOSS.SUPCON.W", "LOSS.SUPCON.W0"), (0, None)),
    **dict.fromkeys(("LOSS.SUPCON.DECAY_START", "LOSS.SUPCON.DECAY_END"), (0, None)),
    **dict.fromkeys(("LOSS.TRIPLETX.SAME_CAM_NEG_BOOST", "LOSS.SUPCON.DARK_GAMMA", "LOSS.TRIPLETX.K"), (1, None)),
    **dict.fromkeys(("LOSS.SUPCON.T", "LOSS.BRIGHTNESS.K"), (1e-6, None)),
    **dict.fromkeys(("LOSS.BRIGHTNESS.THRESH", "INPUT.SSL.JITTER_PROB", "INPUT.SSL.GREY_PROB"), (0, 1)),
    "INPUT.SSL.CROP_SCALE": (1e-3, 1),
    "INPUT.SSL.CROP_RATIO": (0.1, 10),
    "INPUT.SSL.JITTER": (0, 1),
    "LOSS.PHASED.W_METRIC_SEQ": (0, None),
    "LOSS.PHASED.TRIPLETX_END": (-1, None),
    **dict.fromkeys(
        ("DATALOADER.PHASED.K_WHEN_TRIPLETX", "DATALOADER.PHASED.K_WHEN_SUPCON", "DATALOADER.PHASED.K_OTHER"), (1, None)
    ),
    "LOSS.LABEL_SMOOTH_EPS": (0, 0.99),
    "SOLVER.COSINE_SCALE": (1e-3, None),
    "MODEL.LAST_STRIDE": (1, 2),
    "SOLVER.SEED": (0, 2**32 - 1),
}
LENGTHS = {
    **dict.fromkeys(("MODEL.STRIDE_SIZE", "INPUT.SIZE_TRAIN", "INPUT.SIZE_TEST"), 2),
    **dict.fromkeys(("INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD"), 3),
    **dict.fromkeys(("INPUT.SSL.CROP_SCALE", "INPUT.SSL.CROP_RATIO"), 2),
    "INPUT.SSL.JITTER": 4,
}
MAY_BE_ZERO = ("INPUT.PIXEL_MEAN", "INPUT.SSL.JITTER")


def find_problems(cfg: CfgNode) -> list[Problem]:
    """Return every rule that `cfg` breaks, as (keys concerned, one line that says what to do)."""
    problems = [*_bad_choices(cfg), *_bad_ranges(cfg)]
    if problems:  # the rules between keys presume that each key is sound
        return problems
    problems = [*_model_rules(cfg), *_input_rules(cfg), *_data_rules(cfg)]
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
        most = sys.float_info.max if highest is None else highest
        if not all(
            lowest <= item <= most for item in (value if isinstance(value, list) else [value])
        ):  # NaN is in none
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
    wants_center = cfg.MODEL.IF_WITH_CENTER == "yes" or "center" in cfg.MODEL.METRIC_LOSS_TYPE
    center = wants_center and cfg.SOLVER.CENTER_LOSS_WEIGHT > 0
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
            f"MODEL.TRIPLET_LOSS_WEIGHT {cfg.MODEL.TRIPLET_LOSS_WEIGHT}, LOSS.PHASED.ENABLE {cfg.LOSS.PHASED.ENABLE}",
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
    if cfg.LOSS.BRIGHTNESS.ENABLE:
        yield (
            ("MODEL.TRAINING_MODE", "LOSS.BRIGHTNESS.ENABLE"),
            "MODEL.TRAINING_MODE self_supervised has no metric loss to route; set LOSS.BRIGHTNESS.ENABLE False",
        )
    if not cfg.LOSS.SUPCON.ENABLE:
        yield (
            ("MODEL.TRAINING_MODE", "LOSS.SUPCON.ENABLE"),
            "MODEL.TRAINING_MODE self_supervised trains with SupCon alone; set LOSS.SUPCON.ENABLE True",
        )


def _data_rules(cfg: CfgNode) -> Iterator[Problem]:
    names = cfg.DATASETS.NAMES
    if not names or len(set(names)) != len(names):
        yield ("DATASETS.NAMES",), f"DATASETS.NAMES got {names}, expected one or several different data sets"
    if "table" in names and not cfg.DATASETS.TABLE:
        yield (
            ("DATASETS.NAMES", "DATASETS.TABLE"),
            "DATASETS.NAMES table needs the CSV's path in DATASETS.TABLE (columns path,pid,camid,viewid,split)",
        )
    if cfg.DATASETS.VEHICLEID_TEST_SIZE not in (800, 1600, 2400):
        yield (
            ("DATASETS.VEHICLEID_TEST_SIZE",),
            f"DATASETS.VEHICLEID_TEST_SIZE got {cfg.DATASETS.VEHICLEID_TEST_SIZE}, allowed: 800, 1600, 2400",
        )


def _some(values: Iterable[str], most: int = 8) -> str:
    values = list(values)
    return ", ".join(values[:most]) + (", ..." if len(values) > most else "")
