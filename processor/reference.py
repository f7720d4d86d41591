"""What a trained model has to beat: nearest neighbours on raw pixels."""

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from datasets.make_dataloader import ReIDData
from datasets.torch_datasets import ImageDataset, collate
from processor.inference import RankOptions, evaluate_features

RAW_SIZE = (32, 32)
RAW_FILTER = "bilinear"
EPS = 1e-6


def raw_pixel_features(loader: DataLoader) -> torch.Tensor:
    """Return each image's pixels z-scored over its own values: float32 [N, 3 H W]."""
    feat = []
    for batch in loader:
        pixels = batch["images"].float().flatten(1)
        feat.append((pixels - pixels.mean(1, keepdim=True)) / (pixels.std(1, keepdim=True) + EPS))
    return torch.cat(feat)


def raw_pixel_results(data: ReIDData, max_rank: int) -> dict[str, Any]:
    """Return the test results of nearest neighbours on the images shrunk to 32 x 32 RGB."""
    tested = data.val_loader.dataset
    small = ImageDataset(tested.samples, RAW_SIZE, RAW_FILTER, tested.decoder)
    loader = DataLoader(
        small, batch_size=256, num_workers=data.val_loader.num_workers, collate_fn=collate, generator=torch.Generator()
    )
    feat = raw_pixel_features(loader)
    return evaluate_features(data, feat, np.full(len(feat), np.nan, dtype=np.float32), RankOptions(max_rank))
