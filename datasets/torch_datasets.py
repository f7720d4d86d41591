"""From image files to uint8 batches; everything random happens later, batched, on the device."""

import functools
import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from datasets.bases import Sample
from datasets.batch import Batch
from datasets.decode import jpeg_decoder, read_image
from datasets.pixel_cache import PixelCache, Wanted, find_cache, make_cache

logger = logging.getLogger(__name__)


class ImageDataset(Dataset):
    """Samples as (uint8 image [3, H, W], sample), or whole batches.

    Images are read as `datasets.decode.read_image` does. `told` are the samples as the model gets them, where a camera
    or viewpoint that it does not know is -1; None = as they are.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        size: Sequence[int],
        resize_filter: str,
        decoder: str,
        told: Sequence[Sample] | None = None,
    ) -> None:
        self.samples = list(samples)
        self.told = self.samples if told is None else list(told)
        self.size = tuple(size)
        self.resize_filter = resize_filter
        self.decoder = decoder
        if decoder == "torchvision" and jpeg_decoder() is None:
            say_slow_decoding()
        self._labels = np.array([sample[1:] for sample in self.told], dtype=np.int64).reshape(-1, 3).T.copy()  # [3, N]
        self._cache: PixelCache | None = None

    def use_cache(self, folder: str, workers: int, build: bool = True) -> None:
        """Read the images from their cache in `folder`, '' = decode them each time.

        Where there is none, `workers` processes build it, unless `build` is False. Raises what `make_cache` raises.
        """
        if folder:
            wanted = Wanted([sample.path for sample in self.samples], self.size, self.resize_filter, self.decoder)
            self._cache = make_cache(folder, wanted, workers) if build else find_cache(folder, wanted)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, Sample]:
        return self.__getitems__([row])["images"][0], self.told[row]

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        """Return the batch: images uint8 [B, 3, H, W]; pids, camids, viewids int64 [B]; paths list[str]."""
        images = _empty_images((len(rows), 3, *self.size))
        if self._cache is not None:
            self._cache.copy_rows(rows, images)
        else:
            for place, row in enumerate(rows):
                images[place] = read_image(self.samples[row].path, self.size, self.resize_filter, self.decoder)
        pids, camids, viewids = torch.from_numpy(self._labels[:, list(rows)])
        paths = [self.samples[row].path for row in rows]
        return {"images": images, "pids": pids, "camids": camids, "viewids": viewids, "paths": paths}


@functools.cache
def say_slow_decoding() -> None:
    """Log, once in a process, that Pillow takes the place of a decoder that torchvision lacks."""
    logger.warning(
        "INPUT.DECODER torchvision: this torchvision cannot decode JPEG, so Pillow does, to the same pixels but slower"
    )


def collate(batch: Batch) -> Batch:
    """Return the batch of `ImageDataset.__getitems__` as it is; torch's loaders would stack it otherwise."""
    return batch


def _empty_images(shape: tuple[int, ...]) -> torch.Tensor:
    """Return a uint8 tensor of any content; of a worker it lies in shared memory, so that sending it copies nothing."""
    images = torch.empty(shape, dtype=torch.uint8)
    return images if get_worker_info() is None else images.share_memory_()
