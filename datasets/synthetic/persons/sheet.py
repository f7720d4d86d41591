"""The picture of the synthetic persons: identities of some families as columns, cameras as rows."""

from itertools import groupby

from PIL import Image, ImageDraw

from datasets.synthetic.persons.photos import SIZE
from datasets.synthetic.persons.places import CAMERAS
from datasets.synthetic.persons.plan import (
    FAMILY_SIZE,
    NUM_TEST_IDS,
    NUM_TRAIN_IDS,
    PersonShot,
    person_of,
    plan_persons,
    take_person_shots,
)

SHEET_FAMILIES = 4
SHEET_HEADER, SHEET_GAP = 16, 6  # pixels; the gap stands between families
SHEET_COLOURS = 256  # of the palette, which keeps the file small


def person_sheet(seed: int = 0) -> Image.Image:
    """Return a palette image: the members of the first SHEET_FAMILIES families, each seen by every camera."""
    persons = sorted(plan_persons(seed, NUM_TRAIN_IDS, NUM_TEST_IDS), key=lambda person: (person.family, person.member))
    families = [[*members] for _, members in groupby(persons, key=lambda person: person.family)][:SHEET_FAMILIES]
    wide, tall = SIZE
    width = SHEET_FAMILIES * (FAMILY_SIZE * wide + SHEET_GAP) - SHEET_GAP
    sheet = Image.new("RGB", (width, len(CAMERAS) * tall + SHEET_HEADER), "white")
    pen = ImageDraw.Draw(sheet)
    for number, members in enumerate(families):
        left = number * (FAMILY_SIZE * wide + SHEET_GAP)
        pen.text((left + 4, 2), f"family {number + 1}", fill="black")
        for column, person in enumerate(members):
            shots = [PersonShot(person.pid, camera, 0, camera, "") for camera in range(len(CAMERAS))]
            for shot, photo in take_person_shots(person_of(seed, person), shots, seed):
                place = (left + column * wide, SHEET_HEADER + shot.camera * tall)
                sheet.paste(Image.fromarray(photo.pixels), place)
    return sheet.quantize(SHEET_COLOURS, dither=Image.Dither.NONE)
