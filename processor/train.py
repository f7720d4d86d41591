"""The training loop: epochs, checkpoints, evaluation, and the state that a killed run continues from."""

import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from yacs.config import CfgNode

from datasets.bases import fingerprint
from datasets.make_dataloader import ReIDData, make_transforms
from datasets.sampler import RandomIdentitySampler
from processor.epoch import StepSettings, train_epoch
from processor.inference import METRICS, do_inference, log_results
from processor.phases import PhasePlan
from processor.reference import raw_pixel_results
from processor.resume import restore_state, save_state
from processor.stage import Stage, forward_images
from solver.scheduler import EpochScheduler
from solver.update import make_scaler
from utils.checkpoint import save_atomic
from utils.device import resolve_amp
from utils.distributed import Ranks, find_ranks, wait
from utils.run_folder import Recorder

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
    when a loss is NaN or infinite.
    """
    ranks = find_ranks(cfg.MODEL.DIST_TRAIN)
    device = next(model.parameters()).device
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
    amp = resolve_amp(cfg.SOLVER.AMP, device)
    scaler = make_scaler(device, amp)
    settings = StepSettings(
        device,
        amp,
        cfg.SOLVER.GRAD_CLIP,
        cfg.SOLVER.ACCUM_STEPS,
        cfg.SOLVER.LOG_PERIOD,
        cfg.SOLVER.CENTER_LOSS_WEIGHT,
    )
    progress = _start(stage, data, scaler, ranks, device, state)
    if progress["epoch"] >= stage.max_epochs:
        logger.info("already trained to epoch %d; nothing to do", progress["epoch"])
        return {"epoch": progress["epoch"], "best": progress["best"]}

    recorder = Recorder(Path(cfg.OUTPUT_DIR), progress["epoch"], progress["iteration"]) if ranks.rank == 0 else None
    try:
        if recorder and cfg.TEST.REFERENCE and progress["epoch"] == 0:
            _evaluate_references(cfg, model, data, recorder)
        wait()
        wrapped = _wrap(model, device, ranks.world_size)
        for epoch in range(progress["epoch"] + 1, stage.max_epochs + 1):
            started = time.perf_counter()
            _train_one(stage, wrapped, data, epoch, make_transforms(cfg)[0], scaler, settings, recorder, progress)
            if recorder and _is_due(epoch, cfg.SOLVER.EVAL_PERIOD, stage.max_epochs, at_end=cfg.SOLVER.EVAL_PERIOD > 0):
                _evaluate(cfg, model, data, epoch, recorder, progress)
            if ranks.rank == 0 and _is_due(epoch, cfg.SOLVER.CHECKPOINT_PERIOD, stage.max_epochs, at_end=True):
                save_atomic(model.state_dict(), Path(cfg.OUTPUT_DIR) / f"{cfg.MODEL.NAME}_{epoch}.pth")
            progress["epoch"] = epoch
            save_state(cfg, stage, scaler, ranks, progress)
            wait()
            seconds = time.perf_counter() - started
            left = timedelta(seconds=round(seconds * (stage.max_epochs - epoch)))
            logger.info("Epoch %d done in %.1f s, about %s left", epoch, seconds, left)
    finally:
        if recorder:
            recorder.close()
    return {"epoch": progress["epoch"], "best": progress["best"]}


def _start(
    stage: Stage,
    data: ReIDData,
    scaler: torch.amp.GradScaler,
    ranks: Ranks,
    device: torch.device,
    state: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return the progress so far: zero, or that of the state, which is restored."""
    progress = {
        "epoch": 0,
        "iteration": 0,
        "best": {},
        "device": str(device),
        "data_fingerprint": fingerprint(data.train_loader.dataset.samples),
    }
    if state is None:
        return progress
    restore_state(state, stage, scaler, ranks, device)
    logger.info("continuing after epoch %d of %d", state["epoch"], stage.max_epochs)
    return progress | {key: state[key] for key in ("epoch", "iteration", "best")}


def _wrap(model: nn.Module, device: torch.device, world_size: int) -> nn.Module:
    if world_size == 1:
        return model
    return DistributedDataParallel(
        model, device_ids=[device.index] if device.type == "cuda" else None, gradient_as_bucket_view=True
    )


def _train_one(
    stage: Stage,
    model: nn.Module,
    data: ReIDData,
    epoch: int,
    transform,
    scaler: torch.amp.GradScaler,
    settings: StepSettings,
    recorder: Recorder | None,
    progress: dict[str, Any],
) -> None:
    """Train one epoch by its phase; advances progress["iteration"]."""
    phase = stage.plan.at(epoch)
    stage.scheduler.step(epoch)
    sampler = data.train_loader.sampler
    sampler.set_epoch(epoch)
    if isinstance(sampler, RandomIdentitySampler) and sampler.num_instances != phase.num_instance:
        logger.info("epoch %d: K %d -> %d", epoch, sampler.num_instances, phase.num_instance)
        sampler.set_num_instances(phase.num_instance)
    total_steps = len(data.train_loader)
    lr = stage.scheduler.last_lr[0]

    def on_log(step: int, means: dict[str, float]) -> None:
        terms = ", ".join(f"{name}: {means[name]:.3f}" for name in means if name in (*phase.weights, "center"))
        logger.info(
            "Epoch[%d] Iteration[%d/%d] Loss: %.3f, Acc: %.3f, Base Lr: %.2e, %s, %.0f images/s",
            *(epoch, step, total_steps, means["loss"], means["acc"], lr, terms, means["images_per_s"]),
        )
        if recorder:
            recorder.write("train", epoch, progress["iteration"] + step, {**means, "lr": lr})

    progress["iteration"] += train_epoch(stage, model, phase, data.train_loader, transform, scaler, settings, on_log)


def _is_due(epoch: int, period: int, last_epoch: int, at_end: bool) -> bool:
    return (period > 0 and epoch % period == 0) or (at_end and epoch == last_epoch)


def _evaluate(
    cfg: CfgNode, model: nn.Module, data: ReIDData, epoch: int, recorder: Recorder, progress: dict[str, Any]
) -> None:
    results = do_inference(cfg, model, data)
    log_results(results, f"Validation Results - Epoch: {epoch}")
    recorder.write("eval", epoch, progress["iteration"], {name: results[name] for name in METRICS})
    score = (results["mAP"], results["Rank-1"])
    if not progress["best"] or score > (progress["best"]["mAP"], progress["best"]["Rank-1"]):
        progress["best"] = {"epoch": epoch, "mAP": results["mAP"], "Rank-1": results["Rank-1"]}


def _evaluate_references(cfg: CfgNode, model: nn.Module, data: ReIDData, recorder: Recorder) -> None:
    for name, title, results in (
        ("raw_pixels", "Reference: nearest neighbours on raw pixels (32 x 32, z-scored)", raw_pixel_results),
        ("untrained", "Reference: the model before training", None),
    ):
        values = results(data, cfg.TEST.MAX_RANK) if results else do_inference(cfg, model, data)
        log_results(values, title)
        recorder.write("reference", 0, 0, {"name": name, **{metric: values[metric] for metric in METRICS}})
