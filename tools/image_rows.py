"""Images of any kind as rows that a loader reads: files, Pillow images, arrays, tensors."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from yacs.config import CfgNode

from datasets.decode import read_image, resize
from datasets.torch_datasets import damaged_image
from utils.errors import DataError

FilePath = str | os.PathLike
ImageLike = FilePath | Image.Image | np.ndarray | torch.Tensor


class LooseImage(NamedTuple):
    """One of many images: its pixels uint8 [3, H, W], or None and why there are none."""

    row: int
    pixels: torch.Tensor | None
    broken: str = ""
    damaged: str = ""  # what it is called where its file is damaged, but part of it decoded


class LooseImages(Dataset):
    """Images of any kind as `LooseImage`, read as cfg.INPUT says; `grey` as in `read_image`."""

    def __init__(self, images: Sequence[ImageLike], settings: CfgNode, grey: bool = False) -> None:
        self.images, self.grey = images, grey
        self.reading = (settings.SIZE_TEST, settings.FILTER_TEST, settings.DECODER)
        self.broken = settings.BROKEN_IMAGES

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> LooseImage:
        image, damaged = self.images[row], []
        name = os.fspath(image) if isinstance(image, FilePath) else f"number {row} (from 0)"
        try:
            if isinstance(image, FilePath):
                pixels = read_image(name, *self.reading, damaged, self.grey)
            else:
                pixels = resize(_as_pillow(image), *self.reading, damaged, self.grey)
        except DataError as error:
            return LooseImage(row, None, _what_is_wrong(name, error.__cause__))
        except (OSError, SyntaxError, ValueError) as error:  # a PIL image decodes when it is first used
            return LooseImage(row, None, f"image {row} (from 0) cannot be used: {error}")
        if damaged and self.broken == "error":
            return LooseImage(row, None, str(damaged_image(name)))
        return LooseImage(row, pixels, damaged=name if damaged else "")


def _what_is_wrong(path: str, reason: BaseException | None) -> str:
    """Return why `read_image` failed, without its advice on data sets."""
    if isinstance(reason, FileNotFoundError):
        return f"image '{path}' is missing; check the path, or copy it again"
    return f"image '{path}' does not decode ({getattr(reason, 'strerror', None) or reason}); copy it again or remove it"


def _as_pillow(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, (np.ndarray, torch.Tensor)):
        raise ValueError(f"it is of type {type(image).__name__}; give a path, a PIL image, an array or a tensor")
    is_array = isinstance(image, np.ndarray)
    pixels = image if is_array else image.detach().cpu().numpy()
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2 if is_array else 0] != 3:
        needed = "an array must be uint8 [H, W, 3]" if is_array else "a tensor must be uint8 [3, H, W]"
        raise ValueError(f"it is {pixels.dtype} {list(pixels.shape)}; {needed}")
    return Image.fromarray(pixels if is_array else pixels.transpose(1, 2, 0))


def gather(items: list[LooseImage]) -> tuple[list[int], torch.Tensor | None, list[str], list[str]]:
    """Return a batch: rows and images uint8 [B, 3, H, W], why others have none, and which are damaged."""
    usable = [item for item in items if item.pixels is not None]
    broken = [item.broken for item in items if item.pixels is None]
    pixels = torch.stack([item.pixels for item in usable]) if usable else None
    return [item.row for item in usable], pixels, broken, [item.damaged for item in usable if item.damaged]
