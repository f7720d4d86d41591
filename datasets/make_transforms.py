"""From the configuration to the transforms that run batched on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yacs.config import CfgNode

if TYPE_CHECKING:
    from datasets.transforms import BatchTransform
    from datasets.two_views import TwoViews


def make_transforms(cfg: CfgNode) -> tuple[BatchTransform | TwoViews, BatchTransform]:
    """Return the device transforms of training (two views of each image when self-supervised) and of testing."""
    from datasets.transforms import BatchTransform, Erasing
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
        erasing = Erasing(tuple(cfg.INPUT.RE_AREA), cfg.INPUT.RE_VALUE, cfg.INPUT.RE_ASPECT)
        randomness = (cfg.INPUT.PROB, cfg.INPUT.PADDING, cfg.INPUT.RE_PROB, erasing, cfg.INPUT.JITTER)
        train = BatchTransform(mean, std, *randomness)
    return train, BatchTransform(mean, std)
