"""TripletX: a triplet loss that mines k pairs a side, looks across cameras, and weighs hard anchors more.

    d_ap, d_an = mean distance to the k hardest positives, mean distance to the k hardest negatives
    l_i = softplus(d_ap - d_an) during the warm-up, else max(0, d_ap - d_an + margin)
    L = sum_i w_i l_i / sum_i w_i,   w_i = sigmoid(alpha (d_ap - d_an)), without gradient

Positives come from other cameras where an anchor has any. Negatives from the anchor's own camera count as nearer by a
factor, because they are the ones that a camera's look confuses.
Reference: Model B (github.com/kongkongercat/5703-capstone), as its documentation intends the loss.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from losses.distance import euclidean_distance
from losses.numeric import attached_zero, check_camids, check_labels, weighted_mean
from losses.pairs import pair_masks, valid_anchors
from utils.precision import at_least_float32


def mine(
    feat: torch.Tensor,
    labels: torch.Tensor,
    camids: torch.Tensor | None,
    k: int,
    cross_cam_pos: bool,
    same_cam_neg_boost: float,
    among: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (d_ap, d_an, valid), each [N], for features [N, D], N >= 1; where not valid the distances are 0.

    Fewer than k candidates are averaged over those that there are. Without camids the cameras play no part.
    """
    distance = euclidean_distance(feat, feat)
    positive, negative = pair_masks(labels, among)
    valid = valid_anchors(positive, negative)
    to_negative = distance
    if camids is not None:
        same_camera = camids[:, None] == camids[None, :]
        if cross_cam_pos:
            across = positive & ~same_camera
            positive = torch.where(across.any(1, keepdim=True), across, positive)
        to_negative = torch.where(same_camera, distance / same_cam_neg_boost, distance)
    d_ap = _mean_of_hardest(distance, positive, k, largest=True)
    d_an = _mean_of_hardest(to_negative, negative, k, largest=False)
    return torch.where(valid, d_ap, 0), torch.where(valid, d_an, 0), valid


def _mean_of_hardest(distance: torch.Tensor, candidates: torch.Tensor, k: int, largest: bool) -> torch.Tensor:
    """Return the mean of the k largest (or smallest) distances of each row among its candidates, 0 without any."""
    barred = distance.masked_fill(~candidates, -math.inf if largest else math.inf)
    values, columns = barred.topk(min(k, distance.shape[1]), dim=1, largest=largest)
    taken = candidates.gather(1, columns)
    return torch.where(taken, values, 0).sum(1) / taken.sum(1).clamp(min=1)


def tripletx_anchors(
    feat: torch.Tensor,
    labels: torch.Tensor,
    camids: torch.Tensor | None = None,
    epoch: int | None = None,
    *,
    margin: float = 0.3,
    soft_warmup: bool = True,
    warmup_epochs: int = 10,
    k: int = 5,
    alpha: float = 2.0,
    cross_cam_pos: bool = True,
    same_cam_neg_boost: float = 1.2,
    normalize: bool = True,
    among: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (l_i [N], w_i [N]) of each anchor, w without gradient and 0 without a positive or a negative.

    feat is [N, D] in any float type, N >= 1; labels and camids are [N]. `epoch` counts from 1: epochs below
    `warmup_epochs` are soft; None is past the warm-up. `normalize` puts the features on the unit sphere first. `among`,
    bool [N], restricts anchors, positives and negatives. Raises ValueError for other shapes.
    """
    check_labels(feat, labels)
    check_camids(labels, camids)
    feat = at_least_float32(feat)
    if normalize:
        feat = F.normalize(feat, dim=1)
    d_ap, d_an, valid = mine(feat, labels, camids, k, cross_cam_pos, same_cam_neg_boost, among)
    gap = d_ap - d_an
    soft = soft_warmup and epoch is not None and epoch < warmup_epochs
    loss = F.softplus(gap) if soft else F.relu(gap + margin)
    return loss, valid * torch.sigmoid(alpha * gap.detach())


def tripletx_loss(
    feat: torch.Tensor,
    labels: torch.Tensor,
    camids: torch.Tensor | None = None,
    epoch: int | None = None,
    **options: float | bool | torch.Tensor | None,
) -> torch.Tensor:
    """Return L, a scalar of at least float32; arguments and options as in `tripletx_anchors`.

    Without a valid anchor (one identity, no positive, N < 2) the loss is a differentiable 0.
    """
    check_labels(feat, labels)
    if len(labels) < 2:
        return attached_zero([feat])
    return weighted_mean(*tripletx_anchors(feat, labels, camids, epoch, **options))


class TripletXLoss(nn.Module):
    """`tripletx_loss` with its options.

    margin >= 0, warmup_epochs >= 0, k >= 1, alpha >= 0, same_cam_neg_boost >= 1 (1 = no boost); ValueError outside.
    """

    def __init__(
        self,
        margin: float = 0.3,
        soft_warmup: bool = True,
        warmup_epochs: int = 10,
        k: int = 5,
        alpha: float = 2.0,
        cross_cam_pos: bool = True,
        same_cam_neg_boost: float = 1.2,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        lowest = {"margin": (margin, 0), "warmup_epochs": (warmup_epochs, 0), "k": (k, 1), "alpha": (alpha, 0)}
        for name, (value, least) in (lowest | {"same_cam_neg_boost": (same_cam_neg_boost, 1)}).items():
            if not least <= value < math.inf:
                raise ValueError(f"{name} got {value}, expected a number of at least {least}")
        self.options = {
            "margin": margin,
            "soft_warmup": soft_warmup,
            "warmup_epochs": warmup_epochs,
            "k": k,
            "alpha": alpha,
            "cross_cam_pos": cross_cam_pos,
            "same_cam_neg_boost": same_cam_neg_boost,
            "normalize": normalize,
        }

    def forward(
        self,
        feat: torch.Tensor,
        labels: torch.Tensor,
        camids: torch.Tensor | None = None,
        epoch: int | None = None,
    ) -> torch.Tensor:
        """Return the scalar loss of features [N, D] with labels [N], camids [N] or None, at `epoch` (from 1)."""
        return tripletx_loss(feat, labels, camids, epoch, **self.options)

    def anchors(
        self,
        feat: torch.Tensor,
        labels: torch.Tensor,
        camids: torch.Tensor | None = None,
        epoch: int | None = None,
        among: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (loss [N], weight [N]) of each anchor, see `tripletx_anchors`."""
        return tripletx_anchors(feat, labels, camids, epoch, among=among, **self.options)

    def extra_repr(self) -> str:
        """Return the options for printing."""
        return ", ".join(f"{name}={value}" for name, value in self.options.items())
