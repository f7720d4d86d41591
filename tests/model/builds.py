"""Small models and configurations that the tests of this package share."""

from pathlib import Path

import torch
from torch import nn
from yacs.config import CfgNode

from model import make_model
from tests.cfgs import cfg_with

TINY_VIT = (
    *("MODEL.VIT.EMBED_DIM", 24, "MODEL.VIT.DEPTH", 3, "MODEL.VIT.NUM_HEADS", 2, "MODEL.VIT.PATCH_SIZE", 8),
    *("MODEL.STRIDE_SIZE", [8, 8], "INPUT.SIZE_TRAIN", [32, 24], "INPUT.SIZE_TEST", [32, 24]),
)
TINY_GRID = (4, 3)  # patches of TINY_VIT


def make_cfg(*opts: object) -> CfgNode:
    """Return a frozen configuration of a transformer without pretraining; `opts` are KEY, VALUE, ..."""
    cfg = cfg_with(
        *("MODEL.NAME", "transformer", "MODEL.TRANSFORMER_TYPE", "vit_base_patch16_224_TransReID"),
        *("MODEL.PRETRAIN_CHOICE", "none", "INPUT.SIZE_TRAIN", [256, 128], "INPUT.SIZE_TEST", [256, 128]),
        *opts,
    )
    cfg.freeze()
    return cfg


def make_tiny(*opts: object, classes: int = 5, cameras: int = 0, views: int = 0, seed: int = 0) -> nn.Module:
    """Return a ViT of width 24 with 3 blocks on 32 x 24 pixels, 4 x 3 patches."""
    torch.manual_seed(seed)
    return make_model(make_cfg(*TINY_VIT, *opts), classes, cameras, views)


def make_outline(*opts: object, classes: int = 751, cameras: int = 0, views: int = 0) -> nn.Module:
    """Return a model of any size without memory for its weights."""
    with torch.device("meta"):
        return make_model(make_cfg(*opts), classes, cameras, views)


def save(state: object, folder: Path, name: str = "weights.pth") -> str:
    """Write `state` with torch.save and return its path."""
    path = folder / name
    torch.save(state, path)
    return str(path)


def images(count: int = 3, size: tuple[int, int] = (32, 24), seed: int = 1) -> torch.Tensor:
    """Return random images [count, 3, *size]."""
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))
