"""What a trained model has to beat: raw pixels and the model before its first step."""

from typing import Any

import torch
import torch.nn.functional as F

from datasets.make_dataloader import ReIDData
from processor.inference import rank_by_features

RAW_SIZE = (32, 32)
EPS = 1e-6


def raw_pixel_features(loader: torch.utils.data.DataLoader) -> torch.Tensor:
    """Return each image shrunk to 32 x 32 RGB and z-scored over its own values: float32 [N, 3072]."""
    feat = []
    for batch in loader:
        small = F.interpolate(batch["images"].float(), RAW_SIZE, mode="bilinear", antialias=True).flatten(1)
        feat.append((small - small.mean(1, keepdim=True)) / (small.std(1, keepdim=True) + EPS))
    return torch.cat(feat)


def raw_pixel_results(data: ReIDData, max_rank: int) -> dict[str, Any]:
    """Return the test results of nearest neighbours on raw pixels."""
    return rank_by_features(data, raw_pixel_features(data.val_loader), max_rank)
