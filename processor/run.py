"""One process of a training run, and how it starts: afresh, or where a saved state left it."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from datasets.bases import fingerprint
from datasets.make_dataloader import ReIDData, held_out_test, make_transforms
from datasets.sampler import RandomIdentitySampler
from datasets.transforms import BatchTransform
from datasets.two_views import TwoViews
from processor.batch import BatchSettings
from processor.compiling import check_compiler
from processor.epoch import StepSettings
from processor.phases import Phase
from processor.resume import restore_state
from processor.speed import SpeedLog, images_at_peak
from processor.stage import Stage
from solver.update import make_scaler
from utils.device import announce_amp
from utils.distributed import Ranks, find_ranks
from utils.run_folder import Recorder

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """One process of a training run; `progress` holds epoch, iteration, evaluated, best, device, data_fingerprint.

    `best` counts in rank 0, which evaluates and saves.
    """

    cfg: CfgNode
    stage: Stage
    data: ReIDData
    transform: BatchTransform | TwoViews  # of training batches
    scaler: torch.amp.GradScaler
    settings: StepSettings
    ranks: Ranks
    progress: dict[str, Any]
    speed: SpeedLog
    recorder: Recorder | None = None  # of rank 0
    held_out: ReIDData | None = None  # where DATASETS.VAL_IDS picks the epoch
    announced: Phase | None = None  # the phase that the log said last


def start_run(cfg: CfgNode, stage: Stage, data: ReIDData, state: dict[str, Any] | None) -> Run:
    """Return the run at its first epoch, or where the state left it.

    Raises ConfigError for SOLVER.AMP, TEST.AMP or MODEL.COMPILE that cannot work on the model's device.
    """
    ranks = find_ranks(cfg.MODEL.DIST_TRAIN)
    settings = _step_settings(cfg, stage)
    progress = {
        "epoch": 0,
        "iteration": 0,
        "evaluated": 0,  # last epoch that was evaluated
        "best": {},
        "device": str(settings.device),
        "data_fingerprint": fingerprint({"train": data.train_loader.dataset.samples}),
    }
    transform, _ = make_transforms(cfg)
    scaler = make_scaler(settings.device, settings.amp)
    speed = SpeedLog(data.train_loader.num_workers, bool(cfg.DATALOADER.CACHE))
    run = Run(cfg, stage, data, transform, scaler, settings, ranks, progress, speed)
    if state is not None:
        restore_state(state, stage, run.scaler, ranks, settings.device)
        progress |= {key: state[key] for key in ("epoch", "iteration", "evaluated", "best")}
        logger.info("continuing after epoch %d of %d", progress["epoch"], stage.max_epochs)
        if isinstance(data.train_loader.sampler, RandomIdentitySampler) and progress["epoch"]:
            data.train_loader.sampler.set_num_instances(stage.plan.at(progress["epoch"]).num_instance)
    run.held_out = held_out_test(cfg, data)
    if ranks.rank == 0:
        run.recorder = Recorder(Path(cfg.OUTPUT_DIR), progress["epoch"], progress["iteration"], progress["evaluated"])
    return run


def _step_settings(cfg: CfgNode, stage: Stage) -> StepSettings:
    device = next(stage.model.parameters()).device
    amp = announce_amp(cfg.SOLVER.AMP, device)
    announce_amp(cfg.TEST.AMP, device, "TEST.AMP")  # refuses what it cannot do before the first epoch
    if cfg.MODEL.COMPILE:
        check_compiler(device)
    return StepSettings(
        device,
        amp,
        cfg.SOLVER.GRAD_CLIP,
        cfg.SOLVER.ACCUM_STEPS,
        cfg.SOLVER.LOG_PERIOD,
        cfg.SOLVER.CENTER_LOSS_WEIGHT,
        cfg.SOLVER.GATHER_FEATURES,
        _batch_settings(cfg),
        images_at_peak(stage, tuple(cfg.INPUT.SIZE_TRAIN), device, amp is not None, cfg.SOLVER.PEAK_TFLOPS),
    )


def _batch_settings(cfg: CfgNode) -> BatchSettings:
    two_views = cfg.MODEL.TRAINING_MODE == "self_supervised"
    source = cfg.LOSS.BRIGHTNESS.SOURCE if cfg.LOSS.BRIGHTNESS.ENABLE else "off"
    return BatchSettings(source, cfg.LOSS.BRIGHTNESS.THRESH, two_views)
