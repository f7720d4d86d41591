"""The identities of the synthetic persons: what tells one person from another.

Members of one family share top, trousers and build and are each other's hard negatives; shoes, socks, belt, the top's
pattern and sleeves, hat and bag are a member's own, so what differs is small and stands at one height of the body.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from datasets.synthetic import Stream
from datasets.synthetic.looks import jittered
from datasets.synthetic.shapes import Colour

CLOTH = {  # hue, saturation, value
    "white": (0.12, 0.03, 0.90),
    "gray": (0.60, 0.06, 0.50),
    "black": (0.62, 0.15, 0.15),
    "red": (0.99, 0.80, 0.70),
    "orange": (0.07, 0.85, 0.88),
    "yellow": (0.14, 0.80, 0.90),
    "green": (0.37, 0.65, 0.50),
    "cyan": (0.50, 0.60, 0.75),
    "blue": (0.61, 0.75, 0.60),
    "purple": (0.77, 0.50, 0.55),
    "pink": (0.92, 0.40, 0.88),
    "brown": (0.06, 0.55, 0.36),
}
SKINS = ((0.06, 0.32, 0.90), (0.06, 0.45, 0.72), (0.06, 0.55, 0.50), (0.06, 0.55, 0.34))
HAIRS = ((0.08, 0.55, 0.13), (0.06, 0.60, 0.32), (0.12, 0.55, 0.78), (0.03, 0.75, 0.50), (0.60, 0.04, 0.68))
LEGWEAR = ("trousers", "trousers", "skirt", "shorts")
PATTERNS = ("none", "stripes", "disc", "bar", "yoke")
SLEEVES = ("long", "short", "none")
FOOTWEAR = ("shoes", "shoes", "boots")
HATS = ("none", "none", "cap", "beanie", "brim")
BAGS = ("none", "back", "hand", "strap")


class Build(NamedTuple):
    """Proportions of a body; lengths are shares of its height."""

    wide: float  # factor of all widths
    hip: float  # height of the hips
    head: float  # factor of the head's size


@dataclass(frozen=True)
class PersonLook:
    """One person as data; None for what is not worn."""

    build: Build
    skin: Colour
    hair: Colour
    long_hair: bool
    top: Colour
    legwear: str
    leg_colour: Colour
    sleeves: str
    pattern: str
    pattern_colour: Colour
    belt: Colour | None
    socks: Colour | None
    footwear: str
    shoes: Colour
    hat: str
    hat_colour: Colour
    bag: str
    bag_colour: Colour


def make_person(seed: int, pid: int, family: int, member: int) -> PersonLook:
    """Draw a look; up to len(PATTERNS) members of a family differ at least in the pattern, in the family's order."""
    shared = np.random.default_rng((seed, Stream.PERSON_FAMILY, family))
    own = np.random.default_rng((seed, Stream.PERSON_MEMBER, pid))
    build = Build(shared.uniform(0.85, 1.2), shared.uniform(0.46, 0.51), shared.uniform(0.92, 1.08))
    skin, hair = _shade_among(SKINS, shared), _shade_among(HAIRS, shared)
    long_hair = bool(shared.random() < 0.4)
    top_name, leg_name = shared.choice([*CLOTH], 2, replace=False)
    top, leg_colour = _shade(top_name, shared), _shade(leg_name, shared)
    legwear = str(shared.choice(LEGWEAR))
    patterns = shared.permutation(PATTERNS)
    on_top = [name for name in CLOTH if name != top_name]  # a pattern of the top's colour would not be seen
    at_legs = [name for name in CLOTH if name != leg_name]

    return PersonLook(
        build=build,
        skin=skin,
        hair=hair,
        long_hair=long_hair,
        top=top,
        legwear=legwear,
        leg_colour=leg_colour,
        sleeves=str(own.choice(SLEEVES)),
        pattern=str(patterns[member % len(PATTERNS)]),
        pattern_colour=_one_of(on_top, own),
        belt=_maybe(at_legs, 0.6, own),
        socks=_maybe(at_legs, 0.7, own),
        footwear=str(own.choice(FOOTWEAR)),
        shoes=_one_of([*CLOTH], own),
        hat=str(own.choice(HATS)),
        hat_colour=_one_of([*CLOTH], own),
        bag=str(own.choice(BAGS)),
        bag_colour=_one_of(on_top, own),
    )


def _shade(name: str, rng: np.random.Generator) -> Colour:
    return jittered(CLOTH[str(name)], rng)


def _shade_among(colours: tuple[tuple[float, float, float], ...], rng: np.random.Generator) -> Colour:
    return jittered(colours[rng.integers(len(colours))], rng, jitter=0.4)


def _one_of(names: list[str], rng: np.random.Generator) -> Colour:
    return _shade(rng.choice(names), rng)


def _maybe(names: list[str], share: float, rng: np.random.Generator) -> Colour | None:
    """Return one of these colours with the probability `share`; what is drawn does not depend on the outcome."""
    worn, colour = rng.random() < share, _one_of(names, rng)
    return colour if worn else None
