"""A person as polygons, back to front, in units of the height: x to the viewer's right of the middle, y up."""

from typing import NamedTuple

import numpy as np

from datasets.synthetic.persons.looks import PersonLook
from datasets.synthetic.shapes import Colour, disc, rectangle

Points = list[tuple[float, float]]
Polygon = tuple[Points, Colour]

SHOULDER, WAIST, NECK = 0.81, 0.64, 0.845  # heights
HEAD = 0.925  # height of its middle
HEAD_CORNERS = 14
EYES = (0.08, 0.07, 0.07)


class Pose(NamedTuple):
    """How a person stands in one picture; lengths in units of the height."""

    front: bool
    stride: float  # a foot outwards of where it stands at rest
    lift: float  # of one foot
    swings: tuple[float, float]  # of each hand outwards


def draw_pose(rng: np.random.Generator) -> Pose:
    """Draw a pose: seen from the front or from behind, in some phase of a walk."""
    front, stride, lift = bool(rng.random() < 0.5), rng.uniform(0, 0.035), rng.uniform(0, 0.03)
    return Pose(front, stride, lift, (rng.uniform(0, 0.05), rng.uniform(0, 0.05)))


class Limb(NamedTuple):
    """A tapered arm or leg between two points."""

    start: tuple[float, float]
    end: tuple[float, float]
    half: tuple[float, float]  # width / 2 at its start and its end

    def part(self, low: float, high: float, more: float = 0.0) -> Points:
        """Return what lies between two shares of its length, `more` wider on both sides."""
        start, end = np.array(self.start), np.array(self.end)
        along = (end - start) / np.linalg.norm(end - start)
        across = np.array((-along[1], along[0]))
        corners = []
        for share, signs in ((low, (-1, 1)), (high, (1, -1))):
            half = more + self.half[0] + share * (self.half[1] - self.half[0])
            corners += [start + share * (end - start) + sign * half * across for sign in signs]
        return [tuple(corner) for corner in corners]


class Torso(NamedTuple):
    """The upper body: half its width at some heights, ascending."""

    heights: tuple[float, ...]
    halves: tuple[float, ...]

    def half(self, y: float) -> float:
        """Return half the width at a height."""
        return float(np.interp(y, self.heights, self.halves))

    def band(self, low: float, high: float, left: float = -1, right: float = 1) -> Points:
        """Return what lies between two shares of its height, and two shares of the half width in -1..1."""
        foot, top = self.heights[0], self.heights[-1]
        y = [foot + share * (top - foot) for share in (low, high)]
        inner = [height for height in self.heights if y[0] < height < y[1]]
        rows = [y[0], *inner, y[1]]
        return [(left * self.half(row), row) for row in rows] + [(right * self.half(row), row) for row in rows[::-1]]


def figure(look: PersonLook, pose: Pose) -> list[Polygon]:
    """Return the polygons of a person, those behind first; they reach from about 0 to 1 in y."""
    wide, hip = look.build.wide, look.build.hip
    torso = Torso((hip - 0.02, hip + 0.03, WAIST, SHOULDER), (0.098 * wide, 0.094 * wide, 0.084 * wide, 0.118 * wide))
    arms = [
        Limb((side * 0.116 * wide, SHOULDER - 0.02), (side * (0.135 * wide + swing), SHOULDER - 0.37), (0.029, 0.021))
        for side, swing in zip((-1, 1), pose.swings, strict=True)
    ]
    return [
        *_behind(look, pose, torso),
        *_legs(look, pose),
        *_body(look, torso),
        *(polygon for arm in arms for polygon in _arm(look, arm)),
        *_head(look, pose),
        *_bag(look, pose, torso, arms[1]),
    ]


def _behind(look: PersonLook, pose: Pose, torso: Torso) -> list[Polygon]:
    """Return what the body hides a part of: long hair and a bag on the back, seen from the front."""
    polygons = []
    if look.bag == "back" and pose.front:
        polygons.append((torso.band(0.25, 0.95, -1.25, 1.25), look.bag_colour))
    if look.long_hair and pose.front:
        polygons.append((rectangle(-0.062 * look.build.head, 0.80, 0.062 * look.build.head, HEAD), look.hair))
    return polygons


def _legs(look: PersonLook, pose: Pose) -> list[Polygon]:
    wide, hip = look.build.wide, look.build.hip
    polygons = []
    for side, lift in ((-1, 0.0), (1, pose.lift)):
        foot = (side * (0.045 * wide + pose.stride), 0.02 + lift)
        leg = Limb((side * 0.048 * wide, hip), foot, (0.052 * wide, 0.027))
        polygons.append((leg.part(0, 1), look.skin))
        if look.socks is not None:
            polygons.append((leg.part(0.72 if look.legwear != "trousers" else 0.84, 0.97, 0.003), look.socks))
        if look.legwear != "skirt":
            polygons.append((leg.part(0, 0.86 if look.legwear == "trousers" else 0.46, 0.004), look.leg_colour))
        if look.footwear == "boots":
            polygons.append((leg.part(0.80, 1, 0.008), look.shoes))
        outer, inner = foot[0] + side * 0.046, foot[0] - side * 0.032
        sole = foot[1] - 0.022
        polygons.append(([(outer, sole), (inner, sole), (inner, sole + 0.048), (outer, sole + 0.034)], look.shoes))
    if look.legwear == "skirt":
        top, hem = 0.094 * wide, 0.135 * wide
        polygons.append(([(-hem, 0.28), (hem, 0.28), (top, hip + 0.02), (-top, hip + 0.02)], look.leg_colour))
    return polygons


def _body(look: PersonLook, torso: Torso) -> list[Polygon]:
    neck = rectangle(-0.028, SHOULDER - 0.02, 0.028, HEAD - 0.03)
    shoulders = [(-torso.half(SHOULDER), SHOULDER), (torso.half(SHOULDER), SHOULDER), (0.045, NECK), (-0.045, NECK)]
    polygons = [(neck, look.skin), (torso.band(0, 1), look.top), (shoulders, look.top)]
    colour = look.pattern_colour
    if look.pattern == "stripes":
        polygons += [(torso.band(low, low + 0.13), colour) for low in (0.22, 0.47, 0.72)]
    if look.pattern == "disc":
        polygons.append((disc(0, 0.71, 0.055), colour))
    if look.pattern == "bar":
        polygons.append((torso.band(0.06, 1, -0.3, 0.3), colour))
    if look.pattern == "yoke":
        polygons += [(torso.band(0.72, 1), colour), (shoulders, colour)]
    if look.belt is not None:
        polygons.append((torso.band(0, 0.12, -1.02, 1.02), look.belt))
    return polygons


def _arm(look: PersonLook, arm: Limb) -> list[Polygon]:
    share = {"long": 0.88, "short": 0.42, "none": 0.0}[look.sleeves]
    polygons = [(arm.part(0, 1), look.skin)]
    if share:
        polygons.append((arm.part(0, share, 0.004), look.top))
    return polygons


def _head(look: PersonLook, pose: Pose) -> list[Polygon]:
    size = look.build.head
    oval = [(0.78 * x, HEAD + y) for x, y in disc(0, 0, 0.07 * size, HEAD_CORNERS)]
    crown = [(1.08 * x, y + 0.004) for x, y in oval if y >= HEAD + 0.012]
    polygons = [(oval, look.skin if pose.front else look.hair), (crown, look.hair)]
    if pose.front:
        eyes = [rectangle(x - 0.006, HEAD - 0.008, x + 0.006, HEAD + 0.004) for x in (-0.021 * size, 0.021 * size)]
        polygons += [(eye, EYES) for eye in eyes]
    elif look.long_hair:
        polygons.append((rectangle(-0.06 * size, 0.79, 0.06 * size, HEAD), look.hair))
    if look.hat != "none":
        low = HEAD + (0.016 if look.hat == "beanie" else 0.03)
        cap = [(1.14 * x, 1.02 * (y - HEAD) + HEAD) for x, y in oval if y >= low]
        polygons.append((cap, look.hat_colour))
    if look.hat == "cap" and pose.front:
        polygons.append((rectangle(-0.05 * size, HEAD + 0.018, 0.05 * size, HEAD + 0.034), look.hat_colour))
    if look.hat == "brim":
        polygons.append((rectangle(-0.10 * size, HEAD + 0.024, 0.10 * size, HEAD + 0.04), look.hat_colour))
    return polygons


def _bag(look: PersonLook, pose: Pose, torso: Torso, arm: Limb) -> list[Polygon]:
    """Return what a person carries in front of all else; a bag in the hand hangs from `arm`."""
    colour = look.bag_colour
    if look.bag == "back" and pose.front:
        return [(torso.band(0.35, 1, left, left + 0.24), colour) for left in (-0.82, 0.58)]
    if look.bag == "back":
        return [(torso.band(0.28, 0.98, -0.86, 0.86), colour)]
    if look.bag == "hand":
        x, y = arm.end
        return [([(x - 0.05, y - 0.13), (x + 0.05, y - 0.13), (x + 0.04, y - 0.01), (x - 0.04, y - 0.01)], colour)]
    if look.bag == "strap":
        side = 1 if pose.front else -1  # one shoulder, wherever it is seen from
        half, foot = torso.half(SHOULDER), torso.heights[0]
        strap = [
            (-0.8 * half, SHOULDER + 0.01),
            (-0.5 * half, SHOULDER + 0.02),
            (half, foot + 0.03),
            (half, foot - 0.02),
        ]
        pouch = rectangle(0.55 * half, foot - 0.09, 1.25 * half, foot + 0.03)
        return [([(side * x, y) for x, y in points], colour) for points in (strap, pouch)]
    return []
