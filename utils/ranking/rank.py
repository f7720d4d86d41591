"""CMC, mAP and mINP by the Market-1501 protocol, without ever holding or sorting a [Q, G] matrix.

Per query: junk leaves the ranking (gallery images of the same identity AND camera, or what the data set's own rule
says); the rest is sorted by rising distance, ties by the smaller gallery index (a stable sort); a query without a match
is left out of every mean.
Only the few images that share the query's identity need a rank. Equal steps of distance divide a row into buckets;
whole buckets are counted, and only the values that share one with such an image are sorted. That gives the stable order
exactly, several times faster than a stable argsort. Distances that are made on a GPU are sorted there.
Reference: Zheng et al., Scalable Person Re-identification, ICCV 2015 (protocol, mAP); Ye et al., Deep Learning for
Person Re-identification, TPAMI 2021, section 3.3 (mINP).
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from utils.ap_rules import AP_RULES, STANDARD, TRAPEZOID
from utils.errors import ConfigError
from utils.ranking.blocks import Block, look_at
from utils.ranking.distance import Distances, feature_distances, matrix_distances, on_gpu, unit_features
from utils.ranking.expansion import expand_queries
from utils.ranking.on_gpu import device_distances, device_positions
from utils.ranking.protocol import Grouped, Protocol, SameIdentity, group, no_match
from utils.ranking.reranking import re_ranked_distances
from utils.ranking.spectral import spectral_distances

Array = np.ndarray | torch.Tensor
BUCKETS = 4096  # counts that stay in the fastest cache


class Ranking(NamedTuple):
    """Retrieval results as fractions in 0..1; per query arrays are in the order of the queries."""

    cmc: np.ndarray  # float64 [max_rank]; cmc[r] = share of valid queries whose first match is at rank <= r (0-based)
    mAP: float  # mean of ap over valid queries
    mINP: float  # mean of inp over valid queries
    ap: np.ndarray  # float64 [Q]: mean over the matches of (matches so far / rank), see `rank`; NaN without a match
    inp: np.ndarray  # float64 [Q]: number of matches / rank of the last match; NaN without a match
    first_hit: np.ndarray  # int64 [Q]: 0-based rank of the first match after junk removal, see `rank`; -1 = no match
    num_pos: np.ndarray  # int64 [Q]: matches in the gallery, junk not counted
    ap_at: np.ndarray | None = None  # float64 [Q]: AP of the first places alone, where a depth is given, see `rank`


def rank_distances(
    distmat: Array, q_pids: Any, g_pids: Any, q_camids: Any, g_camids: Any, max_rank: int = 50, ap: str = STANDARD
) -> Ranking:
    """Return the `Ranking` of a matrix of distances [Q, G] (numpy or torch, any real type), see `rank`."""
    return rank(matrix_distances(distmat), Protocol(q_pids, g_pids, q_camids, g_camids), max_rank, ap=ap)


def make_distances(
    qf: Array,
    gf: Array,
    expand: tuple[int, float, int] | None = None,
    rerank: tuple[int, int, float] | None = None,
    spectral: tuple[int, float] | None = None,
) -> Distances:
    """Return the distances of query features [Q, D] to gallery features [G, D]: squared Euclidean unless re-ranked.

    `expand` is (k, alpha, times) of `expand_queries`, which comes first and L2-normalises both sides; `rerank` is
    (k1, k2, lambda) of `re_ranked_distances`, `spectral` (k, temperature) of `spectral_distances`, which L2-normalises,
    too; at most one of them. None = off. No [Q, G] matrix is made.
    Raises DataError for features that are empty, not finite or of different widths, ConfigError for other parameters.
    """
    if rerank is not None and spectral is not None:
        raise ConfigError(
            "k-reciprocal and spectral re-ranking exclude each other: set TEST.RE_RANKING False or TEST.SPECTRAL.K 0"
        )
    if expand is not None:
        qf, gf = expand_queries(qf, gf, *expand), unit_features(gf, "gallery")
    if rerank is not None:
        return re_ranked_distances(qf, gf, *rerank)
    if spectral is not None:
        return spectral_distances(qf, gf, *spectral)
    return device_distances(qf, gf) if on_gpu(qf) and on_gpu(gf) else feature_distances(qf, gf)


def rank(
    distances: Distances,
    protocol: Protocol,
    max_rank: int = 50,
    distinct: bool = False,
    ap: str = STANDARD,
    depth: int | None = None,
) -> Ranking:
    """Return the `Ranking` of distances, made in blocks of about 64 MiB; `Ranker` says what the rest means.

    Raises DataError when shapes disagree, a distance is not finite (naming the first such query), or no query has a
    match; ConfigError as `Ranker`.
    """
    labels = group(protocol, distances.shape)
    ranker = Ranker(labels, max_rank, distinct, ap, depth)
    look_at(distances, labels, [ranker])
    return ranker.ranking()


class Ranker:
    """Ranks the distances of a trial block by block.

    With `distinct` the rank of the first match, and with it the CMC, counts identities rather than images, each at its
    nearest image, as the official code of SYSU-MM01 does; AP and INP count images in any case.

    `ap` trapezoid is the rule of Market-1501's first code: in place of the precision (i + 1) / (r + 1) at match i and
    place r, both from 0, its mean with i / r, which is 1 at place 0. It is never above the standard AP; CMC and INP do
    not change. With `depth` there is also `ap_at`, AP of the first places: the sum over the matches among them, divided
    by their number or that of all matches, whichever is less; NaN without a match in the whole gallery.

    Raises ConfigError for max_rank or depth below 1, or another `ap`.
    """

    def __init__(
        self,
        labels: Grouped,
        max_rank: int = 50,
        distinct: bool = False,
        ap: str = STANDARD,
        depth: int | None = None,
    ) -> None:
        if max_rank < 1:
            raise ConfigError(f"max_rank {max_rank} must be at least 1 (TEST.MAX_RANK)")
        if ap not in AP_RULES:
            raise ConfigError(f"ap got '{ap}', allowed: {', '.join(AP_RULES)} (TEST.AP)")
        if depth is not None and depth < 1:
            raise ConfigError(f"depth {depth} must be at least 1, or None for AP over the whole list")
        self.labels, self.max_rank, self.rule, self.depth = labels, max_rank, ap, depth
        self._codes = np.unique(labels.g_pids, return_inverse=True)[1] if distinct else None
        num_query = len(labels.q_pids)
        self.ap, self.ap_at, self.inp = (np.full(num_query, np.nan) for _ in range(3))
        self.first_hit, self.num_pos = np.full(num_query, -1), np.zeros(num_query, dtype=np.int64)

    def add(self, block: Block) -> None:
        """Rank the queries of a block."""
        rows, pairs, own = block.rows, block.pairs, block.queries
        if isinstance(rows, torch.Tensor):
            position = device_positions(rows, pairs)
        else:
            position = _stable_positions(rows, pairs, block.low, block.high)
        found = score_pairs(pairs, position, rows.shape, self.rule, self.depth)
        self.ap[own], self.ap_at[own], self.inp[own], self.first_hit[own], self.num_pos[own] = found
        if self._codes is not None:
            _count_identities(block.values, pairs, position, self._codes, self.first_hit[own])

    def ranking(self) -> Ranking:
        """Return the `Ranking` of all queries; DataError where none has a match."""
        valid = self.num_pos > 0
        if not valid.any():
            raise no_match(self.labels)
        hits = np.bincount(self.first_hit[valid], minlength=self.max_rank)[: self.max_rank]
        return Ranking(
            cmc=hits.cumsum() / valid.sum(),
            mAP=float(self.ap[valid].mean()),
            mINP=float(self.inp[valid].mean()),
            ap=self.ap,
            inp=self.inp,
            first_hit=self.first_hit,
            num_pos=self.num_pos,
            ap_at=None if self.depth is None else self.ap_at,
        )


def _stable_positions(rows: np.ndarray, pairs: SameIdentity, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the 0-based places of `pairs` in the stable ascending order of their rows [c, G], int64 [M].

    `low` and `high` [c] are the smallest and largest of each row. Junk by camera is counted, what is left out is not.
    """
    position = np.empty(len(pairs.query), dtype=np.int64)
    edges = pairs.query.searchsorted(np.arange(len(rows) + 1))
    for row in np.flatnonzero(edges[:-1] < edges[1:]):
        part = slice(edges[row], edges[row + 1])
        values, columns = rows[row], pairs.gallery[part]
        if pairs.left_out is not None:
            kept = ~pairs.left_out[row]
            values, columns = values[kept], (kept.cumsum() - 1)[columns]
        position[part] = _places(values, _buckets(values, low[row], high[row]), columns)
    return position


def _buckets(row: np.ndarray, low: np.number, high: np.number) -> np.ndarray:
    """Return a bucket in [0, BUCKETS] for each value [G] of low..high, int64; it never falls where the value rises."""
    floating = np.result_type(row.dtype, np.float32)
    with np.errstate(over="ignore", divide="ignore"):
        scale = floating.type(BUCKETS) / (floating.type(high) - floating.type(low))
    if not 0 < scale < np.inf:  # all values equal, or a range that the type cannot hold: one bucket
        return np.zeros(len(row), dtype=np.int64)
    steps = np.subtract(row, low, dtype=floating)
    steps *= scale
    return steps.astype(np.int64)


def _places(row: np.ndarray, bucket: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the 0-based places of row[columns] in the stable ascending order of `row` [G], int64."""
    own, value = bucket[columns], row[columns]
    wanted = np.zeros(BUCKETS + 1, dtype=bool)
    wanted[own] = True
    near = np.sort(row[wanted[bucket]])
    count = np.bincount(bucket, minlength=len(wanted))
    count[wanted] = 0
    within = near.searchsorted(value)
    place = count.cumsum()[own] + within
    for tie in np.flatnonzero(near.searchsorted(value, "right") > within + 1):
        place[tie] += np.count_nonzero(row[: columns[tie]] == value[tie])
    return place


def score_pairs(
    pairs: SameIdentity, position: np.ndarray, shape: tuple[int, int], rule: str, depth: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (ap, ap_at, inp, first_hit, num_pos), [c] each, from the same-identity pairs of c queries.

    `shape` is (c, G); `ap_at` equals `ap` without a depth.
    """
    num_query, num_gallery = shape
    order = np.argsort(pairs.query * num_gallery + position)  # no two pairs share a key
    query, position, junk = pairs.query[order], position[order], pairs.junk[order]
    junk_so_far = np.concatenate(([0], junk.cumsum()))
    junk_before = junk_so_far[:-1] - junk_so_far[query.searchsorted(query)]
    match = ~junk
    query, place = query[match], (position - junk_before)[match]  # [P], places count from 0
    num_pos = np.bincount(query, minlength=num_query)
    end = num_pos.cumsum()
    begin = end - num_pos
    before = np.arange(len(query)) - begin[query]  # matches before this one
    precision = (before + 1) / (place + 1)
    worth = precision
    if rule == TRAPEZOID:
        worth = (precision + np.where(place > 0, before / np.maximum(place, 1), 1)) / 2
    valid = num_pos > 0
    ap, inp, first_hit = np.full(num_query, np.nan), np.full(num_query, np.nan), np.full(num_query, -1)
    ap[valid] = np.bincount(query, worth, minlength=num_query)[valid] / num_pos[valid]
    ap_at = ap
    if depth is not None:
        near = np.bincount(query, np.where(place < depth, worth, 0), minlength=num_query)
        ap_at = np.where(valid, near / np.clip(num_pos, 1, depth), np.nan)
    inp[valid] = precision[end[valid] - 1]
    first_hit[valid] = place[begin[valid]]
    return ap, ap_at, inp, first_hit, num_pos


def _count_identities(
    rows: np.ndarray, pairs: SameIdentity, position: np.ndarray, codes: np.ndarray, first_hit: np.ndarray
) -> None:
    """Replace first_hit [c] of queries with a match by the number of other identities that stand before their match.

    `codes` are the identities of the gallery [G] in 0..I-1, the rest is as in `_score`.
    """
    match = np.flatnonzero(~pairs.junk)
    match = match[np.lexsort((position[match], pairs.query[match]))]
    queries, first = np.unique(pairs.query[match], return_index=True)
    for row, column in zip(queries, pairs.gallery[match[first]], strict=True):
        value = rows[row, column]
        before = rows[row] < value
        before[:column] |= rows[row, :column] == value
        before &= codes != codes[column]  # else junk: the match is the first of its identity
        if pairs.left_out is not None:
            before &= ~pairs.left_out[row]
        first_hit[row] = np.count_nonzero(np.bincount(codes[before]))
