"""Stripes made visible: how much of a similarity each part of the body gives, and which part misled.

With q and g the normalised embeddings of two images, their cosine is the sum over the branches b of q_b . g_b.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tools.visualize.common import open_test_set, picture_parser, samples_of
from tools.visualize.grid import INK, PAPER, Tile, draw_grid, font_of, open_rgb
from tools.visualize.pictures import Picture, tile_lines
from tools.visualize.ranks import (
    Chosen,
    add_queries,
    draw_sheet,
    file_name,
    parse_queries,
    query_tile,
    search_chosen,
)
from utils.commands import need_packages
from utils.errors import ConfigError
from utils.progress import over

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from datasets.test_set import Labels
    from processor.evaluation.evaluate import Searched
    from utils.ranking.rank_list import RankList

PART = "part"  # how the names of branches begin that see a stripe, from top to bottom
SHEET_NAME = "overview.png"
HEIGHT, SHEET_HEIGHT = 384, 256  # pixels of an image, in the overview
LETTERS = 18  # pixels of the words on a stripe, of which the overview leaves two thirds
FAINT, STRONG = 0.1, 0.6  # opacity of the tint of a stripe that gives nothing, and of the one that gives the most
NEAREST_RIGHT = "nearest"  # label of the first match of a query, where all that is drawn is wrong
COLUMNS = 6


class Listed(NamedTuple):
    """What is drawn for one query."""

    gallery: np.ndarray  # int64 [n]: gallery indices
    status: list[str]  # [n]: right | wrong | junk
    labels: list[str]  # [n]: above the images
    right: int | None  # place in `gallery` of the nearest match; None: the query has none


def main(argv: list[str] | None = None) -> int:
    """Write one picture per query and the overview; return the exit code 0."""
    description = "Show how much of a similarity each stripe gives, and which part misled the model."
    parser = picture_parser("parts", description)
    add_queries(parser, topk=5, num_queries=8)
    args = parse_queries(parser, argv)
    need_packages("matplotlib")
    opened = open_test_set(args)
    branches = opened.trained.model.branches
    check_stripes(branches, opened.trained.weight)
    chosen = search_chosen(opened, args)
    pictures = part_pictures(opened.data.test.labels, chosen, branches)
    for picture in over(pictures, "draw", "picture"):
        draw_grid(picture.query, picture.results, opened.folder / picture.name, columns=COLUMNS, height=HEIGHT)
    draw_sheet(pictures, opened.folder / SHEET_NAME, SHEET_HEIGHT)
    print(f"{len(pictures)} pictures of {len(stripes_of(branches))} stripes and {SHEET_NAME} in {opened.folder}")
    return 0


def stripes_of(branches: Mapping[str, int]) -> list[str]:
    """Return the names of the branches that see a stripe, from top to bottom."""
    return [name for name in branches if name.startswith(PART)]


def check_stripes(branches: Mapping[str, int], weight: Path) -> None:
    """Raise ConfigError for a model without stripes."""
    if not stripes_of(branches):
        raise ConfigError(
            f"'{weight}' has no stripes: its branches are {', '.join(branches)}; use a model of MODEL.NAME pcb with "
            "MODEL.PCB.PARTS above 0"
        )


def contributions(query: "torch.Tensor", found: "torch.Tensor", branches: Mapping[str, int]) -> np.ndarray:
    """Return what each branch adds to the cosines of features [n, D] to a query [D], float64 [n, branches].

    A row sums to the cosine; the widths of the branches sum to D.
    """
    import torch
    import torch.nn.functional as F

    products = F.normalize(query.double(), dim=0) * F.normalize(found.double(), dim=1)
    parts = [part.sum(1) for part in products.split(list(branches.values()), dim=1)]
    return torch.stack(parts, dim=1).cpu().numpy()


def misleading(wrong: np.ndarray, right: np.ndarray) -> int:
    """Return the branch that speaks most for a wrong image rather than a right one, of contributions [branches]."""
    return int(np.argmax(wrong - right))


def part_pictures(labels: "Labels", chosen: Chosen, branches: Mapping[str, int]) -> list[Picture]:
    """Return the pictures of queries and of what was found for each of them, cut into stripes."""
    queries = samples_of(labels, chosen.searched.query[chosen.rows])
    pictures = []
    for number, (row, query, found) in enumerate(zip(chosen.rows.tolist(), queries, chosen.lists, strict=True), 1):
        listed = listed_for(chosen.searched, row, found)
        images = chosen.embedded.feat[chosen.searched.trial.gallery[listed.gallery]]
        shares = contributions(chosen.embedded.feat[chosen.searched.query[row]], images, branches)
        tile = query_tile(query, chosen.ap[row], chosen.ap_rule)
        names = stripes_of(branches)
        tile = tile._replace(image=striped(tile.image, names, [0.0] * len(names)))
        results = result_tiles(labels, chosen.searched, listed, shares, branches)
        pictures.append(Picture(file_name(number, query, chosen.ap[row]), tile, results))
    return pictures


def listed_for(searched: "Searched", row: int, found: "RankList") -> Listed:
    """Return what is drawn for query `row`: its rank list, and behind it the nearest match where the list has none."""
    from utils.ranking.rank_list import RIGHT, STATUS

    ranks = np.cumsum(np.array([STATUS[code] != "junk" for code in found.status]))
    status = [STATUS[code] for code in found.status]
    labels = ["" if word == "junk" else f"{rank}" for word, rank in zip(status, ranks, strict=True)]
    places = np.flatnonzero(found.status == RIGHT)
    if len(places):
        return Listed(found.gallery, status, labels, int(places[0]))
    match = nearest_match(searched, row)
    if match is None:
        return Listed(found.gallery, status, labels, None)
    gallery = np.append(found.gallery, match)
    return Listed(gallery, [*status, STATUS[RIGHT]], [*labels, NEAREST_RIGHT], len(gallery) - 1)


def nearest_match(searched: "Searched", row: int) -> int | None:
    """Return the gallery index of the nearest image of the query's identity that is no junk; None without any."""
    from utils.ranking.protocol import group

    labels = group(searched.protocol, searched.distances.shape)
    right = labels.g_pids == labels.q_pids[row]
    if labels.mask is None:
        right &= labels.g_camids != labels.q_camids[row]
    else:
        right &= ~labels.mask(row, row + 1)[0]
    columns = np.flatnonzero(right)
    return int(columns[searched.distances.rows(row, row + 1)[0, columns].argmin()]) if len(columns) else None


def result_tiles(
    labels: "Labels", searched: "Searched", listed: Listed, shares: np.ndarray, branches: Mapping[str, int]
) -> list[Tile]:
    """Return what was found, each stripe with its part of the similarity, `shares` [n, branches].

    Stripes are tinted on one scale for all images of the query. Below stand the similarity, what the other branches
    give to it, and of a wrong image the branch that speaks most for it rather than for the nearest match.
    """
    names = list(branches)
    stripes = [names.index(name) for name in stripes_of(branches)]
    most = max(float(shares[:, stripes].max()), np.finfo(np.float64).tiny)
    tiles = []
    for place, sample in enumerate(samples_of(labels, searched.trial.gallery[listed.gallery])):
        own, total = shares[place], float(shares[place].sum())
        lines = [f"similarity {total:.3f}"]
        lines += [f"{name} {shown(own[at], total)}" for at, name in enumerate(names) if at not in stripes]
        if listed.status[place] == "wrong" and listed.right is not None:
            branch = misleading(own, shares[listed.right])
            lines.append(f"misled: {names[branch]} {own[branch] - shares[listed.right, branch]:+.3f}")
        lines += tile_lines(sample)
        image = striped(sample.path, [shown(own[at], total) for at in stripes], [own[at] / most for at in stripes])
        tiles.append(Tile(image, listed.labels[place], tuple(lines), listed.status[place]))
    return tiles


def shown(share: float, total: float) -> str:
    """Return what a branch gives to a similarity, with its part in percent where the whole is above 0."""
    return f"{share:.3f}" + (f" {100 * share / total:.0f} %" if total > 0 else "")


def striped(source: "str | Path | Image.Image", words: Sequence[str], levels: Sequence[float]) -> "Image.Image":
    """Return an image, HEIGHT pixels high, cut into equal stripes, each with its words and a tint of its level.

    A level of 0 or less is faint, 1 strong.
    """
    import matplotlib
    from PIL import Image, ImageDraw

    image = open_rgb(source)
    image = image.resize((max(1, round(image.width * HEIGHT / image.height)), HEIGHT))
    edges = [round(HEIGHT * number / len(words)) for number in range(len(words) + 1)]
    colours = matplotlib.colormaps["inferno"]
    draw, font = ImageDraw.Draw(image), font_of(LETTERS)
    for top, bottom, text, level in zip(edges[:-1], edges[1:], words, levels, strict=True):
        level = min(max(level, 0.0), 1.0)
        box = (0, top, image.width, bottom)
        part = image.crop(box)
        tint = Image.new("RGB", part.size, tuple(round(255 * value) for value in colours(level)[:3]))
        image.paste(Image.blend(part, tint, FAINT + (STRONG - FAINT) * level), box)
        draw.line((0, top, image.width, top), PAPER)
        frame = draw.textbbox((2, top + 2), text, font)
        draw.rectangle((frame[0] - 1, frame[1] - 1, frame[2] + 1, frame[3] + 1), PAPER)
        draw.text((2, top + 2), text, INK, font)
    return image
