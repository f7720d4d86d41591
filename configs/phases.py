"""Which losses act at an epoch of a stage, with which weights, and which K the sampler uses; the names of all terms.

A pure function of configuration and epoch: losses, sampler, logs and previews read `PhasePlan` and nothing else.
Epochs count from 1; BOUNDARIES [40, 80] mean 1-39, 40-79 and 80 to the end of the last stage. Others have one phase.
"""

import math
import string
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from yacs.config import CfgNode

from configs.loss_weights import WEIGHTS, metric_kind, phase_index, weight_by_spec
from configs.runs import runs_of
from configs.stages import draws_pxk, last_stage, solver_of, stages_of, unknown_stage
from configs.weight_spec import parse_term_spec, spec_problems, term_problems
from utils.errors import ConfigError

# every term of a criterion: its name in weights, parts and records -> its name in tables and charts, in this order
TITLES = {
    **{"id": "CE", "triplet": "Triplet", "tripletx": "TripletX", "supcon": "SupCon", "i2t": "I2T", "t2i": "T2I"},
    **{"sdm": "SDM", "itc": "ITC", "cmpm": "CMPM", "mlm": "MLM", "align": "Align", "norm": "Norm"},
    **{"spectral": "Spectral", "center": "Center", "distill": "Distill"},
}
# for code elsewhere, which spells no term
TRIPLET, TRIPLETX, SUPCON, SPECTRAL = "triplet", "tripletx", "supcon", "spectral"
PAIR_LOSSES = ("triplet", "tripletx", "supcon")  # these need positives and negatives in a batch, and have keys by phase
ALTERNATIVES = ("triplet", "tripletx")  # of which one acts, or each on its share of a routed batch
ROUTED_TO = {"triplet": "bright", "tripletx": "dark"}  # images, by brightness

Problem = tuple[tuple[str, ...], str]  # the keys concerned, the message


class Phase(NamedTuple):
    """The plan of one epoch (1-based); a weight of 0.0 means that the term is off."""

    epoch: int
    index: int  # from 0
    tag: str  # A, B, C, ... or static while LOSS.PHASED is off
    weights: dict[str, float]  # of exactly the terms of this system and stage
    num_instance: int  # K
    routed: bool  # dark images to TripletX, bright ones to Triplet
    k_key: str = ""  # the key that K comes from


class Segment(NamedTuple):
    """A run of epochs with equal phase, active losses and K; weights may move from the first to the last."""

    first: Phase
    last: Phase


class PhasePlan:
    """A pure function from the epoch of a stage ("" = the last one) to its Phase.

    Raises ConfigError for an unknown stage and a plan that cannot be trained, e.g. a W_SUP_SPEC outside the grammar.
    """

    def __init__(self, cfg: CfgNode, stage: str = "") -> None:
        if stage and stage not in stages_of(cfg):
            raise ConfigError(unknown_stage(cfg, stage))
        problems = [text for _, text in find_schedule_problems(cfg)]
        if problems:
            raise ConfigError("\n  ".join(problems))
        self._cfg, self._stage = cfg, stage
        solver = solver_of(cfg, stage)
        self.max_epochs = solver.MAX_EPOCHS
        self.batch_size = solver.IMS_PER_BATCH
        self.draws_pxk = draws_pxk(cfg, stage)

    def at(self, epoch: int) -> Phase:
        """Return the phase of `epoch`, counted from 1."""
        if epoch < 1:
            raise ValueError(f"epochs count from 1, got {epoch}")
        return resolve(self._cfg, epoch, self._stage)

    def batch_shape(self, phase: Phase) -> str:
        """Return the P x K of a phase, e.g. 16x4; without identity sampling `shuffled 64`, the batch size."""
        k = phase.num_instance
        return f"{self.batch_size // k}x{k}" if self.draws_pxk else f"shuffled {self.batch_size}"

    def segments(self) -> Iterator[Segment]:
        """Yield the epochs in runs of equal phase, active losses and K."""
        return segments_of(self._cfg, self._stage)


def _is_last(cfg: CfgNode, stage: str) -> bool:
    return not stage or stage == last_stage(cfg)


def resolve(cfg: CfgNode, epoch: int, stage: str = "") -> Phase:
    """Return the phase of `epoch` of a stage ("" = the last); ConfigError for a weight outside the grammar."""
    phased = cfg.LOSS.PHASED.ENABLE and _is_last(cfg, stage)
    index = phase_index(cfg, epoch) if phased else 0
    weights = WEIGHTS[cfg.MODEL.NAME](cfg, epoch, stage or last_stage(cfg))
    if phased:
        specs_of = dict(map(parse_term_spec, cfg.LOSS.PHASED.W_TERMS))
        weights |= {term: weight_by_spec(cfg, specs, epoch) for term, specs in specs_of.items()}
    is_metric = "tripletx" in weights  # a stage on images
    routed = is_metric and cfg.LOSS.BRIGHTNESS.ENABLE and metric_kind(cfg, epoch) == "tripletx"
    num_instance, k_key = _k_of(cfg, weights)
    return Phase(epoch, index, phase_tag(index) if phased else "static", weights, num_instance, routed, k_key)


def segments_of(cfg: CfgNode, stage: str = "") -> Iterator[Segment]:
    """Yield the epochs of a stage ("" = the last) in runs of equal phase, active losses and K."""
    phased, decay_start = cfg.LOSS.PHASED, cfg.LOSS.SUPCON.DECAY_START
    turns = (*phased.BOUNDARIES, phased.TRIPLETX_END, decay_start, decay_start + 1, cfg.LOSS.SUPCON.DECAY_END)
    turns = (*turns, cfg.LOSS.SPECTRAL.START_EPOCH, cfg.LOSS.ALIGN.START)

    phase_at = cache(lambda epoch: resolve(cfg, epoch, stage))

    def kind(epoch: int) -> tuple:
        phase = phase_at(epoch)
        return phase.index, active_losses(phase), phase.num_instance

    for first, last in runs_of(kind, solver_of(cfg, stage).MAX_EPOCHS, turns):
        yield Segment(phase_at(first), phase_at(last))


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
    key = "LOSS.PHASED.W_METRIC_SEQ"
    wrong = [weight for weight in phased.W_METRIC_SEQ if not 0 <= weight < math.inf]
    yield from (((key,), f"{key} got {weight}, expected weights of at least 0") for weight in wrong)
    start, end = cfg.LOSS.SUPCON.DECAY_START, cfg.LOSS.SUPCON.DECAY_END
    if not phased.W_SUP_SPEC and cfg.LOSS.SUPCON.DECAY_TYPE == "linear" and start >= end:
        yield (
            ("LOSS.SUPCON.DECAY_START", "LOSS.SUPCON.DECAY_END"),
            f"LOSS.SUPCON.DECAY_START {start} is not before DECAY_END {end}",
        )
    yield from ((("LOSS.PHASED.W_SUP_SPEC",), text) for text in spec_problems(phased.W_SUP_SPEC))
    if phased.W_TERMS and phased.W_METRIC_SEQ and phased.METRIC_SEQ:
        terms = [name for name in WEIGHTS[cfg.MODEL.NAME](cfg, 1, last_stage(cfg)) if name not in PAIR_LOSSES]
        yield from ((("LOSS.PHASED.W_TERMS",), text) for text in term_problems(phased.W_TERMS, terms))


def _k_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Every K that is reached must divide the batch, and leave positives and negatives where a loss needs them."""
    if not draws_pxk(cfg):
        return
    batch = solver_of(cfg).IMS_PER_BATCH
    seen = set()
    for rules, _ in segments_of(cfg):
        epoch = rules.epoch
        k, key = rules.num_instance, rules.k_key
        wants_pairs = any(rules.weights.get(name, 0) > 0 for name in PAIR_LOSSES)
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
    if weights.get("tripletx", 0) > 0:
        return cfg.DATALOADER.PHASED.K_WHEN_TRIPLETX, "DATALOADER.PHASED.K_WHEN_TRIPLETX"
    if weights.get("supcon", 0) > 0:
        return cfg.DATALOADER.PHASED.K_WHEN_SUPCON, "DATALOADER.PHASED.K_WHEN_SUPCON"
    return cfg.DATALOADER.PHASED.K_OTHER, "DATALOADER.PHASED.K_OTHER"


def phase_tag(index: int) -> str:
    """Return A, B, ..., Z, P27, P28, ... for index 0, 1, ..."""
    return string.ascii_uppercase[index] if index < 26 else f"P{index + 1}"


def active_losses(phase: Phase) -> tuple[str, ...]:
    """Return the names of the terms with weight; `routed` is one of them where images are routed."""
    names = tuple(name for name, weight in phase.weights.items() if weight > 0)
    return (*names, "routed") if phase.routed else names
