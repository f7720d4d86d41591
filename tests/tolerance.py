"""How far float32 may lie from float64 on any machine: no bound here is taken from a measurement.

Kernels, processors and thread counts differ in the order of their sums, hence in every rounding. A bound is counted,
where roundings add up (`rounding`, `bounds`), or it is what the slow path itself loses in float32, where a
normalisation or a cancellation magnifies them (`jittered`, `assert_rounded`).
"""

import math
from collections.abc import Sequence

import torch

FACTOR = 16.0  # a fast path may err so many times as much as is typical: beyond that it computes something else


def rounding(terms: int, dtype: torch.dtype = torch.float32) -> float:
    """Return the bound for a result of size 1 that `terms` roundings reached: they add up as a random walk does."""
    return FACTOR * torch.finfo(dtype).eps * math.sqrt(terms)


def bounds(terms: int, scale: float = 1.0) -> dict[str, float]:
    """Return rtol and atol for two float32 results, each of `terms` roundings of numbers up to about `scale`."""
    return {"rtol": rounding(terms), "atol": rounding(terms) * scale}


def jittered(value: torch.Tensor, draw: int) -> torch.Tensor:
    """Return `value` in float32, each number moved by a rounding, up or down as `draw` has it.

    What the slow path makes of several such draws shows how far another order of sums may lead; one run alone may
    be near the exact result by luck. Tensors of integers come back as they are.
    """
    if not value.is_floating_point():
        return value
    generator = torch.Generator().manual_seed(draw)
    moves = 2 * torch.rand(value.shape, generator=generator, dtype=torch.float64) - 1
    return (value.double() * (1 + torch.finfo(torch.float32).eps * moves)).float()


def assert_rounded(
    got: torch.Tensor,
    exact: torch.Tensor,
    slow: Sequence[torch.Tensor] = (),
    terms: int = 1,
    scale: float = 0.0,
    name: str = "",
) -> None:
    """`got` (float32) is `exact` (float64) but for roundings, in the Euclidean norm.

    Allowed is FACTOR times the largest error of `slow`, float32 results of the slow path, and at least the bound for
    `terms` roundings of numbers whose norm is that of `exact`, or `scale` where they cancel and `exact` is smaller.
    """
    assert got.shape == exact.shape and exact.dtype == torch.float64, name
    errors = [FACTOR * (value.double() - exact).norm().item() for value in slow]
    allowed = max([rounding(terms) * max(exact.norm().item(), scale), *errors])
    distance = (got.double() - exact).norm().item()
    assert distance <= allowed, f"{name}: distance {distance:.2e}, allowed {allowed:.2e}"
