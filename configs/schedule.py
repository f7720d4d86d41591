"""Which losses act at an epoch, with which weights, and which K the sampler uses: pure functions of cfg and epoch.

`processor.phases.PhasePlan` is the object that training reads; these rules live here because `load_cfg` checks them.
Epochs count from 1, phases are half-open: with BOUNDARIES [40, 80] they are 1-39, 40-79 and 80 to the end.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from yacs.config import CfgNode

from utils.errors import ConfigError

GRAMMAR = "'const:<float>' or 'linear:<float>-><float>', e.g. const:0.30 or linear:0.30->0.0"
NUMBER = r"\s*([+-]?[0-9.]+(?:e[+-]?[0-9]+)?)\s*"
SPEC_PATTERN = re.compile(rf"\s*(?:const\s*:{NUMBER}|linear\s*:{NUMBER}->{NUMBER})", re.IGNORECASE)
EXP_RATE = 0.05  # per epoch, of DECAY_TYPE exp
METRICS = ("triplet", "tripletx", "none")
LOSS_TITLES = {"id": "CE", "triplet": "Triplet", "tripletx": "TripletX", "supcon": "SupCon"}  # in tables and logs
PAIR_LOSSES = ("triplet", "tripletx", "supcon")  # these need positives and negatives in a batch

Problem = tuple[tuple[str, ...], str]  # the keys concerned, the message


class Rules(NamedTuple):
    """What the configuration says about one epoch."""

    index: int  # of the phase, from 0
    weights: dict[str, float]  # id, triplet, tripletx, supcon; 0.0 = off
    num_instance: int  # K
    k_key: str  # the key that K comes from
    routed: bool


def resolve(cfg: CfgNode, epoch: int) -> Rules:
    """Return the rules at `epoch`; ConfigError for a W_SUP_SPEC outside the grammar."""
    index = phase_index(cfg, epoch)
    kind = metric_kind(cfg, epoch)
    triplet, tripletx = float(cfg.MODEL.TRIPLET_LOSS_WEIGHT), float(cfg.LOSS.TRIPLETX.W)
    if cfg.LOSS.PHASED.ENABLE:
        triplet = tripletx = float(_pick(cfg.LOSS.PHASED.W_METRIC_SEQ, index))
    routed = cfg.LOSS.BRIGHTNESS.ENABLE and kind == "tripletx"
    supervised = cfg.MODEL.TRAINING_MODE == "supervised"
    identity = float(cfg.MODEL.ID_LOSS_WEIGHT) if supervised and cfg.DATALOADER.SAMPLER != "triplet" else 0.0
    weights = {
        "id": identity,
        "triplet": triplet if routed or kind == "triplet" else 0.0,
        "tripletx": tripletx if kind == "tripletx" else 0.0,
        "supcon": supcon_weight(cfg, epoch),
    }
    num_instance, k_key = _k_of(cfg, weights)
    return Rules(index, weights, num_instance, k_key, routed)


def phase_index(cfg: CfgNode, epoch: int) -> int:
    """Return the number of boundaries that `epoch` has reached; 0 while LOSS.PHASED is off."""
    return sum(epoch >= boundary for boundary in cfg.LOSS.PHASED.BOUNDARIES) if cfg.LOSS.PHASED.ENABLE else 0


def metric_kind(cfg: CfgNode, epoch: int) -> str:
    """Return the metric loss of `epoch`: triplet, tripletx or none."""
    draws_pxk = "triplet" in cfg.DATALOADER.SAMPLER
    if not draws_pxk or "triplet" not in cfg.MODEL.METRIC_LOSS_TYPE or cfg.MODEL.TRAINING_MODE != "supervised":
        return "none"
    if not cfg.LOSS.PHASED.ENABLE:
        return "tripletx" if cfg.LOSS.TRIPLETX.ENABLE else "triplet"
    kind = _pick(cfg.LOSS.PHASED.METRIC_SEQ, phase_index(cfg, epoch))
    return "triplet" if kind == "tripletx" and 0 <= cfg.LOSS.PHASED.TRIPLETX_END <= epoch else kind


def supcon_weight(cfg: CfgNode, epoch: int) -> float:
    """Return SupCon's weight at `epoch`: W, or with LOSS.PHASED on W_SUP_SPEC, or where that is [] W0 with DECAY_*."""
    if not cfg.LOSS.SUPCON.ENABLE:
        return 0.0
    if not cfg.LOSS.PHASED.ENABLE:
        return float(cfg.LOSS.SUPCON.W)
    if not cfg.LOSS.PHASED.W_SUP_SPEC:
        return _decayed(cfg, epoch)
    index, boundaries = phase_index(cfg, epoch), cfg.LOSS.PHASED.BOUNDARIES
    first, last = parse_weight_spec(_pick(cfg.LOSS.PHASED.W_SUP_SPEC, index))
    start = boundaries[index - 1] if index else 0
    end = boundaries[index] if index < len(boundaries) else cfg.SOLVER.MAX_EPOCHS
    progress = min(max((epoch - start) / max(end - start, 1), 0.0), 1.0)
    return max((1 - progress) * first + progress * last, 0.0)


def parse_weight_spec(spec: str) -> tuple[float, float]:
    """Return (weight at the phase's start, weight at its end) of 'const:w' or 'linear:x->y'.

    Case and spaces do not matter. Raises ConfigError that quotes the grammar for anything else.
    """
    match = SPEC_PATTERN.fullmatch(spec)
    try:
        weights = [float(number) for number in match.groups() if number is not None] if match else []
    except ValueError:  # 1.2.3
        weights = []
    if not weights or not all(math.isfinite(weight) for weight in weights):
        raise ConfigError(f"LOSS.PHASED.W_SUP_SPEC got '{spec}', expected {GRAMMAR}")
    return weights[0], weights[-1]


def wants_center(cfg: CfgNode) -> bool:
    """Return whether the configuration asks for the centre loss, whatever its weight."""
    return cfg.MODEL.IF_WITH_CENTER == "yes" or "center" in cfg.MODEL.METRIC_LOSS_TYPE


def center_weight(cfg: CfgNode) -> float:
    """Return the weight of the centre loss, which no phase changes; 0.0 = off."""
    return float(cfg.SOLVER.CENTER_LOSS_WEIGHT) if wants_center(cfg) else 0.0


def supcon_across_cameras(cfg: CfgNode) -> bool:
    """Return whether SupCon's positives come from other cameras; never for two views of one image."""
    asked = cfg.LOSS.SUPCON.CAM_AWARE or cfg.LOSS.SUPCON.POS_RULE == "class+camera"
    return asked and cfg.MODEL.TRAINING_MODE == "supervised"


def find_schedule_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield what is wrong with losses, weights and K over all epochs, as (keys concerned, message)."""
    if cfg.LOSS.PHASED.ENABLE:
        problems = list(_phase_problems(cfg))
        if problems:
            yield from problems
            return
    yield from _k_problems(cfg)


def _phase_problems(cfg: CfgNode) -> Iterator[Problem]:
    phased = cfg.LOSS.PHASED
    boundaries = list(phased.BOUNDARIES)
    if boundaries != sorted(set(boundaries)) or min(boundaries, default=1) < 1:
        yield (
            ("LOSS.PHASED.BOUNDARIES",),
            f"LOSS.PHASED.BOUNDARIES got {boundaries}, expected ascending epochs, the first of each later phase",
        )
    for name in ("METRIC_SEQ", "W_METRIC_SEQ"):
        if not phased[name]:
            yield (f"LOSS.PHASED.{name}",), f"LOSS.PHASED.{name} is empty; give one entry for each phase"
    if "tripletx" in phased.METRIC_SEQ and not cfg.LOSS.TRIPLETX.ENABLE:
        yield (
            ("LOSS.TRIPLETX.ENABLE", "LOSS.PHASED.METRIC_SEQ"),
            f"LOSS.PHASED.METRIC_SEQ {list(phased.METRIC_SEQ)} asks for tripletx, but LOSS.TRIPLETX.ENABLE is False; "
            "set it True or write triplet",
        )
    for weight in phased.W_METRIC_SEQ:
        if not 0 <= weight < math.inf:
            yield (
                ("LOSS.PHASED.W_METRIC_SEQ",),
                f"LOSS.PHASED.W_METRIC_SEQ got {weight}, expected weights of at least 0",
            )
    start, end = cfg.LOSS.SUPCON.DECAY_START, cfg.LOSS.SUPCON.DECAY_END
    if not phased.W_SUP_SPEC and cfg.LOSS.SUPCON.DECAY_TYPE == "linear" and start >= end:
        yield (
            ("LOSS.SUPCON.DECAY_START", "LOSS.SUPCON.DECAY_END"),
            f"LOSS.SUPCON.DECAY_START {start} is not before DECAY_END {end}",
        )
    for spec in phased.W_SUP_SPEC:
        try:
            parse_weight_spec(spec)
        except ConfigError as error:
            yield ("LOSS.PHASED.W_SUP_SPEC",), str(error)


def _k_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Every K that is reached must divide the batch, and leave positives and negatives where a loss needs them."""
    if "triplet" not in cfg.DATALOADER.SAMPLER:
        return
    batch = cfg.SOLVER.IMS_PER_BATCH
    seen = set()
    for epoch in range(1, cfg.SOLVER.MAX_EPOCHS + 1):
        rules = resolve(cfg, epoch)
        k, key = rules.num_instance, rules.k_key
        wants_pairs = any(rules.weights[name] > 0 for name in PAIR_LOSSES)
        if (key, wants_pairs) in seen:
            continue
        seen.add((key, wants_pairs))
        if batch % k:
            allowed = [str(number) for number in range(2, batch + 1) if batch % number == 0]
            yield (
                ("SOLVER.IMS_PER_BATCH", key),
                f"SOLVER.IMS_PER_BATCH {batch} is not a multiple of {key} {k} (epoch {epoch}); "
                f"K may be {', '.join(allowed[:8])}{', ...' if len(allowed) > 8 else ''}",
            )
        elif wants_pairs and k < 2:
            yield (key,), f"{key} 1 leaves the metric losses of epoch {epoch} without a positive; use at least 2"
        elif wants_pairs and batch < 2 * k:
            yield (
                ("SOLVER.IMS_PER_BATCH", key),
                f"SOLVER.IMS_PER_BATCH {batch} with {key} {k} leaves the metric losses of epoch {epoch} without a "
                f"negative; use at least {2 * k} or a smaller K",
            )


def _k_of(cfg: CfgNode, weights: dict[str, float]) -> tuple[int, str]:
    """Return K and the key that it comes from."""
    if not cfg.DATALOADER.PHASED.ENABLE:
        return cfg.DATALOADER.NUM_INSTANCE, "DATALOADER.NUM_INSTANCE"
    if weights["tripletx"] > 0:
        return cfg.DATALOADER.PHASED.K_WHEN_TRIPLETX, "DATALOADER.PHASED.K_WHEN_TRIPLETX"
    if weights["supcon"] > 0:
        return cfg.DATALOADER.PHASED.K_WHEN_SUPCON, "DATALOADER.PHASED.K_WHEN_SUPCON"
    return cfg.DATALOADER.PHASED.K_OTHER, "DATALOADER.PHASED.K_OTHER"


def _decayed(cfg: CfgNode, epoch: int) -> float:
    weight, start, end = float(cfg.LOSS.SUPCON.W0), cfg.LOSS.SUPCON.DECAY_START, cfg.LOSS.SUPCON.DECAY_END
    if cfg.LOSS.SUPCON.DECAY_TYPE == "const" or epoch <= start:
        return weight
    if cfg.LOSS.SUPCON.DECAY_TYPE == "exp":
        return weight * math.exp(-EXP_RATE * (epoch - start))
    return 0.0 if epoch >= end else weight * (1 - (epoch - start) / (end - start))


def _pick(sequence: Sequence, index: int):
    return sequence[min(index, len(sequence) - 1)]
