"""Batched image transforms that run where the model runs: one implementation for CPU, CUDA and MPS, free of syncs.

Same distribution as the lineage's per-image chain: flip, pad with black, crop, colour jitter (by default none),
normalise, random erasing (Zhong et al., Random Erasing Data Augmentation, AAAI 2020, by default in timm's 'pixel'
mode). Every sample draws its own parameters.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from datasets.colour import apply_jitter, draw_jitter

ERASE_AREA = (0.02, 1 / 3)  # share of the image
ERASE_ASPECT = 0.3  # lowest height / width, and width / height
ERASE_TRIES = 10
LUMA = (0.2126, 0.7152, 0.0722)  # BT.709 weights of R, G, B


class Erasing(NamedTuple):
    """What random erasing does to an image that it hits."""

    area: tuple[float, float] = ERASE_AREA  # lowest, highest share of the image
    value: str = "noise"  # noise, mean, black or raw_mean, see `fill_of`
    aspect: float = ERASE_ASPECT  # lowest height / width and width / height, above 0, at most 1


OF_THE_LINEAGE = Erasing()
NO_JITTER = (0.0, 0.0, 0.0, 0.0)
BLACK, WHITE = 0, 255


class BatchTransform:
    """uint8 batches to normalised float32 batches; the random parts only where their probability is above 0.

    `jitter` holds the strengths of the colour jitter as in `TwoViews`, of every image, before the erasing; 0 = off.
    Randomness comes from the default torch generator of the images' device.
    """

    border = BLACK  # value of the pixels that the padding adds

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        flip_prob: float = 0.0,
        padding: int = 0,
        erase_prob: float = 0.0,
        erasing: Erasing = OF_THE_LINEAGE,
        jitter: Sequence[float] = NO_JITTER,
    ) -> None:
        self.mean, self.std = tuple(mean), tuple(std)
        self.flip_prob = flip_prob
        self.padding = padding
        self.erase_prob = erase_prob
        self.erasing = erasing
        self.jitter = tuple(jitter)
        self._fill = fill_of(erasing.value, self.mean, self.std)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 [B, 3, H, W] to float32 [B, 3, H, W], normalised with mean and std of the [0, 1] range."""
        if self.flip_prob > 0 or self.padding > 0:
            images = flip_pad_crop(images, self.flip_prob, self.padding, self.border)
        images, white = images.float(), 255
        if any(self.jitter):
            images, white = apply_jitter(images, *draw_jitter(len(images), self.jitter, 1.0, images.device)), 1
        images = normalise(images, self.mean, self.std, white)
        if self.erase_prob > 0:
            images = random_erase(images, self.erase_prob, self.erasing.area, self._fill, self.erasing.aspect)
        return images

    @torch.no_grad()
    def luma(self, images: torch.Tensor) -> torch.Tensor:
        """Return the brightness of what the model sees, [B, 3, H, W] as this transform returns it: float32 [B] in 0..1.

        The mean luma (BT.709) after undoing the normalisation and clamping to [0, 1]; padding and erasing noise count.
        """
        mean, std = per_channel(self.mean, images.device), per_channel(self.std, images.device)
        return _mean_luma(torch.addcmul(mean, images, std).clamp_(0, 1))


class PaperTransform(BatchTransform):
    """A `BatchTransform` of drawings: what the padding adds is paper, as black beside it would outshine all lines."""

    border = WHITE


def normalise(images: torch.Tensor, mean: Sequence[float], std: Sequence[float], white: float) -> torch.Tensor:
    """Change float32 [B, 3, H, W] in 0..`white` in place to (images / white - mean) / std, in one pass; returns it."""
    factor = per_channel(tuple(1 / (white * value) for value in std), images.device)
    offset = per_channel(tuple(-low / value for low, value in zip(mean, std, strict=True)), images.device)
    return torch.addcmul(offset, images, factor, out=images)


@functools.cache
@torch.inference_mode(False)  # a test may be the first to ask, training goes on with the same tensor
def per_channel(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Return numbers of the channels as float32 [1, C, 1, 1], filled where they stay: a copy would be a sync."""
    return torch.cat([torch.full((1, 1, 1, 1), value, device=device) for value in values], 1)


def flip_pad_crop(images: torch.Tensor, flip_prob: float, padding: int, border: int = BLACK) -> torch.Tensor:
    """Mirror each image with `flip_prob`, add `padding` pixels all round, cut a random window of the old size.

    Takes and returns [B, 3, H, W] of any dtype; `border` is the value of the pixels that are added.
    """
    count, _, height, width = images.shape
    device = images.device
    flip = torch.rand(count, device=device) < flip_prob
    top = torch.randint(0, 2 * padding + 1, (count,), device=device)
    left = torch.randint(0, 2 * padding + 1, (count,), device=device)
    rows = top[:, None] + torch.arange(height, device=device)  # [B, H] in the padded image
    columns = left[:, None] + torch.arange(width, device=device)  # [B, W]
    last_column = width + 2 * padding - 1  # a mirrored padded image is the padded mirrored image
    columns = torch.where(flip[:, None], last_column - columns, columns)
    padded = F.pad(images, (padding,) * 4, value=border).flatten(2)  # [B, 3, pixels of the padded image]
    index = rows[:, :, None] * (last_column + 1) + columns[:, None, :]  # [B, H, W]
    return padded.gather(2, index.view(count, 1, -1).expand(-1, images.shape[1], -1)).view(images.shape)


def fill_of(value: str, mean: Sequence[float], std: Sequence[float]) -> tuple[float, ...] | None:
    """Return the number that an erased pixel of each channel gets, in normalised units; None for noise.

    mean and black are what a pixel of the mean colour and a black one become, raw_mean is the numbers of the mean as
    they are: IRRA (Jiang & Ye, CVPR 2023) erases after the normalisation and writes those. ValueError for another name.
    """
    fills = {
        "noise": None,
        "mean": (0.0,) * len(mean),
        "black": tuple(-low / spread for low, spread in zip(mean, std, strict=True)),
        "raw_mean": tuple(mean),
    }
    if value not in fills:
        raise ValueError(f"an erased pixel can be {', '.join(fills)}, got '{value}'")
    return fills[value]


def random_erase(
    images: torch.Tensor,
    probability: float,
    area: tuple[float, float] = ERASE_AREA,
    fill: tuple[float, ...] | None = None,
    aspect: float = ERASE_ASPECT,
) -> torch.Tensor:
    """Fill one rectangle of each image with a number a channel, None = with N(0, 1) noise, with a given probability.

    Area U(*area) of the image, log of height / width U(+-log(1 / aspect)); up to 10 draws until the rectangle is
    smaller than the image in both directions, else the image stays whole. Takes float [B, C, H, W], returns such a
    tensor of its own.
    """
    count, _, height, width = images.shape
    device = images.device
    tries = (ERASE_TRIES, count)
    pixels = torch.empty(tries, device=device).uniform_(*area) * (height * width)
    reach = math.log(1 / aspect)
    stretch = torch.empty(tries, device=device).uniform_(-reach, reach).exp()
    box_height = (pixels * stretch).sqrt().round()
    box_width = (pixels / stretch).sqrt().round()
    fits = (box_height < height) & (box_width < width)  # [tries, B]
    first = fits.int().argmax(0, keepdim=True)  # the first draw that fits
    chosen = fits.any(0) & (torch.rand(count, device=device) < probability)
    box_height, box_width = box_height.gather(0, first)[0], box_width.gather(0, first)[0]  # [B]
    top = (torch.rand(count, device=device) * (height - box_height + 1)).floor()
    left = (torch.rand(count, device=device) * (width - box_width + 1)).floor()
    rows = torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    in_rows = (rows >= top[:, None]) & (rows < (top + box_height)[:, None])  # [B, H]
    in_columns = (columns >= left[:, None]) & (columns < (left + box_width)[:, None])  # [B, W]
    box = chosen[:, None, None] & in_rows[:, :, None] & in_columns[:, None, :]  # [B, H, W]
    if fill is not None:
        return torch.where(box[:, None], per_channel(fill, device).to(images.dtype), images)
    noise = torch.randn_like(images)
    return torch.where(box[:, None], noise, images, out=noise)


def brightness(images: torch.Tensor) -> torch.Tensor:
    """Return the mean luma (BT.709) of uint8 images [B, 3, H, W] as float32 [B] in 0..1."""
    return _mean_luma(images) / 255


def _mean_luma(images: torch.Tensor) -> torch.Tensor:
    red, green, blue = images.mean((2, 3), dtype=torch.float32).unbind(1)  # [B] each
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
