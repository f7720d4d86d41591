"""From an image file of any kind to uint8 RGB pixels of the wanted size.

Two decoders: "pillow" gives the lineage's pixels exactly; "torchvision" decodes JPEG to the same pixels and resizes
several times as fast, with 16-bit weights and always along the rows first. Resized pixels so differ from Pillow's by a
rounding now and then: 0.01 grey levels in the mean, and 0.2 where Pillow starts with the columns because the height
shrinks and the width grows.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFile

from utils.errors import DataError

ImageFile.LOAD_TRUNCATED_IMAGES = True  # as TransReID: a file that lacks its last bytes still decodes

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
FAST_FILTERS = ("bicubic", "bilinear")  # that torch knows, too
JPEG_START = b"\xff\xd8\xff"
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # second byte of the markers before height and width
JPEG_FRAME_HEAD = 9  # bytes of such a segment up to the width
SURELY_FEW = 2**26  # pixels, which Pillow accepts


def read_image(path: str, size: Sequence[int], resize_filter: str, decoder: str) -> torch.Tensor:
    """Return the image as RGB, resized to `size` = (height, width): uint8 [3, H, W] in 0..255.

    `decoder` is torchvision | pillow. Neither applies an EXIF orientation. Raises DataError naming the file when it is
    missing or does not decode.
    """
    try:
        pixels = _read_jpeg(path) if _is_fast(resize_filter, decoder) else None
        if pixels is not None:
            return _resize_pixels(pixels, size, resize_filter).expand(3, -1, -1)
        with Image.open(path) as image:
            return resize(image, size, resize_filter, decoder)
    except FileNotFoundError as error:
        raise missing(path) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"image '{path}' does not decode ({error}); copy it again, or list all such files of a data set with "
            "python -m tools.check --config_file F"
        ) from error


def missing(path: str) -> DataError:
    """Return the error that names an absent file."""
    return DataError(f"image '{path}' is missing; copy it again or remove it from the lists")


def resize(image: Image.Image, size: Sequence[int], resize_filter: str, decoder: str) -> torch.Tensor:
    """Return an image of any mode as RGB, resized to `size` = (height, width) as `read_image` does: uint8 [3, H, W].

    Raises ValueError for floating-point pixels, and what Pillow raises for a file that does not decode.
    """
    rgb = to_rgb(image)
    if _is_fast(resize_filter, decoder):
        return _resize_pixels(torch.from_numpy(np.array(rgb)).permute(2, 0, 1), size, resize_filter)
    rgb = rgb.resize((size[1], size[0]), FILTERS[resize_filter])
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)  # a view; the batch makes it contiguous


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


def _is_fast(resize_filter: str, decoder: str) -> bool:
    return decoder == "torchvision" and resize_filter in FAST_FILTERS


def _read_jpeg(path: str) -> torch.Tensor | None:
    """Return the pixels of a JPEG file, uint8 [3, H, W], or [1, H, W] of a grey one; None for what Pillow has to read.

    That is any other format, CMYK, damaged files, which torchvision refuses and Pillow completes where it can, those of
    so many pixels that Pillow may refuse them, and all files where torchvision has no decoder.
    """
    decode_jpeg = jpeg_decoder()
    if decode_jpeg is None:
        return None
    content = np.fromfile(path, dtype=np.uint8)
    if content[: len(JPEG_START)].tobytes() != JPEG_START or not 0 < _jpeg_pixels(content) <= SURELY_FEW:
        return None
    try:
        pixels = decode_jpeg(torch.from_numpy(content))
    except RuntimeError:
        return None
    return pixels if pixels.shape[0] in (1, 3) else None


def _jpeg_pixels(content: np.ndarray) -> int:
    """Return height x width of a JPEG file (uint8 [bytes]) as its header says; 0 where none is found.

    The decoder takes memory for as many, however short the file is.
    """
    start = 2  # of a segment: 0xFF, its kind, two bytes of length, the rest
    while start + JPEG_FRAME_HEAD <= len(content):
        mark, kind, *head = content[start : start + JPEG_FRAME_HEAD].tolist()
        if mark != 0xFF:
            return 0
        if kind == 0xFF:  # a byte that only fills
            start += 1
            continue
        if kind in JPEG_FRAMES:
            return (head[3] * 256 + head[4]) * (head[5] * 256 + head[6])
        start += 2 + head[0] * 256 + head[1]
    return 0


@functools.cache
def jpeg_decoder() -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return torchvision's decoder; None for a torchvision that was built without it, or dropped it."""
    try:
        from torchvision.io import decode_jpeg  # here: its import takes as long as torch's, and not all users read JPEG

        torch.ops.image.decode_jpeg  # noqa: B018 - an AttributeError where its library did not load
    except (ImportError, AttributeError):
        return None
    return decode_jpeg


def _resize_pixels(pixels: torch.Tensor, size: Sequence[int], resize_filter: str) -> torch.Tensor:
    """Return uint8 [C, h, w] as uint8 [C, H, W]."""
    if pixels.shape[1:] == tuple(size):
        return pixels
    return F.interpolate(pixels[None], tuple(size), mode=resize_filter, antialias=True, align_corners=False)[0]
