"""Image files, opened here and nowhere else: what is accepted, and how a damaged one is met.

The formats are a closed list: Pillow alone would go by the content, whatever the name says, and start another program
for some (Ghostscript for PostScript). Of an animation or a file of several images the first is read.
"""

import io
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile

from utils.paths import what_is_at

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")  # of Pillow, whose JPEG also reads MPO
MAX_PIXELS = 89_478_485  # height x width; from here on Pillow, too, suspects an attack on the memory
MAX_BYTES = 2**29  # of a file; an image of that many pixels needs no more
MAX_SCANS = 100  # of a JPEG, about 10 in all that programs write: each goes over all pixels
MAX_HEADER_STEPS = 20_000  # of a JPEG: segments, and bytes between them, which Pillow reads one by one

JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
# second bytes of a JPEG's markers
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # height and width follow
JPEG_BARE = frozenset({0x00, 0x01, *range(0xD0, 0xDA)})  # no length follows
JPEG_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})  # of these frames
JPEG_SCAN, JPEG_FILL = 0xDA, 0xFF

_completing = threading.Lock()  # held while Pillow's one switch for all threads is set


class ImageError(ValueError):
    """A file that is no image, or does not decode; the message is the reason, without the file's name."""


class JpegHeader(NamedTuple):
    """What a JPEG says of itself, however short its file is."""

    pixels: int  # height x width, 0 where the header is damaged
    has_end: bool  # whether an end follows its image: it is not cut, nor filled up with other bytes from there


def read_file(path: str | os.PathLike) -> np.ndarray:
    """Return the bytes of a regular file, uint8 [n].

    Raises FileNotFoundError, and ImageError for what is no file (a folder, a pipe, a device, a socket), cannot be read,
    is empty or over MAX_BYTES.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"it is {what_is_at(Path(path)) or 'no file'}, not a file")
        if not status.st_size:
            raise ImageError("empty file")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"it has {status.st_size:,} bytes, readable are at most {MAX_BYTES:,}")
        content = np.empty(status.st_size, dtype=np.uint8)
        with open(path, "rb", buffering=0) as file:
            return content[: file.readinto(content.data)]
    except FileNotFoundError:
        raise
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # a name may be none of this system
        raise ImageError(f"it cannot be read: {getattr(error, 'strerror', None) or error}") from error


def decode(content: np.ndarray, draft: tuple[int, int] | None = None) -> tuple[Image.Image, bool]:
    """Return the image in a file's bytes, uint8 [n], as RGB, and whether it is damaged.

    A damaged file ends early or holds bytes that do not decode; as in TransReID what is missing is grey or black.
    `draft` as in `decode_whole`. Raises ImageError where nothing decodes.
    """
    try:
        return _decode(content, draft, whole=True), False
    except ImageError:
        with completing():
            return _decode(content, draft, whole=False), True


def decode_whole(content: np.ndarray, draft: tuple[int, int] | None = None) -> Image.Image:
    """Return the image in a file's bytes, uint8 [n], as RGB.

    `draft` (width, height): a large JPEG may become smaller, but not below it, which is faster. Raises ImageError for
    a damaged file, another format than FORMATS, more pixels than MAX_PIXELS, and what `read_header` refuses.
    """
    return _decode(content, draft, whole=True)


def _decode(content: np.ndarray, draft: tuple[int, int] | None, whole: bool) -> Image.Image:
    """Return what Pillow makes of a file's bytes, uint8 [n]; not `whole`: within `completing`."""
    if is_jpeg(content) and not read_header(content).has_end and whole:
        raise ImageError("a JPEG without an end")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if not 0 < image.width * image.height <= MAX_PIXELS:
                raise ImageError(f"{image.width:,} x {image.height:,} pixels, readable are 1 to {MAX_PIXELS:,} in all")
            if draft is not None:
                image.draft("RGB", draft)
            return to_rgb(image)
    except ImageError:
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"not an image, or none of {', '.join(FORMATS)}") from error
    except Exception as error:  # each format has its own errors for damaged files
        reason = str(error).partition("\n")[0]
        known = reason and isinstance(error, (OSError, SyntaxError, ValueError, Image.DecompressionBombError))
        raise ImageError(reason if known else f"{type(error).__name__} {reason}".strip()) from error


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


def is_jpeg(content: np.ndarray) -> bool:
    """Return whether a file's bytes, uint8 [n], begin as a JPEG."""
    return content[: len(JPEG_START)].tobytes() == JPEG_START


def read_header(content: np.ndarray) -> JpegHeader:
    """Return what the header of a JPEG file, uint8 [n], says.

    Raises ImageError for more scans than MAX_SCANS, and a header that takes more than MAX_HEADER_STEPS to read.
    """
    data, at = memoryview(content), len(JPEG_START) - 1
    pixels, components, in_scans = 0, 0, False
    for _ in range(MAX_HEADER_STEPS):
        if at + 10 > len(data):
            break
        code = data[at + 1]
        if data[at] != 0xFF or code == JPEG_FILL:
            at += 1
        elif code == JPEG_SCAN:
            in_scans |= data[at + 4] < components  # the others come in later scans
            break
        elif code in JPEG_BARE:
            at += 2
        else:
            if code in JPEG_FRAMES:
                pixels = (data[at + 5] * 256 + data[at + 6]) * (data[at + 7] * 256 + data[at + 8])
                in_scans, components = code in JPEG_PROGRESSIVE, data[at + 9]
            at += 2 + data[at + 2] * 256 + data[at + 3]
    else:
        raise ImageError("a JPEG whose header does not end")
    scans = content.tobytes().count(b"\xff\xda") if in_scans else 1
    if scans > MAX_SCANS:
        raise ImageError(f"a JPEG of {scans:,} scans, readable are {MAX_SCANS}")
    return JpegHeader(pixels, content[-2:].tobytes() == JPEG_END or JPEG_END in content[at:].tobytes())


@contextmanager
def completing() -> Iterator[None]:
    """Let Pillow complete damaged files meanwhile, in the whole process; one thread at a time."""
    with _completing:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before
