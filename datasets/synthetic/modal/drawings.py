"""Drawings of the synthetic vehicles by a shaky hand: outlines with pencil shading, and the same in pale colours."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from datasets.synthetic.photos import SUPERSAMPLING, aim, to_bytes, visible_patches
from datasets.synthetic.vehicles import Vehicle

ELEVATION = 16.0  # degrees from which a vehicle is drawn
SHAKE = 1.2  # standard deviation of a corner, in supersampled pixels
PAPER, INK = (238, 255), (20, 90)  # grey of a drawing's paper and of a sketch's lines, both ends included
BRIGHTNESS = (0.299, 0.587, 0.114)  # of red, green, blue: what is left of a colour in pencil
LINE_WIDTH = 2  # supersampled pixels
PALE = 0.55  # share of its colour or brightness in a fill, the rest is white
OUTLINE = 0.55  # of the fill


class Style(NamedTuple):
    """How a drawing is made."""

    coloured: bool  # fills and outlines in their colour, else grey fills with dark lines
    grain: float  # standard deviation of the brightness of a pixel, 255 = white


STYLES = {"sk": Style(coloured=False, grain=6), "cp": Style(coloured=True, grain=14)}


def draw_by_hand(vehicle: Vehicle, style: Style, azimuth: float, rng: np.random.Generator) -> np.ndarray:
    """Return a drawing of a vehicle seen from `azimuth` (degrees, 0 = its front): uint8 [H, W, 3]."""
    project, size = aim(vehicle, azimuth, ELEVATION, rng)
    mesh = vehicle.mesh
    paper, ink = (int(rng.integers(low, high, endpoint=True)) for low, high in (PAPER, INK))
    image = Image.new("RGB", (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING), (paper,) * 3)
    pen = ImageDraw.Draw(image)
    points = project(mesh.points) * SUPERSAMPLING
    points = (points + rng.normal(0, SHAKE, points.shape)).tolist()
    colours = mesh.colours if style.coloured else (mesh.colours @ BRIGHTNESS)[:, None].repeat(3, axis=1)
    pale = 255 * (PALE * colours + 1 - PALE)  # [P, 3]
    outlines = OUTLINE * pale if style.coloured else np.full_like(pale, ink)
    fills, outlines = pale.astype(int).tolist(), outlines.astype(int).tolist()
    for patch in visible_patches(mesh, project.eye):
        corners = [tuple(point) for point in points[mesh.starts[patch] : mesh.starts[patch + 1]]]
        pen.polygon(corners, fill=tuple(fills[patch]))
        pen.line([*corners, corners[0]], fill=tuple(outlines[patch]), width=LINE_WIDTH)
    pixels = np.asarray(image.reduce(SUPERSAMPLING), dtype=np.float64)
    return to_bytes((pixels + rng.normal(0, style.grain, (*pixels.shape[:2], 1))) / 255)
