"""Losses between images and texts: a contrast in which all pairs of one identity are positive, and classes by text.

Reference: Li et al., CLIP-ReID: Exploiting Vision-Language Model for Image Re-Identification without Concrete Text
Labels, AAAI 2023, equations 3 to 7.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from losses.identity import identity_loss
from losses.numeric import attached_zero, check_labels
from utils.precision import at_least_float32, without_autocast

if TYPE_CHECKING:
    from configs.phases import Phase
    from datasets.batch import Batch
    from model import ModelOutput

I2T = "i2t"  # of ModelOutput.extra: logits [B, C] of the images against the texts of all identities
IMAGE, TEXT = "image", "text"  # of ModelOutput.extra: features [B, D] of pairs


def cross_modal_contrast(
    anchor: torch.Tensor,
    other: torch.Tensor,
    anchor_labels: torch.Tensor,
    other_labels: torch.Tensor,
    temperature: float = 1.0,
) -> torch.Tensor:
    """Return -mean_i mean_{j: y_j = y_i} log softmax_j(a_i . b_j / t), a scalar of at least float32.

    anchor is [N, D] and other [M, D], in any float type, and nothing is normalised here; their labels are [N] and [M]
    int64. Anchors without a positive are left out of the mean; without any the loss is a differentiable 0. Raises
    ValueError for other shapes.
    """
    check_labels(anchor, anchor_labels)
    check_labels(other, other_labels)
    positive = anchor_labels[:, None] == other_labels[None, :]  # [N, M]
    if not positive.numel():
        return attached_zero([anchor, other])
    with without_autocast(anchor):
        logits = at_least_float32(anchor) @ at_least_float32(other).t() / temperature
    count = positive.sum(1)  # [N]
    per_anchor = -(positive * logits.log_softmax(1)).sum(1) / count.clamp(min=1)
    return per_anchor.sum() / (count > 0).sum().clamp(min=1)  # without a positive the sum above is 0


def image_text_logits(
    images: torch.Tensor, texts: torch.Tensor, normalise: bool = False, temperature: float = 1.0
) -> torch.Tensor:
    """Return the logits [B, C] of image features [B, D] against text features [C, D], at least float32.

    They are dot products, or cosines where `normalise`, over the temperature.
    """
    with without_autocast(images):
        images, texts = (at_least_float32(feat) for feat in (images, texts))
        if normalise:
            images, texts = F.normalize(images, dim=1), F.normalize(texts, dim=1)
        return images @ texts.t() / temperature


class ContrastTerm(nn.Module):
    """The terms i2t and t2i of stage 1: `cross_modal_contrast` of images with texts, and of texts with images."""

    def __init__(self, normalise: bool = False, temperature: float = 1.0) -> None:
        super().__init__()
        self.normalise = normalise
        self.temperature = temperature

    def forward(self, output: "ModelOutput", batch: "Batch", phase: "Phase") -> dict[str, torch.Tensor]:
        """Return both terms of the pairs in `output.extra`; row i of both features shows batch["pids"][i]."""
        images, texts = (at_least_float32(output.extra[name]) for name in (IMAGE, TEXT))
        if self.normalise:
            images, texts = F.normalize(images, dim=1), F.normalize(texts, dim=1)
        pids = batch["pids"]
        return {
            "i2t": cross_modal_contrast(images, texts, pids, pids, self.temperature),
            "t2i": cross_modal_contrast(texts, images, pids, pids, self.temperature),
        }

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"normalise={self.normalise}, temperature={self.temperature}"


class ImageToTextTerm(nn.Module):
    """The term i2t of stage 2: cross-entropy, with label smoothing in [0, 1), of the logits in `output.extra`."""

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, output: "ModelOutput", batch: "Batch", phase: "Phase") -> dict[str, torch.Tensor]:
        """Return the term."""
        return {"i2t": identity_loss(output.extra[I2T], batch["pids"], self.smoothing)}

    def extra_repr(self) -> str:
        """Return the smoothing for printing."""
        return f"smoothing={self.smoothing}"


def image_to_text_accuracy(output: "ModelOutput", batch: "Batch") -> torch.Tensor:
    """Return the share of images whose identity has the nearest text."""
    return (output.extra[I2T].argmax(1) == batch["pids"]).float().mean()
