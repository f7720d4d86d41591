"""The criterion: which losses see which outputs of the model, and how branches and terms add up."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import nn

from losses.center import CenterLoss
from losses.numeric import attached_zero

BranchLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # ([B, *], labels [B]) -> scalar


class Branches(Protocol):
    """What the criterion reads of a model's training output: the global branch first, then the local ones."""

    logits: list[torch.Tensor]  # each [B, C]
    pre_bn: list[torch.Tensor]  # each [B, D]


class Weighted(Protocol):
    """What the criterion reads of a phase: the weight of every term, 0.0 = off."""

    weights: dict[str, float]


def combine_branches(
    loss: BranchLoss, branches: Sequence[torch.Tensor], labels: torch.Tensor, global_weight: float
) -> torch.Tensor:
    """Return w f(global) + (1 - w) mean f(locals), or f(global) when there is no local branch.

    Raises ValueError when there is no branch at all.
    """
    if not branches:
        raise ValueError("the model returned no branch for a loss that is switched on")
    values = [loss(branch, labels) for branch in branches]
    if len(values) == 1:
        return values[0]
    return global_weight * values[0] + (1 - global_weight) * torch.stack(values[1:]).mean()


class Criterion(nn.Module):
    """All losses of a run: `criterion(output, batch, phase) -> (total, {name: value})`.

    The terms are those whose weight in phase.weights is not 0, plus the centre loss at `center_weight` when there is
    one. total is the weighted sum, differentiable, a scalar of at least float32; the values are
    unweighted and detached. Without any term total is a differentiable 0. `global_weight` in [0, 1] is the share of
    the global branch, see `combine_branches`.
    """

    def __init__(
        self,
        identity: BranchLoss,
        triplet: BranchLoss,
        global_weight: float = 0.5,
        center: CenterLoss | None = None,
        center_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= global_weight <= 1:
            raise ValueError(f"global_weight got {global_weight}, expected a number in [0, 1]")
        self.identity = identity
        self.triplet = triplet
        self.center = center
        self.global_weight = global_weight
        self.center_weight = center_weight

    def forward(self, output: Branches, batch: dict, phase: Weighted) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the total and the parts for a model output, its batch (`pids` [B]) and the phase of the epoch.

        Raises ValueError when the phase gives weight to a loss that this criterion does not have.
        """
        terms = self._terms(output, batch["pids"])
        weights = dict(phase.weights)
        if self.center is not None:
            weights["center"] = self.center_weight
        # DistributedDataParallel waits for a gradient of every parameter, and only the logits reach the classifiers
        total = attached_zero([*output.pre_bn[:1], *([] if weights.get("id") else output.logits)])
        parts = {}
        for name, weight in weights.items():
            if weight == 0:
                continue
            if name not in terms:
                raise ValueError(f"the phase weighs the loss '{name}' {weight}, but there are {', '.join(terms)}")
            value = terms[name]()
            total = total + weight * value
            parts[name] = value.detach()
        return total, parts

    def _terms(self, output: Branches, labels: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
        over_branches = partial(combine_branches, labels=labels, global_weight=self.global_weight)
        terms = {
            "id": partial(over_branches, self.identity, output.logits),
            "triplet": partial(over_branches, self.triplet, output.pre_bn),
        }
        if self.center is not None:
            terms["center"] = partial(self.center, output.pre_bn[0], labels)
        return terms
