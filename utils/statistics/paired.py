"""Is one experiment better than another? Paired by query, tested over identities and over seeds.

Two questions, two tests. Over identities: would these trained models differ on other identities too? Over seeds: would
newly trained ones? A difference counts when both answer yes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from utils.errors import DataError
from utils.progress import over
from utils.statistics.bootstrap import (
    BLOCK,
    SEED,
    PerQuery,
    counted,
    mean_interval,
    query_units,
    query_values,
    query_weights,
)
from utils.test_folder import ITEMS_JOINED_BY

SIGNIFICANCE = 0.05
FLIPS = 9999
EPSILON = 1e-12  # rounding must not break ties between flips


class Comparison(NamedTuple):
    """Two experiments on one test set; fractions."""

    first: float  # mean over seeds and queries, several sets weighed as in the metrics
    second: float
    interval: tuple[float, float]  # 95 %, of second - first, over identities (or images) for these trained models
    seeds: tuple[list[float], list[float]]  # mean over queries of each seed, of the first and the second
    num_units: int
    p_units: float  # paired sign-flip test over identities (or images)
    p_seeds: float | None  # Welch's t-test over the seeds; None below two on a side

    @property
    def difference(self) -> float:
        return self.second - self.first

    @property
    def p(self) -> float:
        """The larger p: a test that both sources of chance are ruled out (intersection-union)."""
        return self.p_units if self.p_seeds is None else max(self.p_units, self.p_seeds)


def pair_queries(tables: Sequence[tuple[str, PerQuery]]) -> list[PerQuery]:
    """Return the tables, given with their names, with the queries that count, see `counted`, in the order of the first.

    Queries are one by path, trial and, where there are several, set; where the whole paths differ (another root
    folder), by parent folder and file name. Raises DataError, naming two tables, when they hold other queries, or other
    identities or matches of them.
    """
    (name, first), *others = [(name, counted(table)) for name, table in tables]
    return [first, *(_pair_one(name, first, other_name, other) for other_name, other in others)]


def _pair_one(name: str, first: PerQuery, other_name: str, other: PerQuery) -> PerQuery:
    keys = [key for key in ("path", "trial", "set") if key in first or key in other]
    if any(key not in first or key not in other or not np.array_equal(first[key], other[key]) for key in keys):
        wanted, found = _short_keys(name, first), _short_keys(other_name, other)
        unmatched = sorted(wanted.keys() ^ found.keys())
        if unmatched:
            raise DataError(
                f"'{name}' and '{other_name}' were tested on other queries: of {len(wanted)} and {len(found)}, "
                f"{len(unmatched)} have no counterpart, such as '{unmatched[0][0]}'; compare tests of one test set"
            )
        rows = [found[key] for key in wanted]
        other = {key: other[key][rows] for key in other}
    if not np.array_equal(first["pid"], other["pid"]):
        raise DataError(
            f"'{name}' and '{other_name}' give the same queries other identities; compare tests of one test set"
        )
    same_valid = np.array_equal(first["first_hit"] >= 0, other["first_hit"] >= 0)
    if not same_valid or not np.array_equal(first["num_pos"], other["num_pos"]):
        raise DataError(
            f"'{name}' and '{other_name}' have other numbers of matches for the same queries, so their galleries "
            "differ; compare tests of one test set"
        )
    return other


def _short_keys(name: str, table: PerQuery) -> dict[tuple[str, int, str], int]:
    """Return {(parent folder/file name, trial, set or ""): row}, with the folder above where queries share these."""
    trials, paths = table["trial"].tolist(), table["path"].tolist()
    sets = table["set"].tolist() if "set" in table else [""] * len(paths)
    for parts in (2, 3):  # SYSU-MM01 has cam3/0006/0001.jpg and cam6/0006/0001.jpg
        short = [ITEMS_JOINED_BY.join(_last(parts, item) for item in path.split(ITEMS_JOINED_BY)) for path in paths]
        keys = {key: row for row, key in enumerate(zip(short, trials, sets, strict=True))}
        if len(keys) == len(short):
            return keys
    raise DataError(f"'{name}': queries share parent folder and file name, so no other root can be paired with it")


def _last(parts: int, path: str) -> str:
    return "/".join(path.replace("\\", "/").split("/")[-parts:])


def mean_values(tables: Sequence[PerQuery], metric: str) -> np.ndarray:
    """Return the values of the valid queries [V], averaged over paired tables (the seeds)."""
    return np.mean([query_values(table, metric) for table in tables], axis=0)


def mean_value(tables: Sequence[PerQuery], metric: str) -> float:
    """Return the metric of one experiment, the mean over its paired tables (the seeds)."""
    return _mean(mean_values(tables, metric), query_weights(tables[0]))


def compare_tables(
    first: Sequence[PerQuery], second: Sequence[PerQuery], metric: str, unit: str = "identity"
) -> Comparison:
    """Compare two experiments, one paired table a seed each, by a metric (mAP, mINP, Rank-k)."""
    units, weights = query_units(first[0], unit), query_weights(first[0])
    means = [mean_values(tables, metric) for tables in (first, second)]
    change = means[1] - means[0]
    seeds = tuple([_mean(query_values(table, metric), weights) for table in tables] for tables in (first, second))
    return Comparison(
        first=_mean(means[0], weights),
        second=_mean(means[1], weights),
        interval=mean_interval(change, units, (-1.0, 1.0), weights),
        seeds=seeds,
        num_units=int(units.max()) + 1,
        p_units=sign_flip_test(np.bincount(units, change if weights is None else change * weights)),
        p_seeds=welch_test(*seeds),
    )


def _mean(values: np.ndarray, weights: np.ndarray | None) -> float:
    return float(np.average(values, weights=weights))


def sign_flip_test(changes: np.ndarray) -> float:
    """Return the two-sided p of a paired permutation test; `changes` [I] are summed differences, one an identity.

    Without an effect both experiments could swap their names on any identity, so each sign is as likely as the other:
    p = (1 + flips at least as far from 0) / (1 + flips), which is never 0.

    Reference: Phipson and Smyth, Permutation P-values Should Never Be Zero, Stat. Appl. Genet. Mol. Biol. 9, 2010.
    """
    rng = np.random.default_rng(SEED)
    bound = abs(changes.sum()) - EPSILON * np.abs(changes).sum()
    reached = 0
    step = max(1, BLOCK // len(changes))
    for start in over(range(0, FLIPS, step), "permutation test", "block"):
        kept = rng.integers(2, size=(min(step, FLIPS - start), len(changes)), dtype=np.int8)
        reached += int(np.sum(np.abs(2 * (kept @ changes) - changes.sum()) >= bound))
    return (1 + reached) / (1 + FLIPS)


def welch_test(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the two-sided p of Welch's t-test between the seeds' values; None when a side has fewer than two.

    Without any spread on either side equal values give 1.0 and others 0.0.
    """
    if min(len(first), len(second)) < 2:
        return None
    if not np.ptp(first) and not np.ptp(second):
        return float(first[0] == second[0])
    from scipy.stats import ttest_ind  # slow to import

    return float(ttest_ind(first, second, equal_var=False).pvalue)


def paired_t_test(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided p of the t-test on the differences of two or more pairs.

    Without any spread of the differences those of 0 give 1.0 and others 0.0.
    """
    changes = np.subtract(second, first)
    if np.ptp(changes) <= EPSILON:
        return float(abs(changes).max() <= EPSILON)
    from scipy.stats import ttest_1samp  # slow to import

    return float(ttest_1samp(changes, 0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number, so that one below 0.05 among any of them is chance in 5 % at most.

    Reference: Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Stat. 6, 1979.
    """
    order = np.argsort(p_values, kind="stable")
    scaled = np.sort(p_values) * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted.tolist()
