"""Building blocks of the synthetic vehicles: flat coloured patches in space, in metres.

x points forward, y to the vehicle's left, z up; the ground is z = 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LIFT = 0.012  # metres between a panel and what is painted on it
NO_LAMP, HEADLAMP, TAIL_LAMP = 0, 1, 2
DISC_CORNERS = 14

Colour = tuple[float, float, float]  # red, green, blue in 0..1


class Loft(NamedTuple):
    """A convex body: at each height z a rectangle from x = rear to front, and `half` to both sides of y = middle."""

    z: np.ndarray
    rear: np.ndarray
    front: np.ndarray
    half: np.ndarray
    middle: float = 0.0

    @property
    def centre(self) -> np.ndarray:
        """The middle of the bounding box: float [3]."""
        x = (self.rear.min() + self.front.max()) / 2
        return np.array([x, self.middle, (self.z[0] + self.z[-1]) / 2])

    def end(self, front: bool, points: Sequence[tuple[float, float]]) -> np.ndarray:
        """Return [N, 3]: points (share of the half width in -1..1, height z) on the front or the rear."""
        share, z = np.asarray(points, dtype=float).T
        x = np.interp(z, self.z, self.front if front else self.rear) + (LIFT if front else -LIFT)
        return np.stack([x, self.middle + share * np.interp(z, self.z, self.half), z], axis=1)

    def side(self, sign: int, points: Sequence[tuple[float, float]]) -> np.ndarray:
        """Return [N, 3]: points (x, z) on the left (sign 1) or the right (sign -1)."""
        x, z = np.asarray(points, dtype=float).T
        return np.stack([x, self.middle + sign * (np.interp(z, self.z, self.half) + LIFT), z], axis=1)

    def top(self, points: Sequence[tuple[float, float]]) -> np.ndarray:
        """Return [N, 3]: points (share of the length in 0..1, rear to front, share of the half width) on the top."""
        along, across = np.asarray(points, dtype=float).T
        x = self.rear[-1] + along * (self.front[-1] - self.rear[-1])
        return np.stack([x, self.middle + across * self.half[-1], np.full_like(x, self.z[-1] + LIFT)], axis=1)

    def span(self, z: float) -> tuple[float, float]:
        """Return x of (rear, front) at height z."""
        return float(np.interp(z, self.z, self.rear)), float(np.interp(z, self.z, self.front))


def loft(*sections: tuple[float, float, float, float], middle: float = 0.0) -> Loft:
    """Build a Loft from sections (z, rear, front, half width), lowest first."""
    return Loft(*np.asarray(sections, dtype=float).T, middle)


class Mesh(NamedTuple):
    """P patches as arrays, ready to be projected; patch i owns the points starts[i]:starts[i + 1]."""

    points: np.ndarray  # float [M, 3]
    starts: np.ndarray  # int [P + 1]
    centres: np.ndarray  # float [P, 3]
    normals: np.ndarray  # float [P, 3], outward; zero = seen from everywhere
    colours: np.ndarray  # float [P, 3] in 0..1
    gloss: np.ndarray  # float [P] in 0..1
    levels: np.ndarray  # float [P]: drawing order, lowest first
    carriers: np.ndarray  # float [P, 3]: centre of the body that carries the patch
    lamps: np.ndarray  # int [P]: NO_LAMP, HEADLAMP or TAIL_LAMP


class Patches:
    """Collects flat polygons; each faces away from the centre of the loft that carries it."""

    def __init__(self) -> None:
        self._rows: list[tuple] = []

    def add(
        self,
        points: np.ndarray,
        carrier: Loft | None,
        colour: Colour,
        level: float,
        gloss: float = 0.0,
        lamp: int = NO_LAMP,
    ) -> None:
        """Add a polygon [N, 3]; without a carrier it is seen from everywhere."""
        centre = points.mean(axis=0)
        normal, body_centre = np.zeros(3), centre
        if carrier is not None:
            body_centre = carrier.centre
            normal = np.cross(points, np.roll(points, -1, axis=0)).sum(axis=0)  # Newell's method
            normal /= np.linalg.norm(normal)
            normal *= np.sign(normal @ (centre - body_centre))
        self._rows.append((points, centre, normal, colour, gloss, level, body_centre, lamp))

    def add_loft(self, body: Loft, colour: Colour, level: float, gloss: float = 0.3) -> None:
        """Add all faces of a loft but the bottom."""
        for low, high in zip(body.z[:-1], body.z[1:], strict=True):
            (rear_low, front_low), (rear_high, front_high) = body.span(low), body.span(high)
            for front in (False, True):
                self.add(body.end(front, rectangle(-1, low, 1, high)), body, colour, level, gloss)
            for sign in (-1, 1):
                corners = [(rear_low, low), (front_low, low), (front_high, high), (rear_high, high)]
                self.add(body.side(sign, corners), body, colour, level, gloss)
        self.add(body.top(rectangle(0, -1, 1, 1)), body, colour, level, gloss)

    def mesh(self) -> Mesh:
        """Return everything added so far as arrays."""
        points, centres, normals, colours, gloss, levels, carriers, lamps = zip(*self._rows, strict=True)
        starts = np.concatenate([[0], np.cumsum([len(polygon) for polygon in points])])
        stacked = (np.array(column) for column in (centres, normals, colours, gloss, levels, carriers, lamps))
        return Mesh(np.concatenate(points), starts, *stacked)


def rectangle(left: float, bottom: float, right: float, top: float) -> list[tuple[float, float]]:
    """Return the four corners of an upright rectangle, in order."""
    return [(left, bottom), (right, bottom), (right, top), (left, top)]


def disc(x: float, y: float, radius: float, corners: int = DISC_CORNERS) -> list[tuple[float, float]]:
    """Return a regular polygon around (x, y)."""
    angles = np.arange(corners) * 2 * np.pi / corners
    return list(zip(x + radius * np.cos(angles), y + radius * np.sin(angles), strict=True))


def _star() -> list[tuple[float, float]]:
    radii = (1.0, 0.42) * 5
    return [(r * np.sin(a), r * np.cos(a)) for a, r in zip(np.arange(10) * np.pi / 5, radii, strict=True)]


MOTIFS = {  # polygons in the square -1..1
    "none": [],
    "disc": [disc(0, 0, 0.85)],
    "star": [_star()],
    "chevron": [[(-0.9, 0.1), (0, 0.9), (0.9, 0.1), (0.9, -0.6), (0, 0.2), (-0.9, -0.6)]],
    "diamond": [[(0, 1), (0.65, 0), (0, -1), (-0.65, 0)]],
    "triangle": [[(-0.9, -0.7), (0.9, -0.7), (0, 0.9)]],
    "square": [rectangle(-0.7, -0.7, 0.7, 0.7)],
    "bars": [rectangle(-1, low, 1, low + 0.35) for low in (-0.85, -0.17, 0.5)],
    "pillars": [rectangle(left, -0.8, left + 0.35, 0.8) for left in (-0.85, -0.17, 0.5)],
    "cross": [rectangle(-0.28, -0.9, 0.28, 0.9), rectangle(-0.9, -0.28, 0.9, 0.28)],
    "checks": [rectangle(-0.9, 0, 0, 0.9), rectangle(0, -0.9, 0.9, 0)],
}


def motif(kind: str, x: float, y: float, size: float) -> list[list[tuple[float, float]]]:
    """Return the polygons of a painted motif of half width `size` around (x, y)."""
    return [[(x + size * u, y + size * v) for u, v in polygon] for polygon in MOTIFS[kind]]
