"""Loss functions: one per file, a pure function first and a thin module around it."""

from losses.alignment import alignment_loss, norm_penalty
from losses.center import CenterLoss
from losses.cross_modal import cross_modal_contrast
from losses.distill import distill_features, distill_logits, distill_relations
from losses.image_text import cmpm_loss, itc_loss, sdm_loss
from losses.supcon import SupConLoss
from losses.transreid import make_loss
from losses.triplet import TripletLoss
from losses.tripletx import TripletXLoss

__all__ = [
    "CenterLoss",
    "SupConLoss",
    "TripletLoss",
    "TripletXLoss",
    "alignment_loss",
    "cmpm_loss",
    "cross_modal_contrast",
    "distill_features",
    "distill_logits",
    "distill_relations",
    "itc_loss",
    "make_loss",
    "norm_penalty",
    "sdm_loss",
]
