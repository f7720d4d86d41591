"""The training loop: epochs, checkpoints, evaluation, and the state that a killed run continues from."""

import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from datasets.make_dataloader import ReIDData
from datasets.sampler import RandomIdentitySampler
from processor.compiling import CompiledTraining
from processor.embed import embed
from processor.epoch import train_epoch
from processor.inference import evaluate, fingerprint_of_test, log_results
from processor.phases import Phase, PhasePlan, active_losses, describe_losses
from processor.reference import raw_pixel_results
from processor.resume import save_state
from processor.run import Run, start_run
from processor.speed import describe_speed
from processor.stage import Stage, forward_images
from processor.trained import describe_run
from processor.wrapping import wrap
from solver.scheduler import EpochScheduler
from utils.checkpoint import save_weights
from utils.distributed import share_buffers
from utils.errors import RunError
from utils.results import METRICS

logger = logging.getLogger(__name__)

STAGE_NAME = "main"


def do_train(
    cfg: CfgNode,
    model: nn.Module,
    criterion: nn.Module,
    data: ReIDData,
    optimizer: torch.optim.Optimizer,
    scheduler: EpochScheduler,
    center_optimizer: torch.optim.Optimizer | None = None,
    state: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train to SOLVER.MAX_EPOCHS in OUTPUT_DIR; the model is on its device already.

    `state` comes from `processor.resume.find_state`; None starts at epoch 1. Returns {"epoch": last epoch, "best":
    {"epoch", "mAP", "Rank-1"} of the evaluations or {}}. Raises RunError (nothing is saved over the last good state)
    when a loss or a weight is NaN or infinite.
    """
    stage = Stage(
        STAGE_NAME,
        model,
        forward_images,
        criterion,
        optimizer,
        center_optimizer,
        scheduler,
        PhasePlan(cfg),
        cfg.SOLVER.MAX_EPOCHS,
    )
    run = start_run(cfg, stage, data, state)
    try:
        _train_stage(run)
    finally:
        if run.recorder:
            run.recorder.close()
    return {"epoch": run.progress["epoch"], "best": run.progress["best"]}


def _train_stage(run: Run) -> None:
    cfg, stage, progress = run.cfg, run.stage, run.progress
    if progress["epoch"] == 0 and cfg.TEST.REFERENCE:
        _evaluate_references(run)
    if progress["epoch"]:  # a run that ended between its state and its checkpoint or evaluation goes on there
        _save_checkpoint_if_due(run)
        _evaluate_if_due(run)
    if progress["epoch"] >= stage.max_epochs:
        logger.info("already trained to epoch %d; nothing to do", progress["epoch"])
    model = CompiledTraining(stage.model) if cfg.MODEL.COMPILE else stage.model
    model = wrap(model, run.settings.device, run.ranks.world_size, cfg.MODEL.SYNC_BN)
    for epoch in range(progress["epoch"] + 1, stage.max_epochs + 1):
        started = time.perf_counter()
        progress["iteration"] += _train_one(run, model, epoch)
        share_buffers(stage.model)  # what all ranks evaluate is what rank 0 saves
        _check_weights(stage.model, epoch)
        progress["epoch"] = epoch
        save_state(cfg, stage, run.scaler, run.ranks, progress)
        _save_checkpoint_if_due(run)
        _evaluate_if_due(run)
        seconds = time.perf_counter() - started
        left = timedelta(seconds=round(seconds * (stage.max_epochs - epoch)))
        logger.info("Epoch %d done in %.1f s (%s), about %s left", epoch, seconds, run.speed.end_epoch(), left)


def _save_checkpoint_if_due(run: Run) -> None:
    """Keep the weights of the epoch just finished where CHECKPOINT_PERIOD asks for it and they are not kept yet."""
    cfg, epoch = run.cfg, run.progress["epoch"]
    path = Path(cfg.OUTPUT_DIR) / f"{cfg.MODEL.NAME}_{epoch}.pth"
    if not _is_due(epoch, cfg.SOLVER.CHECKPOINT_PERIOD, epoch == run.stage.max_epochs) or path.is_file():
        return
    if run.ranks.rank == 0:
        fingerprints = (run.progress["data_fingerprint"], fingerprint_of_test(run.data))
        provenance = describe_run(cfg, epoch, run.data, *fingerprints)
        save_weights(run.stage.model.state_dict(), path, provenance)


def _train_one(run: Run, model: nn.Module, epoch: int) -> int:
    """Train one epoch by its phase and return its number of iterations."""
    phase = run.stage.plan.at(epoch)
    run.stage.scheduler.step(epoch)
    _set_sampler(run, phase)
    _announce(run, phase)
    return train_epoch(
        run.stage,
        model,
        phase,
        run.data.train_loader,
        run.transform,
        run.scaler,
        run.settings,
        lambda step, means: _log_step(run, phase, step, means),
    )


def _set_sampler(run: Run, phase: Phase) -> None:
    """Give the train loader the epoch and the K of the phase; data set and workers stay as they are."""
    sampler = run.data.train_loader.sampler
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
        logger.info(
            "epoch %d, phase %s: %s, batches %s", phase.epoch, tag, describe_losses(phase), plan.batch_shape(phase)
        )
    run.announced = phase
    if run.recorder:
        values = {"phase": phase.tag, **{f"weight_{name}": weight for name, weight in phase.weights.items()}}
        values |= {"K": phase.num_instance} if plan.draws_pxk else {}
        values |= {"routed": int(phase.routed), "lr": run.stage.scheduler.last_lr[0]}
        run.recorder.write("phase", phase.epoch, run.progress["iteration"] + 1, values)


def _log_step(run: Run, phase: Phase, step: int, means: dict[str, float]) -> None:
    lr = run.stage.scheduler.last_lr[0]
    accuracy = f"Acc: {means['acc']:.3f}, " if "acc" in means else ""
    terms = ", ".join(f"{name}: {means[name]:.3f}" for name in means if name in (*phase.weights, "center", "dark"))
    total_steps = len(run.data.train_loader)
    logger.info(
        "Epoch[%d] Iteration[%d/%d] Loss: %.3f, %sBase Lr: %.2e, %s, %s",
        *(phase.epoch, step, total_steps, means["loss"], accuracy, lr, terms, describe_speed(means)),
    )
    run.speed.add(step, means)
    if run.recorder:
        run.recorder.write("train", phase.epoch, run.progress["iteration"] + step, {**means, "lr": lr})


def _check_weights(model: nn.Module, epoch: int) -> None:
    """Raise RunError when the epoch's last update left a weight NaN or infinite: the losses cannot show it yet."""
    tensors = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    if not bool(torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all()):
        raise RunError(
            f"epoch {epoch}: weights are not finite after the last step; the last good state is kept. Train anew in "
            "another OUTPUT_DIR with a lower SOLVER.BASE_LR, with SOLVER.GRAD_CLIP, or with SOLVER.AMP off"
        )


def _is_due(epoch: int, period: int, at_end: bool) -> bool:
    return at_end or (period > 0 and epoch % period == 0)


def _evaluate_if_due(run: Run) -> None:
    """Evaluate the epoch just finished where EVAL_PERIOD asks for it and it is not done yet.

    With DATASETS.VAL_IDS that is on the held-out identities: the test set is left to test.py.
    """
    cfg, progress = run.cfg, run.progress
    epoch, period = progress["epoch"], cfg.SOLVER.EVAL_PERIOD
    if period == 0 or epoch <= progress["evaluated"] or not _is_due(epoch, period, epoch == run.stage.max_epochs):
        return
    results = _evaluate(run, run.held_out or run.data)
    if results is not None:
        on = " on the held-out training identities" if run.held_out else ""
        log_results(results, f"Validation Results{on} - Epoch: {epoch}")
        run.recorder.write(
            "val" if run.held_out else "eval", epoch, progress["iteration"], {name: results[name] for name in METRICS}
        )
        score = (results["mAP"], results["Rank-1"])
        if not progress["best"] or score > (progress["best"]["mAP"], progress["best"]["Rank-1"]):
            progress["best"] = {"epoch": epoch, "mAP": results["mAP"], "Rank-1": results["Rank-1"]}
    progress["evaluated"] = epoch
    save_state(cfg, run.stage, run.scaler, run.ranks, progress)


def _evaluate(run: Run, tested: ReIDData) -> dict[str, Any] | None:
    """Embed the test images on all ranks and rank them on rank 0, which alone returns results."""
    embedded = embed(run.cfg, run.stage.model, tested.val_loader)
    return evaluate(run.cfg, tested, embedded) if run.ranks.rank == 0 else None


def _evaluate_references(run: Run) -> None:
    untrained = _evaluate(run, run.data)
    if untrained is None:
        return
    raw_pixels = raw_pixel_results(run.data, run.cfg.TEST.MAX_RANK)
    for name, title, results in (
        ("raw_pixels", "Reference: nearest neighbours on raw pixels (32 x 32, z-scored)", raw_pixels),
        ("untrained", "Reference: the model before training", untrained),
    ):
        log_results(results, title)
        run.recorder.write("reference", 0, 0, {"name": name, **{metric: results[metric] for metric in METRICS}})
