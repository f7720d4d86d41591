"""From the configuration to the transforms that run batched on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from yacs.config import CfgNode

from configs.modalities import DRAWN, GREY, IMAGES

if TYPE_CHECKING:
    from datasets.transforms import BatchTransform
    from datasets.two_views import TwoViews


def make_transforms(cfg: CfgNode) -> tuple[BatchTransform | TwoViews, BatchTransform]:
    """Return the device transforms of training (two views of each image when self-supervised) and of testing."""
    from datasets.transforms import BatchTransform
    from datasets.two_views import TwoViews

    mean, std = cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD
    if cfg.MODEL.TRAINING_MODE == "self_supervised":
        train = TwoViews(
            mean,
            std,
            cfg.INPUT.PROB,
            cfg.INPUT.SSL.CROP_SCALE,
            cfg.INPUT.SSL.CROP_RATIO,
            cfg.INPUT.SSL.JITTER,
            cfg.INPUT.SSL.JITTER_PROB,
            cfg.INPUT.SSL.GREY_PROB,
        )
    else:
        train = _augmenting(cfg, cfg.INPUT.JITTER, BatchTransform)
    return train, BatchTransform(mean, std)


def make_modality_transforms(cfg: CfgNode) -> tuple[dict[str, BatchTransform], dict[str, BatchTransform]]:
    """Return the device transforms of training and of testing, by modality of images of MODEL.MULTIMODAL.MODALITIES.

    Each draws its own parameters; colour jitter is for those that have colours, and drawings are on paper.
    """
    from datasets.transforms import NO_JITTER, BatchTransform, PaperTransform

    names = [name for name in IMAGES if name in cfg.MODEL.MULTIMODAL.MODALITIES]
    train = {
        name: _augmenting(
            cfg, NO_JITTER if name in GREY else cfg.INPUT.JITTER, PaperTransform if name in DRAWN else BatchTransform
        )
        for name in names
    }
    return train, {name: BatchTransform(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD) for name in names}


def _augmenting(cfg: CfgNode, jitter: Sequence[float], kind: type[BatchTransform]) -> BatchTransform:
    """Return the transform of training, of this kind: flip, padding and crop, jitter, erasing."""
    from datasets.transforms import Erasing

    settings = cfg.INPUT
    erasing = Erasing(tuple(settings.RE_AREA), settings.RE_VALUE, settings.RE_ASPECT)
    randomness = (settings.PROB, settings.PADDING, settings.RE_PROB, erasing, jitter)
    return kind(settings.PIXEL_MEAN, settings.PIXEL_STD, *randomness)
