"""What speaks against a result although it could be computed: damaged images, and embeddings that are all alike."""

import logging
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from datasets.caption_sets import CaptionRows
from datasets.modal_rows import ModalImages
from datasets.torch_datasets import ImageDataset, ImageLoader

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 4096
ALIKE = 1e-6  # mean over all pairs of 1 - cosine: so close, rounding decides who is nearest


def image_sets(loaders: Iterable[DataLoader]) -> list[ImageDataset]:
    """Return the images of those loaders that read image files."""
    return [images for loader in loaders if isinstance(loader, ImageLoader) for images in loader.image_sets]


def kind_of_rows(loader: DataLoader) -> str:
    """Return what the rows of a test's loader are, as the log calls them."""
    if isinstance(loader.dataset, ModalImages):
        return f"{loader.dataset.modality} images"
    return "captions" if isinstance(loader.dataset, CaptionRows) else "images"


def cautions(loaders: Sequence[DataLoader], feat: torch.Tensor) -> tuple[str, ...]:
    """Return a line for each reason to doubt what a test finds with the embeddings [N, D] of these loaders' rows.

    Embeddings that are alike are logged as a warning, too; of damaged images `embed` has told. Images and captions lie
    apart, so each loader's rows are looked at by themselves.
    """
    parts = feat.split([len(loader.dataset) for loader in loaders]) if len(loaders) > 1 else [feat]
    names = [kind_of_rows(loader) for loader in loaders] or ["images"]
    alike = [line for part, name in zip(parts, names, strict=True) if (line := collapse(part, name))]
    for line in alike:
        logger.warning("%s", line)
    return tuple(line for line in (*(images.damage() for images in image_sets(loaders)), *alike) if line)


@torch.inference_mode()
def collapse(feat: torch.Tensor, name: str = "images") -> str:
    """Return what to say of embeddings [N, D] of `name` that all have one direction, '' of others."""
    parts = feat.split(ROWS_AT_ONCE)
    middle = sum(F.normalize(part.float(), dim=1).sum(0) for part in parts) / max(len(feat), 1)
    apart = sum(float((F.normalize(part.float(), dim=1) - middle).square().sum()) for part in parts) / max(len(feat), 1)
    if len(feat) < 2 or not apart < ALIKE:  # NaN is refused where distances are made
        return ""
    return (
        f"the embeddings of all {len(feat)} {name} are alike (mean 1 - cosine {apart:.1e}), so their ranking means "
        "nothing: the model has collapsed (a learning rate too high, a loss without a term that parts identities), its "
        f"weights were not loaded, or all {name} are the same"
    )
