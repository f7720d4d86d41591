"""A stage of part branches on the smallest trunk, and batches for it."""

import torch
from torch import nn
from yacs.config import CfgNode

from model import make_model
from processor import make_stage
from processor.stage import Stage
from tests.cfgs import cfg_with

SIZE, CLASSES, PARTS = (32, 16), 4, 2  # a map of 4 x 2
WIDTHS = {"global": 8, "part1": 6, "part2": 6}
SPECTRAL = ("LOSS.SPECTRAL.W", 0.5, "LOSS.SPECTRAL.T", 0.2)
EVERYTHING = (*SPECTRAL, "LOSS.BRANCHES.DRAWS", 2, "LOSS.TRIPLET.BRANCHES", "global+concat")


def pcb_cfg(*opts: object) -> CfgNode:
    """Return the configuration of a global branch and two stripes on a CPU in float32, without dropout."""
    cfg = cfg_with(
        *("MODEL.NAME", "pcb", "MODEL.PCB.TRUNK", "tiny", "MODEL.PCB.PARTS", PARTS, "MODEL.PCB.PART_DIM", 6),
        *("MODEL.PCB.GLOBAL_DIM", 8, "MODEL.PCB.DROPOUT", 0.0, "MODEL.PRETRAIN_CHOICE", "none", "MODEL.DEVICE", "cpu"),
        *("SOLVER.AMP", "off", "TEST.AMP", "off", "INPUT.SIZE_TRAIN", SIZE, "INPUT.SIZE_TEST", SIZE),
        *("DATALOADER.SAMPLER", "softmax_triplet", "SOLVER.IMS_PER_BATCH", 8, "DATALOADER.NUM_INSTANCE", 2),
        *("MODEL.IF_LABELSMOOTH", "off", "LOSS.TRIPLET.FEAT_SRC", "bnneck", "SOLVER.MARGIN", 0.16),
        *("SOLVER.MAX_EPOCHS", 5),
        *opts,
    )
    cfg.freeze()
    return cfg


def pcb_stage(*opts: object, double: bool = True) -> Stage:
    """Return a stage for batches of the caller, in float64 unless told otherwise; equal options, equal weights."""
    cfg = pcb_cfg(*opts)
    torch.manual_seed(4)
    model: nn.Module = make_model(cfg, CLASSES, 1, 1)
    return make_stage(cfg, "main", model.double() if double else model)


def ready_batch(rows: int = 8, step: int = 1, **more: int) -> dict:
    """Return images in float64, two of each identity, as the model reads them."""
    draw = torch.Generator().manual_seed(rows)
    zeros = torch.zeros(rows, dtype=torch.int64)
    labels = {"pids": torch.arange(rows) // 2 % CLASSES, "camids": zeros, "viewids": zeros}
    images = torch.randn(rows, 3, *SIZE, generator=draw, dtype=torch.float64)
    return {"images": images, **labels, "step": step, **more}
