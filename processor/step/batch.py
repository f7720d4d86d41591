"""From a batch of the loader to what model and criterion read: on the device, transformed, with brightness or views."""

from typing import NamedTuple

import torch

from datasets.batch import Batch
from datasets.transforms import BatchTransform, brightness
from datasets.two_views import TwoViews
from utils.distributed import own_rank


class BatchSettings(NamedTuple):
    """What a training batch carries beside its images and labels."""

    brightness: str = "off"  # off | augmented (of the images that the model sees) | clean (before augmentation)
    two_views: bool = False  # self-supervised: each image is its own class, seen twice


def prepare_batch(
    batch: Batch, device: torch.device, transform: BatchTransform | TwoViews, settings: BatchSettings
) -> Batch:
    """Return the batch on `device` with `images` normalised float32 [B, 3, H, W], and `brightness` [B] if asked for.

    With two views there are 2B images, the first views before the second ones, and `pids` number the images of the
    batch over all processes; all other labels are repeated.
    """
    moved = {
        key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }
    pixels = moved["images"]
    moved["images"] = transform(pixels)
    if settings.two_views:
        images_in_batch = torch.arange(len(pixels), device=device) + own_rank() * len(pixels)
        moved |= {"pids": images_in_batch.repeat(2), "paths": batch["paths"] * 2}
        moved |= {key: moved[key].repeat(2) for key in ("camids", "viewids")}
    elif settings.brightness == "clean":
        moved["brightness"] = brightness(pixels)
    elif settings.brightness == "augmented":
        moved["brightness"] = transform.luma(moved["images"])
    return moved
