"""The training loop: stages, epochs, checkpoints, evaluation, and the state that a killed run continues from."""

import logging
import time
from contextlib import closing, nullcontext
from datetime import timedelta
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from configs.phase_words import describe_losses
from configs.phases import Phase, active_losses
from configs.readings import IN_LOG
from configs.stages import last_stage, stages_of
from datasets.make_dataloader import ReIDData
from datasets.sampler import RandomIdentitySampler
from losses.criterion import Criterion
from processor.distill import with_teacher
from processor.epoch import train_epoch
from processor.evaluation.cautions import image_sets
from processor.kept import begin_record, heal_checkpoint, keep_checkpoint
from processor.learning import FirstEpoch, check_finite
from processor.periodic import evaluate_if_due, evaluate_references, is_due
from processor.provenance import run_of
from processor.resume import restore_model, save_state
from processor.run import Run, start_run
from processor.stage import Stage
from processor.step.compiling import CompiledTraining
from processor.step.speed import describe_speed
from processor.step.wrapping import wrap
from processor.systems import make_stage
from processor.systems.transreid import assemble
from processor.tracking import tracked
from solver import EpochScheduler
from solver.update import updater_of
from utils.device import seed_everything
from utils.distributed import own_rank, share_buffers
from utils.interrupts import deferred
from utils.run_folder import EMA

logger = logging.getLogger(__name__)

RANK_SEED_STEP, STAGE_SEED_STEP = 1_000_003, 7_368_787  # no two of neighbouring seeds, ranks and stages meet
NUM_SEEDS = 2**32


@deferred()
def train_stages(cfg: CfgNode, model: nn.Module, data: ReIDData, state: dict[str, Any] | None = None) -> dict[str, Any]:
    """Train stage after stage to the end of the last one in OUTPUT_DIR; the model is on its device already.

    `state` comes from `processor.resume.find_state`; None starts at the first stage. A stage is made when its turn
    comes: what earlier ones learnt is in the model, what it derives from that is made anew and never saved. Returns and
    raises as `do_train`.
    """
    names = list(stages_of(cfg))
    first = names.index(state["stage"]) if state else 0
    identity = _identify(cfg, state)
    progress: dict[str, Any] = {"iteration": 0}
    with tracked(cfg, identity) as tracking:
        for number, name in enumerate(names[first:], start=first):
            own_state = state if state and number == first else None
            if own_state:
                restore_model(own_state, model)
            seed = cfg.SOLVER.SEED + STAGE_SEED_STEP * number
            if number:  # in the first stage the draws of the model's weights go on
                seed_everything(seed % NUM_SEEDS)
            stage = make_stage(cfg, name, model, data)
            # equal weights on all ranks, but each its own augmentation, shared with no rank of a neighbouring seed
            seed_everything((seed + RANK_SEED_STEP * own_rank()) % NUM_SEEDS)
            run = start_run(cfg, stage, data, own_state, identity, tracking, progress["iteration"])
            progress = _train(run, is_first=not number)
    return {"epoch": progress["epoch"], "best": progress["best"]}


@deferred()
def do_train(
    cfg: CfgNode,
    model: nn.Module,
    criterion: Criterion,
    data: ReIDData,
    optimizer: torch.optim.Optimizer,
    scheduler: EpochScheduler,
    center_optimizer: torch.optim.Optimizer | None = None,
    state: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a system of one stage on images to SOLVER.MAX_EPOCHS in OUTPUT_DIR; the model is on its device already.

    `state` comes from `processor.resume.find_state`; None starts at epoch 1. Returns {"epoch": last epoch, "best":
    {"epoch", "mAP", "Rank-1"} of the evaluations or {}}. Raises RunError (nothing is saved over the last good state)
    when a loss, a weight or the optimizer's state is NaN or infinite, and where the first epoch moves no weight.
    """
    if state:
        restore_model(state, model)
    device, name = next(model.parameters()).device, last_stage(cfg)
    updater = updater_of(cfg, name, model, (optimizer, center_optimizer), device)
    stage = with_teacher(cfg, assemble(cfg, name, model, data, criterion, updater, scheduler), data)
    identity = _identify(cfg, state)
    with tracked(cfg, identity) as tracking:
        progress = _train(start_run(cfg, stage, data, state, identity, tracking), is_first=True)
    return {"epoch": progress["epoch"], "best": progress["best"]}


def _identify(cfg: CfgNode, state: dict[str, Any] | None) -> str:
    """Return the identity of the run in rank 0, which keeps its files, and "" in the others."""
    return "" if own_rank() else begin_record(run_of(cfg), list(stages_of(cfg)), state, cfg.dump())


def _train(run: Run, is_first: bool) -> dict[str, Any]:
    """Train the run's stage to its last epoch and return the progress."""
    with run.background, closing(run.recorder) if run.recorder else nullcontext():
        if is_first and run.progress["epoch"] == 0 and run.cfg.TEST.REFERENCE:
            evaluate_references(run)
        _train_stage(run)
        _send_epochs(run, final=True)
    return run.progress


def _train_stage(run: Run) -> None:
    stage, progress, settings = run.stage, run.progress, run.stage.settings
    if progress["epoch"]:  # a run that ended between its state and its checkpoint or evaluation goes on there
        _save_checkpoint_if_due(run, goes_on=True)
        evaluate_if_due(run)
    if progress["epoch"] >= stage.max_epochs:
        logger.info("already trained to epoch %d; nothing to do", progress["epoch"])
    trained = CompiledTraining(stage.trained) if settings.compile else stage.trained
    trained = wrap(trained, settings.device, run.ranks.world_size, settings.sync_bn)
    first = None if progress["epoch"] else FirstEpoch(stage)
    if not progress["epoch"]:
        _tell_what_is_trained(run)
        _measure(run, 0)
    for epoch in range(progress["epoch"] + 1, stage.max_epochs + 1):
        started = time.perf_counter()
        progress["iteration"] += _train_one(run, trained, epoch)
        for model in (stage.model, *([stage.average.model] if stage.average else [])):
            share_buffers(model)  # what all ranks evaluate is what rank 0 saves
        check_finite(stage, epoch)
        if first is not None and first.check(epoch):
            first = None
        _measure(run, epoch)
        progress["epoch"] = epoch
        save_state(run.cfg, stage, run.ranks, progress, run.background)
        _save_checkpoint_if_due(run)
        evaluate_if_due(run)
        _send_epochs(run)
        seconds = time.perf_counter() - started
        left = timedelta(seconds=round(seconds * (stage.max_epochs - epoch)))
        logger.info("Epoch %d done in %.1f s (%s), about %s left", epoch, seconds, run.speed.end_epoch(), left)


def _send_epochs(run: Run, final: bool = False) -> None:
    """Send the records of LOGGER the epochs that a run would not train again if it was killed now."""
    if run.tracking:
        run.background.wait()  # the state of this epoch is on the disk
        run.tracking.send(run.stage.name, run.progress["epoch"], final)


def _tell_what_is_trained(run: Run) -> None:
    """Log and record which parts of the model a stage of several trains, and how many parameters."""
    if len(stages_of(run.cfg)) == 1:
        return
    stage, trained = run.stage, {}
    for name, weight in stage.model.named_parameters():
        if weight.requires_grad:
            part = name.split(".")[0]
            trained[part] = trained.get(part, 0) + weight.numel()
    total = sum(weight.numel() for weight in stage.model.parameters())
    parts = ", ".join(f"{part} {count:,}" for part, count in trained.items())
    share = f"{sum(trained.values()):,} of {total:,} parameters"
    logger.info("stage %s trains %s: %s", stage.name, share, parts)
    if run.recorder:
        run.recorder.write("trains", 0, run.progress["iteration"], {"parameters": share, "parts": parts})


def _measure(run: Run, epoch: int) -> None:
    """Record what the stage has reached after `epoch`, 0 = before the first one."""
    if run.stage.measure is None:
        return
    values = run.stage.measure()
    shown = ", ".join(f"{name} {100 * value:.1f} %" for name, value in values.items())
    when = f"after epoch {epoch}" if epoch else "before training"
    logger.info("stage %s %s: %s", run.stage.name, when, shown)
    if run.recorder:
        run.recorder.write("fit", epoch, run.progress["iteration"], values)


def _save_checkpoint_if_due(run: Run, goes_on: bool = False) -> None:
    """Keep the weights of the epoch just finished where the stage asks for it.

    Where a run goes on after that epoch they may be kept already.
    """
    stage, epoch = run.stage, run.progress["epoch"]
    if run.ranks.rank == 0 and is_due(epoch, stage.save_every, epoch == stage.max_epochs):
        run.background.wait()  # no checkpoint is younger than the state
        keep = heal_checkpoint if goes_on else keep_checkpoint
        keep(run, stage.model, run.file_stage)
        if stage.average is not None:
            keep(run, stage.average.model, EMA)


def _train_one(run: Run, trained: nn.Module, epoch: int) -> int:
    """Train one epoch by its phase and return its number of iterations."""
    stage, phase = run.stage, run.stage.plan.at(epoch)
    stage.scheduler.step(epoch)
    _set_sampler(stage, phase)
    _announce(run, phase)
    dark_shares: list[float] = []

    def on_log(step: int, means: dict[str, float]) -> None:
        run.background.check()  # a disk that refuses the state shows before the epoch ends
        dark_shares.append(means.get("dark", 0.5))
        _log_step(run, phase, step, means)

    steps = train_epoch(stage, trained, phase, on_log, run.progress["iteration"], run.peak_images)
    _warn_of_one_way_routing(run, phase, dark_shares)
    for images in image_sets([stage.loader]):
        images.tell_damage()
    return steps


def _warn_of_one_way_routing(run: Run, phase: Phase, dark_shares: list[float]) -> None:
    """Say once a run that all images of an epoch went to one of the two losses; the shares are means of its steps."""
    brightness = run.cfg.LOSS.BRIGHTNESS
    if run.told_one_way or not phase.routed or brightness.MODE != "hard" or set(dark_shares) not in ({0.0}, {1.0}):
        return
    run.told_one_way = True
    side, loss, way = ("dark", "triplet", "lower") if dark_shares[0] else ("bright", "TripletX", "raise")
    logger.warning(
        "epoch %d: all images are %s by LOSS.BRIGHTNESS.THRESH %g, so the %s loss had no image at all; %s the "
        "threshold (the log tells the share `dark`), or set LOSS.BRIGHTNESS.ENABLE False",
        *(phase.epoch, side, brightness.THRESH, loss, way),
    )


def _set_sampler(stage: Stage, phase: Phase) -> None:
    """Give the stage's loader the epoch and the K of the phase; data set and workers stay as they are."""
    sampler = stage.sampler
    sampler.set_epoch(phase.epoch)
    if isinstance(sampler, RandomIdentitySampler) and sampler.num_instances != phase.num_instance:
        before = f"{sampler.num_identities}x{sampler.num_instances}"
        sampler.set_num_instances(phase.num_instance)
        logger.info("epoch %d: PxK %s -> %s", phase.epoch, before, sampler.describe().removeprefix("PxK = "))


def _announce(run: Run, phase: Phase) -> None:
    """Record the losses, weights and K of the epoch; log them where they differ in kind from the epoch before."""
    plan, before = run.stage.plan, run.announced
    if before is None or (before.tag, active_losses(before)) != (phase.tag, active_losses(phase)):
        tag = phase.tag if before is None or before.tag == phase.tag else f"{before.tag} -> {phase.tag}"
        of = f" of stage {run.file_stage}" if run.file_stage else ""
        logger.info(
            *("epoch %d%s, phase %s: %s, batches %s", phase.epoch, of, tag),
            *(describe_losses(phase), plan.batch_shape(phase)),
        )
    run.announced = phase
    if run.recorder:
        values = {"phase": phase.tag, **{f"weight_{name}": weight for name, weight in phase.weights.items()}}
        values |= {"K": phase.num_instance} if plan.draws_pxk else {}
        values |= {"routed": int(phase.routed), "lr": run.stage.scheduler.last_lr[0]}
        run.recorder.write("phase", phase.epoch, run.progress["iteration"] + 1, values)


def _log_step(run: Run, phase: Phase, step: int, means: dict[str, float]) -> None:
    lr = run.stage.scheduler.last_lr[0]
    accuracy = "".join(f"{title}: {means[name]:.3f}, " for name, title in IN_LOG.items() if name in means)
    terms = ", ".join(f"{name}: {means[name]:.3f}" for name in run.stage.criterion.names(phase) if name not in IN_LOG)
    logger.info(
        "Epoch[%d] Iteration[%d/%d] Loss: %.3f, %sBase Lr: %.2e, %s, %s",
        *(phase.epoch, step, len(run.stage.loader), means["loss"], accuracy, lr, terms, describe_speed(means)),
    )
    run.speed.add(step, means)
    if run.recorder:
        run.recorder.write("train", phase.epoch, run.progress["iteration"] + step, {**means, "lr": lr})
