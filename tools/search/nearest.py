"""The images of a gallery that are most similar to queries: exact, or exact among the candidates of a large gallery."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np

from tools.search.lists import candidates, has_faiss, open_lists
from tools.search.shards import Shards

logger = logging.getLogger(__name__)

CANDIDATES = 1000  # rows that FAISS's lists propose for a query, of which the nearest are found exactly
BLOCK_BYTES = 16 * 2**20  # of similarities that are made at once


def nearest(query: np.ndarray, gallery: np.ndarray, topk: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the gallery rows int64 [Q, K] most similar to each query, nearest first, and their similarities [Q, K].

    `query` [Q, D] and `gallery` [N, D] are float32 and L2-normalised, the similarity is their inner product (cosine),
    float64; K = min(topk, N). Of equal similarities the lower row comes first. The ranking is exact: a product in
    float32 only proposes candidates, a set that holds every image that rounding could have displaced.
    """
    topk = min(topk, len(gallery))
    proposed = exact_candidates(query, gallery, topk)
    results = []
    for one, rows in zip(query, proposed, strict=True):
        similarity = similarities(one, gallery[rows])
        order = np.lexsort((rows, -similarity))[:topk]
        results.append((rows[order], similarity[order]))
    rows, similarity = zip(*results, strict=True)
    return np.stack(rows), np.stack(similarity)


def nearest_in(
    query: np.ndarray, index: Shards, topk: int, exact: bool = False
) -> tuple[list[list[str]], list[np.ndarray]]:
    """Return the paths of the images most similar to each query [Q, D], nearest first, and their similarities float64.

    These are inner products with the embeddings as they are kept, in float16; of equal ones the lower path comes first.
    The images are the nearest of at least CANDIDATES that the lists of the index propose; of all with `exact`, or where
    there are no lists.
    """
    topk = min(topk, len(index) - len(index.gone))
    entry = index.meta["lists"]
    listed = not exact and has_faiss() and entry is not None and entry["rows"] == len(index)
    logger.info("search: %s", "candidates of FAISS's lists" if listed else "matrix product")
    if listed:
        proposed = candidates(open_lists(index), query, max(CANDIDATES, 2 * topk), index.gone, topk)
    else:
        proposed = all_candidates(query, index, topk)
    paths, values = [], []
    for one, rows in zip(query, proposed, strict=True):
        if len(rows) < topk or rows.max() >= len(index):
            raise index.damaged("the lists")
        similarity = similarities(one, index.take(rows))
        near = similarity >= np.partition(similarity, -topk)[-topk]  # ties with the last one, too
        names, similarity = index.names(rows[near]), similarity[near]
        order = sorted(range(len(names)), key=lambda place: (-similarity[place], names[place]))[:topk]  # noqa: B023
        paths.append([names[place] for place in order])
        values.append(similarity[order])
    return paths, values


def similarities(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Return inner products float64 [N] of a query [D] with embeddings [N, D] that depend on the two of them alone."""
    wide = query.astype(np.float64)
    step = max(1, BLOCK_BYTES // (2 * wide.nbytes))
    return np.concatenate([(gallery[row : row + step] * wide).sum(1) for row in range(0, len(gallery), step)])


def exact_candidates(query: np.ndarray, gallery: np.ndarray, topk: int) -> Iterator[np.ndarray]:
    """Yield for each query the rows, in any order, that hold its `topk` nearest of [N, D], by matrix products."""
    last, slack = len(gallery) - topk, _slack(query.shape[1])
    step = max(1, BLOCK_BYTES // (2 * len(gallery) * gallery.itemsize))
    for start in range(0, len(query), step):
        for scores in query[start : start + step] @ gallery.T:  # [N]
            yield np.flatnonzero(scores >= np.partition(scores, last)[last] - slack)


def all_candidates(query: np.ndarray, index: Shards, topk: int) -> list[np.ndarray]:
    """Return what `exact_candidates` yields of an index, and more: those of each block of it."""
    lost = np.zeros(len(index), dtype=bool)
    lost[index.gone] = True
    found: list[list[np.ndarray]] = [[] for _ in query]
    for start, feat in index.blocks("search"):
        alive = np.flatnonzero(~lost[start : start + len(feat)])
        if not len(alive):
            continue
        feat = feat if len(alive) == len(feat) else feat[alive]
        for number, rows in enumerate(exact_candidates(query, feat, min(topk, len(feat)))):
            found[number].append(start + alive[rows])
    return [np.concatenate(rows) for rows in found]


def _slack(width: int) -> float:
    """Return how far apart in float32 two inner products of unit vectors [D] can be whose true order is the opposite.

    Each is wrong by at most D u / (1 - D u), u = 2^-24, in whatever order it is summed (Higham, Accuracy and Stability
    of Numerical Algorithms, 2002, section 3.1); twice that for two of them, and once more for safety.
    """
    return 2 * width * 2.0**-23
