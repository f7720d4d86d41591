"""Features of several modalities into one, whichever of them are there."""

import torch
from torch import nn

from utils.errors import ConfigError


class MaskedFusion(nn.Module):
    """Features [B, M, d] of M modalities, in any order, and which of them count -> one feature [B, d].

    h = LN1(X + MHA(X, X, X)) over the features that count, z = LN2(h + MLP(h)), and the mean of their z. The MLP is LN,
    Linear, GELU, dropout, Linear, dropout, its hidden width mlp_ratio d. One feature goes through it like several.
    Raises ConfigError where `heads` do not divide `width`, and for an MLP without width.
    """

    def __init__(self, width: int, heads: int = 8, mlp_ratio: float = 2.0, dropout: float = 0.1) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        if width % heads:
            raise ConfigError(
                f"MODEL.MULTIMODAL.HEADS {heads} does not divide {width}, the width of features (embed_dim of "
                "MODEL.CLIP_BACKBONE)"
            )
        if hidden < 1:
            raise ConfigError(
                f"MODEL.MULTIMODAL.MLP_RATIO {mlp_ratio:g} of {width}, the width of features, leaves the MLP no width"
            )
        self.attn = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
            nn.Dropout(dropout),
        )

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the fused features [B, d]; without a `mask`, bool [B, M], all count.

        What does not count may hold anything, NaN too. A row in which nothing counts gives zeros.
        """
        if mask is None:
            return self._related(features, None).mean(1)
        features = torch.where(mask[..., None], features, 0)
        unseen = ~mask & mask.any(1, keepdim=True)  # where nothing counts all zeros are seen: attention to none is NaN
        weights = mask[..., None].to(features.dtype)
        return (self._related(features, unseen) * weights).sum(1) / weights.sum(1).clamp(min=1)

    def _related(self, features: torch.Tensor, unseen: torch.Tensor | None) -> torch.Tensor:
        seen = self.attn(features, features, features, key_padding_mask=unseen, need_weights=False)[0]
        hidden = self.norm1(features + seen)
        return self.norm2(hidden + self.mlp(hidden))
