"""Feature erasing: horizontal bands of a feature map, zeroed while a model trains.

Reference: Dai et al., Batch DropBlock Network for Person Re-identification, ICCV 2019, with a band for each sample in
place of one for the batch, over all columns, and without rescaling.
"""

import math

import torch

from utils.errors import ConfigError


def erase_band(maps: torch.Tensor, ratio: float) -> torch.Tensor:
    """Return maps [B, c, h, w] in which floor(ratio h) rows of each sample are 0, in all channels and columns.

    The band of a sample begins at a row drawn evenly from 0 to h - band, both included, by torch's generator of the
    device. A band of no row leaves the maps as they are. Raises ConfigError for a ratio outside [0, 1].
    """
    return erase_bands(maps.unsqueeze(2), ratio).squeeze(2)


def erase_bands(stripes: torch.Tensor, ratio: float) -> torch.Tensor:
    """Return stripes [B, c, S, r, w] with a band of floor(ratio r) rows drawn for each stripe; else as `erase_band`."""
    if not 0 <= ratio <= 1:
        raise ConfigError(f"ratio got {ratio}, expected a share of the rows in [0, 1]")
    batch_size, _, count, rows, _ = stripes.shape
    band = math.floor(ratio * rows)
    if band == 0:
        return stripes
    first = torch.randint(rows - band + 1, (batch_size, 1, count, 1, 1), device=stripes.device)
    row = torch.arange(rows, device=stripes.device).view(rows, 1)
    return stripes.masked_fill((row >= first) & (row < first + band), 0)
