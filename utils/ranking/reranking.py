"""k-reciprocal re-ranking in sparse float32 matrices: O(N k^2) memory and time beside the blocked distances.

One swapped neighbour moves results by 1e-3, so neighbours that float32 cannot tell apart are compared in float64.
Reference: Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017, sections 3.2-3.5.
"""

import numpy as np
import torch
from scipy import sparse

from utils.errors import ConfigError
from utils.interrupts import check
from utils.progress import over
from utils.ranking.distance import ROUNDING, as_pair, nearest_columns, row_blocks, squared_distances, squared_norms


def re_ranking(
    probFea: np.ndarray | torch.Tensor,
    galFea: np.ndarray | torch.Tensor,
    k1: int,
    k2: int,
    lambda_value: float,
) -> np.ndarray:
    """Return the re-ranked distances, float32 [Q, G], of query features [Q, D] to gallery features [G, D].

    Over all N = Q + G images, with D_ij the squared Euclidean distance divided by the largest of row i and N(i, k) the
    k nearest images of i, itself included, ties by the smaller index:
        R(i, k) = {c in N(i, k + 1) : i in N(c, k + 1)}
        R*(i) = R(i, k1) and each R(c, h), c in R(i, k1), h = round(k1 / 2), of which more than 2/3 lie in R(i, k1)
        V_ij = exp(-D_ij) for j in R*(i), else 0; rows sum to 1; then replaced by the mean of V over N(i, k2)
        J_ij = 1 - m / (2 - m), m = sum_k min(V_ik, V_jk)
        result = (1 - lambda) J + lambda D
    round() takes halves to the even number. k1, k2 >= 1 beyond N mean N; lambda is in [0, 1]. Raises ConfigError for
    other parameters, DataError for features that are empty, not finite or of different widths.
    """
    if k1 < 1 or k2 < 1 or not 0 <= lambda_value <= 1:
        raise ConfigError(
            f"re-ranking with k1 {k1}, k2 {k2}, lambda {lambda_value} is not possible; need k1 >= 1, k2 >= 1 and "
            "lambda in [0, 1] (TEST.RERANK.K1, K2, LAMBDA)"
        )
    query, gallery = as_pair(probFea, galFea)
    squared_norms(query, "query"), squared_norms(gallery, "gallery")  # refuses what is not finite, by name
    num_query = len(query)
    feat = np.concatenate((query, gallery))
    nearest, farthest, result = _neighbours(feat, num_query, max(k1 + 1, k2))
    expanded = _expanded_sets(nearest, k1)
    encoding = _encode(expanded, feat, farthest)
    if k2 > 1:
        encoding = _local_mean(encoding, nearest[:, :k2])
    result *= np.float32(lambda_value)
    _add_jaccard(result, encoding, num_query, 1 - lambda_value)
    return result


def _neighbours(feat: np.ndarray, num_query: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the k nearest rows of each row [N, min(k, N)], each row's largest distance [N], and D [Q, G].

    Neighbours rise in distance, then in index. A largest distance of 0 (all rows equal) is given as 1.
    """
    total = len(feat)
    nearest = np.empty((total, min(k, total)), dtype=np.int32)
    farthest = np.empty(total, dtype=np.float32)
    to_gallery = np.empty((num_query, total - num_query), dtype=np.float32)
    centred = feat - feat.mean(axis=0)  # distances stay; what float32 loses to a common offset of the features does not
    norms = squared_norms(centred, "centred")
    # float32 distances, those to the gallery scaled, a mask
    for start, stop in row_blocks(total, 9 * total, "re-rank, 1 of 3"):
        rows = squared_distances(centred[start:stop], centred, norms[start:stop], norms)
        np.maximum(rows, 0, out=rows)
        largest = rows.max(axis=1)
        farthest[start:stop] = np.where(largest > 0, largest, 1)
        error = ROUNDING * (norms[start:stop] + norms.max())
        nearest[start:stop] = nearest_columns(rows, feat[start:stop], feat, nearest.shape[1], error)
        query = slice(start, max(start, min(stop, num_query)))
        to_gallery[query] = rows[: query.stop - start, num_query:] / farthest[query, None]
    return nearest, farthest, to_gallery


def _graph(nearest: np.ndarray) -> sparse.csr_array:
    """Return the float32 0/1 matrix [N, N] with ones at (i, nearest[i])."""
    total, k = nearest.shape
    ones = np.ones(nearest.size, dtype=np.float32)
    return sparse.csr_array((ones, nearest.ravel(), np.arange(total + 1) * k), shape=(total, total))


def _expanded_sets(nearest: np.ndarray, k1: int) -> sparse.csr_array:
    """Return a sparse [N, N] matrix whose non-zeros are the members of each R*(i)."""
    forward, half_forward = _graph(nearest[:, : k1 + 1]), _graph(nearest[:, : round(k1 / 2) + 1])
    mutual, half = forward.multiply(forward.T).tocsr(), half_forward.multiply(half_forward.T).tocsr()
    overlap = (mutual @ half.T).multiply(mutual).tocoo()  # |R(i, k1) and R(c, h)| for c in R(i, k1)
    half_size = np.diff(half.indptr)
    merged = 3 * overlap.data > 2 * half_size[overlap.col]
    select = sparse.csr_array((overlap.data[merged], (overlap.row[merged], overlap.col[merged])), shape=mutual.shape)
    expanded = (mutual + select @ half).tocsr()
    expanded.sort_indices()
    return expanded


def _encode(expanded: sparse.csr_array, feat: np.ndarray, farthest: np.ndarray) -> sparse.csr_array:
    """Return V: exp(-D_ij) at the non-zeros of `expanded`, each row divided by its sum; float32 CSR [N, N]."""
    weight = np.empty(expanded.nnz, dtype=np.float32)
    for row in over(range(len(feat)), "re-rank, 2 of 3", "image"):
        check()
        begin, end = expanded.indptr[row : row + 2]
        offset = feat[expanded.indices[begin:end]] - feat[row]
        part = np.exp(np.einsum("ij,ij->i", offset, offset) / -farthest[row])
        weight[begin:end] = part / part.sum()
    return sparse.csr_array((weight, expanded.indices, expanded.indptr), shape=expanded.shape)


def _local_mean(encoding: sparse.csr_array, nearest: np.ndarray) -> sparse.csr_array:
    """Return, for each row, the mean of the rows of `encoding` at `nearest` [N, k2] (local query expansion)."""
    mean = _graph(nearest) @ encoding
    mean.data /= nearest.shape[1]
    return mean


def _add_jaccard(result: np.ndarray, encoding: sparse.csr_array, num_query: int, weight: float) -> None:
    """Add weight * Jaccard distance of queries to gallery to `result` [Q, G], by the gallery's inverted lists."""
    inverted = encoding[num_query:].T.tocsr()  # [N, G]: row k lists the gallery images with V_ik > 0
    begin, end = encoding.indptr[:num_query], encoding.indptr[1 : num_query + 1]
    for row in over(range(num_query), "re-rank, 3 of 3", "query"):
        check()
        part = slice(begin[row], end[row])
        lists = inverted[encoding.indices[part]]
        own = np.repeat(encoding.data[part], np.diff(lists.indptr))
        shared = np.bincount(lists.indices, np.minimum(lists.data, own), minlength=result.shape[1])  # m, [G]
        result[row] += weight * (1 - shared / (2 - shared))
