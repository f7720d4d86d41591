"""How the values of a loss over the branches of a model add up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from utils.precision import at_least_float32

BranchLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # ([B, *], labels [B]) -> scalar
KINDS = ("halves", "sum", "mean")


def over_branches(loss: Callable, *sources: Sequence[torch.Tensor]) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Return the values [L] of a loss over L branches; a tuple of [L] where the loss gives several.

    `loss` takes one tensor, at least float32, of each of the `sources`, which hold L tensors each. Branches of equal
    shape are one batched call, others a call each. Raises ValueError when there is no branch at all.
    """
    if not sources[0]:
        raise ValueError("the model returned no branch for a loss that is switched on")
    raised = [[at_least_float32(branch) for branch in branches] for branches in sources]
    if all(branch.shape == branches[0].shape for branches in raised for branch in branches):
        return torch.vmap(loss)(*(torch.stack(branches) for branches in raised))
    values = [loss(*parts) for parts in zip(*raised, strict=True)]
    if isinstance(values[0], tuple):
        return tuple(torch.stack(part) for part in zip(*values, strict=True))
    return torch.stack(values)


@dataclass(frozen=True)
class Reduce:
    """How values [L] of a loss, the first branch's first, become one.

    halves: w v_0 + (1 - w) mean(v_1, v_2, ...), or v_0 where there is no other; sum; mean. Halves alone reads the share
    `global_weight` w. Raises ValueError for another kind, and for a share outside [0, 1].
    """

    kind: str = "halves"
    global_weight: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind got '{self.kind}', expected {', '.join(KINDS)}")
        if not 0 <= self.global_weight <= 1:
            raise ValueError(f"global_weight got {self.global_weight}, expected a number in [0, 1]")

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Return the scalar for values [L]."""
        if self.kind == "sum":
            return values.sum()
        if self.kind == "mean":
            return values.mean()
        if len(values) == 1:
            return values[0]
        return self.global_weight * values[0] + (1 - self.global_weight) * values[1:].mean()


HALVES = Reduce()


def combine_branches(
    loss: BranchLoss, branches: Sequence[torch.Tensor], labels: torch.Tensor, reduce: Reduce
) -> torch.Tensor:
    """Return the values of a loss over the branches as one scalar; ValueError when there is no branch at all."""
    return reduce(over_branches(lambda branch: loss(branch, labels), branches))
