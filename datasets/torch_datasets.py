"""From image files to uint8 batches; everything random happens later, batched, on the device."""

import signal
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageFile
from torch.utils.data import Dataset

from datasets.bases import Sample
from utils.errors import DataError

ImageFile.LOAD_TRUNCATED_IMAGES = True  # as TransReID: a file that lacks its last bytes still decodes

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}


def read_image(path: str, size: Sequence[int], resize_filter: str) -> torch.Tensor:
    """Return the image as RGB, resized with Pillow to `size` = (height, width): uint8 [3, H, W] in 0..255.

    Raises DataError naming the file when it is missing or does not decode.
    """
    try:
        with Image.open(path) as image:
            return resize(image, size, resize_filter)
    except FileNotFoundError as error:
        raise DataError(f"image '{path}' is missing; copy it again or remove it from the lists") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"image '{path}' does not decode ({error}); copy it again, or list all such files of a data set with "
            "python -m datasets.check --config_file F"
        ) from error


def resize(image: Image.Image, size: Sequence[int], resize_filter: str) -> torch.Tensor:
    """Return an image of any mode as RGB, resized with Pillow to `size` = (height, width): uint8 [3, H, W] in 0..255.

    Raises ValueError for floating-point pixels, and what Pillow raises for a file that does not decode.
    """
    rgb = to_rgb(image).resize((size[1], size[0]), FILTERS[resize_filter])
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)  # [3, H, W], a view; collate makes it contiguous


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image as 8-bit RGB; 16-bit greyscale is scaled (Pillow alone would clip it to white), alpha dropped.

    Raises ValueError for floating-point pixels, whose range is not known.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 bits per channel")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


class ImageDataset(Dataset):
    """Samples as (uint8 image [3, H, W], sample); `trials` and `notes` as in ReIDDataset.

    `told` are the samples as the model gets them, where a camera or viewpoint that it does not know is -1; None = as
    they are.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        size: Sequence[int],
        resize_filter: str,
        trials: tuple[tuple[np.ndarray, np.ndarray], ...] = (),
        notes: tuple[str, ...] = (),
        told: Sequence[Sample] | None = None,
    ) -> None:
        self.samples = list(samples)
        self.told = self.samples if told is None else list(told)
        self.size = tuple(size)
        self.resize_filter = resize_filter
        self.trials = trials
        self.notes = notes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, Sample]:
        sample = self.told[row]
        return read_image(sample.path, self.size, self.resize_filter), sample


def collate(items: list[tuple[torch.Tensor, Sample]]) -> dict:
    """Return the batch dict: images uint8 [B, 3, H, W]; pids, camids, viewids int64 [B]; paths list[str]."""
    images, samples = zip(*items, strict=True)
    labels = torch.tensor([sample[1:] for sample in samples], dtype=torch.int64)  # [B, 3]
    pids, camids, viewids = labels.unbind(1)
    return {
        "images": torch.stack(images),
        "pids": pids,
        "camids": camids,
        "viewids": viewids,
        "paths": [sample.path for sample in samples],
    }


def leave_interrupts_to_the_parent(worker_id: int) -> None:
    """Let a loader's worker ignore Ctrl-C, which reaches all processes of a terminal: the parent ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
