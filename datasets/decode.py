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
from PIL import Image

from datasets.image_files import MAX_PIXELS, ImageError, completing, decode, is_jpeg, read_file, read_header, to_rgb
from utils.errors import DataError

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
FAST_FILTERS = ("bicubic", "bilinear")  # that torch knows, too


def read_image(
    path: str,
    size: Sequence[int],
    resize_filter: str,
    decoder: str,
    damaged: list[str] | None = None,
    grey: bool = False,
) -> torch.Tensor:
    """Return the image as RGB, resized to `size` = (height, width): uint8 [3, H, W] in 0..255; `grey` = equal channels.

    `decoder` is torchvision | pillow. Neither applies an EXIF orientation. The path of a file that ends early, or holds
    bytes that do not decode, is added to `damaged`; as in TransReID the rest of its image is grey. Raises DataError
    naming the file when it is missing, or nothing of it decodes.
    """
    try:
        content = read_file(path)
        pixels = _read_jpeg(content) if _is_fast(resize_filter, decoder) else None
        if pixels is not None:
            return _resize_pixels(_as_grey(pixels) if grey else pixels, size, resize_filter).expand(3, -1, -1)
        image, is_damaged = decode(content)
    except FileNotFoundError as error:
        raise missing(path) from error
    except ImageError as error:
        raise DataError(
            f"image '{path}' does not decode ({error}); copy it again, or list all such files of a data set with "
            "python -m tools.check --config_file F"
        ) from error
    if is_damaged and damaged is not None:
        damaged.append(path)
    return _resize_rgb(image, size, resize_filter, decoder, grey)


def missing(path: str) -> DataError:
    """Return the error that names an absent file."""
    return DataError(f"image '{path}' is missing; copy it again or remove it from the lists")


def resize(
    image: Image.Image,
    size: Sequence[int],
    resize_filter: str,
    decoder: str,
    damaged: list[str] | None = None,
    grey: bool = False,
) -> torch.Tensor:
    """Return an image of any mode as RGB, resized to `size` = (height, width) as `read_image` does: uint8 [3, H, W].

    Where Pillow has yet to read a file, and that is damaged, it is completed and `damaged` gets its name. Raises
    ValueError for floating-point pixels, and what Pillow raises for a file that does not decode.
    """
    try:
        rgb = to_rgb(image)
    except (OSError, SyntaxError):
        with completing():
            rgb = to_rgb(image)
        if damaged is not None:
            damaged.append(getattr(image, "filename", ""))
    return _resize_rgb(rgb, size, resize_filter, decoder, grey)


def _resize_rgb(
    rgb: Image.Image, size: Sequence[int], resize_filter: str, decoder: str, grey: bool = False
) -> torch.Tensor:
    image = rgb.convert("L") if grey else rgb
    if _is_fast(resize_filter, decoder):
        return _resize_pixels(_channels_first(image), size, resize_filter).expand(3, -1, -1)
    return _channels_first(image.resize((size[1], size[0]), FILTERS[resize_filter])).expand(3, -1, -1)


def _channels_first(image: Image.Image) -> torch.Tensor:
    """Return the pixels of an RGB or grey image: uint8 [C, h, w], a view, which the batch makes contiguous."""
    return torch.from_numpy(np.atleast_3d(np.array(image))).permute(2, 0, 1)


def _as_grey(pixels: torch.Tensor) -> torch.Tensor:
    """Return uint8 [1, h, w] of RGB pixels [3, h, w], or of grey ones as they are, by the numbers of Pillow's mode L.

    Torchvision's own weights add up to less than 1 and darken what is grey.
    """
    if len(pixels) == 1:
        return pixels
    red, green, blue = pixels.int()
    return (red.mul_(19595).add_(green, alpha=38470).add_(blue, alpha=7471).add_(2**15) >> 16).to(torch.uint8)[None]


def _is_fast(resize_filter: str, decoder: str) -> bool:
    return decoder == "torchvision" and resize_filter in FAST_FILTERS


def _read_jpeg(content: np.ndarray) -> torch.Tensor | None:
    """Return the pixels of a JPEG file (uint8 [bytes]): uint8 [3, H, W], or [1, H, W] of a grey one.

    None for what Pillow has to read: any other format, CMYK, damaged files, which torchvision refuses and Pillow
    completes where it can, those of too many pixels, and all files where torchvision has no decoder. Raises ImageError
    as `read_header`: the decoder takes memory for as many pixels as the header says, however short the file is.
    """
    decode_jpeg = jpeg_decoder()
    if decode_jpeg is None or not is_jpeg(content):
        return None
    header = read_header(content)
    if not header.has_end or not 0 < header.pixels <= MAX_PIXELS:
        return None
    try:
        pixels = decode_jpeg(torch.from_numpy(content))
    except RuntimeError:
        return None
    return pixels if pixels.shape[0] in (1, 3) else None


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
