"""Confidence intervals of mAP, mINP and Rank-1 from per-query results: bootstrap over identities or query images.

The queries of one identity are hard or easy together, so identities are what a test set samples: a resample draws them
with replacement and averages over all of their valid queries. Repeated trials (VehicleID) measure the same identities
again; all of an identity's queries of all trials are drawn with it, so they do not count as new evidence. Several sets
of queries (combinations of modalities) weigh what they weigh in the metrics, whatever their sizes.

The interval is the bootstrap-t with the linearised standard error of a ratio of sums. Percentile intervals are too
narrow for few identities: over 24 simulated test sets of 30 to 100 identities (skewed APs, unequal numbers of queries)
nominal 95 % intervals held the truth in 80 to 95 % (percentile), 80 to 96 % (BCa, widened to t quantiles) and 94 to
98.5 % (this one). Where no two identities differ there is no spread to resample and the interval is one point.

Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5; Field and Welsh, Bootstrapping
Clustered Data, J. R. Stat. Soc. B 69, 2007; Cochran, Sampling Techniques, 1977, eq. 6.13 (standard error of a ratio).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from utils.errors import DataError
from utils.progress import over

PerQuery = Mapping[str, np.ndarray]  # the arrays of per_query.npz
UNITS = ("identity", "query")
LEVEL = 0.95
DRAWS = 2000
SEED = 0
BLOCK = 2**22  # entries of the counts that exist at once, 32 MiB
MIN_ERROR = 0.25  # of a resample's standard error, in those of the sample: few wrong queries make resamples without any
EPSILON = 1e-12


def counted(per_query: PerQuery) -> PerQuery:
    """Return the queries of the sets that weigh anything; where that is one set, without `set` and `weight`.

    What weighs nothing is no evidence either: the images that search captions beside captions that search images.
    """
    if "set" not in per_query:
        return per_query
    rows = per_query["weight"] > 0
    kept = {name: column[rows] for name, column in per_query.items()}
    if len(np.unique(kept["set"])) > 1:
        return kept
    return {name: column for name, column in kept.items() if name not in ("set", "weight")}


def query_values(per_query: PerQuery, metric: str) -> np.ndarray:
    """Return what each valid query adds to mAP, mINP or Rank-k, float64 [V] in 0..1."""
    valid = per_query["first_hit"] >= 0
    if metric.startswith("Rank-"):
        return (per_query["first_hit"][valid] < int(metric.removeprefix("Rank-"))).astype(np.float64)
    return per_query[{"mAP": "ap", "mINP": "inp"}[metric]][valid].astype(np.float64)


def query_units(per_query: PerQuery, unit: str = "identity") -> np.ndarray:
    """Return the identity or the image that each valid query belongs to, int64 [V] in 0..I-1."""
    labels = per_query[{"identity": "pid", "query": "path"}[unit]]
    return np.unique(labels[per_query["first_hit"] >= 0], return_inverse=True)[1]


def query_weights(per_query: PerQuery) -> np.ndarray | None:
    """Return the weight of each valid query, float64 [V]: its share of what its set weighs; None where all is one set.

    The weighted mean over queries is the mean over sets that the metrics are.
    """
    if "set" not in per_query:
        return None
    valid = per_query["first_hit"] >= 0
    _, place, sizes = np.unique(per_query["set"][valid], return_inverse=True, return_counts=True)
    return per_query["weight"][valid] / sizes[place]


def interval(per_query: PerQuery, metric: str, unit: str = "identity") -> tuple[float, float]:
    """Return the 95 % interval of one metric, see `intervals`."""
    return intervals(per_query, [metric], unit)[metric]


def intervals(per_query: PerQuery, metrics: Sequence[str], unit: str = "identity") -> dict[str, tuple[float, float]]:
    """Return the 95 % interval of each metric (mAP, mINP, Rank-k), fractions within 0..1; the same in every call.

    All are of the same resamples. Queries count as in the metric, see `counted`. One identity alone says nothing about
    others: (0.0, 1.0). Raises DataError when no query is valid.
    """
    per_query = counted(per_query)
    values, units = [query_values(per_query, metric) for metric in metrics], query_units(per_query, unit)
    return dict(zip(metrics, mean_intervals(values, units, (0.0, 1.0), query_weights(per_query)), strict=True))


def mean_interval(
    values: np.ndarray, units: np.ndarray, limits: tuple[float, float], weights: np.ndarray | None = None
) -> tuple[float, float]:
    """Return the 95 % interval of the mean of `values` [V], see `mean_intervals`."""
    return mean_intervals([values], units, limits, weights)[0]


def mean_intervals(
    values: Sequence[np.ndarray], units: np.ndarray, limits: tuple[float, float], weights: np.ndarray | None = None
) -> list[tuple[float, float]]:
    """Return the 95 % intervals of the means of M x [V] values, whose `units` [V] (0..I-1) are drawn, within `limits`.

    `weights` [V] are those of the means, None = equal. With r_i = sum_i - mean * n_i over unit i, n_i its weight, and
    d = sum c_i r_i / sum c_i n_i of a resample with counts c, the interval is [mean - q_high * s, mean - q_low * s],
    where s = sqrt(sum r_i^2) / sum n_i and q are quantiles of d / s over the resamples, s that of each resample. All
    means are of the same resamples. One unit gives `limits`. Raises DataError without values.
    """
    if not len(units):
        raise DataError("no query has a match in the gallery, so there is no interval; look at the test set's labels")
    sizes = np.bincount(units, weights)
    if len(sizes) < 2:
        return [limits] * len(values)
    means = [float(np.average(one, weights=weights)) for one in values]
    changes = [
        one - mean if weights is None else (one - mean) * weights for one, mean in zip(values, means, strict=True)
    ]
    residuals = [np.bincount(units, change) for change in changes]  # M x [I]
    sums = resample(np.stack([_moments(one, sizes) for one in residuals]))  # [M, DRAWS, 5]
    found = []
    for mean, own, (first, total, second, cross, squares) in zip(
        means, residuals, sums.transpose(0, 2, 1), strict=True
    ):
        shift = first / total
        errors = np.sqrt(np.maximum(second - 2 * shift * cross + shift**2 * squares, 0)) / total
        error = np.sqrt(np.sum(own**2)) / sizes.sum()
        pivots = shift / np.maximum(errors, max(MIN_ERROR * error, EPSILON))
        low, high = np.quantile(pivots, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        found.append(tuple(np.clip([mean - high * error, mean - low * error], *limits).tolist()))
    return found


def _moments(residuals: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return what an interval sums over a resample [I, 5]."""
    return np.stack([residuals, sizes, residuals**2, residuals * sizes, sizes.astype(float) ** 2], axis=1)


def resample(moments: np.ndarray) -> np.ndarray:
    """Return the sums [..., DRAWS, K] of the rows of `moments` [..., I, K] over resamples of I rows, block by block."""
    count = moments.shape[-2]
    rng = np.random.default_rng(SEED)
    sums = []
    step = max(1, BLOCK // count)
    for start in over(range(0, DRAWS, step), "bootstrap", "block"):
        rows = min(step, DRAWS - start)
        drawn = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        sums.append(counts @ moments)
    return np.concatenate(sums, axis=-2)
