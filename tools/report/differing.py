"""Queries that one system finds and another does not, as pictures: the largest gains and losses in AP."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tools.report.page import join, missing, paragraph, part
from tools.report.thumbnails import LEGEND, absent_notes, rank_list, read_images
from utils.statistics.bootstrap import PerQuery
from utils.test_folder import ITEMS_JOINED_BY

if TYPE_CHECKING:
    from tools.report.compared import System

NUM_EXAMPLES = 4  # gains, and as many losses, of each system
LEAST = 0.01  # difference in AP that is worth a picture
LETTERS = 160  # of a query's name
KEPT = "A rank list stands where a test kept it: it keeps those of its worst and its best queries."


def differing_part(systems: Sequence["System"], names: Sequence[str]) -> str:
    """Return for each system behind the first the queries that it finds better, and worse, by the largest margin.

    AP is the mean over the seeds. A rank list is there where a test kept it: among its worst or best queries.
    """
    shown, entries = [], []
    for number, other in enumerate(systems[1:], start=2):
        change = mean_ap(other.tables) - mean_ap(systems[0].tables)
        for rows, words in ((largest(change), "more"), (largest(-change), "less")):
            kept = [[kept_entry(one, row) for one in (systems[0], other)] for row in rows]
            shown.append((number, words, rows, kept))
            entries += [entry for pair in kept for entry in pair]
    pictures = tuple(dict.fromkeys(folder for one in systems for own in one.tested for folder in own.pictures))
    images = read_images(entries, pictures)
    parts = [paragraph(LEGEND, "note"), paragraph(KEPT, "note")]
    parts += absent_notes(images, pictures)
    for number, words, rows, kept in shown:
        pair = (1, systems[0]), (number, systems[number - 1])
        title = f"{number} {names[number - 1]} finds {words} than 1 {names[0]}"
        examples = [
            _example(place, row, pair, own, images) for place, (row, own) in enumerate(zip(rows, kept, strict=True), 1)
        ]
        shown_ones = f'<div class="examples">\n{join(examples)}\n</div>' if examples else ""
        parts.append(part(title, shown_ones or missing(f"No query by {LEAST:.0%} of AP or more.")))
    return join(parts)


def mean_ap(tables: Sequence[PerQuery]) -> np.ndarray:
    """Return the AP of each query, the mean over the seeds; NaN where a query has no match."""
    return np.mean([np.where(table["first_hit"] >= 0, table["ap"], np.nan) for table in tables], axis=0)


def largest(change: np.ndarray, count: int = NUM_EXAMPLES) -> list[int]:
    """Return the rows of the `count` largest values of [Q] that are at least LEAST, the largest first; NaN is none."""
    known = np.flatnonzero(change >= LEAST)
    return known[np.argsort(-change[known], kind="stable")[:count]].tolist()


def kept_entry(system: "System", row: int) -> dict[str, Any]:
    """Return the query `row` of a system as in analysis.json; without ranks where none of its tests kept them."""
    table = system.tables[0]
    path, of_set = str(table["path"][row]), str(table["set"][row]) if "set" in table else None
    for tested in system.tested:
        analysis = tested.analysis or {}
        for entry in (*analysis.get("worst", ()), *analysis.get("best", ())):
            if entry["path"] == path and (of_set is None or entry.get("set", of_set) == of_set):
                return entry
    first = path.split(ITEMS_JOINED_BY)[0]
    return {"path": first, "pid": int(table["pid"][row]), "ranks": []}


def _example(
    place: int,
    row: int,
    pair: Sequence[tuple[int, "System"]],
    kept: Sequence[Mapping[str, Any]],
    images: Mapping[str, str | None],
) -> str:
    """Return a query with what both systems made of it."""
    table = pair[0][1].tables[0]
    name = ITEMS_JOINED_BY.join(Path(item).name for item in str(table["path"][row]).split(ITEMS_JOINED_BY))[:LETTERS]
    scores = [paragraph(f"{number} {system.name}: {_score(system.tables, row)}") for number, system in pair]
    lists = []
    for (number, system), entry in zip(pair, kept, strict=True):
        if entry["ranks"]:
            lists += [paragraph(f"What {number} {system.name} found:", "note"), rank_list(entry, images)]
    rows = lists or [rank_list(kept[0], images)]
    kind = "example listed" if lists else "example"
    return f'<div class="{kind}">\n{join([paragraph(f"{place}. {name}", "title"), *scores, *rows])}\n</div>'


def _score(tables: Sequence[PerQuery], row: int) -> str:
    hits = sorted({int(table["first_hit"][row]) + 1 for table in tables})
    where = f"rank {hits[0]}" if len(hits) == 1 else f"ranks {', '.join(map(str, hits))}"
    return f"AP {100 * float(np.mean([table['ap'][row] for table in tables])):.1f} %, the first match at {where}"
