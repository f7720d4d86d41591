"""Spectral feature transform: each feature as a mean of those of its batch that resemble it.

Reference: Luo et al., Spectral Feature Transformation for Person Re-identification, ICCV 2019, section 3.2.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn

from losses.identity import IdentityLoss
from losses.numeric import unit_rows
from utils.errors import ConfigError
from utils.precision import at_least_float32, without_autocast

if TYPE_CHECKING:
    from configs.phases import Phase
    from datasets.batch import Batch
    from model import ModelOutput

SPECTRAL_LOGITS = "spectral_logits"  # of ModelOutput.extra: the global classifier on transformed features, [B, C]


def spectral_transform(feat: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return A X for features X [N, d]: row i of A is softmax over j of cos(x_i, x_j) / temperature.

    Any float type gives at least float32, whatever autocast says; rows of A sum to 1, the gradient passes through A.
    Raises ConfigError for a temperature that is not above 0.
    """
    if not temperature > 0:
        raise ConfigError(f"LOSS.SPECTRAL.T got {temperature}, expected a temperature above 0")
    with without_autocast(feat):
        feat = at_least_float32(feat)
        unit = unit_rows(feat)
        return torch.softmax(unit @ unit.t() / temperature, dim=1) @ feat


class SpectralTerm(nn.Module):
    """The identity loss of the logits of transformed features; their weight against the plain ones is the phase's."""

    def __init__(self, loss: IdentityLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, output: "ModelOutput", batch: "Batch", phase: "Phase") -> dict[str, torch.Tensor]:
        """Return the term `spectral`. Raises ValueError for an output without the logits."""
        if SPECTRAL_LOGITS not in output.extra:
            raise ValueError(f"the phase weighs the loss 'spectral', but the output has no extra['{SPECTRAL_LOGITS}']")
        return {"spectral": self.loss(output.extra[SPECTRAL_LOGITS], batch["pids"], phase.epoch)}
