"""Supervised contrastive loss: an anchor should recognise its positives among all other samples of the batch.

    L = - mean_i mean_{j in P_i} log( exp(z_i.z_j / T) / sum_{m != i} exp(z_i.z_m / T) )

over the anchors with a positive. With cameras, P_i holds only samples of the identity from other cameras; those of the
same camera stay in the denominator.
Reference: Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, equation 2.
"""

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from losses.numeric import attached_zero, check_camids, check_labels, weighted_mean
from losses.pairs import pair_masks
from utils.precision import at_least_float32, without_autocast

if TYPE_CHECKING:
    from configs.phases import Phase
    from datasets.batch import Batch
    from model import ModelOutput


def supcon_loss(
    feat: torch.Tensor,
    labels: torch.Tensor,
    camids: torch.Tensor | None = None,
    temperature: float = 0.07,
    among: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return L, a scalar of at least float32; a differentiable 0 when no anchor has a positive.

    feat is [N, D] in any float type and is L2-normalised here; labels is [N]; camids [N] makes positives come from
    other cameras. `among`, bool [N], leaves out all other samples, also from the denominator. Raises ValueError for
    other shapes.
    """
    check_labels(feat, labels)
    check_camids(labels, camids)
    if len(labels) < 2:
        return attached_zero([feat])
    positive, negative = pair_masks(labels, among)
    others = positive | negative
    if camids is not None:
        positive = positive & (camids[:, None] != camids[None, :])
    with without_autocast(feat):
        unit = F.normalize(at_least_float32(feat), dim=1)
        similarity = unit @ unit.t() / temperature  # [N, N]
    barred = torch.where(others.any(1, keepdim=True), similarity.masked_fill(~others, -math.inf), 0)
    log_share = similarity - barred.logsumexp(1, keepdim=True)
    per_anchor = -(positive * log_share).sum(1) / positive.sum(1).clamp(min=1)  # [N]
    return weighted_mean(per_anchor, positive.any(1))


class SupConLoss(nn.Module):
    """`supcon_loss` with its temperature > 0; ValueError otherwise."""

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature got {temperature}, expected a number above 0")
        self.temperature = temperature

    def forward(
        self,
        feat: torch.Tensor,
        labels: torch.Tensor,
        camids: torch.Tensor | None = None,
        among: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the scalar loss of features [N, D] with labels [N]; camids and `among` as in `supcon_loss`."""
        return supcon_loss(feat, labels, camids, self.temperature, among)

    def extra_repr(self) -> str:
        """Return the temperature for printing."""
        return f"temperature={self.temperature}"


class SupConTerm(nn.Module):
    """SupCon as a run uses it: with or without cameras, and with a boost of the dark samples.

    L = (L_all + b L_dark) / (1 + b), b = (dark_gamma - 1) n_dark / n, where L_dark sees only the dark samples;
    dark_gamma 1 = no boost. Dark are those with a brightness, in [0, 1], strictly below `dark_below`.
    Reference: Model B's code, with its 1.8 as an option.
    """

    def __init__(
        self, temperature: float = 0.07, cam_aware: bool = True, dark_gamma: float = 1.0, dark_below: float = 0.35
    ) -> None:
        super().__init__()
        if not 1 <= dark_gamma < math.inf:
            raise ValueError(f"dark_gamma got {dark_gamma}, expected a number of at least 1")
        self.loss = SupConLoss(temperature)
        self.cam_aware = cam_aware
        self.dark_gamma = dark_gamma
        self.dark_below = dark_below

    def forward(self, output: "ModelOutput", batch: "Batch", phase: "Phase") -> dict[str, torch.Tensor]:
        """Return the term `supcon`: the loss of the projection. Raises ValueError for a model without one."""
        if output.projection is None:
            raise ValueError("the phase weighs the loss 'supcon', but the model returned no projection")
        dark = batch["brightness"] < self.dark_below if "brightness" in batch else None
        return {"supcon": self.boosted(output.projection, batch["pids"], batch["camids"], dark)}

    def boosted(
        self, feat: torch.Tensor, labels: torch.Tensor, camids: torch.Tensor, dark: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the scalar loss of projections [N, D]; `dark`, bool [N], is needed only for the boost."""
        cameras = camids if self.cam_aware else None
        everyone = self.loss(feat, labels, cameras)
        if self.dark_gamma == 1 or len(labels) < 2:
            return everyone
        if dark is None:
            raise ValueError("dark_gamma above 1 needs to know which samples are dark")
        boost = (self.dark_gamma - 1) * dark.to(everyone.dtype).mean()
        return (everyone + boost * self.loss(feat, labels, cameras, among=dark)) / (1 + boost)

    def extra_repr(self) -> str:
        """Return the switches for printing."""
        return f"cam_aware={self.cam_aware}, dark_gamma={self.dark_gamma}"
