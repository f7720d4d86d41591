"""Loss functions: one per file, a pure function first and a thin module around it."""

from losses.center import CenterLoss
from losses.make_loss import make_loss
from losses.supcon import SupConLoss
from losses.triplet import TripletLoss
from losses.tripletx import TripletXLoss

__all__ = ["CenterLoss", "SupConLoss", "TripletLoss", "TripletXLoss", "make_loss"]
