"""What the rank lists of images and of captions share: a picture of a query, its name and its figures."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tools.visualize.grid import Tile
from utils.ap_rules import STANDARD

if TYPE_CHECKING:
    from datasets.bases import Sample
    from utils.ranking.rank_list import RankList


class Picture(NamedTuple):
    """A query and what was found for it."""

    name: str  # of the file
    query: Tile | None  # None: a caption without an image
    results: list[Tile]
    title: str = ""  # the caption


def name_start(number: int, pid: int, ap: float) -> str:
    """Return how the name of a picture begins: its number, the average precision, the identity."""
    return f"{number:03d}_ap{'none' if math.isnan(ap) else f'{ap:.2f}'}_pid{pid}"


def shown_ap(ap: float, rule: str = STANDARD) -> str:
    """Return an average precision, made by `rule` of AP_RULES, as pictures show it."""
    return "no match" if math.isnan(ap) else f"{'' if rule == STANDARD else f'{rule} '}AP {ap:.1%}"


def result_tiles(found: "RankList", gallery: Sequence["Sample"], cameras: bool = True) -> list[Tile]:
    """Return what was found, the ranks counted from 1 without the junk, with distance, identity, camera and name."""
    from utils.ranking.rank_list import STATUS

    tiles, rank = [], 0
    for row, code, distance in zip(found.gallery, found.status, found.distance, strict=True):
        sample, status = gallery[row], STATUS[code]
        rank += status != "junk"
        label = "" if status == "junk" else f"{rank}"
        caption = (f"distance {max(distance, 0):.3f}", *tile_lines(sample, cameras))
        tiles.append(Tile(sample.path, label, caption, status))
    return tiles


def tile_lines(sample: "Sample", cameras: bool = True) -> tuple[str, str]:
    """Return what stands below an image: identity, unless there are no `cameras` the camera, and the file's name."""
    return f"pid {sample.pid}{f' cam {sample.camid}' if cameras else ''}", Path(sample.path).name
