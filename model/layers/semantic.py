"""A head that all modalities share, between their features and the fusion."""

import torch
from torch import nn


class SemanticHead(nn.Module):
    """x [..., d] -> Linear(dropout(ReLU(LN(Linear(x + out(value(x))))))) [..., out_width], d where that is None.

    `value` and `out` are what is left of attention over one feature, whose only weight is 1. Weights are Xavier-uniform
    at first, biases 0.
    """

    def __init__(self, width: int, out_width: int | None = None, dropout: float = 0.1) -> None:
        super().__init__()
        out_width = out_width or width
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.proj = nn.Sequential(
            nn.Linear(width, out_width),
            nn.LayerNorm(out_width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(out_width, out_width),
        )
        for layer in (self.value, self.out, self.proj[0], self.proj[4]):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the head makes of features [..., d], each by itself."""
        return self.proj(x + self.out(self.value(x)))
