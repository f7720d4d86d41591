"""The vehicles of synthetic VeRi: flat coloured patches in space, metres, x forward, y left, z up, ground at z = 0.

A vehicle is built from lofts (stacks of rectangles) that carry windows, lights, wheels, stripes and decals. Vehicles of
one family share body type, proportions and colours; roof, motif, stripes, rims, plate and trim are the member's own.
"""

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

COLOUR_NAMES = ("yellow", "orange", "green", "gray", "red", "blue", "white", "golden", "brown", "black")
TYPE_NAMES = ("sedan", "suv", "van", "hatchback", "mpv", "pickup", "bus", "truck", "estate")
HSV = {  # hue, saturation, value in 0..1 of each colour name
    "yellow": (0.145, 0.85, 0.88),
    "orange": (0.075, 0.88, 0.85),
    "green": (0.38, 0.65, 0.48),
    "gray": (0.60, 0.06, 0.48),
    "red": (0.99, 0.82, 0.66),
    "blue": (0.60, 0.75, 0.62),
    "white": (0.12, 0.03, 0.90),
    "golden": (0.115, 0.45, 0.70),
    "brown": (0.06, 0.55, 0.38),
    "black": (0.62, 0.15, 0.15),
}
MOTIF_COLOURS = ("white", "black", "red", "yellow", "blue", "green", "orange")
MOTIFS = ("none", "disc", "star", "chevron", "diamond", "bars", "cross", "ring", "arrow", "checks")
ROOFS = ("plain", "rails", "box", "sunroof", "sign", "lightbar", "rack", "panel")
RIMS = ((0, "silver"), (3, "silver"), (5, "silver"), (5, "dark"), (6, "gold"), (8, "silver"), (4, "white"), (0, "dark"))
TWO_TONES = ("none", "none", "roof", "sill", "nose")
STRIPES = ("none", "none", "waist", "double", "racing", "sill")
SHADES = {"silver": (0.75, 0.77, 0.8), "dark": (0.12, 0.12, 0.13), "gold": (0.75, 0.6, 0.25), "white": (0.93, 0.93, 0.93)}
RUBBER, TRIM, SEAM = (0.07, 0.07, 0.08), (0.16, 0.16, 0.17), (0.25, 0.25, 0.26)
NO_LAMP, HEADLAMP, TAIL_LAMP = 0, 1, 2
UNDER, BODY, UPPER, MIRROR, ROOF = 0, 1, 2, 3, 4  # drawing order
LIFT = 0.01  # metres between a panel and what is painted on it
NUM_KEYPOINTS = 20

Colour = tuple[float, float, float]


class Shape(NamedTuple):
    """Proportions of a body type: metres; the cabin's ends are fractions of the length, 0 = middle, 0.5 = front."""

    length: float
    width: float
    hood: float  # height where the bonnet starts
    belt: float  # height of the windows' lower edge
    roof: float
    cabin_base: tuple[float, float]  # rear, front at the belt
    cabin_top: tuple[float, float]  # rear, front at the roof
    wheel: float  # radius
    side_windows: int


SHAPES = {
    "sedan": Shape(4.6, 1.80, 0.78, 0.95, 1.46, (-0.38, 0.24), (-0.24, 0.08), 0.33, 2),
    "suv": Shape(4.5, 1.95, 0.98, 1.16, 1.84, (-0.485, 0.26), (-0.45, 0.14), 0.42, 3),
    "van": Shape(5.0, 2.00, 1.00, 1.25, 2.25, (-0.49, 0.38), (-0.485, 0.25), 0.36, 1),
    "hatchback": Shape(3.8, 1.72, 0.80, 0.96, 1.50, (-0.48, 0.28), (-0.38, 0.10), 0.31, 2),
    "mpv": Shape(4.6, 1.88, 0.86, 1.05, 1.78, (-0.485, 0.36), (-0.43, 0.14), 0.34, 3),
    "pickup": Shape(5.3, 1.92, 0.95, 1.12, 1.80, (-0.10, 0.24), (-0.07, 0.13), 0.42, 2),
    "bus": Shape(7.2, 2.40, 1.00, 1.20, 2.90, (-0.495, 0.495), (-0.49, 0.47), 0.46, 6),
    "truck": Shape(6.2, 2.20, 1.00, 1.20, 2.25, (0.24, 0.49), (0.25, 0.44), 0.44, 1),
    "estate": Shape(4.8, 1.80, 0.78, 0.95, 1.50, (-0.485, 0.24), (-0.44, 0.08), 0.33, 3),
}


class Loft(NamedTuple):
    """A convex body: at each height z a rectangle from x = rear to front, y = -half to half."""

    z: np.ndarray
    rear: np.ndarray
    front: np.ndarray
    half: np.ndarray

    @property
    def centre(self) -> np.ndarray:
        x = (self.rear.min() + self.front.max()) / 2
        return np.array([x, 0.0, (self.z[0] + self.z[-1]) / 2])

    def end(self, front: bool, points: Sequence[tuple[float, float]]) -> np.ndarray:
        """Return [N, 3]: points (share of the half width in -1..1, height z) on the front or the rear."""
        share, z = np.asarray(points, dtype=float).T
        x = np.interp(z, self.z, self.front if front else self.rear) + (LIFT if front else -LIFT)
        return np.stack([x, share * np.interp(z, self.z, self.half), z], axis=1)

    def side(self, sign: int, points: Sequence[tuple[float, float]]) -> np.ndarray:
        """Return [N, 3]: points (x, z) on the left (sign 1) or the right (sign -1)."""
        x, z = np.asarray(points, dtype=float).T
        return np.stack([x, sign * (np.interp(z, self.z, self.half) + LIFT), z], axis=1)

    def span(self, z: float) -> tuple[float, float]:
        """Return (rear, front) at height z."""
        return float(np.interp(z, self.z, self.rear)), float(np.interp(z, self.z, self.front))


def loft(*sections: tuple[float, float, float, float]) -> Loft:
    """Build a Loft from sections (z, rear, front, half width), lowest first."""
    return Loft(*np.asarray(sections, dtype=float).T)


class Patches:
    """Collects patches; a patch faces away from the centre of the loft that carries it (None: seen from everywhere)."""

    def __init__(self) -> None:
        self.points: list[np.ndarray] = []
        self.normals: list[np.ndarray] = []
        self.colours: list[Colour] = []
        self.keys: list[tuple[float, float, float]] = []  # level, x of the loft, side
        self.lamps: list[int] = []
        self.gloss: list[float] = []

    def add(
        self,
        points: np.ndarray,
        carrier: Loft | None,
        colour: Colour,
        level: float,
        lamp: int = NO_LAMP,
        gloss: float = 0.0,
        side: int = 0,
    ) -> None:
        """Add a flat polygon [N, 3]; `level` orders the drawing, `side` marks what hides behind the cabin."""
        normal = np.zeros(3)
        if carrier is not None:
            normal = np.cross(points, np.roll(points, -1, axis=0)).sum(axis=0)  # Newell
            normal /= max(np.linalg.norm(normal), 1e-9)
            normal *= np.sign(normal @ (points.mean(axis=0) - carrier.centre)) or 1.0
        self.points.append(np.asarray(points, dtype=float))
        self.normals.append(normal)
        self.colours.append(colour)
        self.keys.append((level, 0.0 if carrier is None else float(carrier.centre[0]), side))
        self.lamps.append(lamp)
        self.gloss.append(gloss)

    def add_loft(self, body: Loft, colour: Colour, level: float, gloss: float = 0.3, side: int = 0) -> None:
        """Add all outer faces of a loft but the bottom."""
        y = side * 0.0
        for low, high in zip(range(len(body.z) - 1), range(1, len(body.z)), strict=True):
            zs = (body.z[low], body.z[high])
            for front in (False, True):
                quad = [(-1, zs[0]), (1, zs[0]), (1, zs[1]), (-1, zs[1])]
                self.add(body.end(front, quad), body, colour, level, gloss=gloss, side=side)
            for sign in (-1, 1):
                (r0, f0), (r1, f1) = body.span(zs[0]), body.span(zs[1])
                quad = [(r0, zs[0]), (f0, zs[0]), (f1, zs[1]), (r1, zs[1])]
                self.add(body.side(sign, quad) + [0, y, 0], body, colour, level, gloss=gloss, side=side)
        self.add(top_panel(body, -1, 1, 0, 1), body, colour, level, gloss=gloss, side=side)


def top_panel(body: Loft, left: float, right: float, rear: float, front: float) -> np.ndarray:
    """Return [4, 3]: a rectangle on the top; y as share of the half width (-1..1), x as share of the length (0..1)."""
    start, length, half = body.rear[-1], body.front[-1] - body.rear[-1], body.half[-1]
    corners = [(rear, left), (front, left), (front, right), (rear, right)]
    return np.array([[start + x * length, y * half, body.z[-1] + LIFT] for x, y in corners])
