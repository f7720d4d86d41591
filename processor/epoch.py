"""One epoch of training: no host-device sync inside a step, meters are read every LOG_PERIOD iterations."""

import logging
import sys
from collections.abc import Callable

from torch import nn
from tqdm import tqdm

from configs.phases import Phase
from model.layers.kernel import choose_attention
from processor.stage import Stage
from processor.step.clock import Clock
from processor.step.gather import gather_batch
from processor.step.meter import Meter
from processor.step.wrapping import averaging
from utils.device import autocast
from utils.interrupts import check


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
    device, amp = stage.settings.device, stage.settings.amp
    choose_attention(stage.model, device, amp)
    updater, total_steps = stage.updater, len(stage.loader)
    meter = Meter(["loss", *stage.criterion.names(phase)], device)
    clock = Clock(device)
    title = f"epoch {phase.epoch}/{stage.max_epochs}"
    bar = tqdm(clock.waiting(stage.loader), title, total_steps, leave=False, disable=not _show_bar(), unit="batch")
    for step, batch in enumerate(bar, start=1):
        check()  # Ctrl-C, between two steps
        batch = stage.prepare(batch)
        batch |= {"step": steps_before + step, "epoch": phase.epoch}
        clock.count(len(batch["pids"]))
        updates = updater.updates_at(step, total_steps)
        with averaging(trained, enabled=updates):
            with autocast(device, amp):
                output = stage.forward_batch(trained, batch)
            if stage.settings.gather:
                output, batch = gather_batch(output, batch)
            total, parts = stage.criterion(output, batch, phase)
            updater.backward(total, step, total_steps)
        if updates:
            updater.step()
        readings = parts | {"loss": total} | stage.criterion.readings(output, batch, phase)
        meter.add([readings[name] for name in meter.names])
        if step % stage.settings.log_period == 0 or step == total_steps:
            means = meter.read(phase.epoch) | clock.read(peak_images)
            bar.set_postfix_str(f"loss {means['loss']:.3f}, {means['images_per_s']:.0f} img/s")
            on_log(step, means)
    return total_steps


def _show_bar() -> bool:
    return sys.stderr.isatty() and logging.getLogger().isEnabledFor(logging.INFO)
