"""How the values of a loss over the branches of a model add up."""

from collections.abc import Callable, Sequence

import torch

from utils.precision import at_least_float32

BranchLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # ([B, *], labels [B]) -> scalar


def over_branches(loss: Callable, *sources: Sequence[torch.Tensor]) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Return the values [L] of a loss over L branches in one batched call; a tuple of [L] where the loss gives several.

    `loss` takes one tensor, at least float32, of each of the `sources`, which hold L tensors of equal shape. Raises
    ValueError when there is no branch at all.
    """
    if not sources[0]:
        raise ValueError("the model returned no branch for a loss that is switched on")
    stacked = (torch.stack([at_least_float32(branch) for branch in branches]) for branches in sources)
    return torch.vmap(loss)(*stacked)


def combine_values(values: torch.Tensor, global_weight: float) -> torch.Tensor:
    """Return w v_0 + (1 - w) mean(v_1, v_2, ...) of values [L], or v_0 when there is no other value."""
    if len(values) == 1:
        return values[0]
    return global_weight * values[0] + (1 - global_weight) * values[1:].mean()


def combine_branches(
    loss: BranchLoss, branches: Sequence[torch.Tensor], labels: torch.Tensor, global_weight: float
) -> torch.Tensor:
    """Return w f(global) + (1 - w) mean f(locals), or f(global) when there is no local branch.

    Raises ValueError when there is no branch at all.
    """
    return combine_values(over_branches(lambda branch: loss(branch, labels), branches), global_weight)
