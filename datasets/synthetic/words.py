"""What can be said of a photographed vehicle: true of its look, and large and clear enough in the picture."""

import re
from typing import NamedTuple

from datasets.synthetic.looks import TRIM, Look
from datasets.synthetic.photos import Photo
from datasets.synthetic.scenes import CAMERAS
from datasets.synthetic.seen import ON_TOP, Seen

SIDE = 48  # pixels: what cannot be told in a picture of SIDE x SIDE is not said
LEAST = {  # of each part: pixels of a picture of SIDE x SIDE, contrast
    "motif_colour": (14, 30),
    "second": (45, 28),
    "stripe_colour": (26, 42),
    "rim": (24, 40),
    "plate": (12, 32),
    "bumper": (32, 36),
    ON_TOP: (14, 34),
}
SHAPE_PIXELS = 26  # below, a motif is a mark of no shape
WEIGHTS = {"motif": 5.0, "roof": 3.0, "stripes": 3.0, "second": 2.5, "rim": 1.2, "plate": 1.2, "bumper": 0.8}
ABSENT_WEIGHT = 0.3  # of what a vehicle has not

SYNONYMS = {"gray": ("gray", "grey"), "golden": ("golden", "gold")}  # of colours
TYPE_WORDS = {
    "sedan": ("sedan", "saloon"),
    "suv": ("SUV", "jeep"),
    "van": ("van", "delivery van"),
    "hatchback": ("hatchback", "city car"),
    "mpv": ("minivan", "family car"),
    "pickup": ("pickup", "pickup truck"),
    "bus": ("bus", "coach"),
    "truck": ("truck", "lorry"),
    "estate": ("estate car", "station wagon"),
}
CARS = ("sedan", "suv", "hatchback", "mpv", "estate")  # hard to tell from each other
FRONT, REAR = 0, 1  # orientations in which the length of a vehicle is not seen
UNSAID_TYPE = {True: 0.45, False: 0.2}  # probability for one of CARS; True: seen along its length
UNSAID_COLOUR = 0.45  # probability at night
SINGLE_MOTIFS = {
    "disc": ("disc", "circle", "spot"),
    "star": ("star",),
    "chevron": ("chevron", "arrow"),
    "diamond": ("diamond",),
    "triangle": ("triangle",),
    "square": ("square",),
    "cross": ("cross",),
}
PLURAL_MOTIFS = {
    "bars": ("horizontal {} bars", "level {} bars"),
    "pillars": ("upright {} bars", "vertical {} bars"),
    "checks": ("{} checks", "{} checkered squares"),
}
STRIPES = {
    "waist": ("a broad {} stripe", "a {} band around the body", "a {} belt"),
    "double": ("thin {} stripes along the side", "narrow {} lines", "parallel {} lines"),
    "racing": ("{} racing stripes", "{} stripes from front to back"),
}
SECOND = {
    "roof": ("a {} cabin", "a {} upper half", "{} paint above"),
    "sill": ("a {} lower edge", "{} sills", "{} paint below"),
    "nose": ("a {} nose", "a {} front end"),
}
CARGO = ("a {} cargo box", "a {} load behind the cab", "a {} container")
LOADS = {
    "rails": ("shiny roof rails", "bright rails on the roof"),
    "rack": ("a dark roof rack", "a black rack on top"),
    "box": ("a {} roof box", "a {} box on top"),
    "sunroof": ("a sunroof", "a window in the roof"),
    "sign": ("a {} roof sign", "a small {} sign on top"),
    "lightbar": ("red and blue roof lights", "emergency lights on top"),
}
RIM_WORDS = {  # silver and white look alike
    "silver": ("light", "bright"),
    "white": ("light", "bright"),
    "black": ("dark", "black"),
    "golden": ("golden", "gold"),
}


class Fact(NamedTuple):
    """One thing to say, as noun phrases that mean the same."""

    phrases: tuple[str, ...]
    weight: float  # of being said


class Sayable(NamedTuple):
    """All that can be said of a photograph; '' stands for leaving a word out."""

    colours: tuple[str, ...]
    unsaid_colour: float  # probability of leaving the colour out
    nouns: tuple[str, ...]
    general: tuple[str, ...]  # nouns of any such vehicle
    unsaid_type: float  # probability of a general noun
    facts: tuple[Fact, ...]


def with_articles(text: str) -> str:
    """Return the text with `an` for `a` before the sound of a vowel."""
    return re.sub(r"\ba (?=[aeiou]|SUV\b)", "an ", text)


def colour_words(name: str) -> tuple[str, ...]:
    """Return the words of a named colour."""
    return SYNONYMS.get(name, (name,))


def sayable(look: Look, photo: Photo, camera: int, seen: dict[str, Seen]) -> Sayable:
    """Return what can be said of a photograph by camera `camera` (0-based) that shows `seen` of a vehicle."""
    night, along = CAMERAS[camera].night, photo.orientation in (FRONT, REAR)
    is_car = look.type_name in CARS
    found = {
        "motif": _motif(look, seen["motif_colour"], photo.orientation),
        "roof": _roof(look, seen[ON_TOP]),
        "stripes": _coloured(STRIPES.get(look.stripes, ()), look.names.stripe, _told("stripe_colour", seen)),
        "second": _second(look, _told("second", seen)),
        "rim": _rim(look, seen["rim"], night),
        "plate": _coloured(("a {} plate", "a {} license plate"), look.names.plate, _told("plate", seen)),
        "bumper": ("dark bumpers", "black bumpers") if look.bumper == TRIM and _told("bumper", seen) else (),
    }
    facts = [Fact(phrases, WEIGHTS[kind]) for kind, phrases in found.items() if phrases]
    if not night:
        facts += [Fact(phrases, ABSENT_WEIGHT) for phrases in _absent(look)]
    return Sayable(
        colour_words(look.colour_name),
        UNSAID_COLOUR if night else 0.0,
        TYPE_WORDS[look.type_name],
        ("car", "vehicle") if is_car else ("vehicle",),
        UNSAID_TYPE[along] if is_car else 0.08,
        tuple(facts),
    )


def _pixels(part: Seen) -> float:
    return part.share * SIDE**2


def _told(name: str, seen: dict[str, Seen]) -> bool:
    """Return whether a part is large and clear enough."""
    pixels, contrast = LEAST[name]
    return _pixels(seen[name]) >= pixels and seen[name].contrast >= contrast


def _coloured(phrases: tuple[str, ...], colour: str, told: bool = True) -> tuple[str, ...]:
    """Return the phrases with each word of a colour in place of {}; () where that cannot be told."""
    words = colour_words(colour) if told else ()
    return tuple(dict.fromkeys(with_articles(phrase.format(word)) for phrase in phrases for word in words))


def _shape(look: Look) -> tuple[str, ...]:
    if look.motif in PLURAL_MOTIFS:
        return PLURAL_MOTIFS[look.motif]
    return tuple(f"a {{}} {word}" for word in SINGLE_MOTIFS[look.motif])


def _motif(look: Look, part: Seen, orientation: int) -> tuple[str, ...]:
    if look.motif == "none" or not _told("motif_colour", {"motif_colour": part}):
        return ()
    shapes = _shape(look) if _pixels(part) >= SHAPE_PIXELS else ("a {} mark", "a {} sticker")
    place = {FRONT: "the front", REAR: "the back"}.get(orientation, "the side")
    return _coloured((*shapes, *(f"{shape} on {place}" for shape in shapes)), look.names.motif)


def _roof(look: Look, part: Seen) -> tuple[str, ...]:
    if look.roof == "plain" or not _told(ON_TOP, {ON_TOP: part}):
        return ()
    if look.roof == "number":
        shapes = _shape(look) if _pixels(part) >= SHAPE_PIXELS else ("a {} mark",)
        return _coloured(tuple(f"{shape} on the roof" for shape in shapes), look.names.motif)
    return _coloured(LOADS[look.roof], look.names.roof)


def _second(look: Look, told: bool) -> tuple[str, ...]:
    phrases = CARGO if look.type_name == "truck" else SECOND.get(look.two_tone, ())
    return _coloured(phrases, look.names.second, told)


def _rim(look: Look, part: Seen, night: bool) -> tuple[str, ...]:
    """Return the phrases of wheels; dark ones have little contrast, so they are told by day."""
    dark = look.names.rim == "black"
    pixels, contrast = LEAST["rim"]
    if _pixels(part) < pixels or (night if dark else part.contrast < contrast):
        return ()
    return tuple(f"{word} {noun}" for word in RIM_WORDS[look.names.rim] for noun in ("wheels", "rims"))


def _absent(look: Look) -> list[tuple[str, ...]]:
    bare_roof = look.roof == "plain" or (look.roof == "number" and look.motif == "none")
    return [
        *([("no marks",)] if look.motif == "none" else []),
        *([("a plain roof", "an empty roof")] if bare_roof else []),
        *([("no stripes",)] if look.stripes == "none" else []),
    ]
