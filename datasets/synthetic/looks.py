"""The identities of synthetic VeRi: what tells one vehicle from another.

Members of one family share body type, proportions and colours and are each other's hard negatives; motif, roof,
stripes, rims, plate and trim are a member's own.
"""

import colorsys
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from datasets.synthetic import Stream
from datasets.synthetic.shapes import MOTIFS, Colour

HSV = {  # VeRi's colour names in the order of its ids: hue, saturation, value
    "yellow": (0.145, 0.85, 0.88),
    "orange": (0.070, 0.88, 0.85),
    "green": (0.38, 0.65, 0.48),
    "gray": (0.60, 0.06, 0.48),
    "red": (0.99, 0.82, 0.66),
    "blue": (0.60, 0.75, 0.62),
    "white": (0.12, 0.03, 0.90),
    "golden": (0.115, 0.45, 0.70),
    "brown": (0.06, 0.55, 0.38),
    "black": (0.62, 0.15, 0.17),
}
COLOUR_NAMES = tuple(HSV)
MOTIF_COLOURS = ("white", "black", "red", "yellow", "blue", "green")
ROOFS = ("plain", "rails", "box", "sunroof", "sign", "lightbar", "rack", "number")
STRIPES = ("none", "none", "waist", "double", "racing")
TWO_TONES = ("none", "none", "none", "roof", "sill", "nose")
SPOKES = (0, 3, 4, 5, 6)  # 0 = full disc
RIM_COLOURS = {
    "silver": (0.76, 0.78, 0.80),
    "black": (0.14, 0.14, 0.15),
    "golden": (0.75, 0.60, 0.25),
    "white": (0.93, 0.93, 0.93),
}
PLATES = {
    "white": (0.93, 0.93, 0.90),
    "yellow": (0.92, 0.80, 0.25),
    "blue": (0.20, 0.35, 0.75),
    "green": (0.25, 0.62, 0.35),
}
TRIM = (0.16, 0.16, 0.17)
NUM_GLYPHS = 5


class Shape(NamedTuple):
    """Proportions of a body type: metres; the cabin's ends are shares of the length, -0.5 = rear, 0.5 = front."""

    length: float
    width: float
    hood: float  # height of the bonnet's front edge
    belt: float  # height of the windows' lower edge
    roof: float
    cabin_base: tuple[float, float]  # rear, front at the belt
    cabin_top: tuple[float, float]  # rear, front at the roof
    wheel: float  # radius
    windows: int  # on each side


SHAPES = {  # VeRi's type names in the order of its ids
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
TYPE_NAMES = tuple(SHAPES)


class Names(NamedTuple):
    """What the colours of a look are called, `paint` aside, whose name is `Look.colour_name`."""

    second: str  # of COLOUR_NAMES
    motif: str  # of MOTIF_COLOURS, like the two that follow
    roof: str
    stripe: str
    rim: str  # of RIM_COLOURS
    plate: str  # of PLATES


@dataclass(frozen=True)
class Look:
    """One vehicle as data; colours are red, green, blue in 0..1."""

    type_name: str
    colour_name: str
    shape: Shape
    paint: Colour
    second: Colour
    glass: Colour
    two_tone: str
    motif: str
    motif_colour: Colour
    motif_size: float  # 1 = usual
    roof: str
    roof_colour: Colour
    stripes: str
    stripe_colour: Colour
    spokes: int
    rim: Colour
    plate: Colour
    glyphs: tuple[bool, ...]
    bumper: Colour
    grille: int  # bars
    names: Names


def shade_of(name: str, rng: np.random.Generator, jitter: float = 1.0) -> Colour:
    """Return a random shade of a named colour."""
    return jittered(HSV[name], rng, jitter)


def jittered(colour: tuple[float, float, float], rng: np.random.Generator, jitter: float = 1.0) -> Colour:
    """Return a random shade of a colour given as hue, saturation and value in 0..1."""
    hue, saturation, value = colour + jitter * rng.normal(0, (0.012, 0.05, 0.04))
    return colorsys.hsv_to_rgb(hue % 1, float(np.clip(saturation, 0, 1)), float(np.clip(value, 0.08, 0.95)))


def make_look(seed: int, pid: int, family: int, member: int) -> Look:
    """Draw a look; up to len(MOTIFS) members of a family differ at least in the motif, whose order is the family's."""
    shared = np.random.default_rng((seed, Stream.FAMILY, family))
    own = np.random.default_rng((seed, Stream.MEMBER, pid))
    type_name, colour_name = str(shared.choice(TYPE_NAMES)), str(shared.choice(COLOUR_NAMES))
    second_name = str(shared.choice([name for name in COLOUR_NAMES if name != colour_name]))
    stretch, spread, lift = shared.normal(1, 0.04, 3)
    shape = SHAPES[type_name]
    shape = shape._replace(length=shape.length * stretch, width=shape.width * spread, roof=shape.roof * lift)
    paint, second = shade_of(colour_name, shared), shade_of(second_name, shared)
    two_tone, tint = str(shared.choice(TWO_TONES)), shared.uniform(0.10, 0.30)
    motif_order = shared.permutation(sorted(MOTIFS))
    others = [name for name in MOTIF_COLOURS if name != colour_name]
    motif_name, motif_colour = _one_of(others, own)
    motif_size, roof = own.uniform(0.8, 1.1), str(own.choice(ROOFS))
    roof_name, roof_colour = _one_of(others, own)
    stripes = str(own.choice(STRIPES))
    stripe_name, stripe_colour = _one_of(others, own)
    spokes = int(own.choice(SPOKES))
    rim_name = [*RIM_COLOURS][own.integers(len(RIM_COLOURS))]
    plate_name = [*PLATES][own.integers(len(PLATES))]

    return Look(
        type_name=type_name,
        colour_name=colour_name,
        shape=shape,
        paint=paint,
        second=second,
        glass=(tint * 0.9, tint, tint * 1.1),
        two_tone=two_tone,
        motif=str(motif_order[member % len(MOTIFS)]),
        motif_colour=motif_colour,
        motif_size=motif_size,
        roof=roof,
        roof_colour=roof_colour,
        stripes=stripes,
        stripe_colour=stripe_colour,
        spokes=spokes,
        rim=RIM_COLOURS[rim_name],
        plate=PLATES[plate_name],
        glyphs=tuple(own.random(NUM_GLYPHS) < 0.6),
        bumper=TRIM if own.random() < 0.35 else paint,
        grille=int(own.integers(0, 4)),
        names=Names(second_name, motif_name, roof_name, stripe_name, rim_name, plate_name),
    )


def _one_of(names: list[str], rng: np.random.Generator) -> tuple[str, Colour]:
    """Return one of these colours: its name and a shade of it."""
    name = str(rng.choice(names))
    return name, shade_of(name, rng, jitter=0.5)
