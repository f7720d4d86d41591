"""Which precision an operation runs in, the same for models and losses."""

from contextlib import AbstractContextManager, nullcontext

import torch


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Return `tensor` as float32 when it is narrower; float32 and float64 stay what they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def in_autocast_type(tensor: torch.Tensor) -> torch.Tensor:
    """Return `tensor` in the type of autocast where that is on for its device; otherwise as it is."""
    kind = tensor.device.type
    if tensor.is_meta or not torch.is_autocast_enabled(kind):  # meta as in `without_autocast`
        return tensor
    return tensor.to(torch.get_autocast_dtype(kind))


def without_autocast(tensor: torch.Tensor) -> AbstractContextManager:
    """Return a context in which operations on the device of `tensor` keep the types of their inputs."""
    if tensor.is_meta:  # where the work of a step is counted, and torch knows no autocast
        return nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)
