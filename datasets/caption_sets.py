"""Rows of captions and of (image, caption) pairs as batches; captions are tokens before the first batch is asked for.

Reference: Jiang and Ye, Cross-Modal Implicit Relation Reasoning and Aligning for Text-to-Image Person Retrieval, CVPR
2023, section 3.2 (the masked words).
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import BatchSampler, Dataset

from datasets.batch import Batch
from datasets.captions import Pair
from datasets.tokens import apply_mask, draw_mask, tokenize_all
from datasets.torch_datasets import DAMAGED, ImageDataset, ImageLoader
from utils.generators import seeded_generator


class Masking(NamedTuple):
    """How words of captions are masked, see `datasets.tokens.mask_tokens`."""

    seed: int  # from 0
    rate: float
    mask_share: float
    keep_share: float
    unasked: tuple[range, ...] = ()  # epochs in which no loss asks for the masked words


class CaptionRows(Dataset):
    """Captions as batches of tokens, for tests."""

    def __init__(self, captions: Sequence[str], length: int) -> None:
        self.captions = list(captions)
        self._tokens = compact_tokens(captions, length)

    def __len__(self) -> int:
        return len(self.captions)

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        """Return the batch of some rows: caption_ids int64 [B, length]."""
        return {"caption_ids": widened(self._tokens, list(rows))}


class PairRows(Dataset):
    """Training pairs as batches. A row is (row, epoch): each epoch masks other words of a caption.

    `images` holds the images of the joined `pairs`, in the order of their image_id. `masking` None: nothing is masked.
    What is masked depends on seed, epoch and row alone, not on the batch, the worker or the process.
    """

    def __init__(self, images: ImageDataset, pairs: Sequence[Pair], length: int, masking: Masking | None) -> None:
        self.images = images
        self.pairs = list(pairs)
        self._image_ids = np.array([pair.image_id for pair in pairs], dtype=np.int64)  # [N]
        self._length = length
        self._masking = masking

    @cached_property
    def tokens(self) -> np.ndarray:
        """The tokens of all captions, uint16 [N, length], made when they are first asked for."""
        return compact_tokens([pair.caption for pair in self.pairs], self._length)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, rows: Sequence[tuple[int, int]]) -> Batch:
        """Return the batch of some (row, epoch).

        images uint8 [B, 3, H, W], pids and image_ids int64 [B], caption_ids int64 [B, length], paths; with a masking
        also mlm_ids int64 [B, length], and mlm_labels likewise where the epoch asks for masked words. Damaged files as
        `ImageDataset` tells them; errors as there.
        """
        chosen = [row for row, _ in rows]
        image_ids = self._image_ids[chosen]
        read = self.images.__getitems__(image_ids.tolist())
        batch: Batch = {key: read[key] for key in ("images", "pids", "paths", DAMAGED) if key in read}
        batch |= {"image_ids": torch.from_numpy(image_ids), "caption_ids": widened(self.tokens, chosen)}
        return batch if self._masking is None else batch | self._masked(batch["caption_ids"], rows)

    def _masked(self, caption_ids: torch.Tensor, rows: Sequence[tuple[int, int]]) -> Batch:
        seed, *shares, unasked = self._masking
        drawn = [draw_mask((self._length,), seeded_generator(seed, epoch, row)) for row, epoch in rows]
        draw, any_word = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        mlm_ids, mlm_labels = apply_mask(caption_ids, draw, any_word, *shares)
        asked = not any(epoch in epochs for _, epoch in rows for epochs in unasked)
        return {"mlm_ids": mlm_ids, "mlm_labels": mlm_labels} if asked else {"mlm_ids": mlm_ids}


class BatchesByEpoch(BatchSampler):
    """Batches of (row, epoch), of a sampler that knows its epoch: the workers are kept, and told the epoch so."""

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in super().__iter__():
            yield [(row, self.sampler.epoch) for row in batch]


class PairLoader(ImageLoader):
    """A loader of `PairRows`."""

    @property
    def images(self) -> ImageDataset:
        """The images that are read, each once."""
        return self.dataset.images

    def __iter__(self) -> Iterator[Batch]:
        _ = self.dataset.tokens  # made before the workers start, which then share them
        return super().__iter__()


def compact_tokens(captions: Sequence[str], length: int) -> np.ndarray:
    """Return the tokens of N captions, uint16 [N, length], which holds all of CLIP's 49,408."""
    return tokenize_all(captions, length).numpy().astype(np.uint16)


def widened(tokens: np.ndarray, rows: Sequence[int]) -> torch.Tensor:
    """Return some rows of `compact_tokens` as int64 [B, length]."""
    return torch.from_numpy(tokens[rows].astype(np.int64))
