"""A limit on the norm of the gradients that follows the norms of the steps before."""

import math
from collections import deque

import torch
from torch import nn

from utils.precision import at_least_float32

EPS = 1e-6  # added to a norm that is divided by, as torch does


class QuantileClip:
    """Bounds the L2 norm of all gradients together by a quantile of the last norms of the epoch.

    The limit of a step is `first`; once there were more than `window` norms since `reset`, that of the step included,
    it is clamp(factor * the `quantile` of the last `window` of them, low, high), linear between neighbours. A norm
    that is not finite counts as the largest. Norms stay on their device, and nothing waits for it. Between `reset`s
    there is a state, so they come where a state is saved: at the start of each epoch. Raises ValueError for a quantile
    outside [0, 1] and a window below 1.
    """

    def __init__(
        self,
        factor: float = 1.15,
        quantile: float = 0.7,
        window: int = 10,
        low: float = 0.5,
        high: float = 3.0,
        first: float = 1.0,
    ) -> None:
        if not 0 <= quantile <= 1 or window < 1:
            raise ValueError(f"got quantile {quantile} and window {window}, expected 0 to 1 and at least 1")
        self.factor = factor
        self.quantile = quantile
        self.low, self.high, self.first = low, high, first
        self._last: deque[torch.Tensor] = deque(maxlen=window)
        self._count = 0

    def reset(self) -> None:
        """Forget all norms."""
        self._last.clear()
        self._count = 0

    def limit(self, norm: torch.Tensor) -> torch.Tensor:
        """Take in the norm of a step, a scalar, and return the limit that it is held to, on its device."""
        norm = at_least_float32(norm.detach())
        self._last.append(norm.nan_to_num(nan=torch.finfo(norm.dtype).max))
        self._count += 1
        if self._count <= self._last.maxlen:
            return torch.full_like(norm, self.first)
        return (self.factor * self._quantile()).clamp(self.low, self.high)

    def _quantile(self) -> torch.Tensor:
        """Return the quantile of the last norms; torch.quantile would ask the CPU for values."""
        ordered = torch.stack(tuple(self._last)).sort().values
        place = self.quantile * (len(ordered) - 1)
        below = math.floor(place)
        return torch.lerp(ordered[below], ordered[math.ceil(place)], place - below)

    @torch.no_grad()
    def __call__(self, parameters: list[nn.Parameter]) -> None:
        """Bound the gradients of the parameters in place; nothing happens where there is none."""
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not grads:
            return
        norms = [at_least_float32(norm) for norm in torch._foreach_norm(grads)]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        torch._foreach_mul_(grads, (self.limit(norm) / (norm + EPS)).clamp(max=1.0))
