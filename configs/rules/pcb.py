"""Rules between the keys of PCB, and which keys have no effect there."""

import math
from collections.abc import Iterator

from yacs.config import CfgNode

from configs.keys import KEYS
from configs.keys.pcb import NAME, TINY
from configs.phases import Problem
from configs.values import is_set, value_of

IDLE = (  # keys of other systems, or their beginnings, that this one does not read
    *("MODEL.TRANSFORMER_TYPE", "MODEL.VIT.", "MODEL.NECK", "TEST.NECK_FEAT", "MODEL.DROP_PATH", "MODEL.DROP_OUT"),
    *("MODEL.ATT_DROP_RATE", "MODEL.RE_ARRANGE", "MODEL.SHIFT_NUM", "MODEL.SHUFFLE_GROUP", "MODEL.DEVIDE_LENGTH"),
    *("MODEL.STRIDE_SIZE", "MODEL.SIE_COE"),
)
OF_PARTS = ("PART_DIM", "PART_POOL", "PART_ERASE")
OF_GLOBAL = ("GLOBAL_POOL", "GLOBAL_ERASE")


def find_pcb_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield every rule that `cfg` breaks, as (keys concerned, one line that says what to do)."""
    if cfg.MODEL.NAME != NAME:
        return
    pcb = cfg.MODEL.PCB
    if not pcb.PARTS and not pcb.GLOBAL_DIM:
        yield (
            ("MODEL.PCB.PARTS", "MODEL.PCB.GLOBAL_DIM"),
            "MODEL.PCB.PARTS 0 and GLOBAL_DIM 0 leave no branch; set PARTS to the number of stripes, or GLOBAL_DIM to "
            "the width of a global branch",
        )
    elif pcb.OWN_STAGE4 and not (pcb.PARTS and pcb.GLOBAL_DIM):
        yield (
            ("MODEL.PCB.OWN_STAGE4", "MODEL.PCB.PARTS", "MODEL.PCB.GLOBAL_DIM"),
            f"MODEL.PCB.OWN_STAGE4 True parts the last stage of a global branch from that of the stripes, but PARTS is "
            f"{pcb.PARTS} and GLOBAL_DIM {pcb.GLOBAL_DIM}; set it False, or have both",
        )
    if pcb.GATE and not pcb.GLOBAL_DIM:
        yield (
            ("MODEL.PCB.GATE", "MODEL.PCB.GLOBAL_DIM"),
            "MODEL.PCB.GATE True acts on the global branch, but GLOBAL_DIM is 0; set GATE False, or a width",
        )
    if pcb.PARTS:
        yield from _stripe_problems(cfg)
    yield from _erasing_problems(cfg)
    yield from _trunk_problems(cfg)
    yield from _loss_problems(cfg)


def map_rows(cfg: CfgNode, height: int) -> int:
    """Return the rows of the map of images of `height` pixels, at least 1."""
    tiny, plain_stem = cfg.MODEL.PCB.TRUNK == TINY, cfg.MODEL.RESNET_STEM == "transreid"
    rows = -(-height // 2)  # the first convolution; every stride of 2 rounds up
    if not tiny:
        rows = max(1, rows // 2) if plain_stem else -(-rows // 2)  # the pooling behind it, that of 2x2 rounds down
    return -(-rows // (4 * cfg.MODEL.LAST_STRIDE))  # second, third and last stage


def _stripe_problems(cfg: CfgNode) -> Iterator[Problem]:
    parts, trunk, stride = cfg.MODEL.PCB.PARTS, cfg.MODEL.PCB.TRUNK, cfg.MODEL.LAST_STRIDE
    pixels = (8 if trunk == TINY else 16) * stride * parts  # of all stripes, where each has one row
    for key in ("INPUT.SIZE_TRAIN", "INPUT.SIZE_TEST"):
        height = value_of(cfg, key)[0]
        rows = map_rows(cfg, height)
        if rows % parts:
            below, above = rows // parts * pixels, (rows // parts + 1) * pixels
            yield (
                (key, "MODEL.PCB.PARTS", "MODEL.PCB.TRUNK", "MODEL.LAST_STRIDE"),
                f"{key} {list(value_of(cfg, key))}: the map of {trunk} with MODEL.LAST_STRIDE {stride} has {rows} rows,"
                f" which MODEL.PCB.PARTS {parts} does not divide; set the height to "
                f"{f'{below} or {above}' if below else above}, or another number of stripes",
            )


def _erasing_problems(cfg: CfgNode) -> Iterator[Problem]:
    pcb = cfg.MODEL.PCB
    rows = map_rows(cfg, cfg.INPUT.SIZE_TRAIN[0])
    for name, of, count in (("GLOBAL_ERASE", "GLOBAL_DIM", rows), ("PART_ERASE", "PARTS", rows // (pcb.PARTS or 1))):
        key, ratio = f"MODEL.PCB.{name}", pcb[name]
        if ratio and not pcb[of]:
            yield (key, f"MODEL.PCB.{of}"), f"{key} {ratio:g} erases nothing, for MODEL.PCB.{of} is 0; set it to 0"
        elif 0 < ratio * count < 1:
            yield (
                (key, "INPUT.SIZE_TRAIN", "MODEL.PCB.TRUNK"),
                f"{key} {ratio:g} of {count} rows is less than one row, so nothing would be erased; set it to 0, or to "
                f"{math.ceil(1000 / count) / 1000:g} and above",
            )


def _trunk_problems(cfg: CfgNode) -> Iterator[Problem]:
    if cfg.MODEL.PCB.TRUNK != TINY:
        return
    if cfg.MODEL.PRETRAIN_CHOICE == "imagenet" and not cfg.MODEL.PRETRAIN_PATH:
        yield (
            ("MODEL.PRETRAIN_CHOICE", "MODEL.PCB.TRUNK"),
            f"MODEL.PRETRAIN_CHOICE imagenet: MODEL.PCB.TRUNK {TINY} has no published weights; set it to none, or "
            "PRETRAIN_PATH to a file",
        )
    if is_set(cfg, "MODEL.RESNET_STEM"):
        yield (
            ("MODEL.RESNET_STEM", "MODEL.PCB.TRUNK"),
            f"MODEL.RESNET_STEM {cfg.MODEL.RESNET_STEM} is of a ResNet, but MODEL.PCB.TRUNK is {TINY}; leave it out",
        )


def _loss_problems(cfg: CfgNode) -> Iterator[Problem]:
    if cfg.MODEL.TRAINING_MODE == "self_supervised":
        yield (
            ("MODEL.TRAINING_MODE", "MODEL.NAME"),
            f"MODEL.TRAINING_MODE self_supervised trains a projection head, which MODEL.NAME {NAME} does not have",
        )
    spectral = cfg.LOSS.SPECTRAL
    if spectral.W > 0 and spectral.FEAT == "pooled" and cfg.MODEL.PCB.GATE:
        yield (
            ("LOSS.SPECTRAL.FEAT", "MODEL.PCB.GATE"),
            "LOSS.SPECTRAL.FEAT pooled mixes what the map was pooled to, MODEL.PCB.GATE needs the map itself; set FEAT "
            "embedding, or GATE False",
        )


def find_pcb_notices(cfg: CfgNode) -> Iterator[str]:
    """Yield one line for the keys that are set and not read, those of PCB elsewhere and others here."""
    pcb = cfg.MODEL.PCB
    if cfg.MODEL.NAME != NAME:
        own = [key for key in KEYS if key.startswith("MODEL.PCB.") and is_set(cfg, key)]
        if own:
            yield f"{', '.join(own)}: not used by MODEL.NAME {cfg.MODEL.NAME}"
        return
    idle = [key for key in KEYS if is_set(cfg, key) and _is_idle(key)]
    if idle:
        yield f"{', '.join(idle)}: not used by MODEL.NAME {NAME}"
    for without, names in (("PARTS", OF_PARTS), ("GLOBAL_DIM", OF_GLOBAL)):
        unread = [f"MODEL.PCB.{name}" for name in names if is_set(cfg, f"MODEL.PCB.{name}")]
        if unread and not pcb[without]:
            yield f"{', '.join(unread)}: not used, MODEL.PCB.{without} is 0"


def _is_idle(key: str) -> bool:
    return any(key == start or (start[-1] == "." and key.startswith(start)) for start in IDLE)
