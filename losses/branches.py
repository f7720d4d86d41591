"""How the values of a loss over the branches of a model add up."""

from collections.abc import Callable, Sequence

import torch

BranchLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # ([B, *], labels [B]) -> scalar


def combine_values(values: Sequence[torch.Tensor], global_weight: float) -> torch.Tensor:
    """Return w v_0 + (1 - w) mean(v_1, v_2, ...), or v_0 when there is no other value."""
    if len(values) == 1:
        return values[0]
    return global_weight * values[0] + (1 - global_weight) * torch.stack(list(values[1:])).mean()


def combine_branches(
    loss: BranchLoss, branches: Sequence[torch.Tensor], labels: torch.Tensor, global_weight: float
) -> torch.Tensor:
    """Return w f(global) + (1 - w) mean f(locals), or f(global) when there is no local branch.

    Raises ValueError when there is no branch at all.
    """
    if not branches:
        raise ValueError("the model returned no branch for a loss that is switched on")
    return combine_values([loss(branch, labels) for branch in branches], global_weight)
