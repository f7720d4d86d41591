"""Optimizers and the schedule of the learning rate."""

from solver.make_optimizer import make_optimizer
from solver.scheduler import EpochScheduler, create_scheduler
from solver.update import step_centers

__all__ = ["EpochScheduler", "create_scheduler", "make_optimizer", "step_centers"]
