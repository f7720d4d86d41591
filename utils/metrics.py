"""CMC, mAP and mINP by the Market-1501 protocol, without ever holding or argsorting a [Q, G] matrix.

Per query: gallery images of the same identity AND camera are junk and leave the ranking; the rest is sorted by rising
distance, ties by the smaller gallery index (a stable sort); a query without a match is left out of every mean.
Only the values of a row are sorted. The rank of each of the few images that share the query's identity is then found
by bisection, which gives the stable order exactly and several times faster than a stable argsort.
Reference: Zheng et al., Scalable Person Re-identification, ICCV 2015 (protocol, mAP); Ye et al., Deep Learning for
Person Re-identification, TPAMI 2021, section 3.3 (mINP).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from utils.distance import as_array, as_features, row_blocks, squared_distances, squared_norms
from utils.errors import ConfigError, DataError
from utils.reranking import re_ranking

Array = np.ndarray | torch.Tensor
FEAT_NORM = {True: True, False: False, "yes": True, "no": False}


class Ranking(NamedTuple):
    """Retrieval results as fractions in 0..1; per query arrays are in the order of the queries."""

    cmc: np.ndarray  # float64 [max_rank]; cmc[r] = share of valid queries whose first match is at rank <= r (0-based)
    mAP: float  # mean of ap over valid queries
    mINP: float  # mean of inp over valid queries
    ap: np.ndarray  # float64 [Q]: mean over the matches of (matches so far / rank); NaN without a match
    inp: np.ndarray  # float64 [Q]: number of matches / rank of the last match; NaN without a match
    first_hit: np.ndarray  # int64 [Q]: 0-based rank of the first match after junk removal; -1 without a match
    num_pos: np.ndarray  # int64 [Q]: matches in the gallery, junk not counted


class _Labels(NamedTuple):
    q_pids: np.ndarray  # [Q]
    g_pids: np.ndarray  # [G]
    q_camids: np.ndarray  # [Q]
    g_camids: np.ndarray  # [G]
    by_pid: np.ndarray  # [G]: gallery indices grouped by rising pid, rising within a pid
    begin: np.ndarray  # [Q]: where the query's pid begins in by_pid
    end: np.ndarray  # [Q]


def eval_func(
    distmat: Array, q_pids: Any, g_pids: Any, q_camids: Any, g_camids: Any, max_rank: int = 50
) -> tuple[np.ndarray, float]:
    """Return (CMC float32 [max_rank], mAP) of a distance matrix, as TransReID's function of this name.

    distmat is [Q, G], smaller = more alike; labels are integer arrays or lists. The CMC is padded with its last value
    where the gallery is shorter than max_rank. Raises DataError as `rank_distances` does.
    """
    ranking = rank_distances(distmat, q_pids, g_pids, q_camids, g_camids, max_rank)
    return ranking.cmc.astype(np.float32), ranking.mAP


def rank_distances(
    distmat: Array,
    q_pids: Any,
    g_pids: Any,
    q_camids: Any,
    g_camids: Any,
    max_rank: int = 50,
    chunk: int | None = None,
) -> Ranking:
    """Return the `Ranking` of distances [Q, G] (numpy or torch, any real type), `chunk` queries at a time (None: auto).

    Raises DataError when shapes disagree, a distance is not finite (naming the first such query), or no query has a
    match; ConfigError for max_rank or chunk below 1.
    """
    if distmat.ndim != 2:
        raise DataError(f"the distance matrix has shape {list(distmat.shape)}; need [queries, gallery]")
    labels = _make_labels(distmat.shape, q_pids, g_pids, q_camids, g_camids)
    return _rank(lambda start, stop: as_array(distmat[start:stop]), labels, max_rank, chunk)


def rank_features(
    qf: Array,
    gf: Array,
    q_pids: Any,
    g_pids: Any,
    q_camids: Any,
    g_camids: Any,
    max_rank: int = 50,
    chunk: int | None = None,
) -> Ranking:
    """Return the `Ranking` of query features [Q, D] against gallery features [G, D] by squared Euclidean distance.

    The distances are computed in true float32 on the CPU, `chunk` queries at a time (None: blocks of about 64 MiB).
    Raises DataError for features that are not finite, and as `rank_distances` does.
    """
    qf, gf = as_features(qf, "query"), as_features(gf, "gallery")
    if qf.shape[1] != gf.shape[1]:
        raise DataError(f"query features have {qf.shape[1]} values, gallery features {gf.shape[1]}; use one model")
    labels = _make_labels((len(qf), len(gf)), q_pids, g_pids, q_camids, g_camids)
    q_norms, g_norms = squared_norms(qf, "query"), squared_norms(gf, "gallery")
    return _rank(
        lambda start, stop: squared_distances(qf[start:stop], gf, q_norms[start:stop], g_norms), labels, max_rank, chunk
    )


def rank_embeddings(
    qf: Array, gf: Array, labels: tuple[Any, Any, Any, Any], max_rank: int, rerank: tuple[int, int, float] | None = None
) -> tuple[Ranking, np.ndarray | None]:
    """Return the `Ranking` of query features [Q, D] against gallery features [G, D], and the re-ranked distances.

    `labels` are q_pids, g_pids, q_camids, g_camids; `rerank` is (k1, k2, lambda) of `re_ranking`, or None to rank by
    squared Euclidean distance, in which case no distance matrix is made and None is returned for it.
    """
    if rerank is None:
        return rank_features(qf, gf, *labels, max_rank=max_rank), None
    distmat = re_ranking(qf, gf, *rerank)
    return rank_distances(distmat, *labels, max_rank=max_rank), distmat


def _make_labels(shape: tuple[int, int], q_pids: Any, g_pids: Any, q_camids: Any, g_camids: Any) -> _Labels:
    num_query, num_gallery = shape
    if num_query == 0 or num_gallery == 0:
        raise DataError(f"{num_query} query and {num_gallery} gallery images; need at least one of each to rank")
    sides = (num_query, num_gallery, num_query, num_gallery)
    arrays = [as_array(values) for values in (q_pids, g_pids, q_camids, g_camids)]
    for name, values, size in zip(("q_pids", "g_pids", "q_camids", "g_camids"), arrays, sides, strict=True):
        if values.shape != (size,):
            raise DataError(f"{name} has shape {list(values.shape)}; need [{size}], one label per image")
    by_pid = np.argsort(arrays[1], kind="stable")
    grouped = arrays[1][by_pid]
    return _Labels(*arrays, by_pid, grouped.searchsorted(arrays[0], "left"), grouped.searchsorted(arrays[0], "right"))


def _rank(rows_of: Callable[[int, int], np.ndarray], labels: _Labels, max_rank: int, chunk: int | None) -> Ranking:
    """Rank the distances [stop - start, G] that `rows_of(start, stop)` returns, block by block."""
    if max_rank < 1 or (chunk is not None and chunk < 1):
        raise ConfigError(f"max_rank {max_rank} and chunk {chunk} must be at least 1")
    num_query, num_gallery = len(labels.q_pids), len(labels.g_pids)
    ap, inp = np.full(num_query, np.nan), np.full(num_query, np.nan)
    first_hit, num_pos = np.full(num_query, -1), np.zeros(num_query, dtype=np.int64)
    row_bytes = 2 * num_gallery * np.dtype(np.float32).itemsize  # the distances and their sorted copy
    for start, stop in row_blocks(num_query, row_bytes, chunk):
        rows = rows_of(start, stop)
        query, gallery = _same_identity(labels, start, stop)
        position = _stable_positions(rows, query, gallery, start)
        junk = labels.g_camids[gallery] == labels.q_camids[query + start]
        block = slice(start, stop)
        ap[block], inp[block], first_hit[block], num_pos[block] = _score(query, position, junk, *rows.shape)
    valid = num_pos > 0
    if not valid.any():
        raise DataError(_no_match(labels))
    hits = np.bincount(first_hit[valid], minlength=max_rank)[:max_rank]
    return Ranking(
        hits.cumsum() / valid.sum(), float(ap[valid].mean()), float(inp[valid].mean()), ap, inp, first_hit, num_pos
    )


def _same_identity(labels: _Labels, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs (query - start, gallery index) of one identity, int64 [M] each, in order of the queries."""
    begin, count = labels.begin[start:stop], (labels.end - labels.begin)[start:stop]
    query = np.repeat(np.arange(stop - start), count)
    within = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
    return query, labels.by_pid[begin[query] + within]


def _stable_positions(rows: np.ndarray, query: np.ndarray, gallery: np.ndarray, first_query: int) -> np.ndarray:
    """Return the 0-based place of rows[query, gallery] in the stable ascending order of its row, int64 [M].

    `query` is rising. Raises DataError when a row holds NaN or infinity; row 0 is the query `first_query`.
    """
    ordered = np.sort(rows, axis=1)  # [c, G], NaN last
    broken = ~(np.isfinite(ordered[:, 0]) & np.isfinite(ordered[:, -1]))
    if broken.any():
        raise DataError(
            f"the distances of query {first_query + broken.argmax()} (0-based) hold NaN or infinity; check the features"
        )
    value = rows[query, gallery]
    position = np.empty(len(query), dtype=np.int64)
    edges = query.searchsorted(np.arange(len(rows) + 1))
    for row, (begin, end) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        position[begin:end] = ordered[row].searchsorted(value[begin:end])
    following = np.minimum(position + 1, rows.shape[1] - 1)
    tied = (position < following) & (ordered[query, following] == value)
    for pair in np.flatnonzero(tied):
        position[pair] += np.count_nonzero(rows[query[pair], : gallery[pair]] == value[pair])
    return position


def _score(
    query: np.ndarray, position: np.ndarray, junk: np.ndarray, num_query: int, num_gallery: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (ap, inp, first_hit, num_pos), [num_query] each, from the same-identity pairs [M] of these queries."""
    order = np.argsort(query * num_gallery + position)  # no two pairs share a key
    query, position, junk = query[order], position[order], junk[order]
    junk_so_far = np.concatenate(([0], junk.cumsum()))
    junk_before = junk_so_far[:-1] - junk_so_far[query.searchsorted(query)]
    match = ~junk
    query, rank = query[match], (position - junk_before)[match]  # [P], ranks count from 0
    num_pos = np.bincount(query, minlength=num_query)
    end = num_pos.cumsum()
    begin = end - num_pos
    precision = (np.arange(len(query)) - begin[query] + 1) / (rank + 1)
    valid = num_pos > 0
    ap, inp, first_hit = np.full(num_query, np.nan), np.full(num_query, np.nan), np.full(num_query, -1)
    ap[valid] = np.bincount(query, precision, minlength=num_query)[valid] / num_pos[valid]
    inp[valid] = precision[end[valid] - 1]
    first_hit[valid] = rank[begin[valid]]
    return ap, inp, first_hit, num_pos


def _no_match(labels: _Labels) -> str:
    """Return why no query has a match, and what to do."""
    start = f"none of the {len(labels.q_pids)} queries has a match among {len(labels.g_pids)} gallery images: "
    if (labels.end > labels.begin).any():
        return start + (
            "each image of a query's identity has the query's own camera id, which the protocol removes; "
            "check the camera ids, or give query and gallery different ones"
        )
    query, gallery = np.unique(labels.q_pids)[:3].tolist(), np.unique(labels.g_pids)[:3].tolist()
    return start + f"they share no identity (query ids begin {query}, gallery ids {gallery}); check the two lists"


class R1_mAP_eval:
    """TransReID's evaluator: collects embeddings batch by batch, then ranks.

    The first `num_query` images are the queries, the others the gallery. `feat_norm` (bool or TransReID's 'yes'/'no')
    L2-normalises the features; `reranking` replaces the distances by k-reciprocal ones of k1, k2, lambda_value.
    """

    def __init__(
        self,
        num_query: int,
        max_rank: int = 50,
        feat_norm: bool | str = True,
        reranking: bool = False,
        k1: int = 50,
        k2: int = 15,
        lambda_value: float = 0.3,
    ) -> None:
        if feat_norm not in FEAT_NORM:
            raise ConfigError(f"feat_norm {feat_norm!r} is unknown; use True, False, 'yes' or 'no'")
        self.num_query = num_query
        self.max_rank = max_rank
        self.feat_norm = FEAT_NORM[feat_norm]
        self.reranking = reranking
        self.rerank_options = (k1, k2, lambda_value)
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self.feats: list[torch.Tensor] = []
        self.pids: list[int] = []
        self.camids: list[int] = []

    def update(self, output: tuple[torch.Tensor, Any, Any]) -> None:
        """Add a batch (features [B, D], pids [B], camids [B]); it is kept as float32 on the CPU."""
        feat, pids, camids = output
        self.feats.append(feat.detach().float().cpu())
        self.pids.extend(as_array(pids).tolist())
        self.camids.extend(as_array(camids).tolist())

    def compute(
        self,
    ) -> tuple[np.ndarray, float, np.ndarray | None, list[int], list[int], torch.Tensor, torch.Tensor]:
        """Return (cmc, mAP, distmat, pids, camids, qf, gf) of all images so far.

        cmc is float32 [max_rank]; qf [Q, D] and gf [G, D] are the features as ranked; distmat is float32 [Q, G] with
        re-ranking and None without, where no such matrix is made. Raises DataError as `rank_features` does.
        """
        if not self.feats:
            raise DataError("no image was added before compute(); call update() with each batch")
        feats = torch.cat(self.feats)
        if self.feat_norm:
            feats = F.normalize(feats, dim=1)
        qf, gf = feats[: self.num_query], feats[self.num_query :]
        sides = (slice(None, self.num_query), slice(self.num_query, None))
        labels = [values[side] for values in (self.pids, self.camids) for side in sides]
        rerank = self.rerank_options if self.reranking else None
        ranking, distmat = rank_embeddings(qf, gf, tuple(labels), self.max_rank, rerank)
        return ranking.cmc.astype(np.float32), ranking.mAP, distmat, self.pids, self.camids, qf, gf
