"""Query expansion in the most obvious way: one query, one round at a time, in float64."""

import numpy as np
from numpy.typing import ArrayLike


def unit(vector: ArrayLike) -> np.ndarray:
    length = np.sqrt(np.sum(np.asarray(vector, dtype=np.float64) ** 2))
    return np.asarray(vector, dtype=np.float64) / (length if length > 0 else 1)


def expand(queries: np.ndarray, gallery: np.ndarray, k: int, alpha: float, times: int = 1) -> np.ndarray:
    """Return q + sum over the k most similar g of max(q . g, 0)^alpha g, normalised, `times` times, [Q, D]."""
    gallery = [unit(feature) for feature in gallery]
    expanded = []
    for query in queries:
        query = unit(query)
        for _ in range(times):
            order = sorted(range(len(gallery)), key=lambda g: ((gallery[g] - query) ** 2).sum())
            total = query
            for g in order[:k]:
                total = total + max(gallery[g] @ query, 0.0) ** alpha * gallery[g]  # Python: 0.0 ** 0 is 1
            query = unit(total)
        expanded.append(query)
    return np.array(expanded)
