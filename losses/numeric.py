"""Precision and empty cases, the same for every loss."""

from collections.abc import Sequence

import torch


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Return `tensor` as float32 when it is narrower; float32 and float64 stay what they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def without_autocast(tensor: torch.Tensor) -> torch.autocast:
    """Return a context in which operations on the device of `tensor` keep the types of their inputs."""
    return torch.autocast(tensor.device.type, enabled=False)


def attached_zero(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return an exact scalar 0 whose gradient with respect to every tensor is 0, even where a tensor is not finite."""
    return torch.stack([at_least_float32(tensor[:0]).sum() for tensor in tensors]).sum()


def check_labels(feat: torch.Tensor, labels: torch.Tensor) -> None:
    """Raise ValueError unless `feat` is [N, D] and `labels` is [N]; other shapes would broadcast to a wrong loss."""
    if feat.ndim != 2 or labels.shape != feat.shape[:1]:
        raise ValueError(f"expected features [N, D] and labels [N], got {list(feat.shape)} and {list(labels.shape)}")
