"""A stage of training: all that the loop knows. Today a run has one; systems that train in two bring two."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from model import ModelOutput
from processor.phases import PhasePlan
from solver.scheduler import EpochScheduler


@dataclass
class Stage:
    """What to optimise, how to run a batch, and for which epochs (1..max_epochs)."""

    name: str
    model: nn.Module
    forward_batch: Callable[[nn.Module, dict], ModelOutput]
    criterion: nn.Module
    optimizer: torch.optim.Optimizer
    center_optimizer: torch.optim.Optimizer | None
    scheduler: EpochScheduler
    plan: PhasePlan
    max_epochs: int


def forward_images(model: nn.Module, batch: dict) -> ModelOutput:
    """Run an image model with its side information; `batch` is on the model's device, images normalised."""
    return model(batch["images"], cam_label=batch["camids"], view_label=batch["viewids"])
