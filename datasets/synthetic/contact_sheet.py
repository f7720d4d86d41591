"""The picture of synthetic VeRi: identities as rows, cameras as columns."""

from PIL import Image, ImageDraw

from datasets.synthetic.load import NUM_TEST_IDS, NUM_TRAIN_IDS
from datasets.synthetic.looks import Look
from datasets.synthetic.plan import Identity, Shot, look_of, plan_identities, take_shots
from datasets.synthetic.scenes import CAMERAS

SHEET_TYPES = ("van", "hatchback", "truck", "sedan")
SHEET_CELL, SHEET_HEADER = (90, 76), 16  # pixels
SHEET_COLOURS = 256  # of the palette, which keeps the file small


def contact_sheet(seed: int = 0) -> Image.Image:
    """Return a palette image: two members of a family of each of SHEET_TYPES as rows, the cameras as columns."""
    pairs = _first_twins(seed)
    rows = [row for type_name in SHEET_TYPES for row in pairs[type_name]]
    wide, tall = SHEET_CELL
    sheet = Image.new("RGB", (wide * len(CAMERAS), SHEET_HEADER + tall * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, camera in enumerate(CAMERAS):
        pen.text((number * wide + 4, 2), f"c{number + 1:03d} {'night' if camera.night else 'day'}", fill="black")
    for row, (identity, look) in enumerate(rows):
        shots = [Shot(identity.pid, number, 0, number, False) for number in range(len(CAMERAS))]
        for shot, photo in take_shots(look, shots, seed):
            image = Image.fromarray(photo.pixels)
            image.thumbnail((wide - 2, tall - 2))
            left, top = shot.camera * wide + (wide - image.width) // 2, row * tall + (tall - image.height) // 2
            sheet.paste(image, (left, SHEET_HEADER + top))
    return sheet.quantize(SHEET_COLOURS, dither=Image.Dither.NONE)


def _first_twins(seed: int) -> dict[str, list[tuple[Identity, Look]]]:
    """Return for each body type two members of the first family that has them."""
    families = {}
    for identity in plan_identities(seed, NUM_TRAIN_IDS, NUM_TEST_IDS):
        families.setdefault(identity.family, []).append((identity, look_of(seed, identity)))
    pairs = {}
    for _, members in sorted(families.items()):
        if len(members) > 1:
            pairs.setdefault(members[0][1].type_name, members[:2])
    return pairs
