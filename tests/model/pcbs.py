"""Small PCBs in float64 on maps of six rows, and configurations of tiny ones."""

import torch
from torch import nn
from yacs.config import CfgNode

from model import make_model
from model.pcb import PCB
from tests.cfgs import cfg_with
from tests.model.clips import redraw

CLASSES, ROWS, CHANNELS = 7, 6, 5
SIZE = (24, 8)  # pixels of the images of `MapBase`: maps of 6 x 2
TINY = (
    *("MODEL.NAME", "pcb", "MODEL.PRETRAIN_CHOICE", "none", "MODEL.PCB.TRUNK", "tiny", "MODEL.DEVICE", "cpu"),
    *("INPUT.SIZE_TRAIN", [64, 32], "INPUT.SIZE_TEST", [64, 32], "MODEL.PCB.PARTS", 4),
    *("MODEL.PCB.PART_DIM", 6, "MODEL.PCB.GLOBAL_DIM", 9),
)


class MapBase(nn.Module):
    """Images [B, 3, 24, 8] -> map [B, 5, 6, 2] by two convolutions, the second of them the last stage."""

    feat_dim, kind = CHANNELS, "toy"

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer4 = nn.Conv2d(3, 4, 4, stride=4), nn.Conv2d(4, CHANNELS, 1)

    def before_last_stage(self, images: torch.Tensor) -> torch.Tensor:
        return self.stem(images)

    def forward_map(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer4(self.stem(images))


def make_pcb(seed: int = 0, first: bool = False, **options: object) -> PCB:
    """Return a PCB in float64, of 3 stripes of width 3 and a global branch of width 4 unless `options` say otherwise.

    Unless `first`, all weights and running statistics differ from their first values.
    """
    torch.manual_seed(seed)
    model = PCB(MapBase(), CLASSES, **{"parts": 3, "part_dim": 3, "global_dim": 4, "dropout": 0.0, **options}).double()
    if first:
        return model
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm1d):
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)
    return redraw(model)


def some_images(count: int = 4, seed: int = 1, size: tuple[int, int] = SIZE) -> torch.Tensor:
    """Return random images [count, 3, *size] float64."""
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tiny_cfg(*opts: object) -> CfgNode:
    """Return the configuration of a PCB on the trunk `tiny`: 4 stripes of width 6, a global branch of width 9."""
    cfg = cfg_with(*TINY, *opts)
    cfg.freeze()
    return cfg


def make_tiny_pcb(*opts: object, seed: int = 0, classes: int = CLASSES) -> PCB:
    """Return the model of `tiny_cfg` in evaluation mode, all weights moved from their first values."""
    torch.manual_seed(seed)
    return redraw(make_model(tiny_cfg(*opts), classes, 0, 0)).eval()
