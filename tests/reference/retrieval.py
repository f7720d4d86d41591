"""Retrieval metrics in the most obvious way: one query, one gallery image at a time, in float64."""

from contextlib import contextmanager

import numpy as np

from utils import distance


def ranked_matches(distances, pid, camid, g_pids, g_camids) -> list[bool]:
    """Return, along the stable ranking without junk, whether each gallery image has the query's identity."""
    order = sorted(range(len(g_pids)), key=lambda g: distances[g])  # Python's sort is stable
    return [bool(g_pids[g] == pid) for g in order if not (g_pids[g] == pid and g_camids[g] == camid)]


def evaluate(distmat, q_pids, g_pids, q_camids, g_camids, max_rank: int) -> dict[str, object]:
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


def precision_bounds(distmat, q_pids, g_pids, q_camids, g_camids, error: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest AP of each query whose distances are wrong by at most `error`.

    Images closer than that may swap: at worst each match falls behind its neighbours, at best it overtakes them.
    """
    labels = (q_pids, g_pids, q_camids, g_camids, 1)
    matches = np.asarray(q_pids)[:, None] == np.asarray(g_pids)
    low, high = (evaluate(distmat + shift * matches, *labels)["ap"] for shift in (2 * error, -2 * error))
    return np.array(low), np.array(high)


def squared_euclidean(x, y) -> np.ndarray:
    """Return sum_d (x_id - y_jd)^2 in float64, [N, M]."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return np.stack([((row - y) ** 2).sum(axis=1) for row in x])


def random_case(seed: int, num_query=12, num_gallery=40, num_ids=5, num_cams=3, levels=None):
    """Return (distances, labels); `levels` rounds the distances to that many values, so that most are tied."""
    rng = np.random.default_rng(seed)
    distances = rng.random((num_query, num_gallery))
    if levels:
        distances = np.floor(distances * levels) / levels
    labels = [rng.integers(high, size=size) for high in (num_ids, num_cams) for size in (num_query, num_gallery)]
    return distances, labels


@contextmanager
def blocks_of(num_queries: int, num_gallery: int):
    """Within it, distances of `num_gallery` images are made for `num_queries` queries at a time."""
    before = distance.BLOCK_BYTES
    distance.BLOCK_BYTES = 2 * 4 * num_gallery * num_queries  # float32 rows and a copy
    try:
        yield
    finally:
        distance.BLOCK_BYTES = before
