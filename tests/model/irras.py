"""Tiny IRRAs of random weights, captions for them, and what they hold in float64."""

from pathlib import Path

import torch
from torch import nn
from yacs.config import CfgNode

from model import make_model
from tests.cfgs import cfg_with
from tests.model.clip_reids import TEXT_HEADS, VIT, write_clip
from tests.model.clips import redraw

SIZE = (48, 32)  # pixels of the images: 3 x 2 patches of 16
CLASSES, HEADS = 6, {"image": 2, "text": TEXT_HEADS}
START, END, MASK = 49406, 49407, 49405  # tokens of CLIP
EVERY = ["sdm", "id", "mlm"]


def irra_cfg(path: str, *opts: object) -> CfgNode:
    """Return the configuration of an IRRA on the CLIP of a description."""
    cfg = cfg_with(
        *("MODEL.NAME", "irra", "MODEL.CLIP_BACKBONE", path, "MODEL.CLIP_PRETRAIN", "", "MODEL.DEVICE", "cpu"),
        *("MODEL.PRETRAIN_CHOICE", "none", "INPUT.SIZE_TRAIN", SIZE, "INPUT.SIZE_TEST", SIZE, "MODEL.CMT_DEPTH", 2),
        *("SOLVER.AMP", "off", "TEST.AMP", "off", "DATASETS.NAMES", ("RSTPReid",)),
        *opts,
    )
    cfg.freeze()
    return cfg


def make_irra(folder: Path, *opts: object, seed: int = 5, first: bool = False) -> nn.Module:
    """Return a tiny model in evaluation mode; unless `first`, all weights differ from their first values."""
    torch.manual_seed(seed)
    model = make_model(irra_cfg(write_clip(folder, VIT), *opts), CLASSES, 1, 1)
    return (model if first else redraw(model)).eval()


def captions(lengths: tuple[int, ...] = (5, 12, 3), length: int = 77, seed: int = 3) -> torch.Tensor:
    """Return captions int64 [B, length] of so many tokens each, start and end included, 0 behind them."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(len(lengths), length, dtype=torch.int64)
    for row, count in enumerate(lengths):
        ids[row, 1 : count - 1] = torch.randint(1, MASK, (count - 2,), generator=generator)
        ids[row, 0], ids[row, count - 1] = START, END
    return ids


def masked(ids: torch.Tensor, places: tuple[tuple[int, int], ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return captions with the mask at (row, place), and labels: what stood there, 0 elsewhere."""
    hidden, labels = ids.clone(), torch.zeros_like(ids)
    for row, place in places:
        hidden[row, place], labels[row, place] = MASK, ids[row, place]
    return hidden, labels
