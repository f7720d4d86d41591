"""Tiny CLIP-ReIDs of random weights, and what they hold in float64."""

import json
from pathlib import Path

import torch
from torch import nn
from yacs.config import CfgNode

from model import make_model
from tests.cfgs import cfg_with
from tests.model.clips import redraw
from tests.reference import slow_clip_reid as slow
from tests.tolerance import assert_rounded

SIZE = (48, 32)  # pixels of the images: 3 x 2 patches of 16
CLASSES, EMBED = 6, 24
HEADS = 2  # of the ViT
TEXT_HEADS = 2
RESNET_HEADS = 8  # 32 times its width 16 over 64
VIT = {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 3}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": TEXT_HEADS, "layers": 2}


def write_clip(folder: Path, vision: dict, quick: bool = True) -> str:
    """Write a CLIP with both towers in open_clip's format and return its path."""
    path = folder / "clip.json"
    path.write_text(json.dumps({"embed_dim": EMBED, "vision_cfg": vision, "text_cfg": TEXT, "quick_gelu": quick}))
    return str(path)


def clip_reid_cfg(path: str, *opts: object) -> CfgNode:
    """Return the configuration of a CLIP-ReID on the CLIP of a description."""
    cfg = cfg_with(
        *("MODEL.NAME", "clip_reid", "MODEL.CLIP_BACKBONE", path, "MODEL.CLIP_PRETRAIN", "", "MODEL.DEVICE", "cpu"),
        *("MODEL.PRETRAIN_CHOICE", "none", "INPUT.SIZE_TRAIN", SIZE, "INPUT.SIZE_TEST", SIZE),
        *("SOLVER.AMP", "off", "TEST.AMP", "off", "DATALOADER.SAMPLER", "softmax_triplet"),
        *opts,
    )
    cfg.freeze()
    return cfg


def make_clip_reid(cfg: CfgNode, cameras: int = 0, views: int = 0, seed: int = 5) -> nn.Module:
    """Return a model whose weights and statistics all differ from their first values."""
    torch.manual_seed(seed)
    model = redraw(make_model(cfg, CLASSES, cameras, views))
    with torch.no_grad():
        for name, value in model.named_buffers():
            if name.endswith("running_mean"):
                value.copy_(0.1 * torch.randn_like(value))
            elif name.endswith("running_var"):
                value.copy_(0.5 + torch.rand_like(value))
    return model.eval()


def in_float64(model: nn.Module) -> slow.State:
    """Return the weights of a model by their names, copied."""
    return {name: value.detach().double().clone() for name, value in model.state_dict().items()}


def assert_near(got: torch.Tensor, exact: torch.Tensor, name: str = "") -> None:
    """`got` in float32 is `exact` in float64 to the 2e-5 of some hundred roundings."""
    assert got.dtype == torch.float32, name
    assert_rounded(got.detach(), exact.detach(), terms=100, name=name)
