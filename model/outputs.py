"""What every model returns in training mode, and how to go through it without knowing its fields."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

GLOBAL = "global"  # the global branch in `branches` of every model that has one
OWN_ROWS = ("mlm_logits", "mlm_targets")  # of `extra`: one row a masked word, so each process has another number


class ModelOutput(NamedTuple):
    """Outputs of one batch by branch, the global one first, then the local ones; B rows, C classes, D features.

    The lists are independent of each other: each has as many branches as its model gives, each branch a width of its
    own. All tensors have B rows but those of OWN_ROWS.
    """

    logits: list[torch.Tensor]  # each [B, C]; cosines in [-1, 1] where the head has a margin
    pre_bn: list[torch.Tensor]  # each [B, D], before the neck: what metric losses see
    bnneck: list[torch.Tensor]  # each [B, D], after the neck: what the classifiers see
    projection: torch.Tensor | None = None  # [B, 128] of a projection head
    extra: dict[str, torch.Tensor] = {}  # further outputs by name; the default is never written to


def tensors_of(output: ModelOutput) -> list[torch.Tensor]:
    """Return all tensors of `output`, always in the same order."""
    tensors: list[torch.Tensor] = []
    map_tensors(output, tensors.append)
    return tensors


def map_tensors(output: ModelOutput, change: Callable[[torch.Tensor], Any]) -> ModelOutput:
    """Return `output` with change(tensor) in place of each tensor, called in the order of `tensors_of`."""
    return ModelOutput(*(_changed(value, change) for value in output))


def _changed(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """Return a field of ModelOutput (a list, a tensor, None or a dict) with its tensors changed."""
    if value is None:
        return None
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: change(tensor) for name, tensor in value.items()}
    return [change(tensor) for tensor in value]
