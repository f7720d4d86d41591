"""All windows of a zero-padded image, by plain slicing."""

from collections.abc import Iterator

import torch


def windows_of(image: torch.Tensor, padding: int) -> Iterator[tuple[tuple[int, int], torch.Tensor]]:
    """Yield ((top, left), window) of an image [C, H, W] after padding, windows of the old size."""
    channels, height, width = image.shape
    padded = torch.zeros(channels, height + 2 * padding, width + 2 * padding, dtype=image.dtype)
    padded[:, padding : padding + height, padding : padding + width] = image
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            yield (top, left), padded[:, top : top + height, left : left + width]
