"""One epoch of training: no host-device sync inside a step, meters are read every LOG_PERIOD iterations."""

import logging
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets.transforms import BatchTransform
from datasets.two_views import TwoViews
from model import ModelOutput
from model.layers.kernel import choose_attention
from processor.batch import BatchSettings, prepare_batch
from processor.clock import Clock
from processor.phases import Phase
from processor.stage import Stage
from processor.whole_batch import gather_batch
from processor.wrapping import averaging
from solver.update import group_size, step_centers, update
from utils.device import autocast
from utils.distributed import num_processes, own_rank, sum_over_ranks
from utils.errors import RunError

logger = logging.getLogger(__name__)


class StepSettings(NamedTuple):
    """How each step runs, from the configuration."""

    device: torch.device
    amp: torch.dtype | None
    grad_clip: float  # largest L2 norm, 0 = off
    accum_steps: int
    log_period: int
    center_weight: float
    gather: bool  # losses and readings see the batch of all processes, not the share of each
    batch: BatchSettings = BatchSettings()
    peak_images: float = 0.0  # images/s of one device at its peak FLOP/s, 0 = unknown: no MFU


class Meter:
    """Means of loss terms and accuracy since the last reading, kept on the device; remembers the first bad step."""

    def __init__(self, names: list[str], device: torch.device) -> None:
        self.names = names
        self._sum = torch.zeros(len(names), device=device)
        self._count = 0
        self._steps = 0
        self._bad_step = torch.zeros((), dtype=torch.int64, device=device)  # 0 = none so far
        self._bad_terms = torch.zeros(len(names), dtype=torch.bool, device=device)

    def add(self, values: list[torch.Tensor]) -> None:
        """Add the values of one step, in the order of `names`."""
        self._steps += 1
        self._count += 1
        row = torch.stack([value.detach().float() for value in values])
        self._sum += row
        bad = ~torch.isfinite(row)
        first = bad.any() & (self._bad_step == 0)
        self._bad_step = torch.where(first, self._steps, self._bad_step)
        self._bad_terms = torch.where(first, bad, self._bad_terms)

    def read(self, epoch: int) -> dict[str, float]:
        """Return the means over steps and processes and start anew, with one collective and one wait for the device.

        Raises RunError, on all processes alike, when a step was NaN or infinite on any of them.
        """
        own = torch.cat([self._bad_step.float().view(1), self._bad_terms.float(), self._sum / max(self._count, 1)])
        rows = own.new_zeros(num_processes(), len(own))  # a row for each process, so that a sum gathers
        rows[own_rank()] = own
        rows = sum_over_ranks(rows).tolist()
        bad = [row for row in rows if row[0]]
        if bad:
            bad_step = min(row[0] for row in bad)
            flags = [row[1 : len(self.names) + 1] for row in bad if row[0] == bad_step]
            terms = [name for name, *found in zip(self.names, *flags, strict=True) if any(found)]
            raise RunError(
                f"epoch {epoch}, iteration {bad_step:.0f}: {', '.join(terms)} is not finite; the last good state is "
                "kept. Train anew in another OUTPUT_DIR with a lower SOLVER.BASE_LR, with SOLVER.GRAD_CLIP, or "
                "SOLVER.AMP off"
            )
        self._sum.zero_()
        self._count = 0
        columns = zip(*(row[len(self.names) + 1 :] for row in rows), strict=True)
        return {name: sum(values) / len(rows) for name, values in zip(self.names, columns, strict=True)}


def train_epoch(
    stage: Stage,
    model: nn.Module,
    phase: Phase,
    loader: DataLoader,
    transform: BatchTransform | TwoViews,
    scaler: torch.amp.GradScaler,
    settings: StepSettings,
    on_log: Callable[[int, dict[str, float]], None],
) -> int:
    """Train one epoch and return its number of iterations; `on_log(iteration, readings)` is called at each reading.

    Readings are means since the last one: the loss, its terms, the shares `dark` and `acc` where there are such, and
    what `Clock.read` returns. `model` is stage.model or a wrapper of it.
    """
    model.train()
    choose_attention(stage.model, settings.device, settings.amp)
    device, total_steps = settings.device, len(loader)
    terms = [name for name, weight in phase.weights.items() if weight > 0]
    if stage.center_optimizer is not None:
        terms.append("center")
    meter = Meter(["loss", *terms, *_extra_readings(phase, settings.batch)], device)
    clock = Clock(device)
    title = f"epoch {phase.epoch}/{stage.max_epochs}"
    bar = tqdm(clock.waiting(loader), title, total_steps, leave=False, disable=not _show_bar(), unit="batch")
    for step, batch in enumerate(bar, start=1):
        batch = prepare_batch(batch, device, transform, settings.batch)
        clock.count(len(batch["pids"]))
        updates = step % settings.accum_steps == 0 or step == total_steps
        with averaging(model, enabled=updates):
            with autocast(device, settings.amp):
                output = stage.forward_batch(model, batch)
            if settings.gather:
                output, batch = gather_batch(output, batch)
            total, parts = stage.criterion(output, batch, phase)
            scaler.scale(total / group_size(step, total_steps, settings.accum_steps)).backward()
        if updates:
            update(model, stage.optimizer, scaler, settings.grad_clip)
            if stage.center_optimizer is not None:
                step_centers(stage.criterion, stage.center_optimizer, settings.center_weight, scaler)
            scaler.update()
        readings = parts | {"loss": total, **_read_extras(output, batch, phase, settings.batch)}
        meter.add([readings[name] for name in meter.names])
        if step % settings.log_period == 0 or step == total_steps:
            means = meter.read(phase.epoch) | clock.read(settings.peak_images)
            bar.set_postfix_str(f"loss {means['loss']:.3f}, {means['images_per_s']:.0f} img/s")
            on_log(step, means)
    return total_steps


def _show_bar() -> bool:
    return sys.stderr.isatty() and logging.getLogger().isEnabledFor(logging.INFO)


def _extra_readings(phase: Phase, settings: BatchSettings) -> list[str]:
    """Return what is logged beside the losses: the shares of dark images and of right identities where learnt."""
    dark = ["dark"] if settings.brightness != "off" else []
    return dark + (["acc"] if phase.weights["id"] > 0 else [])


def _read_extras(output: ModelOutput, batch: dict, phase: Phase, settings: BatchSettings) -> dict[str, torch.Tensor]:
    values = {}
    if settings.brightness != "off":
        values["dark"] = (batch["brightness"] < settings.dark_below).float().mean()
    if phase.weights["id"] > 0:
        values["acc"] = _accuracy(output, batch["pids"])
    return values


def _accuracy(output: ModelOutput, pids: torch.Tensor) -> torch.Tensor:
    """Return the share of right identities of the global branch: float32 scalar on the device."""
    return (output.logits[0].argmax(1) == pids).float().mean()
