"""Photographs of the synthetic persons: figure, occluder, light, lens and sensor."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from datasets.synthetic.persons.figure import Polygon, draw_pose, figure
from datasets.synthetic.persons.looks import PersonLook
from datasets.synthetic.persons.places import CAMERAS, PersonCamera, background, draw_occluder

SIZE = (64, 128)  # pixels: width, height
SUPERSAMPLING = 3
PERSON_HEIGHT = 0.86  # of the image's height, before the random scale
SCALES = (0.9, 1.05)
POSITION_SD = 0.025  # of the image's height
GROUND = 0.945  # height of the feet from the top


class PersonPhoto(NamedTuple):
    """An image and the truth about what hides the person in it."""

    pixels: np.ndarray  # uint8 [128, 64, 3]
    occluded: bool  # an occluder stands before the person
    hidden: float  # share of the person's pixels that it covers, 0..1


def photograph(look: PersonLook, number: int, seed: int, rng: np.random.Generator) -> PersonPhoto:
    """Take a picture of a person with camera `number` (0-based) of the set drawn from `seed`."""
    big = (SIZE[0] * SUPERSAMPLING, SIZE[1] * SUPERSAMPLING)
    image = background(number, seed, big, rng)
    pose = draw_pose(rng)
    polygons, middle = _place(figure(look, pose), big, rng)
    pen = ImageDraw.Draw(image, "RGBA")
    _draw_shadow(pen, middle, big)
    mask = Image.new("L", big)
    owner = ImageDraw.Draw(mask)
    for points, colour in polygons:
        pen.polygon(points, fill=tuple(int(255 * part) for part in colour))
        owner.polygon(points, fill=255)
    box = draw_occluder(pen, middle, big, rng)
    pixels = np.asarray(image.reduce(SUPERSAMPLING), dtype=np.float32) / 255  # [128, 64, 3]
    return PersonPhoto(_develop(pixels, CAMERAS[number], rng), box is not None, _share_within(mask, box))


def _place(polygons: list[Polygon], big: tuple[int, int], rng: np.random.Generator) -> tuple[list[Polygon], float]:
    """Return the polygons in pixels of the canvas, mirrored half of the time, and x of the person's middle."""
    wide, tall = big
    height = PERSON_HEIGHT * tall * rng.uniform(*SCALES)
    x, y = (0.5 * wide, GROUND * tall) + POSITION_SD * tall * np.clip(rng.standard_normal(2), -2, 2)
    sign = -1 if rng.random() < 0.5 else 1
    placed = [([(x + sign * height * u, y - height * v) for u, v in points], colour) for points, colour in polygons]
    return placed, float(x)


def _draw_shadow(pen: ImageDraw.ImageDraw, middle: float, big: tuple[int, int]) -> None:
    wide, y = 0.24 * big[0], GROUND * big[1]
    pen.ellipse((middle - wide, y - 0.02 * big[1], middle + wide, y + 0.03 * big[1]), fill=(10, 10, 12, 110))


def _share_within(mask: Image.Image, box: tuple[float, float, float, float] | None) -> float:
    """Return the share of the mask's pixels in a box, 0 without one."""
    if box is None:
        return 0.0
    whole = np.asarray(mask) > 0
    hidden = Image.new("L", mask.size)
    ImageDraw.Draw(hidden).rectangle(box, fill=255)
    return float((whole & (np.asarray(hidden) > 0)).sum() / whole.sum())


def _develop(pixels: np.ndarray, camera: PersonCamera, rng: np.random.Generator) -> np.ndarray:
    """Apply exposure, colour cast, light from one side, blur and noise: float [H, W, 3] to uint8 [H, W, 3]."""
    cast = np.array(camera.cast) * rng.normal(1, 0.03, 3)
    side = 1 + rng.uniform(-0.15, 0.15) * np.linspace(-1, 1, SIZE[0])[None, :, None]
    pixels = pixels * (camera.exposure * rng.uniform(0.85, 1.15) * cast * side).astype(np.float32)
    image = Image.fromarray(_to_bytes(pixels))
    image = image.filter(ImageFilter.GaussianBlur(camera.blur * rng.uniform(0.6, 1.4)))
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * camera.noise
    return _to_bytes(np.asarray(image, dtype=np.float32) / 255 + noise)


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
    return (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
