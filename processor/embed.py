"""From a model and images to embeddings: the one way in which tests, tools and a user's own images are embedded."""

import logging
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
from model.layers.kernel import choose_attention
from utils.device import autocast, resolve_amp
from utils.distributed import gather_shards, num_processes

logger = logging.getLogger(__name__)

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}  # by name: the autocast type
COPIES = 3  # of the features that a GPU must have room for: they, their parts in a ranking, and what that allocates


class Embedded(NamedTuple):
    """What a loader's images became, in its order."""

    feat: torch.Tensor  # float32 [N, D], on the model's device, or on the CPU where a GPU has no room for them
    luma: np.ndarray  # float32 [N]: brightness of the clean image in 0..1
    precision: str  # in which the model ran, a key of PRECISIONS


@torch.inference_mode()
def embed(cfg: CfgNode, model: nn.Module, loader: DataLoader) -> Embedded:
    """Embed a loader's images in the precision of TEST.AMP, with TEST.FLIP and TEST.FEAT_NORM as they are set.

    Nothing waits for a GPU before the last batch. Processes that share a loader each get the features of all its
    images. The model is left in eval mode. Raises ConfigError for a TEST.AMP that the device cannot compute in.
    """
    model.eval()
    device = next(model.parameters()).device
    amp = resolve_amp(cfg.TEST.AMP, device, "TEST.AMP")
    _, transform = make_transforms(cfg)
    luma = torch.empty(len(loader.sampler), device=device)
    feat, stop = None, 0
    for batch in tqdm(loader, desc="embed", disable=not sys.stderr.isatty(), leave=False):
        images = batch["images"].to(device, non_blocking=True)
        start, stop = stop, stop + len(images)
        part = embed_batch(model, images, batch["camids"], batch["viewids"], transform, cfg.TEST.FLIP, amp)
        part = F.normalize(part, dim=1) if cfg.TEST.FEAT_NORM == "yes" else part
        feat = _room_for(part, len(luma)) if feat is None else feat
        feat[start:stop].copy_(part, non_blocking=True)
        luma[start:stop] = brightness(images)
    luma = gather_shards(luma, len(loader.dataset)).cpu().numpy()  # waits for the GPU, so `feat` is whole from here on
    feat = gather_shards(feat, len(loader.dataset))
    precision = precision_name(amp)
    logger.info("%d images embedded in %s on %s", len(feat), precision, device)
    return Embedded(feat, luma, precision)


def _room_for(part: torch.Tensor, total: int) -> torch.Tensor:
    """Return an empty float32 [total, D] for rows like `part` [B, D], on its device.

    Where a GPU lacks the room it is in pinned CPU memory, to which copies need not wait; not where processes share the
    loader, for they exchange features between their GPUs.
    """
    shape = (total, part.shape[1])
    if part.is_cuda and num_processes() == 1:
        unused = torch.cuda.memory_reserved(part.device) - torch.cuda.memory_allocated(part.device)
        free = torch.cuda.mem_get_info(part.device)[0] + unused
        if COPIES * total * part.shape[1] * part.itemsize > free:
            return torch.empty(shape, pin_memory=True)
    return torch.empty(shape, device=part.device)


def precision_name(amp: torch.dtype | None) -> str:
    """Return the key of PRECISIONS whose value is `amp`."""
    return next(name for name, kind in PRECISIONS.items() if kind == amp)


@torch.inference_mode()
def embed_batch(
    model: nn.Module,
    images: torch.Tensor,
    camids: torch.Tensor | None,
    viewids: torch.Tensor | None,
    transform: BatchTransform,
    flip: bool,
    amp: torch.dtype | None,
) -> torch.Tensor:
    """Return the embeddings float32 [B, D] of uint8 images [B, 3, H, W]; both are where the model is, in eval mode.

    The labels are int64 [B]; None or negative = unknown. `flip` averages the embedding with that of the mirror image.
    `amp` is the autocast type of the model, None = float32 throughout; pixels are normalised in float32 in any case.
    """
    labels = {
        name: None if values is None else values.to(images.device, non_blocking=True)
        for name, values in (("cam_label", camids), ("view_label", viewids))
    }
    pixels = transform(images)
    choose_attention(model, images.device, amp)
    with autocast(images.device, amp):
        feat = model(pixels, **labels).float()
        return (feat + model(pixels.flip(3), **labels).float()) / 2 if flip else feat
