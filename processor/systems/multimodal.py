"""Queries of any modalities: one stage, `main`, on RGB images and what else shows or describes the same person."""

import logging
from collections.abc import Mapping
from functools import partial

import torch
from torch import nn
from yacs.config import CfgNode

from configs.modalities import TEXT, VIS, set_name
from datasets.batch import Batch
from datasets.make_dataloader import ReIDData
from datasets.make_transforms import make_modality_transforms
from datasets.transforms import BatchTransform, brightness
from losses.multimodal import make_multimodal_loss
from model import ModelOutput
from processor.stage import Stage
from processor.systems.irra import longest_of
from processor.systems.transreid import assemble, batch_settings
from solver import create_scheduler
from solver.update import make_updater

logger = logging.getLogger(__name__)


def multimodal_stage(cfg: CfgNode, name: str, model: nn.Module, data: ReIDData | None) -> Stage:
    """Return the stage that trains all of a model of several modalities, see `processor.make_stage`."""
    device = next(model.parameters()).device
    criterion = make_multimodal_loss(cfg, model.sets, model.num_class, model.feat_dim).to(device)
    updater = make_updater(cfg, name, model, criterion, device)
    stage = assemble(cfg, name, model, data, criterion, updater, create_scheduler(cfg, updater.optimizer, name))
    transforms, _ = make_modality_transforms(cfg)
    source = batch_settings(cfg).brightness
    stage.prepare = partial(prepare_modalities, device=device, transforms=transforms, brightness_of=source)
    stage.forward_batch = forward_modalities
    stage.settings = stage.settings._replace(image_size=None)  # the work of a step depends on its captions
    logger.info("each sample trains %d rows: %s", len(model.sets), ", ".join(map(set_name, model.sets)))
    return stage


def prepare_modalities(
    batch: Batch, device: torch.device, transforms: Mapping[str, BatchTransform], brightness_of: str = "off"
) -> Batch:
    """Return the batch of a loader on `device`, its images normalised float32 [B, 3, H, W] by their own transforms.

    Captions int64 [B, n] are cut to the longest of them: what follows the end of one changes nothing before it. What is
    `present` stays on the CPU, which can tell without a wait for the device which images need no encoding. The batch
    has the `brightness` [B] of the RGB images where that is asked for: clean before the augmentation, augmented after
    it, off = none.
    """
    inputs = batch["modalities"]
    longest = longest_of(inputs[TEXT]) if TEXT in inputs else 0  # while they are on the CPU
    ready = {name: value if name == "present" else _moved(value, device) for name, value in batch.items()}
    raw = ready["modalities"]
    changed = {name: transforms[name](images) for name, images in raw.items() if name != TEXT}
    # cut where they are, not before: the loader's pinned memory is copied to a GPU without a wait, a part of it is not
    changed |= {TEXT: raw[TEXT][:, :longest]} if TEXT in raw else {}
    if brightness_of != "off":
        clean = brightness_of == "clean"
        ready["brightness"] = brightness(raw[VIS]) if clean else transforms[VIS].luma(changed[VIS])
    return ready | {"modalities": {name: changed[name] for name in inputs}}


def forward_modalities(model: nn.Module, batch: Batch) -> ModelOutput:
    """Run a model of several modalities; `batch` is on its device, what is `present` may stay on the CPU."""
    return model(batch["modalities"], batch["present"])


def _moved(value: object, device: torch.device) -> object:
    """Return a tensor, or a dict of them, on the device, and anything else as it is."""
    if isinstance(value, Mapping):
        return {name: _moved(part, device) for name, part in value.items()}
    return value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
