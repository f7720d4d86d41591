"""Two random views of each image for self-supervised training, batched and free of syncs, where the model runs.

Random resized crop and mirror, colour jitter, greyscale, as in Chen et al., A Simple Framework for Contrastive Learning
of Visual Representations, ICML 2020, section 3 and appendix A, without the blur. Every view draws its own parameters.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from datasets.colour import apply_jitter, draw_jitter
from datasets.transforms import normalise

CROP_TRIES = 10


class TwoViews:
    """uint8 batches to normalised float32 batches of twice the size: the first view of all images, then the second.

    `crop_scale` is the lowest and highest area of a crop / area of the image, `crop_ratio` the lowest and highest
    stretch of its width / height, 1 = the image's own shape. `jitter` holds the strengths s of brightness, contrast and
    saturation, whose factors are U(1 - s, 1 + s), and of the hue, which turns by U(-s, s) of a full circle.
    Randomness comes from the default torch generator of the images' device.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        flip_prob: float,
        crop_scale: Sequence[float],
        crop_ratio: Sequence[float],
        jitter: Sequence[float],
        jitter_prob: float,
        grey_prob: float,
    ) -> None:
        self.mean, self.std = tuple(mean), tuple(std)
        self.flip_prob = flip_prob
        self.crop_scale = crop_scale
        self.crop_ratio = crop_ratio
        self.jitter = jitter
        self.jitter_prob = jitter_prob
        self.grey_prob = grey_prob

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 [B, 3, H, W] to float32 [2B, 3, H, W], normalised with mean and std of the [0, 1] range."""
        count, device = 2 * len(images), images.device
        boxes = draw_crops(count, self.crop_scale, self.crop_ratio, device)
        mirrored = torch.rand(count, device=device) < self.flip_prob
        views = resized_crop(images.repeat(2, 1, 1, 1).float(), boxes, mirrored)  # in 0..255
        brightness, contrast, saturation, turns = draw_jitter(count, self.jitter, self.jitter_prob, device)
        grey = torch.rand(count, device=device) < self.grey_prob
        views = apply_jitter(views, brightness, contrast, saturation.masked_fill(grey, 0.0), turns)
        return normalise(views, self.mean, self.std, 1)


def draw_crops(
    count: int, scale: Sequence[float], ratio: Sequence[float], device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Return `count` random boxes (left, top, width, height) [N, 4] as shares of the image's width and height.

    Area U(scale), width share / height share log-uniform in `ratio`; up to 10 draws until the box fits into the image,
    else the whole image. The place is uniform.
    """
    tries = (CROP_TRIES, count)
    area = torch.empty(tries, device=device).uniform_(*scale)
    stretch = torch.empty(tries, device=device).uniform_(math.log(ratio[0]), math.log(ratio[1])).exp()
    sides = torch.stack([(area * stretch).sqrt(), (area / stretch).sqrt()], -1)  # [tries, N, 2]
    fits = (sides <= 1).all(-1)
    first = fits.int().argmax(0).view(1, count, 1).expand(1, count, 2)  # the first draw that fits
    # [N, 2]; masked_fill takes its number along, torch.where would copy it to the device and wait
    sides = sides.gather(0, first)[0].masked_fill(~fits.any(0)[:, None], 1.0)
    start = torch.rand(count, 2, device=device) * (1 - sides)
    return torch.cat([start, sides], 1)


def resized_crop(images: torch.Tensor, boxes: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """Enlarge a box of each image to the image's size (bilinear), mirrored where `mirrored` [N] is True.

    Takes and returns float [N, 3, H, W]; `boxes` [N, 4] as from `draw_crops`.
    """
    height, width = images.shape[2:]
    start, sides = boxes.split(2, 1)  # [N, 2] each: x, y
    rows = start[:, 1:] + sides[:, 1:] * _pixel_centres(height, images.device)  # [N, H], 0..1
    columns = _pixel_centres(width, images.device)
    columns = torch.where(mirrored[:, None], 1 - columns, columns)
    columns = start[:, :1] + sides[:, :1] * columns  # [N, W]
    shape = (len(images), height, width)
    # the outer half of an edge pixel has no neighbour to blend with (padding_mode border, which MPS may lack)
    columns, rows = columns.clamp(0.5 / width, 1 - 0.5 / width), rows.clamp(0.5 / height, 1 - 0.5 / height)
    grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], -1) * 2 - 1
    return F.grid_sample(images, grid, mode="bilinear", align_corners=False)


def _pixel_centres(size: int, device: torch.device) -> torch.Tensor:
    """Return the centres of `size` pixels as shares 0..1 of the side: float32 [size]."""
    return (torch.arange(size, device=device) + 0.5) / size
