"""What speaks against a result although it could be computed: damaged images, and embeddings that are all alike."""

import logging
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from datasets.torch_datasets import ImageDataset, ImageLoader

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 4096
ALIKE = 1e-6  # mean over all pairs of 1 - cosine: so close, rounding decides who is nearest


def image_sets(loaders: Iterable[DataLoader]) -> list[ImageDataset]:
    """Return the data sets of those loaders that read image files."""
    return [loader.dataset for loader in loaders if isinstance(loader, ImageLoader)]


def cautions(loaders: Iterable[DataLoader], feat: torch.Tensor) -> tuple[str, ...]:
    """Return a line for each reason to doubt what a test finds with the embeddings [N, D] of these loaders' rows.

    Embeddings that are alike are logged as a warning, too; of damaged images `embed` has told.
    """
    alike = collapse(feat)
    if alike:
        logger.warning("%s", alike)
    return tuple(line for line in (*(images.damage() for images in image_sets(loaders)), alike) if line)


@torch.inference_mode()
def collapse(feat: torch.Tensor) -> str:
    """Return what to say of embeddings [N, D] that all have one direction, '' of others."""
    parts = feat.split(ROWS_AT_ONCE)
    middle = sum(F.normalize(part, dim=1).sum(0) for part in parts) / max(len(feat), 1)
    apart = sum(float((F.normalize(part, dim=1) - middle).square().sum()) for part in parts) / max(len(feat), 1)
    if len(feat) < 2 or not apart < ALIKE:  # NaN is refused where distances are made
        return ""
    return (
        f"the embeddings of all {len(feat)} images are alike (mean 1 - cosine {apart:.1e}), so their ranking means "
        "nothing: the model has collapsed (a learning rate too high, a loss without a term that parts identities), its "
        "weights were not loaded, or all images are the same"
    )
