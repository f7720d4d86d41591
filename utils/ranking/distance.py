"""Distances between the embeddings of images, block by block, on the CPU and in true float32.

numpy is used on purpose: torch may run a float32 product in TF32 or bfloat16, which changes ranks at the 4th decimal.
`utils.ranking.on_gpu` does the same for features that lie on a GPU.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from utils.errors import DataError
from utils.interrupts import check
from utils.progress import over

BLOCK_BYTES = 64 * 2**20  # what the arrays of one block of rows may take together
ROUNDING = 1e-5  # float32 error of a squared distance over the largest squared norms in it, with a wide margin
GROUP = 8  # columns of which only the smallest is looked at when the k nearest are bounded


def on_gpu(values: np.ndarray | torch.Tensor) -> bool:
    """Return whether `values` lies on a GPU that multiplies and sorts as the CPU does; Apple's are not known to."""
    return isinstance(values, torch.Tensor) and values.is_cuda


def as_array(values: np.ndarray | torch.Tensor) -> np.ndarray:
    """Return `values` as a numpy array on the CPU, half types widened to float32; a view where that is possible."""
    if isinstance(values, torch.Tensor):
        values = values.detach()
        values = (values.float() if values.dtype in (torch.float16, torch.bfloat16) else values).cpu().numpy()
    values = np.asarray(values)
    return values.astype(np.float32) if values.dtype == np.float16 else values


def as_features(values: np.ndarray | torch.Tensor, name: str) -> np.ndarray:
    """Return embeddings [N, D] as float32 numpy; DataError unless N and D are at least 1. `name` is for the message."""
    check_shape(values, name)
    return as_array(values).astype(np.float32, copy=False)


def check_shape(values: np.ndarray | torch.Tensor, name: str) -> None:
    """Raise DataError unless `name` features are [N, D], N and D at least 1."""
    if values.ndim != 2 or 0 in values.shape:
        raise DataError(f"{name} features have shape {list(values.shape)}; need one row per image, [N >= 1, D >= 1]")


def check_pair(qf: np.ndarray | torch.Tensor, gf: np.ndarray | torch.Tensor) -> None:
    """Raise DataError unless query and gallery features are [Q, D] and [G, D], Q, G and D at least 1."""
    check_shape(qf, "query")
    check_shape(gf, "gallery")
    if qf.shape[1] != gf.shape[1]:
        raise DataError(f"query features have {qf.shape[1]} values, gallery features {gf.shape[1]}; use one model")


def as_pair(qf: np.ndarray | torch.Tensor, gf: np.ndarray | torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return query and gallery features as `as_features` does; DataError as `check_pair`."""
    check_pair(qf, gf)
    return as_features(qf, "query"), as_features(gf, "gallery")


def squared_norms(feat: np.ndarray, name: str) -> np.ndarray:
    """Return |x_i|^2, float32 [N], of float32 features [N, D]; DataError naming the first row that is not finite."""
    norms = np.einsum("ij,ij->i", feat, feat)
    check_norms(norms, name)
    return norms


def check_norms(norms: np.ndarray, name: str) -> None:
    """Raise DataError naming the first row of the `name` features whose squared norm, of norms [N], is not finite."""
    broken = np.flatnonzero(~np.isfinite(norms))
    if len(broken):
        raise DataError(
            f"{name} feature row {broken[0]} (0-based; {len(broken)} of {len(norms)} rows) holds NaN, infinity or "
            "values whose square overflows; check the weights, SOLVER.AMP, TEST.AMP and TEST.FEATURES"
        )


def unit_features(values: np.ndarray | torch.Tensor, name: str) -> np.ndarray:
    """Return a copy of features [N, D], float32, each row divided by its length; a row of zeros stays as it is.

    Raises DataError as `as_features` and `squared_norms` do.
    """
    feat = as_features(values, name)
    length = np.sqrt(squared_norms(feat, name))
    return feat / np.where(length > 0, length, 1)[:, None]


def as_kept(values: np.ndarray | torch.Tensor) -> np.ndarray:
    """Return features as numpy on the CPU: float16 as it is, all else as float32; a view where that is possible."""
    if isinstance(values, torch.Tensor) and values.dtype == torch.float16:
        return values.detach().cpu().numpy()
    return values if values.dtype == np.float16 else as_array(values).astype(np.float32, copy=False)


def widened_blocks(feat: np.ndarray | torch.Tensor) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) over rows of features [N, D], in blocks of which a float32 copy fits BLOCK_BYTES."""
    return row_blocks(len(feat), feat.shape[1] * np.dtype(np.float32).itemsize)


def stored_norms(feat: np.ndarray, name: str) -> np.ndarray:
    """Return what `squared_norms` does of features in float32 or float16, which are widened a block at a time."""
    if feat.dtype == np.float32:
        return squared_norms(feat, name)
    wide = (feat[start:stop].astype(np.float32) for start, stop in widened_blocks(feat))
    norms = np.concatenate([np.einsum("ij,ij->i", part, part) for part in wide])
    check_norms(norms, name)
    return norms


def squared_distances(x: np.ndarray, y: np.ndarray, x_norms: np.ndarray, y_norms: np.ndarray) -> np.ndarray:
    """Return |x_i|^2 + |y_j|^2 - 2 x_i.y_j, float32 [N, M], for float32 x [N, D], y [M, D] and their squared norms.

    Not clamped: rounding can leave about -1e-6 |x|^2 where the true distance is 0.
    """
    distances = x @ y.T
    distances *= -2
    distances += y_norms
    distances += x_norms[:, None]
    return distances


def nearest_columns(rows: np.ndarray, x: np.ndarray, y: np.ndarray, k: int, error: np.ndarray | float) -> np.ndarray:
    """Return the k columns nearest to each row, int32 [N, k], by rising distance, then rising column; k <= M.

    `rows` are `squared_distances` [N, M] of features x [N, D] to y [M, D], wrong by at most `error` (of each row [N] or
    of all); where that leaves the order open, the distances of the candidates are computed again in float64.
    """
    error = np.broadcast_to(error, len(rows))
    bound = np.partition(near_values(rows, k), k - 1, axis=1)[:, k - 1] + 2 * error
    row, column = np.divmod(np.flatnonzero(rows <= bound[:, None]), rows.shape[1])  # columns rise within a row
    return pick_nearest((row, column, rows[row, column]), x, y.__getitem__, k, error)


def pick_nearest(
    candidates: tuple[np.ndarray, np.ndarray, np.ndarray],
    x: np.ndarray,
    take: Callable[[np.ndarray], np.ndarray],
    k: int,
    error: np.ndarray,
) -> np.ndarray:
    """Return what `nearest_columns` does, of (row, column, distance) [C] each that hold the k nearest of every row.

    Rows rise, columns rise within a row; `take` gives the features of columns.
    """
    row, column, value = candidates
    nearest = np.empty((len(x), k), dtype=np.int32)
    edges = row.searchsorted(np.arange(len(x) + 1))
    for index, (begin, end) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        own, distances = column[begin:end], value[begin:end]
        order = distances.argsort(kind="stable")
        ordered = distances[order[: k + 1]]
        if np.any(ordered[1:] - ordered[:-1] <= 2 * error[index]):
            offset = take(own) - x[index].astype(np.float64)
            order = np.einsum("ij,ij->i", offset, offset).argsort(kind="stable")
        nearest[index] = own[order[:k]]
    return nearest


def near_values(rows: np.ndarray, k: int) -> np.ndarray:
    """Return values of each row [N, M], at least min(k, M) of them, whose k-th smallest is close to that of the row.

    It is never below that. The minima of groups are such values, and much less work than all of them.
    """
    groups = rows.shape[1] // GROUP
    return rows[:, : groups * GROUP].reshape(len(rows), GROUP, groups).min(axis=1) if groups >= k else rows


def row_blocks(num_rows: int, row_bytes: int, what: str = "") -> Iterator[tuple[int, int]]:
    """Yield (start, stop) over `num_rows`, in blocks of as many rows as BLOCK_BYTES holds, at least 1.

    Noted Ctrl-C ends it between two blocks. `what` names the work beside a progress bar, '' = without one.
    """
    starts = range(0, num_rows, max(1, BLOCK_BYTES // row_bytes))
    for start in over(starts, what, "block") if what else starts:
        check()
        yield start, min(start + starts.step, num_rows)


class Distances:
    """Distances of Q queries to G gallery images, smaller = more alike, made a few rows at a time.

    Those of features are float32, those of a matrix have its type.
    """

    def __init__(self, shape: tuple[int, int], rows: Callable[[int, int], np.ndarray | torch.Tensor]) -> None:
        self.shape = shape
        self._rows = rows  # (start, stop) -> [stop - start, G]

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return the distances of the queries start, ..., stop - 1 on the CPU, [stop - start, G]."""
        return as_array(self._rows(start, stop))

    def rows_in_place(self, start: int, stop: int) -> np.ndarray | torch.Tensor:
        """Return what `rows` returns, as a tensor on the GPU where it is made there."""
        return self._rows(start, stop)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (start, rows) over all queries on the CPU, in blocks of about 64 MiB."""
        for start, stop in self.spans():
            yield start, self.rows(start, stop)

    def blocks_in_place(self) -> Iterator[tuple[int, np.ndarray | torch.Tensor]]:
        """Yield what `blocks` yields, as tensors on the GPU where they are made there."""
        for start, stop in self.spans():
            yield start, self.rows_in_place(start, stop)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of these blocks."""
        row_bytes = 2 * self.shape[1] * np.dtype(np.float32).itemsize  # the rows and a copy that the user sorts
        return row_blocks(self.shape[0], row_bytes, "rank")


def matrix_distances(distmat: np.ndarray | torch.Tensor) -> Distances:
    """Return the distances in a matrix [Q, G] of any real type; DataError for another number of dimensions."""
    if distmat.ndim != 2:
        raise DataError(f"the distance matrix has shape {list(distmat.shape)}; need [queries, gallery]")
    stays = on_gpu(distmat) and distmat.dtype in (torch.float32, torch.float64)
    return Distances(
        tuple(distmat.shape), lambda start, stop: distmat[start:stop] if stays else as_array(distmat[start:stop])
    )


def feature_distances(qf: np.ndarray | torch.Tensor, gf: np.ndarray | torch.Tensor) -> Distances:
    """Return the squared Euclidean distances of features [Q, D] to [G, D], in true float32, no [Q, G] matrix is made.

    Features in half precision stay so; of the gallery's a block at a time is widened.

    Raises DataError for features of different widths or that are not finite.
    """
    check_pair(qf, gf)
    qf, gf = as_kept(qf), as_kept(gf)
    q_norms, g_norms = stored_norms(qf, "query"), stored_norms(gf, "gallery")

    def rows(start: int, stop: int) -> np.ndarray:
        query, norms = qf[start:stop].astype(np.float32, copy=False), q_norms[start:stop]
        if gf.dtype == np.float32:
            return squared_distances(query, gf, norms, g_norms)
        distances = np.empty((stop - start, len(gf)), dtype=np.float32)
        for first, end in widened_blocks(gf):
            part = gf[first:end].astype(np.float32)
            distances[:, first:end] = squared_distances(query, part, norms, g_norms[first:end])
        return distances

    return Distances((len(qf), len(gf)), rows)
