"""Empty cases and shapes, the same for every loss."""

from collections.abc import Sequence
from typing import Any

import torch

from utils.precision import at_least_float32

MIN_WEIGHT = 1e-12


def attached_zero(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return an exact scalar 0 whose gradient with respect to every tensor is 0, even where a tensor is not finite."""
    return torch.stack([_AttachedZero.apply(tensor) for tensor in tensors]).sum()


class _AttachedZero(torch.autograd.Function):
    """A scalar 0 of at least float32; its gradient is one 0 seen in every place, as writing many zeros takes time."""

    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: torch.Tensor) -> torch.Tensor:
        return at_least_float32(tensor.new_zeros(()))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        ctx.of = inputs[0].new_zeros(()).expand(inputs[0].shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return ctx.of


def check_labels(feat: torch.Tensor, labels: torch.Tensor) -> None:
    """Raise ValueError unless `feat` is [N, D] and `labels` is [N]; other shapes would broadcast to a wrong loss."""
    if feat.ndim != 2 or labels.shape != feat.shape[:1]:
        raise ValueError(f"expected features [N, D] and labels [N], got {list(feat.shape)} and {list(labels.shape)}")


def check_camids(labels: torch.Tensor, camids: torch.Tensor | None) -> None:
    """Raise ValueError unless `camids` is None or of the shape of `labels`."""
    if camids is not None and camids.shape != labels.shape:
        raise ValueError(f"expected camids [N] like labels {list(labels.shape)}, got {list(camids.shape)}")


def weighted_mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return sum(weight values) / sum(weight) for [N] each, weight >= 0 or bool; 0 where the weights sum to 0."""
    weight = weight.to(values.dtype)
    return (weight * values).sum() / weight.sum().clamp(min=MIN_WEIGHT)


def lowest(logits: torch.Tensor) -> float:
    """Return the logit of what takes no part in a softmax: with -inf a row of such alone has NaN as its gradient."""
    return torch.finfo(logits.dtype).min


def unit_rows(feat: torch.Tensor) -> torch.Tensor:
    """Return the rows of `feat` [..., D], at least float32, over their Euclidean lengths; a zero row stays zero.

    The gradient of a zero row is that of a row of length 1, where a clamped length would blow it up by its inverse.
    """
    feat = at_least_float32(feat)
    length = torch.linalg.vector_norm(feat, dim=-1, keepdim=True)
    return feat / length.masked_fill(length == 0, 1)
