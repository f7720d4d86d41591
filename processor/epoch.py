"""One epoch of training: no host-device sync inside a step, meters are read every LOG_PERIOD iterations."""

from collections.abc import Callable

import torch
from torch import nn

from configs.phases import Phase
from datasets.batch import Batch
from model.layers.kernel import choose_attention
from processor.stage import Stage
from processor.step.clock import Clock
from processor.step.gather import gather_batch
from processor.step.meter import Meter
from processor.step.wrapping import averaging
from utils.device import autocast
from utils.interrupts import check
from utils.progress import progress


def train_epoch(
    stage: Stage,
    trained: nn.Module,
    phase: Phase,
    on_log: Callable[[int, dict[str, float]], None],
    steps_before: int = 0,
    peak_images: float = 0.0,
) -> int:
    """Train one epoch and return its number of iterations; `on_log(iteration, readings)` is called at each reading.

    Readings are means since the last one: the loss, its terms, the criterion's own readings, and what `Clock.read`
    returns for `peak_images`. `trained` is stage.trained or a wrapper of it; `steps_before` are the run's iterations so
    far.
    """
    trained.train()
    device = stage.settings.device
    choose_attention(stage.model, device, stage.settings.amp, training=True, choice=stage.settings.attention)
    total_steps = len(stage.loader)
    meter = Meter(["loss", *stage.criterion.names(phase)], device)
    clock = Clock(device)
    all_steps = stage.max_epochs * total_steps  # of the stage, so that the bar tells when its training ends
    title = f"epoch {phase.epoch}/{stage.max_epochs}"
    with progress(title, all_steps, "batch", (phase.epoch - 1) * total_steps) as bar:
        for step, batch in enumerate(clock.waiting(stage.loader), start=1):
            check()  # Ctrl-C, between two steps
            batch = stage.prepare(batch) | {"step": steps_before + step, "epoch": phase.epoch}
            clock.count(len(batch["pids"]))
            readings = _take_step(stage, trained, phase, batch, (step, total_steps))
            meter.add([readings[name] for name in meter.names])
            if step % stage.settings.log_period == 0 or step == total_steps:
                means = meter.read(phase.epoch) | clock.read(peak_images)
                bar.set_postfix_str(f"loss {means['loss']:.3f}, {means['images_per_s']:.0f} images/s")
                on_log(step, means)
            bar.update()
    return total_steps


def _take_step(
    stage: Stage, trained: nn.Module, phase: Phase, batch: Batch, place: tuple[int, int]
) -> dict[str, torch.Tensor]:
    """Learn from a batch and return the loss, its terms and the criterion's own readings.

    `place` is (step, number of steps) in the epoch: it decides whether the gradients are applied.
    """
    updater = stage.updater
    updates = updater.updates_at(*place)
    with averaging(trained, enabled=updates):
        with autocast(stage.settings.device, stage.settings.amp):
            output = stage.forward_batch(trained, batch)
        if stage.settings.gather:
            output, batch = gather_batch(output, batch)
        total, parts = stage.criterion(output, batch, phase)
        updater.backward(total, *place)
    if updates:
        updater.step()
        if stage.average is not None:
            stage.average.update(stage.model)
    return parts | {"loss": total} | stage.criterion.readings(output, batch, phase)
