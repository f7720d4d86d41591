"""Batches that the tests of the losses share, and how a loss is compared with its slow reference."""

import random
from collections.abc import Callable
from typing import NamedTuple

import torch
from hypothesis import strategies as st

LossOfFeat = Callable[[torch.Tensor], torch.Tensor]

GOLDEN_LABELS = [0, 0, 0, 0, 1, 1, 1, 1]
GOLDEN_CAMIDS = [0, 0, 1, 1, 0, 1, 1, 2]


class Batch(NamedTuple):
    feat: torch.Tensor  # [N, D]
    labels: torch.Tensor  # [N]
    camids: torch.Tensor  # [N]
    brightness: torch.Tensor  # [N] in [0, 1]

    def reordered(self, order: torch.Tensor) -> "Batch":
        return Batch(*(tensor.detach()[order] for tensor in self))

    def to(self, dtype: torch.dtype) -> "Batch":
        return self._replace(feat=self.feat.to(dtype), brightness=self.brightness.to(dtype))


def golden_features(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    rows, columns = torch.arange(8.0)[:, None], torch.arange(4.0)[None, :]
    return torch.sin(1 + 4 * rows.double() + columns.double()).to(dtype)


def random_features(count: int, width: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def value_and_gradient(
    loss: Callable[[torch.Tensor], torch.Tensor], feat: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return loss(feat) and its gradient; a reference that does not reach feat has the gradient 0."""
    feat = feat.detach().clone().requires_grad_()
    value = loss(feat)
    (gradient,) = torch.autograd.grad(value, feat, allow_unused=True)
    return value.detach(), torch.zeros_like(feat) if gradient is None else gradient


def assert_same(loss: LossOfFeat, slow_loss: LossOfFeat, feat: torch.Tensor) -> None:
    """Value and gradient of `loss` are those of `slow_loss`, in float64."""
    value, gradient = value_and_gradient(loss, feat)
    expected, expected_gradient = value_and_gradient(slow_loss, feat)
    assert value.dtype == torch.float64 and value.ndim == 0
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-8)


def assert_order_does_not_matter(loss: Callable[[Batch], torch.Tensor], batch: Batch, order: torch.Tensor) -> None:
    """Reordering the samples keeps the value and reorders the gradient."""
    moved = batch.reordered(order)
    value, gradient = value_and_gradient(lambda feat: loss(batch._replace(feat=feat)), batch.feat)
    moved_value, moved_gradient = value_and_gradient(lambda feat: loss(moved._replace(feat=feat)), moved.feat)
    torch.testing.assert_close(moved_value, value, rtol=0, atol=1e-11)
    torch.testing.assert_close(moved_gradient, gradient[order], rtol=0, atol=1e-10)


def assert_finite(loss: Callable[[Batch], torch.Tensor], batch: Batch) -> None:
    """Value and gradient are finite in float32 and float64, and the loss stays attached to the features."""
    for dtype in (torch.float32, torch.float64):
        typed = batch.to(dtype)
        feat = typed.feat.detach().clone().requires_grad_()
        value = loss(typed._replace(feat=feat))
        value.backward()
        assert value.dtype == dtype and torch.isfinite(value) and value >= 0
        assert torch.isfinite(feat.grad).all()


@st.composite
def batches(draw: st.DrawFn, distinct: bool = True) -> Batch:
    """Any split of identities, cameras and brightness; unless `distinct`, features repeat and may be zero.

    The sizes are drawn by hypothesis, so that they shrink; the columns come from a seed, so that they are well mixed.
    """
    count = draw(st.sampled_from([8, 7, 9, 6, 5, 4, 3, 2, 1, 0]))
    identities, cameras = draw(st.sampled_from([2, 3, 4, 1])), draw(st.sampled_from([2, 3, 1]))
    levels = draw(st.sampled_from([(0.1, 0.8), (0.0, 0.3, 0.35, 1.0), (0.05, 0.3), (0.35, 0.9)]))
    rng = random.Random(draw(st.integers(0, 2**32 - 1)))
    feat = random_features(count, 4, seed=rng.randrange(1000))
    if not distinct and count:
        feat[0] = 0
        feat = feat[torch.tensor(rng.choices(range(count), k=count))]
    return Batch(
        feat,
        torch.tensor(rng.choices(range(identities), k=count), dtype=torch.int64),
        torch.tensor(rng.choices(range(cameras), k=count), dtype=torch.int64),
        torch.tensor(rng.choices(levels, k=count), dtype=torch.float64),
    )


@st.composite
def reorderings(draw: st.DrawFn) -> tuple[Batch, torch.Tensor]:
    """A batch and an order of its samples."""
    batch = draw(batches())
    order = draw(st.permutations(range(len(batch.labels))))
    return batch, torch.tensor(order, dtype=torch.int64)
