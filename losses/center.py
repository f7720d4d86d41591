"""Centre loss: pull every feature towards a learnt centre of its identity.

Reference: Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition, ECCV 2016, equation 2.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn

from losses.numeric import check_labels
from utils.precision import at_least_float32

if TYPE_CHECKING:
    from configs.phases import Phase
    from datasets.batch import Batch
    from model import ModelOutput

MIN_SQUARED, MAX_SQUARED = 1e-12, 1e12  # a runaway feature stops pulling instead of overflowing the total


def center_loss(feat: torch.Tensor, labels: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """Return the mean over the batch of clamp(|x - c_y|^2, 1e-12, 1e12), a scalar of at least float32.

    feat is [N, D] in any float type, labels is [N] int64 in 0..C-1, centers is [C, D]. An empty batch gives a
    differentiable 0. Raises ValueError for other shapes.
    """
    check_labels(feat, labels)
    if feat.shape[1] != centers.shape[1]:
        raise ValueError(f"features are {feat.shape[1]} wide, but the centres {centers.shape[1]}")
    squared = (at_least_float32(feat) - centers[labels]).square().sum(1)  # [N]
    return squared.clamp(MIN_SQUARED, MAX_SQUARED).sum() / max(len(labels), 1)


class CenterLoss(nn.Module):
    """`center_loss` with its parameter `centers` [num_classes, feat_dim], float32, drawn from N(0, 1)."""

    def __init__(self, num_classes: int, feat_dim: int) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.randn(num_classes, feat_dim))

    def forward(self, feat: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of features [N, D] with labels [N]."""
        return center_loss(feat, labels, self.centers)

    def extra_repr(self) -> str:
        """Return the sizes for printing."""
        return "num_classes={}, feat_dim={}".format(*self.centers.shape)


class CenterTerm(nn.Module):
    """The centre loss of the global branch, before its neck; the parameter `centers` is that of `loss`."""

    def __init__(self, loss: CenterLoss) -> None:
        super().__init__()
        self.centers = loss.centers  # its own, so that the saved state calls it center.centers

    def forward(self, output: "ModelOutput", batch: "Batch", phase: "Phase") -> dict[str, torch.Tensor]:
        """Return the term `center`; the centres learn at full speed whatever its weight, see `solver.centers`."""
        self.centers.loss_weight = phase.weights["center"]
        return {"center": center_loss(output.pre_bn[0], batch["pids"], self.centers)}
