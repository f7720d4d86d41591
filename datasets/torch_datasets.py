"""From image files to uint8 batches; everything random happens later, batched, on the device."""

import functools
import logging
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch.utils.data import Dataset, get_worker_info

from datasets.bases import Sample
from datasets.batch import Batch
from datasets.decode import jpeg_decoder, read_image
from datasets.loader import Loader
from datasets.packed import PackedSamples
from datasets.pixel_cache import PixelCache, Wanted, find_cache, make_cache
from utils.distributed import gather_objects
from utils.errors import DataError

logger = logging.getLogger(__name__)

DAMAGED = "damaged"  # of a batch that a worker sends: the rows whose files are damaged
NUM_EXAMPLES = 3  # damaged files that a warning names


class ImageDataset(Dataset):
    """Samples as (uint8 image [3, H, W], sample), or whole batches.

    Images are read as `datasets.decode.read_image` does. `told` are the samples as the model gets them, where a camera
    or viewpoint that it does not know is -1; None = as they are. `broken` is what becomes of damaged files, as in
    INPUT.BROKEN_IMAGES; `damaged` are the rows of those that this process knows of so far. `grey` as in `read_image`.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        size: Sequence[int],
        resize_filter: str,
        decoder: str,
        told: Sequence[Sample] | None = None,
        broken: str = "grey",
        grey: bool = False,
    ) -> None:
        self.samples = PackedSamples(samples)
        self.told = self.samples if told is None else PackedSamples(told, self.samples)
        self.size = tuple(size)
        self.resize_filter = resize_filter
        self.decoder = decoder
        self.broken = broken
        self.grey = grey
        self.damaged: set[int] = set()
        self._num_told = 0  # damaged files that were logged
        if decoder == "torchvision" and jpeg_decoder() is None:
            say_slow_decoding()
        self._cache: PixelCache | None = None

    def use_cache(self, folder: str, workers: int, build: bool = True) -> None:
        """Read the images from their cache in `folder`, '' = decode them each time.

        Where there is none, `workers` processes build it, unless `build` is False. Raises what `make_cache` raises.
        """
        if folder:
            reading = (self.size, self.resize_filter, self.decoder, self.grey)
            wanted = Wanted([sample.path for sample in self.samples], *reading)
            self._cache = make_cache(folder, wanted, workers) if build else find_cache(folder, wanted)
            if self._cache is not None:
                self._note_damage(self._cache.damaged_rows())

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, Sample]:
        return ImageDataset.__getitems__(self, [row])["images"][0], self.told[row]

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        """Return the batch: images uint8 [B, 3, H, W]; pids, camids, viewids int64 [B]; paths list[str].

        Where files of it are damaged it also has their rows, `damaged`: only so the main process learns of them.
        Raises DataError naming a file that is missing, does not decode, or is damaged and `broken` is error.
        """
        images = empty_images((len(rows), 3, *self.size))
        damaged = []
        if self._cache is not None:
            self._cache.copy_rows(rows, images)
        else:
            reading = (self.size, self.resize_filter, self.decoder)
            for place, row in enumerate(rows):
                found: list[str] = []
                images[place] = read_image(self.samples.path(row), *reading, found, self.grey)
                damaged += [row] * len(found)
            self._note_damage(damaged)
        pids, camids, viewids = torch.from_numpy(self.told.labels[:, list(rows)])
        paths = [self.samples.path(row) for row in rows]
        batch: Batch = {"images": images, "pids": pids, "camids": camids, "viewids": viewids, "paths": paths}
        return batch | {DAMAGED: damaged} if damaged else batch

    def _note_damage(self, rows: Iterable[int]) -> None:
        self.damaged.update(rows)
        if self.damaged and self.broken == "error":
            raise damaged_image(self.samples.path(min(self.damaged)))

    def tell_damage(self) -> None:
        """Warn of the damaged files that are known and were not told yet.

        All processes that share the images call it, and know then what one of them knew.
        """
        self.damaged = set().union(*gather_objects(self.damaged))
        if len(self.damaged) > self._num_told:
            self._num_told = len(self.damaged)
            logger.warning("%s", self.damage())

    def damage(self) -> str:
        """Return the line that counts the damaged files and names the first, '' where none is known."""
        if not self.damaged:
            return ""
        paths = [self.samples.path(row) for row in sorted(self.damaged)[:NUM_EXAMPLES]]
        return damage_line(len(self.damaged), len(self.samples), paths)


class ImageLoader(Loader):
    """A loader of an `ImageDataset`, which so learns what the workers' copies of it find damaged."""

    @property
    def images(self) -> ImageDataset:
        """The images that are read."""
        return self.dataset

    @property
    def image_sets(self) -> tuple[ImageDataset, ...]:
        """All images that are read, where they lie in several lists."""
        return (self.images,)

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            self.images.damaged.update(batch.pop(DAMAGED, ()))
            yield batch


def damaged_image(path: str) -> DataError:
    """Return the error that names a damaged file."""
    return DataError(
        f"image '{path}' is damaged: it ends early, or holds bytes that do not decode; copy it again, or let what is "
        "missing be grey by INPUT.BROKEN_IMAGES grey"
    )


def damage_line(number: int, total: int, examples: Sequence[str]) -> str:
    """Return the line that counts `number` damaged files among `total` images."""
    named = ", ".join(f"'{path}'" for path in examples) + ", ..." * (number > len(examples))
    return (
        f"damaged images: {number} of {total}, what does not decode of them is grey: {named}; copy them again (python "
        "-m tools.check lists all of a data set, INPUT.BROKEN_IMAGES error refuses them)"
    )


@functools.cache
def say_slow_decoding() -> None:
    """Log, once in a process, that Pillow takes the place of a decoder that torchvision lacks."""
    logger.warning(
        "INPUT.DECODER torchvision: this torchvision cannot decode JPEG, so Pillow does, to the same pixels but slower"
    )


def collate(batch: Batch) -> Batch:
    """Return the batch of `ImageDataset.__getitems__` as it is; torch's loaders would stack it otherwise."""
    return batch


def empty_images(shape: tuple[int, ...]) -> torch.Tensor:
    """Return a uint8 tensor of any content; of a worker it lies in shared memory, so that sending it copies nothing."""
    images = torch.empty(shape, dtype=torch.uint8)
    return images if get_worker_info() is None else images.share_memory_()
