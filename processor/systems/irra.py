"""IRRA: one stage, `main`, on pairs of an image and its caption.

Reference: Jiang and Ye, Cross-Modal Implicit Relation Reasoning and Aligning for Text-to-Image Person Retrieval, CVPR
2023, section 3.
"""

import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from yacs.config import CfgNode

from configs.keys.irra import MASKED_WORDS
from datasets.batch import Batch
from datasets.make_dataloader import ReIDData
from losses.irra import make_pair_loss
from model import ModelOutput
from processor.stage import Stage
from processor.systems.transreid import assemble
from solver import create_scheduler
from solver.update import make_updater

logger = logging.getLogger(__name__)

LABELS = "mlm_labels"
OF_CAPTIONS = ("caption_ids", "mlm_ids", LABELS)  # of a batch, the last two where mlm is trained


def irra_stage(cfg: CfgNode, name: str, model: nn.Module, data: ReIDData | None) -> Stage:
    """Return the stage that trains both towers on pairs, see `processor.make_stage`."""
    device = next(model.parameters()).device
    criterion = make_pair_loss(cfg).to(device)
    updater = make_updater(cfg, name, model, criterion, device)
    stage = assemble(cfg, name, model, data, criterion, updater, create_scheduler(cfg, updater.optimizer, name))
    stage.prepare = partial(prepare_pairs, prepare=stage.prepare)
    stage.forward_batch = forward_pairs
    stage.settings = stage.settings._replace(image_size=None)  # the work of a step depends on its captions
    logger.info("%s", which_caption(cfg))
    return stage


def prepare_pairs(batch: Batch, prepare: Callable[[Batch], Batch]) -> Batch:
    """Return the batch of a loader as `prepare` leaves it, captions [B, n] cut to the longest of them.

    What follows the end of a caption changes nothing before it. The labels stay on the CPU, which can tell without a
    wait for the device how many words they ask for.
    """
    longest = longest_of(batch["caption_ids"])
    ready = prepare({name: value for name, value in batch.items() if name != LABELS})
    ready |= {LABELS: batch[LABELS]} if LABELS in batch else {}
    # cut where they are, not before: the loader's pinned memory is copied to a GPU without a wait, a part of it is not
    return ready | {name: ready[name][:, :longest] for name in OF_CAPTIONS if name in ready}


def longest_of(captions: torch.Tensor) -> int:
    """Return the tokens of the longest of captions int64 [B, length], on the CPU, up to its end, the largest id."""
    return int(captions.argmax(1).max()) + 1


def forward_pairs(model: nn.Module, batch: Batch) -> ModelOutput:
    """Run a model of images and captions; `batch` is on the model's device, labels may stay on the CPU."""
    return model(batch["images"], **{name: batch[name] for name in OF_CAPTIONS if name in batch})


def which_caption(cfg: CfgNode) -> str:
    """Return which caption each loss of LOSS.TEXT.NAMES sees, the written or the masked one."""
    names = list(cfg.LOSS.TEXT.NAMES)
    others = ", ".join(name for name in names if name != MASKED_WORDS)
    key = f"INPUT.TEXT.MASK_CAPTION {cfg.INPUT.TEXT.MASK_CAPTION}"
    if MASKED_WORDS not in names:
        return f"{others}: captions as they are written; without {MASKED_WORDS} none is masked"
    if not others:
        return f"{MASKED_WORDS}: masked captions"
    if cfg.INPUT.TEXT.MASK_CAPTION:
        return f"{others}, {MASKED_WORDS}: masked captions for all losses, as in the published runs ({key})"
    return f"{others}: captions as they are written, {MASKED_WORDS}: masked ones ({key})"
