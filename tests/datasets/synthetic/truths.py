"""Reads a caption of a synthetic vehicle word by word, by a dictionary of its own, and asks whether that is true."""

import colorsys
import re
from typing import NamedTuple

from datasets.synthetic.looks import HSV, Look

TYPES = {
    **dict.fromkeys(("sedan", "saloon"), {"sedan"}),
    **dict.fromkeys(("suv", "jeep"), {"suv"}),
    **dict.fromkeys(("delivery van", "van"), {"van"}),
    **dict.fromkeys(("hatchback", "city car"), {"hatchback"}),
    **dict.fromkeys(("minivan", "family car"), {"mpv"}),
    **dict.fromkeys(("pickup truck", "pickup"), {"pickup"}),
    **dict.fromkeys(("bus", "coach"), {"bus"}),
    **dict.fromkeys(("truck", "lorry"), {"truck"}),
    **dict.fromkeys(("estate car", "station wagon"), {"estate"}),
    "car": {"sedan", "suv", "hatchback", "mpv", "estate"},
    "vehicle": {"sedan", "suv", "van", "hatchback", "mpv", "pickup", "bus", "truck", "estate"},
}
COLOURS = {name: name for name in HSV} | {"grey": "gray", "gold": "golden"}
MOTIFS = {
    **dict.fromkeys(("disc", "circle", "spot"), {"disc"}),
    **{name: {name} for name in ("star", "diamond", "triangle", "square", "cross")},
    **dict.fromkeys(("chevron", "arrow"), {"chevron"}),
    **dict.fromkeys(("horizontal bars", "level bars"), {"bars"}),
    **dict.fromkeys(("upright bars", "vertical bars"), {"pillars"}),
    **dict.fromkeys(("checks", "checkered squares"), {"checks"}),
}
MOTIFS |= dict.fromkeys(("mark", "sticker"), set().union(*MOTIFS.values()))
ROOFS = {
    **dict.fromkeys(("shiny roof rails", "bright rails on the roof"), "rails"),
    **dict.fromkeys(("dark roof rack", "black rack on top"), "rack"),
    **dict.fromkeys(("sunroof", "window in the roof"), "sunroof"),
    **dict.fromkeys(("red and blue roof lights", "emergency lights on top"), "lightbar"),
    **dict.fromkeys(("roof box", "box on top"), "box"),
    **dict.fromkeys(("roof sign", "small sign on top"), "sign"),
}
PLAIN_ROOF, NO_MARKS, NO_STRIPES = ("plain roof", "empty roof"), "no marks", "no stripes"
STRIPES = {
    **dict.fromkeys(("broad stripe", "band around the body", "belt"), "waist"),
    **dict.fromkeys(("thin stripes along the side", "narrow lines", "parallel lines"), "double"),
    **dict.fromkeys(("racing stripes", "stripes from front to back"), "racing"),
}
SECOND = {
    **dict.fromkeys(("cabin", "upper half", "paint above"), "roof"),
    **dict.fromkeys(("lower edge", "sills", "paint below"), "sill"),
    **dict.fromkeys(("nose", "front end"), "nose"),
    **dict.fromkeys(("cargo box", "load behind the cab", "container"), "cargo"),
}
RIMS = {"light": ("silver", "white"), "bright": ("silver", "white"), "dark": ("black",), "black": ("black",)}
RIMS |= dict.fromkeys(("golden", "gold"), ("golden",))
PLATES = {"white": (0.93, 0.93, 0.90), "yellow": (0.92, 0.80, 0.25), "blue": (0.20, 0.35, 0.75)}
PLATES |= {"green": (0.25, 0.62, 0.35)}
RIM_RGB = {"silver": (0.76, 0.78, 0.80), "black": (0.14, 0.14, 0.15), "golden": (0.75, 0.60, 0.25)}
RIM_RGB |= {"white": (0.93, 0.93, 0.93)}
DARK_TRIM = (0.16, 0.16, 0.17)


class Claim(NamedTuple):
    """What a phrase says: of what, which kind of it, in which colour; '' = nothing of it."""

    about: str
    kind: str
    colour: str


def claims_of(caption: str) -> list[Claim]:
    """Return all claims of a caption; raises AssertionError for words that nothing here explains."""
    text = caption.lower().replace("red and blue roof lights", "red+blue roof lights")
    text = re.sub(
        r"\b(it carries|can be seen on|look for|the picture shows|there is|this is|that has|it has)\b", ";", text
    )
    text = re.sub(r"[.,]|\band\b|\bwith\b|\bhas\b|\bis painted\b|\bis\b", ";", text)
    text = re.sub(r"\bthis (?=\w)", "a ", text)
    text = re.sub(r"(?:^|(?<=;)|(?<=; ))\s*on (?=an? )", " ", text)
    phrases = [re.sub(r"^(an?|the) ", "", phrase.strip()) for phrase in text.split(";")]
    return [_claim(phrase.replace("red+blue", "red and blue")) for phrase in phrases if phrase]


def _claim(phrase: str) -> Claim:
    if phrase in COLOURS:
        return Claim("vehicle", "vehicle", COLOURS[phrase])
    if phrase in ROOFS:
        return Claim("roof", ROOFS[phrase], "")
    if phrase in PLAIN_ROOF:
        return Claim("roof", "plain", "")
    if phrase in (NO_MARKS, NO_STRIPES):
        return Claim("motif" if phrase == NO_MARKS else "stripes", "none", "")
    words = phrase.split()
    if words[-1] in ("wheels", "rims"):
        return Claim("rim", words[0], "")
    if phrase in ("dark bumpers", "black bumpers"):
        return Claim("bumper", "dark", "")
    found = [word for word in words if word in COLOURS]
    assert len(found) <= 1, phrase
    colour, rest = COLOURS[found[0]] if found else "", " ".join(word for word in words if word not in COLOURS)
    if rest in TYPES:
        return Claim("vehicle", rest, colour)
    assert colour, phrase
    if rest in ROOFS:
        return Claim("roof", ROOFS[rest], colour)
    if rest in STRIPES:
        return Claim("stripes", STRIPES[rest], colour)
    if rest in SECOND:
        return Claim("second", SECOND[rest], colour)
    if rest in ("plate", "license plate"):
        return Claim("plate", "", colour)
    about = "top" if rest.endswith(" on the roof") else "motif"
    shape = re.sub(r" on the (roof|side|front|back)$", "", rest)
    assert shape in MOTIFS, phrase
    return Claim(about, shape, colour)


def is_true(claim: Claim, look: Look) -> bool:
    """Return whether a claim is true of a vehicle; colours are those that its red, green and blue are nearest to."""
    about, kind, colour = claim
    truths = {
        "vehicle": lambda: look.type_name in TYPES[kind] and colour in ("", look.colour_name),
        "roof": lambda: _roof(look) == kind and (not colour or _is_shade(look.roof_colour, colour)),
        "motif": lambda: (
            look.motif in MOTIFS.get(kind, {kind}) and (not colour or _is_shade(look.motif_colour, colour))
        ),
        "top": lambda: look.roof == "number" and look.motif in MOTIFS[kind] and _is_shade(look.motif_colour, colour),
        "stripes": lambda: look.stripes == kind and (not colour or _is_shade(look.stripe_colour, colour)),
        "second": lambda: _second(look) == kind and _is_shade(look.second, colour),
        "rim": lambda: look.rim in [RIM_RGB[name] for name in RIMS[kind]],
        "plate": lambda: look.plate == PLATES[colour],
        "bumper": lambda: look.bumper == DARK_TRIM,
    }
    return truths[about]()


def _roof(look: Look) -> str:
    return "plain" if look.roof == "number" and look.motif == "none" else look.roof


def _second(look: Look) -> str:
    return "cargo" if look.type_name == "truck" else look.two_tone


def _is_shade(rgb: tuple[float, float, float], name: str) -> bool:
    """Return whether a colour is within the spread of the shades of `name`: five deviations of each of its numbers."""
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    wanted = HSV[name]
    turn = abs((hue - wanted[0] + 0.5) % 1 - 0.5)
    grey = wanted[1] < 0.2  # whose hue says nothing once a shade has hardly any saturation
    return (grey or turn < 0.06) and abs(saturation - wanted[1]) < 0.25 and abs(value - wanted[2]) < 0.2
