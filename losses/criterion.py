"""The criterion: which losses see which outputs of the model, and how branches and terms add up."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import nn

from losses.branches import BranchLoss, combine_branches
from losses.center import CenterLoss
from losses.metric import Features, MetricLosses
from losses.numeric import attached_zero
from losses.supcon import SupConTerm


class Branches(Features, Protocol):
    """What the criterion reads of a model's training output: the global branch first, then the local ones."""

    logits: list[torch.Tensor]  # each [B, C]
    projection: torch.Tensor | None  # [B, 128]


class Plan(Protocol):
    """What the criterion reads of a phase."""

    epoch: int  # from 1
    weights: dict[str, float]  # of every term, 0.0 = off
    routed: bool  # triplet and tripletx share the batch by brightness


class Criterion(nn.Module):
    """All losses of a run: `criterion(output, batch, phase) -> (total, {name: value})`.

    The terms are those whose weight in phase.weights is not 0, plus the centre loss at `center_weight` when there is
    one. total is the weighted sum, differentiable, a scalar of at least float32; the values are unweighted and
    detached. Without any term total is a differentiable 0. `global_weight` in [0, 1] is the share of the global branch,
    see `combine_branches`.
    """

    def __init__(
        self,
        identity: BranchLoss,
        metric: MetricLosses,
        supcon: SupConTerm | None = None,
        global_weight: float = 0.5,
        center: CenterLoss | None = None,
        center_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= global_weight <= 1:
            raise ValueError(f"global_weight got {global_weight}, expected a number in [0, 1]")
        self.identity = identity
        self.metric = metric
        self.supcon = supcon
        self.center = center
        self.global_weight = global_weight
        self.center_weight = center_weight

    def forward(self, output: Branches, batch: dict, phase: Plan) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the total and the parts for a model output, its batch and the phase of the epoch.

        The batch holds `pids` and `camids` [B] int64, and `brightness` [B] in [0, 1] where the phase is routed. Raises
        ValueError when the phase gives weight to a loss that this criterion does not have.
        """
        weights = {name: weight for name, weight in phase.weights.items() if weight != 0}
        if self.center is not None and self.center_weight != 0:
            weights["center"] = self.center_weight
        terms = self._terms(output, batch, phase)
        unknown = [name for name in weights if name not in terms]
        if unknown:
            raise ValueError(
                f"the phase weighs the loss '{unknown[0]}' {weights[unknown[0]]}, but there are {', '.join(terms)}"
            )
        total = attached_zero(_idle_outputs(output, weights))
        parts = {}
        for name, weight in weights.items():
            value = terms[name]()
            total = total + weight * value
            parts[name] = value.detach()
        return total, parts

    def _terms(self, output: Branches, batch: dict, phase: Plan) -> dict[str, Callable[[], torch.Tensor]]:
        labels = batch["pids"]
        terms = {"id": partial(combine_branches, self.identity, output.logits, labels, self.global_weight)}
        if phase.routed:
            triplet, tripletx = self.metric.routed(output, batch, phase.epoch, phase.weights["triplet"] > 0)
            terms |= {"triplet": lambda: triplet, "tripletx": lambda: tripletx}
        else:
            for name in ("triplet", "tripletx"):
                terms[name] = partial(self.metric.of_all, name, output, batch, phase.epoch)
        if self.supcon is not None and output.projection is not None:
            dark = self.metric.routing.is_dark(batch["brightness"]) if "brightness" in batch else None
            terms["supcon"] = partial(self.supcon, output.projection, labels, batch["camids"], dark)
        if self.center is not None:
            terms["center"] = partial(self.center, output.pre_bn[0], labels)
        return terms


def _idle_outputs(output: Branches, weights: dict[str, float]) -> list[torch.Tensor]:
    """Return one output for each part of the model that the terms may not reach.

    DistributedDataParallel waits for a gradient of every parameter.
    """
    idle = [*output.pre_bn[:1]]
    if "id" not in weights:  # only the logits reach the classifiers
        idle += output.logits
    if "supcon" not in weights and output.projection is not None:
        idle.append(output.projection)
    return idle
