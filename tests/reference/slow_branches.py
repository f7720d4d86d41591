"""Which branches a step trains and what a triplet loss sees of them, counted and written out one by one."""

from collections.abc import Sequence
from functools import cache
from itertools import product

from tests.reference.slow_losses import Rows, triplet


@cache
def chances(count: int, draws: int) -> dict[frozenset[int], float]:
    """Return how likely each set of kept branches is, over all outcomes of the draws and of the rescue."""
    found: dict[frozenset[int], float] = {}
    for dropped in product(range(count), repeat=draws):
        kept = frozenset(range(count)) - set(dropped)
        for rescued in [kept] if kept else [frozenset([branch]) for branch in range(count)]:
            share = 1 / count**draws / (1 if kept else count)
            found[rescued] = found.get(rescued, 0.0) + share
    return found


def reduced(values: Sequence[float], kept: Sequence[bool], kind: str) -> float:
    """Return the sum or the mean of the values that are kept."""
    left = [value for value, keep in zip(values, kept, strict=True) if keep]
    return sum(left) / (len(left) if kind == "mean" else 1)


def triplets(branches: Sequence[Rows], labels: Sequence[int], margin: float | None, views: str) -> float:
    """Return the sum of the triplet losses that `views` names; the first of `branches` is the global one."""
    first, *parts = branches
    side_by_side = [[number for row in rows for number in row] for rows in zip(*parts, strict=True)] if parts else []
    seen = {"each": branches, "global": [first], "concat": [side_by_side], "global+concat": [first, side_by_side]}
    return sum(triplet(feat, labels, margin) for feat in seen[views])
