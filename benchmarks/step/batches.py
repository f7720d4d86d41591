"""What the steps of benchmarks/train_step.py do to batches, which may hold dicts of tensors."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

Change = Callable[[torch.Tensor], torch.Tensor]


def changed(value: Any, change: Change) -> Any:
    """Return a batch, or a part of it, with `change` done to all of its tensors."""
    if isinstance(value, Mapping):
        return {name: changed(part, change) for name, part in value.items()}
    return change(value) if isinstance(value, torch.Tensor) else value


def moved(batch: dict, device: torch.device) -> dict:
    """Return a batch with all tensors on the device."""
    return changed(batch, lambda tensor: tensor.to(device))


def first_rows(batch: dict, count: int) -> dict:
    """Return the first rows of a batch."""
    return changed(batch, lambda tensor: tensor[:count])


def in_float64(batch: dict) -> dict:
    """Return a batch whose floating point tensors are float64."""
    return changed(batch, lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of a batch, or of a part of it."""
    if isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, torch.Tensor):
        yield value
