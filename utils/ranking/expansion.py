"""Query expansion: each query becomes the mean of itself and its nearest gallery images, and is searched again.

Reference: Chum et al., Total Recall: Automatic Query Expansion with a Generative Feature Model for Object Retrieval,
ICCV 2007 (average query expansion, AQE); Radenovic et al., Fine-tuning CNN Image Retrieval with No Human Annotation,
TPAMI 2018, section 3.4 (alpha-QE).
"""

import numpy as np
import torch
from scipy import sparse

from utils.errors import ConfigError
from utils.ranking.distance import (
    ROUNDING,
    as_pair,
    nearest_columns,
    row_blocks,
    squared_distances,
    squared_norms,
    unit_features,
)


def expand_queries(
    qf: np.ndarray | torch.Tensor, gf: np.ndarray | torch.Tensor, k: int, alpha: float, times: int = 1
) -> np.ndarray:
    """Return the expanded queries, float32 [Q, D], L2-normalised, of query features [Q, D], gallery features [G, D].

    Both sides are L2-normalised first, so that they need not be on entry. With q a query, g_1 .. g_k its k nearest
    gallery features (ties by the smaller index) and s_i = max(q . g_i, 0) their similarity, the result is
        q' = q + sum_i s_i^alpha g_i, divided by its length (a sum of 0 stays 0)
    alpha 0 weighs all alike, 0^0 = 1 included: AQE. `times` > 1 repeats with q' in the place of q and the same gallery.
    k beyond G means G. Raises ConfigError for k < 1, alpha < 0 or times < 1, DataError for features that are empty, not
    finite or of different widths.
    """
    if k < 1 or not 0 <= alpha < np.inf or times < 1:
        raise ConfigError(
            f"query expansion with k {k}, alpha {alpha}, times {times} is not possible; need k >= 1, alpha >= 0 and "
            "times >= 1 (TEST.QE.K, ALPHA, TIMES)"
        )
    query, gallery = as_pair(qf, gf)
    query, gallery = unit_features(query, "query"), unit_features(gallery, "gallery")
    norms = squared_norms(gallery, "gallery")  # 1, or 0 for features of zeros
    for _ in range(times):
        # float32 distances, a mask, minima of groups
        for start, stop in row_blocks(len(query), 9 * len(gallery), "expand the queries"):
            query[start:stop] = _expand(query[start:stop], gallery, norms, min(k, len(gallery)), alpha)
    return query


def _expand(query: np.ndarray, gallery: np.ndarray, norms: np.ndarray, k: int, alpha: float) -> np.ndarray:
    """Return q' of unit queries [c, D], see `expand_queries`."""
    own_norms = squared_norms(query, "query")
    rows = squared_distances(query, gallery, own_norms, norms)
    nearest = nearest_columns(rows, query, gallery, k, 2 * ROUNDING)
    similarity = (own_norms[:, None] + norms[nearest] - np.take_along_axis(rows, nearest, axis=1)) / 2  # [c, k]
    weight = np.maximum(similarity, 0) ** np.float32(alpha)
    starts = np.arange(len(query) + 1) * k
    mix = sparse.csr_array((weight.ravel(), nearest.ravel(), starts), shape=rows.shape)
    return unit_features(query + mix @ gallery, "query")
