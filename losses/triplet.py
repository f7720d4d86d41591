"""Triplet loss with the hardest positive and the hardest negative of each anchor in the batch.

    l_i = max(0, (1 + h) d_ap - (1 - h) d_an + margin)        or, without a margin,
    l_i = log(1 + exp((1 + h) d_ap - (1 - h) d_an))

d_ap is the largest distance to another sample of the anchor's identity, d_an the smallest to another identity.
Reference: Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017, equation 5.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from losses.distance import euclidean_distance
from losses.numeric import attached_zero, check_labels, weighted_mean
from losses.pairs import pair_masks, valid_anchors


def batch_hard(
    distance: torch.Tensor, labels: torch.Tensor, among: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (d_ap, d_an, valid), each [N], for distances [N, N] between the samples of one batch.

    `valid` is True where the anchor has both a positive (another sample of its label) and a negative; elsewhere a
    distance without candidates is infinite. Any number of samples per label will do; `among` as in `pair_masks`.
    """
    positive, negative = pair_masks(labels, among)
    d_ap = distance.masked_fill(~positive, -math.inf).amax(1)
    d_an = distance.masked_fill(~negative, math.inf).amin(1)
    return d_ap, d_an, valid_anchors(positive, negative)


def triplet_anchors(
    feat: torch.Tensor,
    labels: torch.Tensor,
    margin: float | None = None,
    hard_factor: float = 0.0,
    among: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (l_i [N], valid [N] bool), the loss of each anchor and whether it has a positive and a negative.

    feat is [N, D] in any float type, N >= 1, not normalised here; labels is [N]. margin None is the soft margin;
    hard_factor h in [0, 1) makes every triplet harder. `among`, bool [N], restricts anchors, positives and negatives.
    Raises ValueError for other shapes.
    """
    check_labels(feat, labels)
    d_ap, d_an, valid = batch_hard(euclidean_distance(feat, feat), labels, among)
    gap = torch.where(valid, (1 + hard_factor) * d_ap - (1 - hard_factor) * d_an, 0)
    return F.softplus(gap) if margin is None else F.relu(gap + margin), valid


def triplet_loss(
    feat: torch.Tensor, labels: torch.Tensor, margin: float | None = None, hard_factor: float = 0.0
) -> torch.Tensor:
    """Return the mean of l_i over the anchors that have a positive and a negative, a scalar of at least float32.

    Arguments as in `triplet_anchors`. Without a valid anchor (one identity, no positive, N < 2) the loss is a
    differentiable 0.
    """
    check_labels(feat, labels)
    if len(labels) < 2:
        return attached_zero([feat])
    return weighted_mean(*triplet_anchors(feat, labels, margin, hard_factor))


class TripletLoss(nn.Module):
    """`triplet_loss` with its margin (None = soft, else >= 0) and hard_factor (in [0, 1)); ValueError outside these."""

    def __init__(self, margin: float | None = None, hard_factor: float = 0.0) -> None:
        super().__init__()
        if margin is not None and not 0 <= margin < math.inf:
            raise ValueError(f"margin got {margin}, expected None (soft margin) or a number of at least 0")
        if not 0 <= hard_factor < 1:
            raise ValueError(f"hard_factor got {hard_factor}, expected a number in [0, 1)")
        self.margin = margin
        self.hard_factor = hard_factor

    def forward(self, feat: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of features [N, D] with labels [N]."""
        return triplet_loss(feat, labels, self.margin, self.hard_factor)

    def anchors(
        self, feat: torch.Tensor, labels: torch.Tensor, among: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (loss [N], valid [N]) of each anchor, see `triplet_anchors`."""
        return triplet_anchors(feat, labels, self.margin, self.hard_factor, among)

    def extra_repr(self) -> str:
        """Return the hyper-parameters for printing."""
        return f"margin={'soft' if self.margin is None else self.margin}, hard_factor={self.hard_factor}"
