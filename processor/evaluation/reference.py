"""What a trained model has to beat: nearest neighbours on raw pixels."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader

from datasets.loader import Loader
from datasets.test_set import TestSet
from datasets.torch_datasets import ImageDataset, collate
from processor.evaluation.embed import Embedded, mean_direction, pool_images, precision_name
from processor.evaluation.evaluate import RankOptions, evaluate
from utils.ap_rules import STANDARD
from utils.progress import over
from utils.test_folder import TestResult

RAW_SIZE = (32, 32)
RAW_FILTER = "bilinear"
EPS = 1e-6


def raw_pixel_features(loaders: Sequence[DataLoader]) -> torch.Tensor:
    """Return each image's pixels z-scored over its own values: float32 [N, 3 H W]."""
    feat = []
    for loader in loaders:
        for batch in over(loader, "raw pixels"):
            pixels = batch["images"].float().flatten(1)
            feat.append((pixels - pixels.mean(1, keepdim=True)) / (pixels.std(1, keepdim=True) + EPS))
    return torch.cat(feat)


def raw_pixel_results(test: TestSet, max_rank: int, ap: str = STANDARD) -> TestResult:
    """Return the results of nearest neighbours on a test set's images, shrunk to 32 x 32 RGB; `ap` of AP_RULES."""
    feat = raw_pixel_features([_shrunk(loader) for loader in test.loaders])
    luma = np.full(len(feat), np.nan, dtype=np.float32)
    embedded = Embedded(feat, luma, precision_name(None), mean_direction)
    if test.lengths is not None:
        embedded = pool_images(embedded, test.lengths, "mean")
    return evaluate(test, embedded, RankOptions(max_rank, ap=ap))


def _shrunk(loader: DataLoader) -> DataLoader:
    """Return a loader of the same images in RAW_SIZE, all of them in each process."""
    tested = loader.dataset
    return Loader(
        ImageDataset(tested.samples, RAW_SIZE, RAW_FILTER, tested.decoder),
        batch_size=256,
        num_workers=loader.num_workers,
        collate_fn=collate,
        generator=torch.Generator(),
    )
