"""Boxes of animals, cut out of their images once and kept as files, so that all that reads images reads them."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from datasets.labels import is_no_label
from datasets.synthetic.once import ensure_drawn
from utils.errors import DataError

Box = tuple[float, float, float, float]  # x, y, width, height in pixels


def box_of(text: str, where: str) -> Box | None:
    """Return the box that a cell holds, None where it is empty; DataError, opened by `where`, for anything else."""
    if is_no_label(text):
        return None
    try:
        values = json.loads(text)
        if not isinstance(values, list) or any(type(value) not in (int, float) for value in values):
            raise TypeError("no list of numbers")
        x, y, width, height = map(float, values)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"{where}: bbox '{text[:40]}' is not [x, y, width, height]; correct it") from error
    if not (width > 0 and height > 0 and abs(x) < 1e9 and abs(y) < 1e9 and width < 1e9 and height < 1e9):
        raise DataError(f"{where}: bbox '{text[:40]}' holds no pixel; correct it")
    return x, y, width, height


def make_crops(folder: Path, images: Sequence[tuple[str, Box | None]]) -> list[str]:
    """Return the paths of the crops of some (image, box) in `folder`, made unless they are there; whole ones stay.

    Crops are PNG files, numbered as `images` are. Raises DataError where the folder cannot be written, an image does
    not decode, or a box lies beside it.
    """
    told = "\n".join(f"{Path(path).name}\t{box}" for path, box in images)
    version = hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    names = [None if box is None else f"{row:07d}.png" for row, (_, box) in enumerate(images)]

    def draw(place: Path) -> None:
        place.mkdir()
        work = [(path, box, place / name) for (path, box), name in zip(images, names, strict=True) if box is not None]
        with ThreadPoolExecutor() as pool:
            for _ in pool.map(_cut, *zip(*work, strict=True)):
                pass

    ensure_drawn(folder, "the crops of animals", draw, version)
    return [path if name is None else f"{folder}/{name}" for (path, _), name in zip(images, names, strict=True)]


def _cut(path: str, box: Box, target: Path) -> None:
    """Write the pixels of a box, rounded to whole ones and clipped to the image."""
    from datasets.image_files import ImageError, decode, read_file

    try:
        image, _ = decode(read_file(path))
    except ImageError as error:
        raise DataError(f"image '{path}' does not decode ({error}); copy it again") from error
    x, y, width, height = box
    left, top = max(0, round(x)), max(0, round(y))
    right, bottom = min(image.width, round(x + width)), min(image.height, round(y + height))
    if left >= right or top >= bottom:
        raise DataError(f"image '{path}' of {image.width} x {image.height} pixels: the box {list(box)} lies beside it")
    image.crop((left, top, right, bottom)).save(target)
