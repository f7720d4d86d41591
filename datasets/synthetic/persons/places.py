"""The cameras of the synthetic persons and their places: background, light, colour cast, blur, noise, occluders."""

from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from datasets.synthetic import Stream
from datasets.synthetic.scenes import Box

CANVAS = (300, 500)  # pixels of a place: width, height
OCCLUDED_SHARE = 0.3  # of the images
OCCLUDERS = ("wall", "pole", "box")

Shade = tuple[int, int, int]


class PersonCamera(NamedTuple):
    """One place and the camera that looks at it."""

    exposure: float
    cast: tuple[float, float, float]
    blur: float  # pixels
    noise: float  # standard deviation, 1 = white
    backdrop: str  # "bricks", "glass", "trees" or "boards"
    wall: Shade
    ground: Shade
    horizon: float  # share of the canvas above the ground


CAMERAS = (
    PersonCamera(1.10, (1.00, 1.00, 1.00), 0.4, 0.025, "bricks", (160, 112, 92), (142, 140, 136), 0.72),
    PersonCamera(1.28, (1.10, 1.00, 0.86), 0.6, 0.030, "glass", (176, 186, 196), (170, 158, 140), 0.66),
    PersonCamera(0.72, (0.90, 0.99, 1.14), 0.5, 0.035, "boards", (120, 116, 108), (104, 108, 118), 0.76),
    PersonCamera(1.12, (1.00, 1.07, 0.92), 0.8, 0.025, "trees", (84, 116, 66), (132, 146, 104), 0.60),
    PersonCamera(0.90, (1.14, 0.97, 0.90), 0.7, 0.030, "glass", (120, 110, 130), (126, 118, 116), 0.70),
    PersonCamera(1.34, (0.95, 1.03, 1.05), 0.9, 0.040, "bricks", (190, 188, 180), (186, 186, 188), 0.64),
)


@lru_cache(maxsize=2 * len(CAMERAS))
def _canvas(number: int, seed: int) -> Image.Image:
    """Draw the place of a camera: a wall or trees above, the ground below."""
    camera, rng = CAMERAS[number], np.random.default_rng((seed, Stream.PERSON_PLACE, number))
    wide, tall = CANVAS
    horizon = int(tall * camera.horizon)
    image = Image.new("RGB", CANVAS, camera.wall)
    pen = ImageDraw.Draw(image)
    _draw_backdrop(pen, camera, horizon, rng)
    pen.rectangle((0, horizon, wide, tall), fill=camera.ground)
    for _ in range(18):  # stains and slabs
        x, y, reach = rng.uniform(-20, wide), rng.uniform(horizon, tall), rng.uniform(20, 90)
        pen.ellipse((x, y, x + reach, y + reach / 4), fill=_near(camera.ground, 18, rng))
    pen.rectangle((0, horizon, wide, horizon + int(rng.integers(4, 14))), fill=_near(camera.ground, 30, rng))
    return image.filter(ImageFilter.GaussianBlur(1.5))


def _draw_backdrop(pen: ImageDraw.ImageDraw, camera: PersonCamera, horizon: int, rng: np.random.Generator) -> None:
    wide = CANVAS[0]
    if camera.backdrop == "trees":
        for _ in range(26):
            x, y, reach = rng.uniform(-40, wide), rng.uniform(-40, horizon), rng.uniform(40, 110)
            pen.ellipse((x, y, x + reach, y + reach), fill=_near(camera.wall, 30, rng))
        return
    step, row = {"bricks": (34, 16), "glass": (78, 110), "boards": (26, horizon)}[camera.backdrop]
    for y, x in product(range(0, horizon, row), range(-step, wide + step, step)):
        left = x + (step // 2 if camera.backdrop == "bricks" and y // row % 2 else 0)
        pen.rectangle((left + 2, y + 2, left + step - 2, y + row - 2), fill=_near(camera.wall, 22, rng))


def background(number: int, seed: int, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Cut a random window of 2/3 of the width and 4/5 of the height out of the camera's place, as `size` pixels."""
    wide, tall = CANVAS[0] * 2 / 3, CANVAS[1] * 4 / 5
    left, top = rng.uniform(0, CANVAS[0] - wide), rng.uniform(0, CANVAS[1] - tall)
    return _canvas(number, seed).resize(size, Image.Resampling.BILINEAR, (left, top, left + wide, top + tall))


def draw_occluder(
    pen: ImageDraw.ImageDraw, middle: float, size: tuple[int, int], rng: np.random.Generator
) -> Box | None:
    """Draw nothing, or a low wall, a pole or a box before a person around x = `middle`; return the covered box."""
    if rng.random() >= OCCLUDED_SHARE:
        return None
    wide, tall = size
    kind = OCCLUDERS[rng.integers(len(OCCLUDERS))]
    if kind == "wall":
        covered = (0.0, rng.uniform(0.58, 0.78) * tall, float(wide), float(tall))
    elif kind == "pole":
        half, shift = rng.uniform(0.06, 0.11) * wide, rng.uniform(-0.12, 0.12) * wide
        covered = (middle + shift - half, 0.0, middle + shift + half, float(tall))
    else:
        inner, reach = middle + rng.uniform(-0.08, 0.08) * wide, 0.5 * wide
        ends = (inner, inner + reach) if rng.random() < 0.5 else (inner - reach, inner)
        covered = (ends[0], rng.uniform(0.5, 0.68) * tall, ends[1], float(tall))
    shade = tuple(int(c) for c in rng.integers(50, 200) + rng.integers(-25, 26, 3))
    pen.rectangle(covered, fill=shade)
    edge = (covered[0], covered[1], covered[2], min(covered[1] + 0.02 * tall, covered[3]))
    pen.rectangle(edge, fill=tuple(int(0.7 * c) for c in shade))
    return covered


def _near(colour: Shade, reach: int, rng: np.random.Generator) -> Shade:
    """Return a colour that is at most `reach` lighter or darker."""
    return tuple(int(c) for c in np.clip(np.array(colour) + rng.integers(-reach, reach + 1), 0, 255))
