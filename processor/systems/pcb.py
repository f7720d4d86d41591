"""Part branches: one stage, `main`, on batches of images, with the spectral feature transform or without.

Reference: Sun et al., Beyond Part Models, ECCV 2018; Luo et al., Spectral Feature Transformation for Person
Re-identification, ICCV 2019, section 3.
"""

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import nn
from yacs.config import CfgNode

from configs.phases import SPECTRAL
from datasets.batch import Batch
from datasets.make_dataloader import ReIDData
from losses.pcb import make_part_loss
from losses.spectral import SPECTRAL_LOGITS, spectral_transform
from model import ModelOutput
from model.outputs import GLOBAL
from model.pcb import GLOBAL_POOLED, POOLED
from processor.stage import Stage
from processor.step.wrapping import unwrapped
from processor.systems.transreid import assemble, forward_images
from solver import create_scheduler
from solver.update import make_updater
from utils.distributed import own_rank, shared_rows


def pcb_stage(cfg: CfgNode, name: str, model: nn.Module, data: ReIDData | None) -> Stage:
    """Return the stage that trains all branches, see `processor.make_stage`."""
    device = next(model.parameters()).device
    criterion = make_part_loss(cfg, model.num_class, model.feat_dim, GLOBAL in model.branches).to(device)
    updater = make_updater(cfg, name, model, criterion, device)
    stage = assemble(cfg, name, model, data, criterion, updater, create_scheduler(cfg, updater.optimizer, name))
    spectral = cfg.LOSS.SPECTRAL
    if spectral.W > 0:
        plan, gather = stage.plan, stage.settings.gather
        acts = cache(lambda epoch: plan.at(epoch or plan.max_epochs).weights[SPECTRAL] > 0)
        transform = partial(transformed, temperature=spectral.T, gather=gather)
        stage.forward_batch = partial(forward_spectral, acts=acts, transform=transform, feat=spectral.FEAT)
    return stage


def forward_spectral(
    model: nn.Module,
    batch: Batch,
    acts: Callable[[int | None], bool],
    transform: Callable[[torch.Tensor], torch.Tensor],
    feat: str,
) -> ModelOutput:
    """Run a model on images, then the layers of its global branch once more on transformed features.

    Transformed is what `feat` names, the pooled map or the embedding after norm and dropout. The result has
    `spectral_logits` [B, C] in its `extra`, and no `global_pooled`. Epochs in which the transform does not act, by
    batch["epoch"], have no second pass: it moves the running statistics of the norm as the first one does, in the
    authors' code too. A batch that does not tell its epoch is one of the last.
    """
    output = forward_images(model, batch)
    extra = {name: value for name, value in output.extra.items() if name != GLOBAL_POOLED}
    if acts(batch.get("epoch")):
        own = output.extra[GLOBAL_POOLED] if feat == POOLED else output.bnneck[0]
        extra[SPECTRAL_LOGITS] = unwrapped(model).global_logits(transform(own), feat)
    return output._replace(extra=extra)


def transformed(own: torch.Tensor, temperature: float, gather: bool) -> torch.Tensor:
    """Return the rows [b, d] of this process as the batch transforms them: that of all processes, or its own share."""
    if not gather or own.is_meta:  # rows without values, whose work is counted, cannot be exchanged
        return spectral_transform(own, temperature)
    start = own_rank() * len(own)
    return spectral_transform(shared_rows(own), temperature)[start : start + len(own)]
