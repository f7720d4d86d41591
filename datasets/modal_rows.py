"""Rows of several modalities as batches: records to train on, whose partners are drawn anew each epoch, and test items.

What is drawn depends on the seed, the epoch and the record alone: not on the batch, the worker, the process, or which
modalities a model reads.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from configs.modalities import GREY, MODALITIES, TEXT, VIS
from datasets.bases import Sample
from datasets.batch import Batch
from datasets.caption_sets import CaptionRows, Masking, compact_tokens, widened
from datasets.loader import Loader
from datasets.multimodal import Record
from datasets.tokens import apply_mask, draw_mask
from datasets.torch_datasets import DAMAGED, ImageDataset, ImageLoader, empty_images
from utils.generators import seeded_generator

PARTNERS = tuple(name for name in MODALITIES if name not in (VIS, TEXT))
ASKED = tuple(name for name in MODALITIES if name != VIS)  # what queries are made of


class ModalImages(ImageDataset):
    """Images of one modality, infrared and sketches as grey in three equal channels."""

    def __init__(
        self,
        modality: str,
        samples: Sequence[Sample],
        size: Sequence[int],
        resize_filter: str,
        decoder: str,
        broken: str = "grey",
    ) -> None:
        super().__init__(samples, size, resize_filter, decoder, broken=broken, grey=modality in GREY)
        self.modality = modality

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        """Return the batch of `ImageDataset.__getitems__`, with `modalities` {modality: images} in place of images."""
        batch = super().__getitems__(rows)
        batch["modalities"] = {self.modality: batch.pop("images")}
        return batch


class ModalCaptions(CaptionRows):
    """Captions as batches of tokens, for tests."""

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        """Return the batch of some rows: `modalities` {text: tokens int64 [B, length]}."""
        return {"modalities": {TEXT: super().__getitems__(rows)["caption_ids"]}}


class Partners(NamedTuple):
    """The images of one modality that records have, those of a person side by side."""

    samples: list[Sample]  # each once for its person
    start: np.ndarray  # int64 [N]: of each record the row of its person's first image
    count: np.ndarray  # int64 [N]: and how many there are


def partners_of(records: Sequence[Record], modality: str) -> Partners:
    """Return the images of a modality that N records have."""
    samples: list[Sample] = []
    places: dict[tuple[int, tuple[str, ...]], int] = {}
    start = np.zeros(len(records), dtype=np.int64)
    count = np.zeros(len(records), dtype=np.int64)
    for row, record in enumerate(records):
        paths = tuple(record.others.get(modality, ()))
        if (record.pid, paths) not in places:
            places[record.pid, paths] = len(samples)
            samples += [Sample(path, record.pid, 0, 0) for path in paths]
        start[row], count[row] = places[record.pid, paths], len(paths)
    return Partners(samples, start, count)


class ModalRows(Dataset):
    """Records as batches. A row is (row, epoch): in each epoch a record gets other partners of its person.

    `images` holds the datasets of the modalities of images that a model reads, RGB among them: of the N records, and of
    the samples of `partners`. `length` is that of captions, 0 = they are not read. A query modality of a record is
    dropped with probability `dropout`, but if none is left they all stay. `masking` None: captions are as written.
    """

    def __init__(
        self,
        records: Sequence[Record],
        images: Mapping[str, ImageDataset],
        partners: Mapping[str, Partners],
        length: int,
        seed: int,
        dropout: float = 0.0,
        masking: Masking | None = None,
    ) -> None:
        self.records = list(records)
        self.images = dict(images)
        self._partners = dict(partners)
        self._length = length
        self._seed, self._dropout, self._masking = seed, dropout, masking
        labels = [(record.pid, record.camid) for record in records]
        self._labels = np.array(labels, dtype=np.int64).reshape(-1, 2).T.copy()  # [2, N]
        has = {name: partners[name].count > 0 for name in PARTNERS if name in partners}
        if length:
            has[TEXT] = np.array([bool(record.caption.strip()) for record in records], dtype=bool)
        self._has = np.stack([has.get(name, np.zeros(len(records), dtype=bool)) for name in ASKED], axis=1)  # [N, 4]

    @property
    def has_text(self) -> bool:
        """Whether captions are read."""
        return self._length > 0

    @cached_property
    def tokens(self) -> np.ndarray:
        """The tokens of all captions, uint16 [N, length]."""
        return compact_tokens([record.caption for record in self.records], self._length)

    def __len__(self) -> int:
        return len(self.records)

    def __getitems__(self, rows: Sequence[tuple[int, int]]) -> Batch:
        """Return the batch of some (row, epoch).

        modalities: uint8 [B, 3, H, W] of each modality of images, zeros where a record has none, and tokens int64
        [B, length] of text; present: bool [B] of each; pids, camids, viewids int64 [B]; paths of the RGB images.
        Damaged files as `ImageDataset` tells them, by modality; errors as there.
        """
        chosen = np.array([row for row, _ in rows], dtype=np.int64)
        generators = [seeded_generator(self._seed, epoch, row) for row, epoch in rows]
        draws = torch.stack(
            [torch.rand(len(PARTNERS) + len(ASKED), dtype=torch.float64, generator=own) for own in generators]
        ).numpy()  # [B, 3 + 4]
        stays = self._stays(chosen, draws[:, len(PARTNERS) :])  # [B, 4]
        present = {VIS: np.ones(len(rows), dtype=bool)} | {name: stays[:, k] for k, name in enumerate(ASKED)}
        modalities: dict[str, torch.Tensor] = {}
        damaged: dict[str, list[int]] = {}
        for name, images in self.images.items():
            place = chosen
            if name != VIS:
                drawn, partners = draws[:, PARTNERS.index(name)], self._partners[name]
                place = partners.start[chosen] + (drawn * partners.count[chosen]).astype(np.int64)
            read = _read(images, place, present[name])
            modalities[name] = read["images"]
            damaged |= {name: read[DAMAGED]} if DAMAGED in read else {}
        if self.has_text:
            modalities[TEXT] = self._captions(chosen, generators)
        pids, camids = torch.from_numpy(self._labels[:, chosen])
        batch: Batch = {
            "modalities": modalities,
            "present": {name: torch.from_numpy(present[name].copy()) for name in modalities},
            "pids": pids,
            "camids": camids,
            "viewids": torch.zeros_like(pids),
            "paths": [self.records[row].vis for row in chosen.tolist()],
        }
        return batch | {DAMAGED: damaged} if damaged else batch

    def _stays(self, rows: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Return which query modalities of records [B] are there and not dropped, by draws in 0..1: bool [B, 4]."""
        has = self._has[rows]
        stays = has & (draws >= self._dropout)
        return np.where(stays.any(1, keepdims=True), stays, has)

    def _captions(self, rows: np.ndarray, generators: Sequence[torch.Generator]) -> torch.Tensor:
        """Return the tokens of records [B], int64 [B, length], masked where that is asked for."""
        tokens = widened(self.tokens, rows.tolist())
        if self._masking is None:
            return tokens
        drawn = [draw_mask((self._length,), generator) for generator in generators]
        draw, any_word = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        rate, *shares = self._masking.rate, self._masking.mask_share, self._masking.keep_share
        masked, _ = apply_mask(tokens, draw, any_word, rate, *shares, at_least_one=False)
        return masked


def _read(images: ImageDataset, rows: np.ndarray, there: np.ndarray) -> Batch:
    """Return images uint8 [B, 3, H, W] of rows [B], zeros where `there` [B] is False, and damaged rows if any."""
    if there.all():
        return ImageDataset.__getitems__(images, rows.tolist())
    filled = empty_images((len(rows), 3, *images.size)).zero_()
    if not there.any():
        return {"images": filled}
    read = ImageDataset.__getitems__(images, rows[there].tolist())
    filled[torch.from_numpy(there)] = read["images"]
    return read | {"images": filled}


class ModalLoader(ImageLoader):
    """A loader of `ModalRows`."""

    @property
    def images(self) -> ImageDataset:
        """The RGB images, one for each record."""
        return self.dataset.images[VIS]

    @property
    def image_sets(self) -> tuple[ImageDataset, ...]:
        """The images of all modalities."""
        return tuple(self.dataset.images.values())

    def __iter__(self) -> Iterator[Batch]:
        if self.dataset.has_text:
            _ = self.dataset.tokens  # made before the workers start, which then share them
        for batch in Loader.__iter__(self):
            for name, rows in batch.pop(DAMAGED, {}).items():
                self.dataset.images[name].damaged.update(rows)
            yield batch
