"""What a visitor gives: an uploaded image, opened as all images of the project are and removed at once; a sentence."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from yacs.config import CfgNode

from datasets.decode import read_image
from datasets.image_files import ImageError, decode, read_file
from tools.sentences import why_no_sentence
from utils.errors import DataError

if TYPE_CHECKING:
    import torch
    from PIL import Image

MAX_UPLOAD = 32 * 2**20  # bytes of a file
MAX_LETTERS = 2000  # of a sentence; a model reads far fewer words
SIDE = 480  # longest side of a picture on the page, pixels


class Given(NamedTuple):
    """An uploaded image: what the model reads of it, and what the page shows."""

    name: str
    pixels: "torch.Tensor"  # uint8 [3, H, W], of INPUT.SIZE_TEST
    picture: "Image.Image"  # RGB, at most SIDE wide and high
    is_damaged: bool


Items = Mapping[str, Given | str]  # what a query is made of, by modality


def read_upload(path: str, folder: Path, settings: CfgNode, grey: bool = False) -> Given:
    """Return an uploaded file as the image of a query, and remove the file, whatever it is.

    `folder` takes the uploads, `settings` are cfg.INPUT of the model, `grey` as in `read_image`. Raises DataError for a
    path outside `folder`, of which nothing is read or removed; for a file of more than MAX_UPLOAD bytes; and for what
    `datasets.image_files` refuses. Messages name the file as the visitor does, without its place on this machine.
    """
    place = os.path.realpath(path) if "\0" not in path else ""
    if not place.startswith(os.path.join(os.path.realpath(folder), "")) or not os.path.isfile(place):
        raise DataError("this is no file that was uploaded here; drop it again")
    name = os.path.basename(place)
    try:
        size = os.path.getsize(place)
        if size > MAX_UPLOAD:
            raise DataError(f"'{name}' has {size:,} bytes, taken are at most {MAX_UPLOAD:,}; make it smaller")
        damaged: list[str] = []
        pixels = read_image(place, settings.SIZE_TEST, settings.FILTER_TEST, settings.DECODER, damaged, grey)
        picture = shown(place)
    except DataError as error:
        raise DataError(_words_on(name, error)) from error
    finally:
        _remove(place)
    return Given(name, pixels.contiguous(), picture.convert("L").convert("RGB") if grey else picture, bool(damaged))


def shown(place: str | Path, side: int = SIDE) -> "Image.Image":
    """Return an image file as RGB, at most `side` pixels wide and high; DataError where nothing of it decodes."""
    try:
        picture, _ = decode(read_file(place), draft=(2 * side, 2 * side))
    except (FileNotFoundError, ImageError) as error:
        raise DataError(f"'{os.path.basename(place)}' cannot be shown ({error})") from error
    picture.thumbnail((side, side))
    return picture


def check_sentence(text: str) -> str:
    """Return a sentence without the blanks around it; DataError for one that is empty, too long or no text."""
    problem = why_no_sentence(text)
    if problem:
        raise DataError(f"the sentence {problem}")
    if len(text) > MAX_LETTERS:
        raise DataError(f"the sentence has {len(text):,} characters, taken are at most {MAX_LETTERS:,}; shorten it")
    return text.strip()


def with_item(items: Items, modality: str, value: Given | str | None, several: bool) -> Items:
    """Return a query with one item more, or less where `value` is None; a new item of a modality replaces the old one.

    Unless a model takes `several`, the new item is all of the query.
    """
    others = {name: kept for name, kept in items.items() if name != modality}
    if value is None:
        return others
    return {**others, modality: value} if several else {modality: value}


def _words_on(name: str, error: DataError) -> str:
    """Return what is wrong with an upload: `read_image` names a path and tells how to mend a data set."""
    reason = error.__cause__
    return f"'{name}' is no image that can be read ({reason})" if isinstance(reason, ImageError) else str(error)


def _remove(place: str) -> None:
    """Remove an upload, and the folder of its own that gradio made for it."""
    with suppress(OSError):
        os.remove(place)
        os.rmdir(os.path.dirname(place))
