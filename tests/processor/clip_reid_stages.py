"""Stages of tiny CLIP-ReIDs in float64, and how they are trained step by step."""

from pathlib import Path

import torch
from torch import nn
from yacs.config import CfgNode

from processor import make_stage
from processor.stage import Stage
from tests.model.builds import images
from tests.model.clip_reids import (
    CLASSES,
    EMBED,
    HEADS,
    RESNET,
    RESNET_HEADS,
    SIZE,
    VIT,
    clip_reid_cfg,
    make_clip_reid,
    write_clip,
)
from tests.reference import slow_clip_reid as slow

CAMERAS = 3
PIDS, CAMIDS = [0, 0, 4, 4, 2, 2], [0, 1, 2, -1, 0, 0]
STAGE1 = {"BASE_LR": 0.02, "WARMUP_LR_INIT": 0.003, "LR_MIN": 0.0005, "WARMUP_EPOCHS": 2, "MAX_EPOCHS": 5}
STAGE2 = {"BASE_LR": 0.003, "WARMUP_FACTOR": 0.1, "WARMUP_ITERS": 2, "STEPS": [3], "GAMMA": 0.2, "MAX_EPOCHS": 5}
DECAY = {"WEIGHT_DECAY": 0.02, "WEIGHT_DECAY_BIAS": 0.005, "BIAS_LR_FACTOR": 2.0}
SECTION = {"stage1": "SOLVER.STAGE1.", "stage2": "SOLVER.STAGE2.", "main": "SOLVER."}
COE = 1.5


def solver_keys(stage: str, optimizer: str = "Adam", **more: object) -> list[object]:
    """Return KEY, VALUE, ... of a stage's solver."""
    settings = {"WEIGHT_DECAY": 0.02} | STAGE1 if stage == "stage1" else STAGE2 | DECAY
    settings = settings | {"OPTIMIZER_NAME": optimizer} | more
    return [word for key, value in settings.items() for word in (SECTION[stage] + key, value)]


def make_parts(folder: Path, stage: str, *opts: object, kind: str = "vit") -> tuple[CfgNode, nn.Module]:
    """Return (cfg, model in float64) of a tiny ViT with cameras, or a ResNet, for one stage or, of stage1, for both."""
    stages = ["main"] if stage == "main" else ["stage1", "stage2"]
    side = ("MODEL.SIE_CAMERA", True, "MODEL.SIE_COE", COE) if kind == "vit" else ()
    path = write_clip(folder, VIT if kind == "vit" else RESNET)
    weights = ("MODEL.ID_LOSS_WEIGHT", 0.25, "MODEL.TRIPLET_LOSS_WEIGHT", 1.5, "MODEL.I2T_LOSS_WEIGHT", 0.75)
    cfg = clip_reid_cfg(path, *side, *weights, "SOLVER.STAGES", stages, "MODEL.IF_LABELSMOOTH", "on", *opts)
    return cfg, make_clip_reid(cfg, CAMERAS).double()


def image_batch(seed: int) -> dict[str, torch.Tensor]:
    """Return a batch of images with labels, float64; one camera is unknown."""
    labels = {"pids": torch.tensor(PIDS), "camids": torch.tensor(CAMIDS), "viewids": torch.zeros(6, dtype=torch.int64)}
    return {"images": images(6, SIZE, seed).double(), **labels}


def feature_batch(seed: int) -> dict[str, torch.Tensor]:
    """Return a batch of stage 1, float64, with an identity that is there more than once."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(7, EMBED, generator=generator, dtype=torch.float64)
    return {"features": features, "pids": torch.randint(0, CLASSES, (7,), generator=generator)}


def image_levels(state: slow.State, batch: dict[str, torch.Tensor], kind: str = "vit") -> slow.Levels:
    """Return what the formulas give for a training batch."""
    if kind == "resnet":
        return slow.resnet(state, batch["images"], RESNET_HEADS, training=True)
    side = COE * torch.stack([slow.side_row(state["cv_embed"], CAMERAS, 0, camid, -1) for camid in CAMIDS])
    return slow.vit(state, batch["images"], (16, 16), HEADS, side=side)


def fast_step(stage: Stage, batch: dict, epoch: int) -> dict[str, torch.Tensor]:
    """Take a step as the loop does; return the parts and, as `total`, the loss."""
    stage.trained.train()
    stage.scheduler.step(epoch)
    total, parts = stage.criterion(stage.forward_batch(stage.trained, batch), batch, stage.plan.at(epoch))
    stage.updater.backward(total, 1, 1)
    stage.updater.step()
    return parts | {"total": total.detach()}


def rates_of(stage: Stage) -> dict[str, tuple[float, float]]:
    """Return (initial learning rate, weight decay) of every weight that is in a group of the optimizer, by its name."""
    name_of = {id(weight): name for name, weight in stage.model.named_parameters()}
    found = [
        (name_of[id(weight)], (group["initial_lr"] * group["lr_scale"], group["weight_decay"]))
        for group in stage.optimizer.param_groups
        for weight in group["params"]
    ]
    assert len(found) == len(dict(found))
    return dict(found)


def prompt_stage(folder: Path, *opts: object) -> Stage:
    """Return stage 1 in float64 for batches of the caller."""
    cfg, model = make_parts(folder, "stage1", *solver_keys("stage1"), *opts)
    return make_stage(cfg, "stage1", model)
