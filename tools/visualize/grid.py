"""One picture of a query, an image or a sentence, and what was found for it; the drawing that all commands share."""

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from utils.atomic import replacing
from utils.errors import DataError

if TYPE_CHECKING:
    from PIL import Image, ImageFont

COLOURS = {"right": (26, 127, 55), "wrong": (207, 34, 46), "junk": (110, 119, 129)}
QUERY_COLOUR = (9, 105, 218)
NEUTRAL = (208, 215, 222)
PAPER, INK = (255, 255, 255), (31, 35, 40)
BORDER, GAP, FONT_SIZE = 5, 8, 12  # pixels
LINE = FONT_SIZE + 4
NARROWEST = 88  # of a box, so that a caption has room
ELLIPSIS = "..."
NAME_LENGTH = 50  # characters of an image's name in that of a picture, of 4 bytes each at most
TITLE_SIZE, TITLE_WIDTH = 15, 480  # pixels; the width that lines of a title have at least
TITLE_LINE = TITLE_SIZE + 5
TITLE_LENGTH = 600  # characters of a title that are drawn


class Tile(NamedTuple):
    """One image of a picture: a file or a Pillow image, a word above it, lines below it, and how it was found."""

    image: "str | Path | Image.Image"
    label: str = ""  # above the image; the status is added to it
    caption: tuple[str, ...] = ()  # shortened in the middle where they are wider than the image
    status: str | None = None  # right (green border) | wrong (red) | junk (grey) | None: no judgement
    beside: tuple["Tile", ...] = ()  # of a query: its further images, which stand beside it


def draw_grid(
    query: Tile | None,
    results: Sequence[Tile],
    path: str | Path,
    columns: int = 10,
    height: int = 192,
    title: str = "",
) -> None:
    """Write a PNG: the query at the left, beside it the results in lines of equal length, at most `columns`.

    A `title`, such as the sentence that was searched for, stands above in as many lines as it needs; `query` None:
    there is no such image. Images are `height` pixels high and keep their aspect ratio. Raises DataError naming one
    that cannot be read.
    """
    save_picture(grid_image(query, results, columns, height, title), path)


def grid_image(
    query: Tile | None, results: Sequence[Tile], columns: int, height: int, title: str = ""
) -> "Image.Image":
    """Return the picture of `draw_grid` as RGB."""
    from PIL import Image

    queries = [query, *query.beside] if query else []
    tiles = [*queries, *results]
    images = [_fitted(tile.image, height) for tile in tiles]
    width = max(NARROWEST, *(image.width for image in images))  # of a box
    lines = max(len(tile.caption) for tile in tiles)
    step_x, step_y = width + 2 * BORDER + GAP, height + 2 * BORDER + (1 + lines) * LINE + GAP
    rows = max(1, math.ceil(len(results) / columns))
    columns = math.ceil(len(results) / rows)
    start = GAP + len(queries) * step_x + (GAP if queries else 0)  # of the results
    total = max(start + columns * step_x + (0 if queries else GAP), TITLE_WIDTH if title else 0)
    above = _title_lines(title, total - 2 * GAP)
    top = GAP + len(above) * TITLE_LINE
    picture = Image.new("RGB", (total, top + rows * step_y), PAPER)
    _draw_title(picture, above)
    for number, (tile, image) in enumerate(zip(tiles, images, strict=True), -len(queries)):
        row, column = divmod(number, max(columns, 1))
        corner = (start + column * step_x, top + row * step_y)
        if number < 0:
            corner = (GAP + (len(queries) + number) * step_x, top)
        colour = COLOURS[tile.status] if tile.status else NEUTRAL if number >= 0 else QUERY_COLOUR
        _draw_tile(picture, corner, (width, height), tile, image, colour)
    return picture


def stacked(pictures: Sequence["Image.Image"]) -> "Image.Image":
    """Return the pictures below each other as one."""
    from PIL import Image

    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), PAPER)
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet


def save_picture(picture: "Image.Image", path: str | Path) -> None:
    """Write a PNG that is never half there."""
    with replacing(Path(path)) as temporary:
        picture.save(temporary, format="PNG")


def printable(name: str) -> str:
    """Return a file name on one line: characters that no terminal and no font shows are escaped."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in name)


def file_stem(path: str | Path) -> str:
    """Return the name of an image without its suffix as part of a file name: printable, and not too long."""
    return printable(Path(path).stem)[:NAME_LENGTH].replace("\\", "_")


def text_stem(text: str) -> str:
    """Return the words of a sentence as part of a file name, and not too long."""
    return "_".join(re.findall(r"\w+", text.lower()))[:NAME_LENGTH] or "text"


def open_rgb(source: "str | Path | Image.Image") -> "Image.Image":
    """Return an image as 8-bit RGB at its own size; DataError naming a file that is missing or does not decode."""
    from PIL import Image

    from datasets.image_files import ImageError, decode, read_file, to_rgb

    if isinstance(source, Image.Image):
        return to_rgb(source)
    try:
        return decode(read_file(source))[0]
    except FileNotFoundError as error:
        raise DataError(f"image '{source}' is missing; check the path, or copy it again") from error
    except ImageError as error:
        raise DataError(f"image '{source}' does not decode ({error}); copy it again or remove it") from error


def _title_lines(title: str, width: int) -> list[str]:
    """Return a title as lines of at most `width` pixels, the first TITLE_LENGTH characters of it."""
    title = title if len(title) <= TITLE_LENGTH else title[:TITLE_LENGTH] + ELLIPSIS
    font, lines = font_of(TITLE_SIZE), []
    for word in printable(title).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_shortened(word, width, font))
    return lines


def _draw_title(picture: "Image.Image", lines: Sequence[str]) -> None:
    from PIL import ImageDraw

    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((GAP, GAP // 2 + number * TITLE_LINE), line, INK, font_of(TITLE_SIZE))


def _draw_tile(
    picture: "Image.Image",
    corner: tuple[int, int],
    box: tuple[int, int],
    tile: Tile,
    image: "Image.Image",
    colour: tuple[int, int, int],
) -> None:
    """Draw label, image in a border of its own size, and caption, centred in a box (width, height) of images."""
    from PIL import ImageDraw

    draw, font = ImageDraw.Draw(picture), font_of()
    frame_width, frame_height = image.width + 2 * BORDER, image.height + 2 * BORDER
    left = corner[0] + (box[0] + 2 * BORDER - frame_width) // 2
    top = corner[1] + LINE
    middle = corner[0] + box[0] // 2 + BORDER
    label = f"{tile.label} {tile.status or ''}".strip()
    draw.text((middle, corner[1]), _shortened(label, box[0], font), INK if not tile.status else colour, font, "ma")
    draw.rectangle((left, top, left + frame_width - 1, top + frame_height - 1), fill=colour)
    picture.paste(image, (left + BORDER, top + BORDER))
    for number, line in enumerate(tile.caption):
        height = corner[1] + LINE + box[1] + 2 * BORDER + 2 + number * LINE
        draw.text((middle, height), _shortened(line, box[0] + 2 * BORDER, font), INK, font, "ma")


def _fitted(source: "str | Path | Image.Image", height: int) -> "Image.Image":
    """Return the image scaled to `height`, or to twice that width where it would be wider."""
    image = open_rgb(source)
    scale = min(height / image.height, 2 * height / image.width)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _shortened(text: str, width: int, font: "ImageFont.FreeTypeFont") -> str:
    """Return the text on one line, or its two ends where it is wider than `width` pixels."""
    text = printable(text)
    kept = len(text)
    short = text
    while kept > 2 and font.getlength(short) > width:
        kept -= 1
        short = f"{text[: (kept + 1) // 2]}{ELLIPSIS}{text[len(text) - kept // 2 :]}"
    return short


@lru_cache
def font_of(size: int = FONT_SIZE) -> "ImageFont.FreeTypeFont":
    """Return the font of all pictures, `size` in pixels."""
    import matplotlib
    from PIL import ImageFont

    # Pillow's own font has Latin letters only
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
