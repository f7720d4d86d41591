"""How CLIP's features join the model's own: the parts of the fusions whose weights Model B names."""

import torch
from torch import nn

from utils.errors import ConfigError

AFEM_GROUPS = 32
GATE_REDUCTION = 4  # width of the features / hidden width of the gate


class FeatureEnhancement(nn.Module):
    """AFEM: t -> t + w * ReLU(BN(Linear(t))), features [B, D] -> [B, D] with one scalar w for each of 32 groups.

    Raises ConfigError when the groups do not divide D and the module is `used`; otherwise it only holds its weights.
    """

    def __init__(self, width: int, used: bool = True) -> None:
        super().__init__()
        if used and width % AFEM_GROUPS:
            raise ConfigError(
                f"MODEL.CLIP_USE_AFEM True: CLIP's features of width {width} do not divide into {AFEM_GROUPS} groups; "
                "set it False, or choose another MODEL.CLIP_HF_ID"
            )
        self.linear = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU())
        self.group_weight = nn.Parameter(torch.randn(AFEM_GROUPS))

    def forward(self, feat: torch.Tensor) -> torch.Tensor:
        groups = self.linear(feat).unflatten(1, (AFEM_GROUPS, -1))  # [B, 32, D / 32]
        return feat + (self.group_weight.unsqueeze(1) * groups).flatten(1)


def make_gate(own_width: int, clip_width: int) -> nn.Sequential:
    """Return the gate [..., C + D] -> [..., 1] in (0, 1): Linear, ReLU, Linear, Sigmoid."""
    hidden = own_width // GATE_REDUCTION
    return nn.Sequential(nn.Linear(own_width + clip_width, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Sigmoid())


def gated_join(own: torch.Tensor, clip: torch.Tensor, gate: nn.Module) -> torch.Tensor:
    """Return [(1 - a) own, a clip] of features [..., C] and [..., D], a = gate([own, clip]): [..., C + D]."""
    share = gate(torch.cat([own, clip], dim=-1))  # [..., 1]
    return torch.cat([(1 - share) * own, share * clip], dim=-1)
