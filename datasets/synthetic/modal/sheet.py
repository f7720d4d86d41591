"""The picture of the synthetic vehicles in five modalities: identities as rows, what there is of each as columns."""

import textwrap

import numpy as np
from PIL import Image, ImageDraw

from datasets.synthetic.modal.plan import (
    NUM_TEST_IDS,
    NUM_TRAIN_IDS,
    plan_numbered,
    plan_photos,
    take_drawings,
    take_infrared,
)
from datasets.synthetic.plan import Identity, look_of
from datasets.synthetic_text import take_captioned

ROWS = 6  # identities
MODALITIES = ("vis", "nir", "sk", "cp")
DRAWINGS = (0, 2)  # which are shown; of photographs the first and the last
CELL, TEXT_WIDTH, HEADER = (87, 80), 204, 16  # pixels
FONT_SIZE, LINE, LINE_WIDTH = 11, 13, 34  # pixels, pixels, characters
SHEET_COLOURS = 256  # of the palette, which keeps the file small


def modal_sheet(seed: int = 0) -> Image.Image:
    """Return a palette image: ROWS identities of train as rows, two pictures of each modality, a caption."""
    columns = [modality for modality in MODALITIES for _ in range(2)]
    sheet = Image.new("RGB", (CELL[0] * len(columns) + TEXT_WIDTH, HEADER + CELL[1] * ROWS), "white")
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate((*columns, "text")):
        pen.text((4 + column * CELL[0], 2), title, fill="black")
    for row, (_, identity) in enumerate(plan_numbered(seed, NUM_TRAIN_IDS, NUM_TEST_IDS)[:ROWS]):
        top = HEADER + row * CELL[1]
        caption, pictures = _of_identity(seed, identity)
        for column, pixels in enumerate(pictures):
            image = Image.fromarray(pixels)
            image.thumbnail((CELL[0] - 2, CELL[1] - 2))
            sheet.paste(image, (column * CELL[0] + (CELL[0] - image.width) // 2, top + (CELL[1] - image.height) // 2))
        for number, line in enumerate(textwrap.wrap(caption, LINE_WIDTH)):
            place = (CELL[0] * len(columns) + 4, top + 6 + LINE * number)
            pen.text(place, line, fill="black", font_size=FONT_SIZE)
    return sheet.quantize(SHEET_COLOURS, dither=Image.Dither.NONE)


def _of_identity(seed: int, identity: Identity) -> tuple[str, list[np.ndarray]]:
    """Return the caption of an identity's first RGB image, and two pictures of each of MODALITIES."""
    look = look_of(seed, identity)
    visible, infrared = ([shots[0], shots[-1]] for shots in plan_photos(seed, identity))
    captioned = take_captioned(identity, visible, seed)
    pictures = [photo.pixels for _, photo, _ in captioned]
    pictures += [pixels for _, pixels in take_infrared(look, infrared, seed)]
    for modality in ("sk", "cp"):
        drawings = [pixels for _, pixels in take_drawings(look, identity.pid, modality, seed)]
        pictures += [drawings[place] for place in DRAWINGS]
    return captioned[0].captions[0], pictures
