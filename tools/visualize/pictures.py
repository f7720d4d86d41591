"""What the rank lists of images and of captions share: a picture of a query, its name and its figures."""

import math
from typing import NamedTuple

from tools.visualize.grid import Tile
from utils.ap_rules import STANDARD


class Picture(NamedTuple):
    """A query and what was found for it."""

    name: str  # of the file
    query: Tile | None  # None: a caption without an image of its own
    results: list[Tile]
    title: str = ""  # the caption


def name_start(number: int, pid: int, ap: float) -> str:
    """Return how the name of a picture begins: its number, the average precision, the identity."""
    return f"{number:03d}_ap{'none' if math.isnan(ap) else f'{ap:.2f}'}_pid{pid}"


def shown_ap(ap: float, rule: str = STANDARD) -> str:
    """Return an average precision, made by `rule` of AP_RULES, as pictures show it."""
    return "no match" if math.isnan(ap) else f"{'' if rule == STANDARD else f'{rule} '}AP {ap:.1%}"
