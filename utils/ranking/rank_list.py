"""The first gallery images of single queries as they are shown: right, wrong, and junk that the metrics leave out."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from utils.errors import ConfigError, DataError
from utils.ranking.blocks import Block
from utils.ranking.distance import Distances
from utils.ranking.protocol import Grouped, Protocol, finite_range, group
from utils.ranking.rank import Ranker

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
        left_out = None if labels.mask is None else labels.mask(query, query + 1)[0]
        lists.append(_rank_list(values[0], query, topk, labels, left_out))
    return lists


def _rank_list(values: np.ndarray, query: int, topk: int, labels: Grouped, left_out: np.ndarray | None) -> RankList:
    """Return the list of a query from its distances [G] and what the protocol's mask, if it has one, leaves out [G]."""
    order = values.argsort(kind="stable")
    same = labels.g_pids[order] == labels.q_pids[query]
    by_camera = same & (labels.g_camids[order] == labels.q_camids[query])
    junk = by_camera if left_out is None else left_out[order]
    status = np.where(junk, JUNK, np.where(same, RIGHT, WRONG)).astype(np.int8)
    places = np.arange(min((~junk).cumsum().searchsorted(topk) + 1, len(order)))
    places = places[~junk[places] | (junk[places].cumsum() <= MAX_JUNK)]
    return RankList(order[places], status[places], values[order[places]])


class Found(NamedTuple):
    """A query and what was found for it."""

    key: tuple[float, float]  # by which it was chosen
    query: int
    ranks: RankList


Order = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]  # (AP [n], matches [n]) -> two keys, rising


def worst_first(ap: np.ndarray, num_pos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order queries by rising AP."""
    return ap, np.zeros_like(ap)


def best_first(ap: np.ndarray, num_pos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order queries by falling AP, of equals those with the most matches first."""
    return -ap, -num_pos


class FirstLists:
    """The lists of the `count` queries with a match that are first by `order`, as `rank_lists` makes them.

    It looks at each block after the `ranker` of the trial. Of equals the smaller query comes first.
    """

    def __init__(self, ranker: Ranker, count: int, topk: int, order: Order) -> None:
        self._ranker, self._count, self._topk, self._order = ranker, count, topk, order
        self.found: list[Found] = []

    def add(self, block: Block) -> None:
        """Replace what is no longer among the first by what comes before it in a block."""
        own, ranker = block.queries, self._ranker
        valid = np.flatnonzero(ranker.first_hit[own] >= 0)
        keys = np.stack(self._order(ranker.ap[own][valid], ranker.num_pos[own][valid]), axis=1)  # [v, 2]
        for place in np.lexsort((keys[:, 1], keys[:, 0]))[: self._count]:
            key, row = tuple(keys[place].tolist()), int(valid[place])
            if len(self.found) == self._count and key >= self.found[-1].key:
                break
            left_out = None if block.pairs.left_out is None else block.pairs.left_out[row]
            query = block.start + row
            ranks = _rank_list(block.values[row], query, self._topk, ranker.labels, left_out)
            self.found = sorted([*self.found, Found(key, query, ranks)], key=lambda one: one.key)[: self._count]
