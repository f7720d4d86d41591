"""Rates of verification in the most obvious way: all valid pairs as two lists, every threshold that could matter."""

from collections.abc import Sequence

import numpy as np


def valid_pairs(
    distmat: np.ndarray, q_pids: Sequence[int], g_pids: Sequence[int], q_camids: Sequence[int], g_camids: Sequence[int]
) -> tuple[list[float], list[float]]:
    """Return the distances of positive and of negative pairs, junk (same identity and camera) left out."""
    positive, negative = [], []
    for q in range(len(q_pids)):
        for g in range(len(g_pids)):
            if q_pids[q] != g_pids[g]:
                negative.append(float(distmat[q][g]))
            elif q_camids[q] != g_camids[g]:
                positive.append(float(distmat[q][g]))
    return positive, negative


def rate(distances: Sequence[float], threshold: float) -> float:
    """Return the share of pairs that the threshold accepts."""
    return sum(distance <= threshold for distance in distances) / len(distances)


def tpr_at_fpr(positive: Sequence[float], negative: Sequence[float], fpr: float) -> float:
    """Return the largest TPR of all thresholds whose FPR is at most `fpr`; only observed distances can matter."""
    thresholds = [-np.inf, *positive, *negative]
    return max(rate(positive, t) for t in thresholds if rate(negative, t) <= fpr)
