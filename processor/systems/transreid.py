"""TransReID and Model B: one stage, `main`, on batches of images."""

from functools import partial

import torch
from torch import nn
from yacs.config import CfgNode

from configs.phases import PhasePlan
from configs.stages import solver_of
from datasets.batch import Batch
from datasets.make_dataloader import ReIDData
from datasets.make_transforms import make_transforms
from losses import make_loss
from losses.criterion import Criterion
from model import ModelOutput
from processor.evaluation.embed import announce_precision
from processor.stage import Stage, StepSettings
from processor.step.batch import BatchSettings, prepare_batch
from processor.step.compiling import check_compiler
from solver import EpochScheduler, create_scheduler
from solver.update import Updater, make_updater
from utils.device import announce_amp


def transreid_stage(cfg: CfgNode, name: str, model: nn.Module, data: ReIDData | None) -> Stage:
    """Return the stage that trains all of an image model, see `processor.make_stage`."""
    device = next(model.parameters()).device
    criterion = make_loss(cfg, model.num_class, model.feat_dim).to(device)
    updater = make_updater(cfg, name, model, criterion, device)
    return assemble(cfg, name, model, data, criterion, updater, create_scheduler(cfg, updater.optimizer, name))


def assemble(
    cfg: CfgNode,
    name: str,
    model: nn.Module,
    data: ReIDData | None,
    criterion: Criterion,
    updater: Updater,
    scheduler: EpochScheduler,
) -> Stage:
    """Return the stage of these parts, all of them for the same model.

    Raises ConfigError for SOLVER.AMP, TEST.AMP or MODEL.COMPILE that cannot work on the model's device.
    """
    device = next(model.parameters()).device
    solver = solver_of(cfg, name)
    transform, _ = make_transforms(cfg)
    return Stage(
        name,
        PhasePlan(cfg, name),
        model,
        model,
        data.train_loader if data else None,
        partial(prepare_batch, device=device, transform=transform, settings=batch_settings(cfg)),
        forward_images,
        criterion,
        updater,
        scheduler,
        step_settings(cfg, name, device),
        solver.CHECKPOINT_PERIOD,
        solver.EVAL_PERIOD,
        data.held_out or data.test if data else None,
    )


def step_settings(cfg: CfgNode, name: str, device: torch.device) -> StepSettings:
    """Return how each step of a stage on images runs; refuses what the device cannot do before the first epoch."""
    solver = solver_of(cfg, name)
    amp = announce_amp(solver.AMP, device)
    announce_precision(cfg, device)
    if cfg.MODEL.COMPILE:
        check_compiler(device)
    return StepSettings(
        device=device,
        amp=amp,
        log_period=solver.LOG_PERIOD,
        gather=solver.GATHER_FEATURES,
        sync_bn=cfg.MODEL.SYNC_BN,
        compile=cfg.MODEL.COMPILE,
        attention=cfg.MODEL.ATTENTION,
        image_size=tuple(cfg.INPUT.SIZE_TRAIN),
        peak_tflops=solver.PEAK_TFLOPS,
    )


def batch_settings(cfg: CfgNode) -> BatchSettings:
    """Return what a training batch carries beside its images and labels."""
    two_views = cfg.MODEL.TRAINING_MODE == "self_supervised"
    source = cfg.LOSS.BRIGHTNESS.SOURCE if cfg.LOSS.BRIGHTNESS.ENABLE else "off"
    return BatchSettings(source, two_views)


def forward_images(model: nn.Module, batch: Batch) -> ModelOutput:
    """Run an image model with its side information; `batch` is on the model's device, images normalised."""
    return model(batch["images"], cam_label=batch["camids"], view_label=batch["viewids"])
