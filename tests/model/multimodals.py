"""Tiny models of several modalities, inputs for them, and what they make of these in float64."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from yacs.config import CfgNode

from model import make_model
from tests.cfgs import cfg_with
from tests.model.builds import images
from tests.model.clip_reids import HEADS, TEXT_HEADS, VIT, in_float64, write_clip
from tests.model.clips import redraw
from tests.model.irras import captions
from tests.reference import slow_multimodal as slow

SIZE = (48, 32)  # pixels of the images: 3 x 2 patches of 16
CLASSES, BATCH, FUSION_HEADS = 6, 3, 4
WORDS = 14  # tokens of a caption, padding included
ALL = ("vis", "nir", "sk", "cp", "text")
OF_IMAGES = ALL[:-1]
STILL = ("MODEL.DROP_PATH", 0.0, "MODEL.MULTIMODAL.DROPOUT", 0.0, "MODEL.MULTIMODAL.HEAD_DROPOUT", 0.0)  # no chance
MISSING = {  # a mask of BATCH samples: the second has RGB alone
    "nir": torch.tensor([True, False, True]),
    "sk": torch.tensor([False, False, True]),
    "cp": torch.tensor([True, False, True]),
    "text": torch.tensor([True, False, False]),
}
Tensors = dict[str, torch.Tensor]


def multimodal_cfg(path: str, *opts: object) -> CfgNode:
    """Return the configuration of a model of several modalities on the CLIP of a description."""
    cfg = cfg_with(
        *("MODEL.NAME", "multimodal", "MODEL.CLIP_BACKBONE", path, "MODEL.CLIP_PRETRAIN", "", "MODEL.DEVICE", "cpu"),
        *("MODEL.PRETRAIN_CHOICE", "none", "INPUT.SIZE_TRAIN", SIZE, "INPUT.SIZE_TEST", SIZE),
        *("SOLVER.AMP", "off", "TEST.AMP", "off", "DATASETS.NAMES", ("orbench",)),
        *("MODEL.MULTIMODAL.HEADS", FUSION_HEADS, *STILL, *opts),
    )
    cfg.freeze()
    return cfg


def make_multimodal(folder: Path, *opts: object, seed: int = 5, first: bool = False) -> nn.Module:
    """Return a tiny model in evaluation mode; unless `first`, weights and statistics differ from their first values."""
    torch.manual_seed(seed)
    model = make_model(multimodal_cfg(write_clip(folder, VIT), *opts), CLASSES, 1, 1)
    if first:
        return model.eval()
    with torch.no_grad():
        model.bottleneck.running_mean.normal_(std=0.1)
        model.bottleneck.running_var.uniform_(0.5, 1.5)
    model = redraw(model)
    with torch.no_grad():
        model.bottleneck.bias.zero_()
    return model.eval()


def inputs_of(model: nn.Module, count: int = BATCH) -> Tensors:
    """Return inputs of all modalities of a model for `count` samples, at most 5."""
    given = {name: images(count, SIZE, seed) for seed, name in enumerate(OF_IMAGES) if name in model.modalities}
    return given | ({"text": captions((5, 12, 3, 7, 9)[:count], WORDS)} if "text" in model.modalities else {})


def spoilt(inputs: Mapping[str, torch.Tensor], mask: Mapping[str, torch.Tensor]) -> Tensors:
    """Return inputs with NaN, or words that no vocabulary has, wherever a mask is False."""
    changed = {}
    for name, x in inputs.items():
        there = mask.get(name, torch.ones(len(x), dtype=torch.bool)).view(-1, *[1] * (x.dim() - 1))
        changed[name] = torch.where(there, x, -(10**6) if name == "text" else torch.nan)
    return changed


def slow_z(model: nn.Module, inputs: Mapping[str, torch.Tensor], scale: float = 0.25) -> Tensors:
    """Return what the formulas make of each modality by itself."""
    state = in_float64(model)
    return {
        name: slow.text_features(state, x, TEXT_HEADS)
        if name == "text"
        else slow.image_features(state, x.double(), name, 16, HEADS, scale)
        for name, x in inputs.items()
    }


def whole(mask: Mapping[str, torch.Tensor], inputs: Mapping[str, torch.Tensor]) -> Tensors:
    """Return a mask of all inputs: True where `mask` says nothing."""
    return {name: mask.get(name, torch.ones(len(x), dtype=torch.bool)) for name, x in inputs.items()}
