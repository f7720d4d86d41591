"""mAP and Rank-1 of parts of a test: per camera pair, viewpoint, brightness, occlusion, drawn side, length, matches.

A slice counts valid queries only, so that the mean over a division of the queries, weighted by `num_query`, is the
figure of the whole test. Nothing here reads cfg or images.
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.atomic import write_text_atomic
from utils.errors import DataError
from utils.test_folder import ITEMS_JOINED_BY, OCCLUDED, SIDES, VIEW

DARK, BRIGHT = "dark", "bright"
UNKNOWN_VIEW = "unknown"
CLEAN = "clean"  # the other side of OCCLUDED
LEFT_OUT = "left_out"  # the kind of a row that counts what has none
MOST = 32  # query cameras, gallery cameras, viewpoints that have slices: those of the most images
MOST_READ = {"camera_pair": MOST * MOST}  # slices of a kind that are read, twice MOST of the others
WORDS = (0, 8, 16, 24, 32, 48, 64)  # the longest captions of a slice; one more has all longer ones
DECIMALS = 6


class Slice(NamedTuple):
    """One part of a test; mAP and R1 are fractions in 0..1, NaN where no query of the part has a match."""

    kind: str  # camera_pair | viewpoint | brightness | occlusion | side | words | matches | left_out (says what)
    query: str  # what the queries have in common: camid, viewid, "low-high" of brightness, of matches; a word
    gallery: str  # camid of the gallery images of a camera pair, "" for the other kinds
    num_query: int  # queries with a match, the ones that mAP and R1 average
    num_id: int  # identities of these queries
    mAP: float
    R1: float


def most_of(values: np.ndarray, what: str) -> tuple[np.ndarray, list[Slice]]:
    """Return the MOST values that occur most often in [N], sorted, and what says how many of `what` are left out."""
    known, counts = np.unique(values, return_counts=True)
    if len(known) <= MOST:
        return known, []
    kept = np.sort(known[np.argsort(-counts, kind="stable")[:MOST]])
    return kept, [_left_out(f"{what}: {len(known) - MOST} of {len(known)}")]


def _left_out(words: str) -> Slice:
    return Slice(LEFT_OUT, words, "", 0, 0, float("nan"), float("nan"))


def query_slices(per_query: Mapping[str, np.ndarray], threshold: float) -> list[Slice]:
    """Return the slices by what is known of the query, from the arrays of per_query.npz: viewpoint, brightness, ...

    Read are ap, first_hit, num_pos, pid, viewid, brightness, where it is known occluded (0 or 1), of captions words, of
    drawings view, path and set, each [Q]; queries of all trials count, but for those of sets that weigh nothing.
    `threshold` in 0..1 is the brightness below which an image is dark: the dark and the bright side are one slice each,
    and two halves each; captions have none. Viewpoints are left out where all queries share one; of more than MOST
    those of the most queries have slices, and a slice of kind left_out counts the others.
    """
    if "weight" in per_query:
        counted = per_query["weight"] > 0
        per_query = {name: values[counted] for name, values in per_query.items()}
    viewids, brightness, num_pos = (per_query[name] for name in ("viewid", "brightness", "num_pos"))
    scores = (per_query["ap"], per_query["first_hit"], per_query["pid"])
    slices = []
    views = np.unique(viewids)
    if len(views) > 1:
        known, others = most_of(viewids[viewids >= 0], "viewpoints")
        slices += [slice_of(("viewpoint", str(view), ""), viewids == view, *scores) for view in known] + others
        if views[0] < 0:
            slices.append(slice_of(("viewpoint", UNKNOWN_VIEW, ""), viewids < 0, *scores))
    for name, low, high in brightness_ranges(threshold) if np.isfinite(brightness).any() else ():
        below_high = brightness < high if high < 1 else True  # an all-white image belongs to the last range
        slices.append(slice_of(("brightness", name, ""), (brightness >= low) & below_high, *scores))
    if OCCLUDED in per_query:
        kinds = {OCCLUDED: per_query[OCCLUDED] == 1, CLEAN: per_query[OCCLUDED] == 0}
        slices += [slice_of(("occlusion", name, ""), mask, *scores) for name, mask in kinds.items()]
    if VIEW in per_query:
        slices += _side_slices(per_query, scores)
    if "words" in per_query:
        slices += _word_slices(per_query["words"], scores)
    low = 1
    while low <= num_pos.max():
        high = 2 * low - 1
        name = str(low) if low == high else f"{low}-{high}"
        slices.append(slice_of(("matches", name, ""), (num_pos >= low) & (num_pos <= high), *scores))
        low *= 2
    return slices


def _side_slices(per_query: Mapping[str, np.ndarray], scores: tuple[np.ndarray, np.ndarray, np.ndarray]) -> list[Slice]:
    """Return the slices of queries that are one drawing, by set and side, as far as there are any."""
    alone = (per_query[VIEW] >= 0) & (np.char.find(per_query["path"], ITEMS_JOINED_BY) < 0)
    sets = per_query.get("set", np.full(len(alone), ""))
    masks = {
        f"{name} {side}".strip(): alone & (sets == name) & (per_query[VIEW] == code)
        for name in dict.fromkeys(sets[alone].tolist())
        for code, side in enumerate(SIDES)
    }
    return [slice_of(("side", name, ""), mask, *scores) for name, mask in masks.items() if mask.any()]


def _word_slices(words: np.ndarray, scores: tuple[np.ndarray, np.ndarray, np.ndarray]) -> list[Slice]:
    """Return the slices by the number of words [Q] of captions, as far as there are captions of a length."""
    place = np.searchsorted(WORDS[1:], words)
    names = [f"{low + 1}-{high}" for low, high in pairwise(WORDS)] + [f"{WORDS[-1] + 1}-"]
    return [slice_of(("words", names[part], ""), place == part, *scores) for part in np.unique(place)]


def brightness_ranges(threshold: float) -> list[tuple[str, float, float]]:
    """Return (name, low, high), low <= brightness < high, of the dark side, its halves, the bright side, its halves.

    A side without width (threshold 0 or 1) is left out.
    """
    ranges = []
    for side, low, high in ((DARK, 0.0, threshold), (BRIGHT, threshold, 1.0)):
        if low < high:
            middle = (low + high) / 2
            ranges.append((f"{side} {_range_name(low, high)}", low, high))
            ranges += [(_range_name(low, middle), low, middle), (_range_name(middle, high), middle, high)]
    return ranges


def _range_name(low: float, high: float) -> str:
    return f"{round(low, 4):g}-{round(high, 4):g}"


def slice_of(
    key: tuple[str, str, str], mask: np.ndarray, ap: np.ndarray, first_hit: np.ndarray, pids: np.ndarray
) -> Slice:
    """Return the slice `key` of the valid queries within `mask` [Q]."""
    rows = np.flatnonzero(mask & (first_hit >= 0))
    if not len(rows):
        return Slice(*key, 0, 0, float("nan"), float("nan"))
    mean_ap, rank1 = float(ap[rows].mean()), float((first_hit[rows] == 0).mean())
    return Slice(*key, len(rows), len(np.unique(pids[rows])), mean_ap, rank1)


def mean_slices(runs: Sequence[Sequence[Slice]]) -> list[Slice]:
    """Return the slices of several runs (seeds) averaged by kind, query and gallery, in order of first appearance.

    mAP and R1 are means over the runs in which the slice has a valid query; the counts are rounded means over the
    runs that have the slice.
    """
    groups: dict[tuple[str, str, str], list[Slice]] = {}
    for slices in runs:
        for part in slices:
            groups.setdefault(part[:3], []).append(part)
    return [
        Slice(
            *key,
            *(round(float(np.mean([getattr(part, name) for part in parts]))) for name in ("num_query", "num_id")),
            *(_mean_of_known([getattr(part, name) for part in parts]) for name in ("mAP", "R1")),
        )
        for key, parts in groups.items()
    ]


def _mean_of_known(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def write_slices(path: Path, slices: Sequence[Slice]) -> None:
    """Write a CSV with the fields of `Slice`; fractions have 6 decimals, NaN is an empty cell. Never half-written."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(Slice._fields)
    for part in slices:
        writer.writerow([*part[:5], *("" if np.isnan(value) else f"{value:.{DECIMALS}f}" for value in part[5:])])
    write_text_atomic(path, stream.getvalue())


def read_slices(path: Path) -> list[Slice]:
    """Return what `write_slices` wrote; DataError naming the file (and line) that is not such a table.

    Of a kind that has more rows than a report can show, the first ones are read, and the others counted.
    """
    with open(path, encoding="utf-8", newline="") as stream:
        header, *lines = csv.reader(stream) if path.stat().st_size else [[]]
    if tuple(header) != Slice._fields:
        raise DataError(f"'{path}' is no table of slices: its first line is not {','.join(Slice._fields)}; test again")
    slices, counts = [], Counter()
    for number, cells in enumerate(lines, start=2):
        part = _parse(cells, path, number)
        counts[part.kind] += 1
        if counts[part.kind] <= _most_read(part.kind):
            slices.append(part)
    rest = {kind: count - _most_read(kind) for kind, count in counts.items() if count > _most_read(kind)}
    return slices + [_left_out(f"rows of kind {kind}: {count} of {counts[kind]}") for kind, count in rest.items()]


def _most_read(kind: str) -> int:
    return MOST_READ.get(kind, 2 * MOST)


def _parse(cells: list[Any], path: Path, number: int) -> Slice:
    try:
        kind, query, gallery, num_query, num_id, *values = cells
        mean_ap, rank1 = (float(value) if value else float("nan") for value in values)
        return Slice(kind, query, gallery, int(num_query), int(num_id), mean_ap, rank1)
    except ValueError as error:
        raise DataError(f"'{path}' line {number} is no slice: {','.join(cells)}; test again") from error
