"""The first gallery images of single queries as they are shown: right, wrong, and junk that the metrics leave out."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from utils.errors import ConfigError, DataError
from utils.ranking.distance import Distances
from utils.ranking.protocol import Protocol, finite_range, group

STATUS = ("right", "wrong", "junk")  # what RankList.status counts in
RIGHT, WRONG, JUNK = range(len(STATUS))
MAX_JUNK = 50  # images of a list; one camera may have seen a query's identity thousands of times


class RankList(NamedTuple):
    """The nearest gallery images of one query by rising distance, ties by the smaller gallery index."""

    gallery: np.ndarray  # int64 [n]: gallery indices
    status: np.ndarray  # int8 [n]: index into STATUS; junk takes no rank
    distance: np.ndarray  # [n], in the type of the distances


def rank_lists(distances: Distances, rows: Iterable[int], topk: int, protocol: Protocol) -> list[RankList]:
    """Return for each query of `rows` its first `topk` ranked images, and the junk that stands before the last of them.

    Of junk the first MAX_JUNK are listed. The order is that of `utils.ranking.rank`. Where the gallery holds fewer, all
    of it is listed. The protocol is that of all Q queries and G gallery images. Raises DataError for a row outside
    0..Q-1, distances that are not finite and labels of other sizes; ConfigError for topk below 1.
    """
    if topk < 1:
        raise ConfigError(f"topk {topk} must be at least 1")
    labels = group(protocol, distances.shape)
    lists = []
    for query in rows:
        if not 0 <= query < distances.shape[0]:
            raise DataError(f"there is no query {query}; the {distances.shape[0]} queries count from 0")
        values = distances.rows(query, query + 1)
        finite_range(values, query)
        order = values[0].argsort(kind="stable")
        same = labels.g_pids[order] == labels.q_pids[query]
        if labels.mask is None:
            junk = same & (labels.g_camids[order] == labels.q_camids[query])
        else:
            junk = labels.mask(query, query + 1)[0, order]
        status = np.where(junk, JUNK, np.where(same, RIGHT, WRONG)).astype(np.int8)
        places = np.arange(min((~junk).cumsum().searchsorted(topk) + 1, len(order)))
        places = places[~junk[places] | (junk[places].cumsum() <= MAX_JUNK)]
        lists.append(RankList(order[places], status[places], values[0, order[places]]))
    return lists
