"""The cameras of synthetic VeRi and their places: viewpoint, light, colour cast, blur, noise, background, occluders."""

from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from datasets.synthetic import Stream

CANVAS = 480  # pixels of a square background
OCCLUDED_SHARE = 0.35  # of the images

Box = tuple[float, float, float, float]  # left, top, right, bottom


class Camera(NamedTuple):
    """One place; angles in degrees, azimuth 0 = the vehicle's front, 180 = its rear, either side of the vehicle."""

    azimuth: float
    spread: float
    elevation: float
    exposure: float
    cast: tuple[float, float, float]
    blur: float  # pixels
    noise: float  # standard deviation, 1 = white
    night: bool
    ground: tuple[int, int, int]
    backdrop: str  # "buildings", "trees" or "wall"


CAMERAS = (
    Camera(30, 18, 12, 1.20, (1.00, 1.00, 1.00), 0.4, 0.020, False, (138, 138, 140), "buildings"),
    Camera(60, 18, 18, 1.25, (1.08, 1.00, 0.88), 0.6, 0.025, False, (140, 134, 124), "trees"),
    Camera(100, 18, 12, 1.20, (0.92, 0.99, 1.10), 0.5, 0.030, False, (122, 126, 134), "wall"),
    Camera(130, 18, 20, 1.22, (1.02, 1.05, 0.94), 0.8, 0.020, False, (132, 134, 128), "buildings"),
    Camera(155, 18, 14, 1.20, (1.10, 0.98, 0.92), 0.5, 0.030, False, (146, 140, 134), "trees"),
    Camera(20, 16, 22, 1.32, (0.96, 1.02, 1.05), 0.7, 0.020, False, (154, 154, 156), "wall"),
    Camera(110, 20, 24, 1.12, (0.94, 1.00, 1.06), 0.7, 0.030, False, (126, 130, 132), "trees"),
    Camera(45, 18, 14, 0.54, (1.15, 0.97, 0.72), 0.6, 0.025, True, (88, 86, 84), "buildings"),
    Camera(80, 20, 18, 0.50, (0.86, 0.97, 1.18), 0.6, 0.030, True, (80, 82, 88), "wall"),
    Camera(135, 18, 16, 0.54, (1.00, 1.04, 0.88), 0.8, 0.025, True, (92, 92, 88), "trees"),
)


@lru_cache(maxsize=2 * len(CAMERAS))
def _canvas(number: int, seed: int) -> Image.Image:
    """Draw the place of a camera: CANVAS x CANVAS, horizon in the upper part, road with markings below."""
    camera, rng = CAMERAS[number], np.random.default_rng((seed, Stream.PLACE, number))
    horizon = int(CANVAS * rng.uniform(0.30, 0.42))
    sky = tuple(int(c) for c in np.array((178, 200, 224)) + rng.integers(-25, 25, 3))
    image = Image.new("RGB", (CANVAS, CANVAS), sky)
    pen = ImageDraw.Draw(image)
    _draw_backdrop(pen, camera.backdrop, horizon, rng)
    pen.rectangle((0, horizon, CANVAS, CANVAS), fill=camera.ground)
    verge = tuple(int(c) for c in np.array((104, 118, 82)) + rng.integers(-25, 25, 3))
    pen.rectangle((0, horizon, CANVAS, horizon + int(rng.integers(14, 40))), fill=verge)
    vanishing = rng.uniform(-0.5, 1.5) * CANVAS
    for lane in np.linspace(-1.5, 2.5, 6) + rng.uniform(-0.3, 0.3):
        foot, colour = lane * CANVAS, (222, 220, 206) if rng.random() < 0.75 else (206, 176, 70)
        dashes = 1 if rng.random() < 0.4 else 5
        for dash in range(dashes):
            start, end = dash / dashes, (dash + 0.6) / dashes if dashes > 1 else 1.0
            ends = [
                (vanishing + (foot - vanishing) * t, horizon + 40 + (CANVAS - horizon - 40) * t) for t in (start, end)
            ]
            pen.line(ends, fill=colour, width=4 + int(6 * start))
    for _ in range(14):  # patches and stains on the road
        x, y = rng.uniform(0, CANVAS), rng.uniform(horizon + 40, CANVAS)
        wide, shade = rng.uniform(10, 60), int(rng.integers(-16, 16))
        pen.ellipse((x, y, x + wide, y + wide / 4), fill=tuple(c + shade for c in camera.ground))
    return image.filter(ImageFilter.GaussianBlur(1.5))


def _draw_backdrop(pen: ImageDraw.ImageDraw, kind: str, horizon: int, rng: np.random.Generator) -> None:
    if kind == "wall":
        base = rng.integers(120, 190) + rng.integers(-14, 15, 3)
        pen.rectangle((0, horizon - 70, CANVAS, horizon), fill=tuple(int(c) for c in base))
        for x in range(0, CANVAS, 48):
            pen.line((x, horizon - 70, x, horizon), fill=tuple(int(c) for c in base * 0.75), width=3)
        return
    x = -20.0
    while x < CANVAS:
        wide, tall = rng.uniform(45, 110), rng.uniform(60, 150)
        if kind == "trees":
            fill = tuple(int(c) for c in np.array((62, 96, 52)) + rng.integers(-22, 22, 3))
            pen.ellipse((x, horizon - tall, x + 1.3 * wide, horizon + 12), fill=fill)
        else:
            base = rng.integers(110, 200) + rng.integers(-18, 19, 3)
            pen.rectangle((x, horizon - tall, x + wide, horizon), fill=tuple(int(c) for c in base))
            for u, v in product(np.arange(x + 8, x + wide - 10, 18), np.arange(horizon - tall + 8, horizon - 12, 22)):
                pen.rectangle((u, v, u + 9, v + 12), fill=tuple(int(c) for c in base * rng.uniform(0.5, 0.8)))
        x += wide * rng.uniform(0.7, 1.05)


def background(number: int, seed: int, big: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Cut a random window out of the camera's place."""
    zoom = rng.uniform(1.0, 1.6)
    wide, tall = min(CANVAS, big[0] * zoom), min(CANVAS, big[1] * zoom)
    left, top = rng.uniform(0, CANVAS - wide), rng.uniform(0, CANVAS - tall)
    return _canvas(number, seed).resize(big, Image.Resampling.BILINEAR, (left, top, left + wide, top + tall))


def draw_occluders(pen: ImageDraw.ImageDraw, size: tuple[int, int], rng: np.random.Generator) -> list[Box]:
    """Draw nothing, or a post, a bush or another vehicle's edge; return the covered boxes in pixels of `size`."""
    if rng.random() > OCCLUDED_SHARE:
        return []
    wide, tall = size
    shade = tuple(int(c) for c in rng.integers(30, 200, 3))
    kind = rng.integers(3)
    if kind == 0:
        x, thick = rng.uniform(0.1, 0.9) * wide, rng.uniform(0.03, 0.08) * wide
        box = (x, 0.0, x + thick, float(tall))
        pen.rectangle(box, fill=shade)
    elif kind == 1:
        x, reach = rng.choice((0.0, 1.0)) * wide, rng.uniform(0.15, 0.34) * wide
        box = (x - reach, tall - 1.3 * reach, x + reach, tall + 0.5 * reach)
        pen.ellipse(box, fill=tuple(int(c) for c in np.array((58, 84, 46)) + rng.integers(-20, 20, 3)))
    else:
        reach, top = rng.uniform(0.12, 0.28) * wide, rng.uniform(0.35, 0.65) * tall
        left = 0.0 if rng.random() < 0.5 else wide - reach
        box = (left, top, left + reach, float(tall))
        pen.rounded_rectangle(box, radius=0.3 * reach, fill=shade)
        pen.rectangle((left, top + 0.12 * tall, left + reach, top + 0.3 * tall), fill=(40, 44, 50))
    return [box]
