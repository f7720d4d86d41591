"""k-reciprocal re-ranking by lists of neighbours in sparse float32 matrices: O(N k^2) memory, no [N, N] matrix.

One swapped neighbour moves results by 1e-3, so neighbours that float32 cannot tell apart are compared in float64.
Reference: Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017, sections 3.2-3.5.
"""

import numpy as np
import torch
from scipy import sparse

from utils.errors import ConfigError
from utils.interrupts import check
from utils.progress import over
from utils.ranking import distance
from utils.ranking.distance import (
    ROUNDING,
    Distances,
    as_kept,
    check_pair,
    near_values,
    pick_nearest,
    row_blocks,
    squared_distances,
    squared_norms,
    stored_norms,
    widened_blocks,
)

LEAST_ROWS = 1024  # whose distances are made at once: fewer would read all features too often
VALUE_BYTES = 9  # of a distance: its value, a scaled one or the least of a group, a mask


def re_ranking(
    probFea: np.ndarray | torch.Tensor,
    galFea: np.ndarray | torch.Tensor,
    k1: int,
    k2: int,
    lambda_value: float,
) -> np.ndarray:
    """Return the distances of `re_ranked_distances` as a whole matrix, float32 [Q, G]; errors as there."""
    distances = re_ranked_distances(probFea, galFea, k1, k2, lambda_value)
    result = np.empty(distances.shape, dtype=np.float32)
    for start, rows in distances.blocks():
        result[start : start + len(rows)] = rows
    return result


def re_ranked_distances(
    qf: np.ndarray | torch.Tensor, gf: np.ndarray | torch.Tensor, k1: int, k2: int, lambda_value: float
) -> Distances:
    """Return the re-ranked distances of query features [Q, D] to gallery features [G, D], float32, made block by block.

    Over all N = Q + G images, with D_ij the squared Euclidean distance divided by the largest of row i and N(i, k) the
    k nearest images of i, itself included, ties by the smaller index:
        R(i, k) = {c in N(i, k + 1) : i in N(c, k + 1)}
        R*(i) = R(i, k1) and each R(c, h), c in R(i, k1), h = round(k1 / 2), of which more than 2/3 lie in R(i, k1)
        V_ij = exp(-D_ij) for j in R*(i), else 0; rows sum to 1; then replaced by the mean of V over N(i, k2)
        J_ij = 1 - m / (2 - m), m = sum_k min(V_ik, V_jk)
        result = (1 - lambda) J + lambda D
    round() takes halves to the even number. k1, k2 >= 1 beyond N mean N; lambda is in [0, 1]. What is held is V, and
    the features as they are given: float16 stays so, and a mapped file stays on its disk. Raises ConfigError for other
    parameters, DataError for features that are empty, not finite or of different widths.
    """
    if k1 < 1 or k2 < 1 or not 0 <= lambda_value <= 1:
        raise ConfigError(
            f"re-ranking with k1 {k1}, k2 {k2}, lambda {lambda_value} is not possible; need k1 >= 1, k2 >= 1 and "
            "lambda in [0, 1] (TEST.RERANK.K1, K2, LAMBDA)"
        )
    feat = Features(qf, gf)
    nearest, farthest = _neighbours(feat, max(k1 + 1, k2))
    encoding = _encode(_expanded_sets(nearest, k1), feat, farthest)
    if k2 > 1:
        encoding = _local_mean(encoding, nearest[:, :k2])
    num_query, num_gallery = feat.num_query, len(feat) - feat.num_query
    inverted = encoding[num_query:].T.tocsr()  # [N, G]: row k lists the gallery images with V_ik > 0
    encoding = encoding[:num_query]

    def rows(start: int, stop: int) -> np.ndarray:
        result = np.empty((stop - start, num_gallery), dtype=np.float32)
        query = feat.centred(start, stop)
        for first, last in row_blocks(num_gallery, feat.row_bytes):
            columns = slice(num_query + first, num_query + last)
            part = squared_distances(
                query, feat.centred(columns.start, columns.stop), feat.norms[start:stop], feat.norms[columns]
            )
            result[:, first:last] = np.maximum(part, 0) / farthest[start:stop, None]
        result *= np.float32(lambda_value)
        _add_jaccard(result, encoding[start:stop], inverted, 1 - lambda_value)
        return result

    return Distances((num_query, num_gallery), rows)


class Features:
    """The features of queries, then of the gallery, as one list of N images, of which float32 copies are made in parts.

    Raises DataError for features that are empty, not finite or of different widths.
    """

    def __init__(self, qf: np.ndarray | torch.Tensor, gf: np.ndarray | torch.Tensor) -> None:
        check_pair(qf, gf)
        self._query, self._gallery = as_kept(qf), as_kept(gf)
        (
            stored_norms(self._query, "query"),
            stored_norms(self._gallery, "gallery"),
        )  # refuses what is not finite, by name
        self.num_query = len(qf)
        self.row_bytes = self._query.shape[1] * np.dtype(np.float32).itemsize
        total = np.zeros(self._query.shape[1])
        for side in (self._query, self._gallery):
            for start, stop in widened_blocks(side):
                total += side[start:stop].sum(axis=0, dtype=np.float64)
        # distances stay; what float32 loses to a common offset of the features does not
        self._mean = (total / len(self)).astype(np.float32)
        blocks = row_blocks(len(self), self.row_bytes)
        self.norms = np.concatenate([squared_norms(self.centred(*block), "centred") for block in blocks])

    def __len__(self) -> int:
        return len(self._query) + len(self._gallery)

    def centred(self, start: int, stop: int) -> np.ndarray:
        """Return the features start, ..., stop - 1 less the mean of all, float32."""
        parts = self._query[start:stop], self._gallery[max(0, start - self.num_query) : max(0, stop - self.num_query)]
        return np.concatenate([part.astype(np.float32, copy=False) for part in parts]) - self._mean

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the features of `rows`, rising, float32."""
        number = rows.searchsorted(self.num_query)
        parts = self._query[rows[:number]], self._gallery[rows[number:] - self.num_query]
        return np.concatenate([part.astype(np.float32, copy=False) for part in parts])


def _neighbours(feat: Features, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest rows of each row, int32 [N, min(k, N)], and each row's largest distance, float32 [N].

    Neighbours rise in distance, then in index. A largest distance of 0 (all rows equal) is given as 1.
    """
    total = len(feat)
    nearest = np.empty((total, min(k, total)), dtype=np.int32)
    farthest = np.empty(total, dtype=np.float32)
    at_once = min(total, max(LEAST_ROWS, distance.BLOCK_BYTES // (VALUE_BYTES * total)))
    for start in over(range(0, total, at_once), "re-rank, 1 of 2", "block"):
        check()
        stop = min(start + at_once, total)
        nearest[start:stop], largest = _neighbours_of(feat, start, stop, nearest.shape[1])
        farthest[start:stop] = np.where(largest > 0, largest, 1)
    return nearest, farthest


def _neighbours_of(feat: Features, start: int, stop: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what `_neighbours` does of the rows start, ..., stop - 1, from the distances of some columns at a time."""
    own, norms = feat.centred(start, stop), feat.norms[start:stop]
    error = ROUNDING * (norms + feat.norms.max())
    largest = np.zeros(stop - start, dtype=np.float32)
    smallest = np.full((stop - start, k), np.inf, dtype=np.float32)  # no image is counted twice in them
    found = []
    for first, last in row_blocks(len(feat), VALUE_BYTES * (stop - start)):
        rows = squared_distances(own, feat.centred(first, last), norms, feat.norms[first:last])
        np.maximum(rows, 0, out=rows)
        np.maximum(largest, rows.max(axis=1), out=largest)
        values = np.concatenate([smallest, near_values(rows, k)], axis=1)
        smallest = np.partition(values, k - 1, axis=1)[:, :k]
        bound = smallest[:, k - 1] + 2 * error
        row, column = np.divmod(np.flatnonzero(rows <= bound[:, None]), last - first)
        found.append((row, column + first, rows[row, column]))
    row, column, value = (np.concatenate(parts) for parts in zip(*found, strict=True))
    near = np.flatnonzero(value <= bound[row])
    near = near[row[near].argsort(kind="stable")]  # columns rise within a row
    return pick_nearest(
        (row[near], column[near], value[near]), feat.take(np.arange(start, stop)), feat.take, k, error
    ), largest


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


def _encode(expanded: sparse.csr_array, feat: Features, farthest: np.ndarray) -> sparse.csr_array:
    """Return V: exp(-D_ij) at the non-zeros of `expanded`, each row divided by its sum; float32 CSR [N, N]."""
    weight = np.empty(expanded.nnz, dtype=np.float32)
    for row in over(range(len(feat)), "re-rank, 2 of 2", "image"):
        check()
        begin, end = expanded.indptr[row : row + 2]
        offset = feat.take(expanded.indices[begin:end]) - feat.take(np.array([row]))
        part = np.exp(np.einsum("ij,ij->i", offset, offset) / -farthest[row])
        weight[begin:end] = part / part.sum()
    return sparse.csr_array((weight, expanded.indices, expanded.indptr), shape=expanded.shape)


def _local_mean(encoding: sparse.csr_array, nearest: np.ndarray) -> sparse.csr_array:
    """Return, for each row, the mean of the rows of `encoding` at `nearest` [N, k2] (local query expansion)."""
    mean = _graph(nearest) @ encoding
    mean.data /= nearest.shape[1]
    return mean


def _add_jaccard(result: np.ndarray, encoding: sparse.csr_array, inverted: sparse.csr_array, weight: float) -> None:
    """Add weight * Jaccard distance of queries of V `encoding` [c, N] to `result` [c, G], by the inverted lists."""
    for row in range(len(result)):
        check()
        part = slice(*encoding.indptr[row : row + 2])
        lists = inverted[encoding.indices[part]]
        own = np.repeat(encoding.data[part], np.diff(lists.indptr))
        shared = np.bincount(lists.indices, np.minimum(lists.data, own), minlength=result.shape[1])  # m, [G]
        result[row] += weight * (1 - shared / (2 - shared))
