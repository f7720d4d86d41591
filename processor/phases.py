"""Which losses act at an epoch, with which weights, and which K the sampler uses: what all of training reads."""

import string
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from yacs.config import CfgNode

from configs.schedule import LOSS_TITLES, find_schedule_problems, resolve
from utils.errors import ConfigError


class Phase(NamedTuple):
    """The plan of one epoch (1-based); a weight of 0.0 means that the term is off."""

    epoch: int
    index: int  # from 0
    tag: str  # A, B, C, ... or static while LOSS.PHASED is off
    weights: dict[str, float]  # id, triplet, tripletx, supcon
    num_instance: int  # K
    routed: bool  # dark images to TripletX, bright ones to Triplet


class PhasePlan:
    """A pure function from the epoch to its Phase; the rules are `configs.schedule`'s.

    Raises ConfigError for a plan that cannot be trained, e.g. a W_SUP_SPEC outside the grammar.
    """

    def __init__(self, cfg: CfgNode) -> None:
        problems = [text for _, text in find_schedule_problems(cfg)]
        if problems:
            raise ConfigError("\n  ".join(problems))
        self._cfg = cfg
        self._phased = cfg.LOSS.PHASED.ENABLE
        self.max_epochs = cfg.SOLVER.MAX_EPOCHS
        self.batch_size = cfg.SOLVER.IMS_PER_BATCH
        self.draws_pxk = "triplet" in cfg.DATALOADER.SAMPLER

    def at(self, epoch: int) -> Phase:
        """Return the phase of `epoch`, counted from 1."""
        if epoch < 1:
            raise ValueError(f"epochs count from 1, got {epoch}")
        rules = resolve(self._cfg, epoch)
        tag = phase_tag(rules.index) if self._phased else "static"
        return Phase(epoch, rules.index, tag, rules.weights, rules.num_instance, rules.routed)

    def batch_shape(self, phase: Phase) -> str:
        """Return the P x K of a phase, e.g. 16x4; without identity sampling `shuffled 64`, the batch size."""
        k = phase.num_instance
        return f"{self.batch_size // k}x{k}" if self.draws_pxk else f"shuffled {self.batch_size}"

    def segments(self) -> Iterator[list[Phase]]:
        """Yield the epochs in runs of equal phase, active losses and K, each as the list of its phases."""
        plan = [self.at(epoch) for epoch in range(1, self.max_epochs + 1)]
        for _, run in groupby(plan, key=lambda phase: (phase.index, active_losses(phase), phase.num_instance)):
            yield list(run)


def phase_tag(index: int) -> str:
    """Return A, B, ..., Z, P27, P28, ... for index 0, 1, ..."""
    return string.ascii_uppercase[index] if index < 26 else f"P{index + 1}"


def active_losses(phase: Phase) -> tuple[str, ...]:
    """Return the names of the terms with weight; `routed` is one of them where images are routed."""
    names = tuple(name for name, weight in phase.weights.items() if weight > 0)
    return (*names, "routed") if phase.routed else names


def describe_losses(first: Phase, last: Phase | None = None) -> str:
    """Return the active losses with their weights, e.g. `CE 1, TripletX 1.2 (dark), SupCon 0.3`.

    With `last`, the end of a run of epochs, a weight that moves is written 0.3->0.15.
    """
    last = last or first
    where = {"triplet": " (bright)", "tripletx": " (dark)"} if first.routed else {}
    parts = []
    for name, weight in first.weights.items():
        if weight > 0 or last.weights[name] > 0:
            end = last.weights[name]
            value = f"{weight:.4g}" if end == weight else f"{weight:.4g}->{end:.4g}"
            parts.append(f"{LOSS_TITLES[name]} {value}{where.get(name, '')}")
    return ", ".join(parts) or "none"
