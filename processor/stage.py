"""A stage of training: all that the loop knows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler

from configs.phases import PhasePlan
from datasets.batch import Batch
from datasets.test_set import TestSet
from losses.criterion import Criterion
from model import ModelOutput
from model.layers.kernel import AUTO
from solver.average import Average
from solver.scheduler import EpochScheduler
from solver.update import Updater


class StepSettings(NamedTuple):
    """How each step runs."""

    device: torch.device
    amp: torch.dtype | None  # of autocast, None = float32
    log_period: int  # iterations
    gather: bool  # losses and readings see the batch of all processes, not the share of each
    sync_bn: bool = False  # batch norms use the batch of all processes
    compile: bool = False
    attention: str = AUTO  # of MODEL.ATTENTION
    image_size: tuple[int, int] | None = None  # (y, x) of the images that a step sees, for its work; None: not counted
    peak_tflops: float = 0.0  # of one device, 0 = by its name


@dataclass
class Stage:
    """What to optimise, on which batches, how a batch runs, and when to keep and to test what has been learnt."""

    name: str
    plan: PhasePlan
    model: nn.Module  # what is saved and tested
    trained: nn.Module  # what runs in a step: the model or a view of it; DistributedDataParallel and compile wrap it
    loader: DataLoader | None  # None: the caller makes the batches
    prepare: Callable[[Batch], Batch]  # from the loader's batch to what model and criterion read, on the device
    forward_batch: Callable[[nn.Module, Batch], ModelOutput]  # takes model, trained or a wrapper alike
    criterion: Criterion
    updater: Updater
    scheduler: EpochScheduler
    settings: StepSettings
    save_every: int = 0  # epochs, 0 = after the last one alone
    test_every: int = 0  # epochs, 0 = never
    test: TestSet | None = None  # what picks the best epoch
    average: Average | None = None  # of the model's weights, see SOLVER.EMA
    measure: Callable[[], dict[str, float]] | None = None  # what the stage has reached, in shares: before and by epoch

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the updater, whose rates the scheduler sets."""
        return self.updater.optimizer

    @property
    def sampler(self) -> Sampler:
        """What draws the rows of an epoch: the loader's sampler, or where batches are drawn whole, the one in there."""
        return getattr(self.loader.batch_sampler, "sampler", self.loader.sampler)

    @property
    def max_epochs(self) -> int:
        """The last epoch, counted from 1."""
        return self.plan.max_epochs
