"""Spectral re-ranking ("local blurring"): the nearest images of a query are blurred among themselves and sorted anew.

Reference: Luo et al., Spectral Feature Transformation for Person Re-identification, ICCV 2019, section 3.4.
"""

import numpy as np
import torch
import torch.nn.functional as F

from utils.errors import ConfigError
from utils.ranking.distance import Distances, as_pair, feature_distances, on_gpu, row_blocks, unit_features
from utils.ranking.on_gpu import device_distances, device_unit_features

DECIMALS = 12  # of a similarity in -1..1: what lies closer is float64 rounding, so a tie
LOWEST_BITS = 2**31  # the sign bit of a float32; 32 bits below it name a column


def spectral_rerank(
    qf: np.ndarray | torch.Tensor, gf: np.ndarray | torch.Tensor, k: int, temperature: float
) -> np.ndarray:
    """Return the distances of `spectral_distances` as a whole matrix, float32 [Q, G], on the CPU; errors as there."""
    distances = spectral_distances(qf, gf, k, temperature)
    result = np.empty(distances.shape, dtype=np.float32)
    for start, rows in distances.blocks():
        result[start : start + len(rows)] = rows
    return result


def spectral_distances(
    qf: np.ndarray | torch.Tensor, gf: np.ndarray | torch.Tensor, k: int, temperature: float
) -> Distances:
    """Return re-ranked distances of query features [Q, D] to gallery features [G, D], float32, made block by block.

    Both sides are L2-normalised first. With q a query and F [k, D] its k nearest gallery features (ties by the smaller
    index; k beyond G means G), these k places are sorted anew by
        F' q,  F' = A F,  A = row softmax of F F^T / temperature
    largest first, ties by the old order; q itself is not transformed, F' not normalised again. The new order takes over
    the squared Euclidean distances that stood at these places, so that distances still rise along it: a stable sort of
    a row gives the new order. Where two of them are equal and the order asks for it, the first is the next smaller
    float32. Everything beyond the k nearest stays.

    F' q = A (F q), so that a query costs k^2 D products, in float64. On a GPU where both sides lie on one. Raises
    ConfigError for k < 1 or a temperature that is not above 0, DataError for features that are empty, not finite or of
    different widths.
    """
    if k < 1 or not 0 < temperature < np.inf:
        raise ConfigError(
            f"spectral re-ranking with k {k}, temperature {temperature} is not possible; need k >= 1 and a temperature "
            "above 0 (TEST.SPECTRAL.K, T)"
        )
    if on_gpu(qf) and on_gpu(gf):
        query, gallery = device_unit_features(qf, "query"), device_unit_features(gf, "gallery")
        plain = device_distances(query, gallery)
    else:
        query, gallery = as_pair(qf, gf)
        query, gallery = unit_features(query, "query"), unit_features(gallery, "gallery")
        plain = feature_distances(query, gallery)
        query, gallery = torch.from_numpy(query), torch.from_numpy(gallery)

    @torch.no_grad()
    def rows(start: int, stop: int) -> np.ndarray | torch.Tensor:
        distances = torch.as_tensor(plain.rows_in_place(start, stop))
        result = _resorted(distances, query[start:stop], gallery, min(k, len(gallery)), temperature)
        return result if result.is_cuda else result.numpy()

    return Distances(plain.shape, rows)


def _resorted(
    rows: torch.Tensor, query: torch.Tensor, gallery: torch.Tensor, k: int, temperature: float
) -> torch.Tensor:
    """Return distances float32 [c, G] of unit queries [c, D] whose k smallest stand at other images of the k."""
    num_gallery, width = gallery.shape
    kept = min(k + 1, num_gallery)  # the first place behind stays, and bounds what stands before it
    float64 = torch.float64.itemsize
    result = torch.empty_like(rows)
    for start, stop in row_blocks(len(rows), float64 * (3 * num_gallery + 2 * k * width + 3 * k * k)):
        part = rows[start:stop]
        steps, columns = _nearest(part, kept)
        head = columns[:, :k]
        order = _blurred(query[start:stop], gallery[head], temperature).argsort(dim=1, descending=True, stable=True)
        columns = torch.cat([head.gather(1, order), columns[:, k:]], dim=1)
        result[start:stop] = part.scatter(1, columns, _as_floats(_risen(steps, columns)))
    return result


def _nearest(rows: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `count` smallest of float32 rows [c, G] as `_as_steps` and their columns, int64 [c, count] each.

    In stable order: by rising value, then by rising column. No two keys of a row are equal.
    """
    keys = (_as_steps(rows) << 32) | torch.arange(rows.shape[1], device=rows.device)
    keys = keys.topk(count, dim=1, largest=False, sorted=True).values
    return keys >> 32, keys & (2**32 - 1)


def _as_steps(values: torch.Tensor) -> torch.Tensor:
    """Return int64 numbers in the order of float32 values, 1 apart where these are neighbours; 0 for both zeros."""
    bits = values.contiguous().view(torch.int32).long()
    return torch.where(bits < 0, -(bits + LOWEST_BITS), bits)


def _as_floats(steps: torch.Tensor) -> torch.Tensor:
    """Return the float32 values that `_as_steps` made numbers of."""
    return torch.where(steps < 0, -steps - LOWEST_BITS, steps).int().view(torch.float32)


def _risen(steps: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return the largest numbers, none above `steps` [c, n], whose stable order is that of their places.

    `steps` rise along a row; where the columns [c, n] fall from one place to the next, a number must be below the next.
    The last one stays.
    """
    falls = (columns[:, :-1] > columns[:, 1:]).long()
    behind = F.pad(falls.flip(1).cumsum(1).flip(1), (0, 1))  # [c, n]: falls from here to the end
    return (steps + behind).flip(1).cummin(1).values.flip(1) - behind


def _blurred(query: torch.Tensor, head: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the similarities float64 [c, k] of unit queries [c, D] to their blurred nearest images, from [c, k, D]."""
    query, head = F.normalize(query.double(), dim=1), F.normalize(head.double(), dim=2)
    affinity = head @ head.mT  # [c, k, k]
    affinity = torch.softmax((affinity - affinity.amax(2, keepdim=True)) / temperature, dim=2)
    return (affinity @ (head @ query[:, :, None])).squeeze(2).round(decimals=DECIMALS)
