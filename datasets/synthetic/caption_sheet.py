"""The picture of the synthetic vehicles with captions: identities as rows, and what is said of their photographs."""

import textwrap

from PIL import Image, ImageDraw

from datasets.synthetic.plan import plan_identities, plan_shots
from datasets.synthetic_text import NUM_TEST_IDS, NUM_TRAIN_IDS, NUM_VAL_IDS, take_captioned

ROWS, COLUMNS = 5, 4  # identities, photographs of each
CELL, PICTURE = (225, 206), (130, 100)  # pixels
FONT_SIZE, LINE, LINE_WIDTH = 11, 13, 37  # pixels, pixels, characters
SHEET_COLOURS = 256  # of the palette, which keeps the file small


def caption_sheet(seed: int = 0) -> Image.Image:
    """Return a palette image: ROWS identities of train as rows, COLUMNS photographs of each, captions below."""
    identities = plan_identities(seed, NUM_TRAIN_IDS, NUM_TEST_IDS, NUM_VAL_IDS)
    shown = [identity for identity in identities if identity.split == "train"][:ROWS]
    sheet = Image.new("RGB", (CELL[0] * COLUMNS, CELL[1] * ROWS), "white")
    pen = ImageDraw.Draw(sheet)
    for row, identity in enumerate(shown):
        shots = plan_shots(seed, identity)
        shots = [shots[number * len(shots) // COLUMNS] for number in range(COLUMNS)]
        for column, (_, photo, captions) in enumerate(take_captioned(identity, shots, seed)):
            left, top = column * CELL[0], row * CELL[1]
            image = Image.fromarray(photo.pixels)
            scale = min(PICTURE[0] / image.width, PICTURE[1] / image.height)
            image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
            sheet.paste(image, (left + 4, top + 4))
            lines = [line for caption in captions for line in textwrap.wrap(caption, LINE_WIDTH)]
            for number, line in enumerate(lines):
                place = (left + 4, top + PICTURE[1] + 8 + LINE * number)
                pen.text(place, line, fill="black", font_size=FONT_SIZE)
    return sheet.quantize(SHEET_COLOURS, dither=Image.Dither.NONE)
