"""From a model and images to embeddings: the one way in which tests, tools and a user's own images are embedded."""

import sys
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm
from yacs.config import CfgNode

from datasets.make_dataloader import make_transforms
from datasets.transforms import BatchTransform, brightness


class Embedded(NamedTuple):
    """What a loader's images became, in its order."""

    feat: torch.Tensor  # float32 [N, D] on the CPU
    luma: np.ndarray  # float32 [N]: brightness of the clean image in 0..1


@torch.inference_mode()
def embed(cfg: CfgNode, model: nn.Module, loader: DataLoader) -> Embedded:
    """Embed a loader's images in float32 whatever SOLVER.AMP says, with TEST.FLIP and TEST.FEAT_NORM as they are set.

    The model is left in eval mode.
    """
    model.eval()
    _, transform = make_transforms(cfg)
    feat, luma = [], []
    for batch in tqdm(loader, desc="embed", disable=not sys.stderr.isatty(), leave=False):
        images = batch["images"].to(next(model.parameters()).device, non_blocking=True)
        feat.append(embed_batch(model, images, batch["camids"], batch["viewids"], transform, cfg.TEST.FLIP).cpu())
        luma.append(brightness(images).cpu())
    feat = torch.cat(feat)
    return Embedded(F.normalize(feat, dim=1) if cfg.TEST.FEAT_NORM == "yes" else feat, torch.cat(luma).numpy())


@torch.inference_mode()
def embed_batch(
    model: nn.Module,
    images: torch.Tensor,
    camids: torch.Tensor | None,
    viewids: torch.Tensor | None,
    transform: BatchTransform,
    flip: bool,
) -> torch.Tensor:
    """Return the embeddings float32 [B, D] of uint8 images [B, 3, H, W]; both are where the model is, in eval mode.

    The labels are int64 [B]; None or negative = unknown. `flip` averages the embedding with that of the mirror image.
    """
    labels = {
        name: None if values is None else values.to(images.device)
        for name, values in (("cam_label", camids), ("view_label", viewids))
    }
    pixels = transform(images)
    feat = model(pixels, **labels).float()
    return (feat + model(pixels.flip(3), **labels).float()) / 2 if flip else feat
