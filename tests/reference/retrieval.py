"""Retrieval metrics in the most obvious way: one query, one gallery image at a time, in float64."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import ArrayLike

from utils.ranking import distance


def ranked_matches(
    distances: Sequence[float], pid: int, camid: int, g_pids: Sequence[int], g_camids: Sequence[int]
) -> list[bool]:
    """Return, along the stable ranking without junk, whether each gallery image has the query's identity."""
    order = sorted(range(len(g_pids)), key=lambda g: distances[g])  # Python's sort is stable
    return [bool(g_pids[g] == pid) for g in order if not (g_pids[g] == pid and g_camids[g] == camid)]


def evaluate_masked(
    distmat: ArrayLike, q_pids: Sequence[int], g_pids: Sequence[int], junk: np.ndarray, max_rank: int, distinct: bool
) -> dict[str, object]:
    """Return cmc, ap and first_hit as `evaluate` does, where junk [Q, G] is out, whomever it shows.

    With `distinct` the curve is that of the official code of SYSU-MM01: an identity stands at its first image, and no
    other image of it takes a rank.
    """
    aps, first_hits, curves = [], [], []
    for query, distances in enumerate(np.asarray(distmat)):
        order = [g for g in sorted(range(len(g_pids)), key=lambda g, row=distances: row[g]) if not junk[query][g]]
        matches = [bool(g_pids[g] == q_pids[query]) for g in order]
        found, precisions = 0, []
        for rank, match in enumerate(matches, start=1):
            found += match
            precisions += [found / rank] if match else []
        if not found:
            aps.append(float("nan"))
            first_hits.append(-1)
            continue
        listed = []
        for g in order:
            if not distinct or g_pids[g] not in listed:
                listed.append(g_pids[g])
        first_hits.append(listed.index(q_pids[query]))
        aps.append(sum(precisions) / found)
        curves.append([float(first_hits[-1] <= rank) for rank in range(max_rank)])
    return {"ap": aps, "first_hit": first_hits, "cmc": np.mean(curves, axis=0).tolist()}


def evaluate(
    distmat: ArrayLike,
    q_pids: Sequence[int],
    g_pids: Sequence[int],
    q_camids: Sequence[int],
    g_camids: Sequence[int],
    max_rank: int,
) -> dict[str, object]:
    """Return cmc (list), mAP, mINP and per query ap, inp (NaN), first_hit (-1) and num_pos, where no match exists."""
    result = {"ap": [], "inp": [], "first_hit": [], "num_pos": []}
    curves = []
    for query, distances in enumerate(np.asarray(distmat)):
        matches = ranked_matches(distances, q_pids[query], q_camids[query], g_pids, g_camids)
        found, precisions, first, last = 0, [], -1, 0
        for rank, match in enumerate(matches, start=1):
            if match:
                found += 1
                precisions.append(found / rank)
                first = rank - 1 if found == 1 else first
                last = rank
        result["first_hit"].append(first)
        result["num_pos"].append(found)
        result["ap"].append(sum(precisions) / found if found else float("nan"))
        result["inp"].append(found / last if found else float("nan"))
        if found:
            curves.append([float(first <= rank) for rank in range(max_rank)])
    result["cmc"] = np.mean(curves, axis=0)
    result["mAP"] = np.nanmean(result["ap"])
    result["mINP"] = np.nanmean(result["inp"])
    return result


def precision_bounds(
    distmat: np.ndarray,
    q_pids: Sequence[int],
    g_pids: Sequence[int],
    q_camids: Sequence[int],
    g_camids: Sequence[int],
    error: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest AP of each query whose distances are wrong by at most `error`.

    Images closer than that may swap: at worst each match falls behind its neighbours, at best it overtakes them.
    """
    labels = (q_pids, g_pids, q_camids, g_camids, 1)
    matches = np.asarray(q_pids)[:, None] == np.asarray(g_pids)
    low, high = (evaluate(distmat + shift * matches, *labels)["ap"] for shift in (2 * error, -2 * error))
    return np.array(low), np.array(high)


def squared_euclidean(x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Return sum_d (x_id - y_jd)^2 in float64, [N, M]."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return np.stack([((row - y) ** 2).sum(axis=1) for row in x])


def random_case(
    seed: int,
    num_query: int = 12,
    num_gallery: int = 40,
    num_ids: int = 5,
    num_cams: int = 3,
    levels: int | None = None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return (distances, labels); `levels` rounds the distances to that many values, so that most are tied."""
    rng = np.random.default_rng(seed)
    distances = rng.random((num_query, num_gallery))
    if levels:
        distances = np.floor(distances * levels) / levels
    labels = [rng.integers(high, size=size) for high in (num_ids, num_cams) for size in (num_query, num_gallery)]
    return distances, labels


@contextmanager
def blocks_of(num_queries: int, num_gallery: int) -> Iterator[None]:
    """Within it, distances of `num_gallery` images are made for `num_queries` queries at a time."""
    before = distance.BLOCK_BYTES
    distance.BLOCK_BYTES = 2 * 4 * num_gallery * num_queries  # float32 rows and a copy
    try:
        yield
    finally:
        distance.BLOCK_BYTES = before
