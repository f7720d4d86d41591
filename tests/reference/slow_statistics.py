"""Statistics in the most obvious way: one resample, one sign pattern, one query at a time, in plain Python."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

Groups = Sequence[Sequence[float]]  # the values of each identity


def ratio_and_error(groups: Groups) -> tuple[float, float]:
    """Return mean and linearised standard error over all values of lists of values, one list an identity."""
    values = [value for group in groups for value in group]
    mean = sum(values) / len(values)
    squares = 0.0
    for group in groups:
        squares += sum(value - mean for value in group) ** 2
    return mean, math.sqrt(squares) / len(values)


def bootstrap_t(
    groups: Groups, resamples: Sequence[Sequence[int]], low_share: float, high_share: float, least_error: float
) -> tuple[float, float]:
    """Return the bootstrap-t interval of the mean for given resamples (lists of rows of `groups`), not clipped.

    A resample's standard error counts as at least `least_error` of the sample's.
    """
    mean, error = ratio_and_error(groups)
    pivots = []
    for rows in resamples:
        other_mean, other_error = ratio_and_error([groups[row] for row in rows])
        pivots.append((other_mean - mean) / max(other_error, least_error * error))
    pivots.sort()
    return mean - quantile(pivots, high_share) * error, mean - quantile(pivots, low_share) * error


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the linearly interpolated quantile of sorted values."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def exhaustive_sign_flips(changes: Sequence[float]) -> float:
    """Return the exact two-sided p: the share of all sign patterns whose sum is at least as far from 0."""
    observed = abs(math.fsum(changes))
    patterns = list(itertools.product((-1, 1), repeat=len(changes)))
    reached = sum(
        abs(math.fsum(sign * change for sign, change in zip(pattern, changes, strict=True))) >= observed - 1e-12
        for pattern in patterns
    )
    return reached / len(patterns)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return adjusted p values by the definition: the k-th smallest is multiplied by how many are not smaller."""
    adjusted = []
    for p_value in p_values:
        candidates = []
        for other in p_values:
            if other <= p_value:
                rank = sorted(p_values).index(other)
                candidates.append(min(1.0, other * (len(p_values) - rank)))
        adjusted.append(max(candidates))
    return adjusted


def simulated_queries(
    rng: np.random.Generator,
    num_ids: int,
    mean_queries: float,
    difficulty: tuple[float, float] = (1.2, 2.0),
    binary: bool = False,
) -> dict[str, np.ndarray]:
    """Return the arrays of a per_query.npz: identities differ in difficulty and (geometric) number of queries.

    The true mAP is that of Beta(*difficulty); with `binary` each AP is 0 or 1, as Rank-1 is.
    """
    counts = rng.geometric(1 / mean_queries, num_ids)
    pid = np.repeat(np.arange(num_ids), counts)
    level = rng.beta(*difficulty, num_ids)[pid]
    ap = (rng.random(len(pid)) < level) * 1.0 if binary else rng.beta(4 * level + 1e-3, 4 * (1 - level) + 1e-3)
    return table_of(ap, pid)


def table_of(ap: ArrayLike, pid: ArrayLike, root: str = "data") -> dict[str, np.ndarray]:
    """Return the arrays of a per_query.npz for APs (NaN = no match) and identities."""
    ap, pid = np.asarray(ap, dtype=np.float64), np.asarray(pid, dtype=np.int64)
    excluded = np.isnan(ap)
    paths = [f"{root}/query/{row:05d}_{one}.jpg" for row, one in enumerate(pid)]
    return {
        "ap": ap,
        "inp": ap / 2,
        "first_hit": np.where(excluded, -1, np.where(ap > 0.5, 0, 7)),
        "num_pos": np.where(excluded, 0, 3),
        "pid": pid,
        "camid": np.zeros_like(pid),
        "viewid": np.zeros_like(pid),
        "brightness": np.full(len(pid), 0.5, dtype=np.float32),
        "path": np.array(paths),
        "trial": np.zeros_like(pid),
    }
