"""The tables of a test with several modalities: each set of queries, what a modality adds to it, what its lack costs.

Figures are fractions in 0..1; `low` and `high` are 95 % intervals over identities.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from utils.statistics.bootstrap import interval, mean_interval, query_units
from utils.statistics.paired import holm, sign_flip_test

GROUP, SET = "group", "set"  # kinds of a `SetScore`


class SetScore(NamedTuple):
    """A set of queries, or a group of sets that is their mean."""

    kind: str  # GROUP or SET
    name: str
    group: str  # of the set, "" where it is in none
    size: int  # modalities of a query
    num_query: int  # with a match, over all draws
    num_id: int  # identities of these
    mAP: float
    low: float
    high: float
    R1: float


class Gain(NamedTuple):
    """What a modality adds to a set: its queries with and without their items of that modality, paired."""

    set: str
    modality: str
    num_query: int  # that have a match and another item
    mAP: float  # of these queries, whole
    without: float
    difference: float  # mAP - without
    low: float
    high: float
    p: float  # of a paired permutation test over identities, by Holm for all gains of a test


class MissingScore(NamedTuple):
    """A set whose queries lost items at random, each with the same probability; one item stays."""

    set: str
    removed: float  # that probability
    items: float  # that a query has on average
    mAP: float
    low: float
    high: float


def score_sets(
    figures: Mapping[str, Mapping[str, float]],
    per_query: Mapping[str, np.ndarray],
    groups: Mapping[str, Sequence[str]],
    sizes: Mapping[str, int],
) -> list[SetScore]:
    """Return the scores of the groups, then of the sets in the order of `sizes`.

    `figures` are mAP and Rank-1 of groups and sets by name, `per_query` the arrays of per_query.npz, `groups` the names
    of the sets by group, which weigh alike in it, `sizes` the modalities of a query by set. A group that is one set of
    its own name, the one that decides, is told once, as that set.
    """
    groups = {name: members for name, members in groups.items() if tuple(members) != (name,)}
    group_of = {member: name for name, members in groups.items() for member in members}
    keys = [(GROUP, name, "", max(sizes[member] for member in members)) for name, members in groups.items()]
    keys += [(SET, name, group_of.get(name, ""), size) for name, size in sizes.items()]
    scores = []
    for key in keys:
        rows = _rows_of(per_query, groups[key[1]] if key[0] == GROUP else [key[1]])
        units, (mean_ap, rank1) = query_units(rows), (figures[key[1]][metric] for metric in ("mAP", "Rank-1"))
        scores.append(SetScore(*key, len(units), int(units.max()) + 1, mean_ap, *interval(rows, "mAP"), rank1))
    return scores


def _rows_of(per_query: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the queries of some sets, which weigh alike."""
    chosen = np.isin(per_query["set"], names)
    rows = {name: values[chosen] for name, values in per_query.items()}
    return rows | {"weight": np.full(int(chosen.sum()), 1 / len(names))}


def paired_gain(name: str, modality: str, whole: np.ndarray, without: np.ndarray, pids: np.ndarray) -> Gain:
    """Return the `Gain` of APs float64 [Q] of the same queries, whole and without a modality, of identities `pids` [Q].

    A query without a match (NaN) on either side does not count. `p` is that of this gain alone, see `adjusted`.
    """
    valid = ~(np.isnan(whole) | np.isnan(without))
    whole, without, units = whole[valid], without[valid], np.unique(pids[valid], return_inverse=True)[1]
    change = whole - without
    low, high = mean_interval(change, units, (-1.0, 1.0))
    means = (float(values.mean()) for values in (whole, without, change))
    return Gain(name, modality, len(change), *means, low, high, sign_flip_test(np.bincount(units, change)))


def adjusted(gains: Sequence[Gain]) -> list[Gain]:
    """Return gains with their p corrected for the number of them."""
    return [one._replace(p=p) for one, p in zip(gains, holm([one.p for one in gains]), strict=True)]
