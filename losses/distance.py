"""Distances between the samples of a batch."""

import torch

from utils.precision import at_least_float32, without_autocast

MIN_SQUARED = 1e-12  # rounding can make a squared distance negative, and sqrt has no gradient at 0


def euclidean_distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return d[i, j] = sqrt(max(|x_i|^2 + |y_j|^2 - 2 x_i.y_j, 1e-12)).

    x is [N, D] and y [M, D]; the result is [N, M], float32 for narrower inputs whatever autocast says (in float16 the
    cancellation wipes out small distances) and float64 for float64. The gradient of a clamped distance is 0.
    """
    with without_autocast(x):
        x, y = at_least_float32(x), at_least_float32(y)
        squared = x.square().sum(1)[:, None] + y.square().sum(1)[None, :] - 2 * (x @ y.t())  # [N, M]
        return squared.clamp(min=MIN_SQUARED).sqrt()
