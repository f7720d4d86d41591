"""Brightness routing: dark images learn by TripletX, bright ones by the plain triplet loss.

Hard: an image is dark below a threshold; each loss mines within its own part of the batch only. Soft: both losses mine
in the whole batch, and an anchor's darkness q = sigmoid((threshold - brightness) / softness) divides it between them.
Reference: Model B (github.com/kongkongercat/5703-capstone), as its documentation intends the routing.
"""

from typing import NamedTuple

import torch

from losses.numeric import attached_zero, weighted_mean
from losses.pairs import pair_masks, valid_anchors
from losses.triplet import TripletLoss
from losses.tripletx import TripletXLoss


class Routing(NamedTuple):
    """How images are routed: threshold in [0, 1], softness > 0 (read by soft only), and the branches concerned."""

    threshold: float = 0.35
    softness: float = 0.08
    soft: bool = False
    global_only: bool = False

    def is_dark(self, brightness: torch.Tensor) -> torch.Tensor:
        """Return, bool [N], which images are dark: brightness [N] in [0, 1] strictly below the threshold."""
        return brightness < self.threshold


class Anchors(NamedTuple):
    """What both losses read of one batch: labels, camids, brightness [N] each, and the epoch, counted from 1."""

    labels: torch.Tensor
    camids: torch.Tensor
    brightness: torch.Tensor
    epoch: int | None


def route(
    feats: tuple[torch.Tensor, torch.Tensor],
    anchors: Anchors,
    triplet: TripletLoss,
    tripletx: TripletXLoss,
    routing: Routing,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (triplet loss, TripletX loss), scalars, of one branch.

    `feats` are the features [N, D] that each of the two losses sees. A part without a valid anchor gives a
    differentiable 0.
    """
    labels, camids, brightness, epoch = anchors
    if len(labels) < 2:
        return attached_zero(feats[:1]), attached_zero(feats[1:])
    if routing.soft:
        darkness = torch.sigmoid((routing.threshold - brightness) / routing.softness)
        bright_loss, valid = triplet.anchors(feats[0], labels)
        dark_loss, hardness = tripletx.anchors(feats[1], labels, camids, epoch)
        darkness = darkness.to(hardness.dtype)
        return weighted_mean(bright_loss, (1 - darkness) * valid), weighted_mean(dark_loss, darkness * hardness)
    dark = routing.is_dark(brightness)
    return (
        weighted_mean(*triplet.anchors(feats[0], labels, among=~dark)),
        weighted_mean(*tripletx.anchors(feats[1], labels, camids, epoch, among=dark)),
    )


def nothing_to_route(labels: torch.Tensor, brightness: torch.Tensor, routing: Routing) -> torch.Tensor:
    """Return a bool scalar: hard routing leaves neither part of the batch an anchor with a positive and a negative."""
    dark = routing.is_dark(brightness)
    parts = [valid_anchors(*pair_masks(labels, among)).any() for among in (dark, ~dark)]
    return ~(parts[0] | parts[1])
