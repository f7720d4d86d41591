"""Loss functions: one per file, a pure function first and a thin module around it."""

from losses.center import CenterLoss
from losses.make_loss import make_loss
from losses.triplet import TripletLoss

__all__ = ["CenterLoss", "TripletLoss", "make_loss"]
