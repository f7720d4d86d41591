"""Loss functions: one per file, a pure function first and a thin module around it."""

from losses.center import CenterLoss
from losses.cross_modal import cross_modal_contrast
from losses.supcon import SupConLoss
from losses.transreid import make_loss
from losses.triplet import TripletLoss
from losses.tripletx import TripletXLoss

__all__ = ["CenterLoss", "SupConLoss", "TripletLoss", "TripletXLoss", "cross_modal_contrast", "make_loss"]
