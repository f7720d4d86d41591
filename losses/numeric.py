"""Empty cases and shapes, the same for every loss."""

from collections.abc import Sequence

import torch

from utils.precision import at_least_float32


def attached_zero(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return an exact scalar 0 whose gradient with respect to every tensor is 0, even where a tensor is not finite."""
    return torch.stack([at_least_float32(tensor[:0]).sum() for tensor in tensors]).sum()


def check_labels(feat: torch.Tensor, labels: torch.Tensor) -> None:
    """Raise ValueError unless `feat` is [N, D] and `labels` is [N]; other shapes would broadcast to a wrong loss."""
    if feat.ndim != 2 or labels.shape != feat.shape[:1]:
        raise ValueError(f"expected features [N, D] and labels [N], got {list(feat.shape)} and {list(labels.shape)}")
