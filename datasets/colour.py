"""Colour jitter of batches of images, free of syncs: brightness, contrast, saturation, hue.

Every image draws its own change, from the default torch generator of its device.
"""

import functools
import math
from collections.abc import Sequence

import torch

# RGB to YIQ (NTSC): luma, then the two axes of the colour plane
YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def draw_jitter(
    count: int, strength: Sequence[float], probability: float, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return factors [N] of brightness, contrast and saturation, and turns [N] of the hue.

    Factors are U(1 - s, 1 + s) and turns U(-s, s) with the given probability, else 1, 1, 1, 0: all four or none.
    """
    change = torch.empty(4, count, device=device).uniform_(-1, 1)
    applied = torch.rand(count, device=device) < probability
    brightness, contrast, saturation, turns = change * applied
    return 1 + brightness * strength[0], 1 + contrast * strength[1], 1 + saturation * strength[2], turns * strength[3]


def apply_jitter(
    images: torch.Tensor,
    brightness: torch.Tensor,
    contrast: torch.Tensor,
    saturation: torch.Tensor,
    turns: torch.Tensor,
) -> torch.Tensor:
    """Change each image of float [N, 3, H, W] in 0..255 by its factors and turn [N] in that order; returns 0..1."""
    images = scale_brightness(images, brightness / 255)
    images = scale_contrast(images, contrast)
    return change_colour(images, saturation, turns)


def scale_brightness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Multiply each image of [N, 3, H, W] with its factor [N] and clamp to 0..1."""
    return (images * factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def scale_contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Move each image of [N, 3, H, W] in 0..1 from its mean luma by the factor [N] and clamp to 0..1."""
    factor = factor.view(-1, 1, 1, 1)
    luma, _ = _colour_constants(images.device)
    mean = (images.mean((2, 3), keepdim=True) * luma.view(1, 3, 1, 1)).sum(1, keepdim=True)  # [N, 1, 1, 1]
    return (images * factor).add_((1 - factor) * mean).clamp_(0, 1)


def change_colour(images: torch.Tensor, saturation: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Scale the colour plane of each image by `saturation` [N] (0 = greyscale), turn it by `turns` [N], clamp to 0..1.

    Takes and returns [N, 3, H, W] in 0..1; the luma stays. A positive turn takes red towards green.
    """
    matrix = colour_matrix(saturation, turns)[..., None, None]  # [N, 3, 3, 1, 1]
    red, green, blue = images.split(1, 1)
    # a sum of three products, not a matrix product, which TF32 would round
    result = matrix[:, :, 0] * red
    return result.addcmul_(matrix[:, :, 1], green).addcmul_(matrix[:, :, 2], blue).clamp_(0, 1)


def colour_matrix(saturation: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Return the RGB to RGB matrices [N, 3, 3] that scale and rotate the IQ plane of YIQ."""
    luma, quarter = _colour_constants(saturation.device)
    grey = luma.expand(3, 3)  # each channel becomes the luma
    angle = turns * (2 * math.pi)
    along, across = (saturation * angle.cos())[:, None, None], (saturation * angle.sin())[:, None, None]
    return grey + along * (torch.eye(3, device=grey.device) - grey) + across * quarter


@functools.cache  # a copy to the device in every step would be a sync
def _colour_constants(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the luma weights [3] and the matrix [3, 3] that turns the colour plane by a quarter, red towards green."""
    yiq = torch.tensor(YIQ, dtype=torch.float64)
    turn = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]], dtype=torch.float64)
    quarter = torch.linalg.inv(yiq) @ turn @ yiq
    return yiq[0].float().to(device), quarter.float().to(device)
