"""Query sets in the most obvious way: one query, one gallery item, one set at a time, in float64."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

Vector = list[float]
Fuse = Callable[[list[Vector]], Vector]  # the features of the items of one query, in their order -> what is compared
Searches = tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]  # rows of the items of queries, of gallery entries


def ranked(search: Searches, feat: Sequence[Vector], pids: Sequence[int], fuse: Fuse) -> list[list[bool]]:
    """Return for each query, along its ranking, whether each gallery entry has its identity; -1 is no item."""
    queries, gallery = ([[row for row in items if row >= 0] for items in side] for side in search)
    found = []
    stand = [fuse([feat[row] for row in items]) for items in gallery]
    for items in queries:
        vector = fuse([feat[row] for row in items])
        distances = [sum((a - b) ** 2 for a, b in zip(vector, other, strict=True)) for other in stand]
        order = sorted(range(len(gallery)), key=distances.__getitem__)
        found.append([bool(pids[gallery[place][0]] == pids[items[0]]) for place in order])
    return found


def ap_at(matches: Sequence[bool], depth: int | None = None) -> float:
    """Return (1 / min(R, k)) sum over matches at rank r <= k of (matches up to r) / r; NaN without any match."""
    total = sum(matches)
    if total == 0:
        return math.nan
    depth = len(matches) if depth is None else depth
    score = sum(sum(matches[:rank]) / rank for rank in range(1, min(depth, len(matches)) + 1) if matches[rank - 1])
    return score / min(total, depth)


def mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are not NaN."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known)


def figures(lists: Sequence[Sequence[bool]], depth: int) -> dict[str, float]:
    """Return the figures of one set from its ranked lists; queries without a match do not count."""
    known = [matches for matches in lists if any(matches)]
    last = [max(rank for rank, match in enumerate(matches, 1) if match) for matches in known]
    hits = {k: mean([float(any(matches[:k])) for matches in known]) for k in (1, 5, 10)}
    return {
        "mAP": mean([ap_at(matches) for matches in lists]),
        "mINP": mean([sum(matches) / rank for matches, rank in zip(known, last, strict=True)]),
        **{f"Rank-{k}": value for k, value in hits.items()},
        f"mAP@{depth}": mean([ap_at(matches, depth) for matches in lists]),
        "num_query": len(lists),
    }


def score(sets: Mapping[str, Mapping[str, float]], groups: Mapping[str, Sequence[str]], metric: str) -> float:
    """Return the mean over groups of the mean over the sets of each."""
    return mean([mean([sets[name][metric] for name in members]) for members in groups.values()])


def without(query: Sequence[int], modality: str, names: Sequence[str]) -> list[int]:
    """Return the items of a query without those of a modality."""
    return [row for row in query if row >= 0 and names[row] != modality]


def all_thinned(query: Sequence[int], share: float) -> dict[tuple[int, ...], float]:
    """Return the probability of every outcome where each item is out with probability `share`, and one stays."""
    chances: dict[tuple[int, ...], float] = {}
    for kept in itertools.product((False, True), repeat=len(query)):
        left = tuple(row for row, stays in zip(query, kept, strict=True) if stays)
        chance = math.prod(1 - share if stays else share for stays in kept)
        for outcome in [left] if left else [(row,) for row in query]:
            chances[outcome] = chances.get(outcome, 0) + (chance if left else chance / len(query))
    return chances
