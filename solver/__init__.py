"""Optimizers and the schedule of the learning rate."""

from solver.make_optimizer import make_optimizer
from solver.scheduler import EpochScheduler, create_scheduler
from solver.update import Updater, make_updater

__all__ = ["EpochScheduler", "Updater", "create_scheduler", "make_optimizer", "make_updater"]
