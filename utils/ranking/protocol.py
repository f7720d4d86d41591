"""Which images count for a query: matches, other identities, and junk, which leaves the ranking.

Junk is what shares the query's identity and camera (Zheng et al., Scalable Person Re-identification, ICCV 2015), or
what the rule of a data set says.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from utils.errors import DataError
from utils.ranking.distance import as_array


class Protocol(NamedTuple):
    """Labels of queries and gallery (integer arrays, tensors or lists) and which pairs are junk.

    Without `mask` that are the pairs of one identity and one camera; where the data has no cameras, 0 for queries and
    1 for the gallery filters nothing. With it the cameras are only shown.
    """

    q_pids: Any  # [Q]
    g_pids: Any  # [G]
    q_camids: Any  # [Q]
    g_camids: Any  # [G]
    mask: Callable[[int, int], np.ndarray] | None = None  # queries (start, stop) -> bool [stop - start, G], True = junk


class Grouped(NamedTuple):
    """The labels of a protocol as arrays, and the gallery's images grouped by identity."""

    q_pids: np.ndarray  # [Q]
    g_pids: np.ndarray  # [G]
    q_camids: np.ndarray  # [Q]
    g_camids: np.ndarray  # [G]
    mask: Callable[[int, int], np.ndarray] | None
    by_pid: np.ndarray  # [G]: gallery indices grouped by rising pid, rising within a pid
    begin: np.ndarray  # [Q]: where the query's pid begins in by_pid
    end: np.ndarray  # [Q]


class SameIdentity(NamedTuple):
    """All pairs of one identity of some successive queries, in order of the queries."""

    query: np.ndarray  # int64 [M]: rows of the block, the first of its queries is 0
    gallery: np.ndarray  # int64 [M]: gallery indices
    junk: np.ndarray  # bool [M]: the cameras are the same too; False where the protocol has a mask
    left_out: np.ndarray | None  # bool [c, G]: the protocol's mask of these queries; its pairs are none of the above


def group(protocol: Protocol, shape: tuple[int, int]) -> Grouped:
    """Return the labels for distances of `shape` = (Q, G); DataError where sizes disagree."""
    num_query, num_gallery = shape
    if num_query == 0 or num_gallery == 0:
        raise DataError(f"{num_query} query and {num_gallery} gallery images; need at least one of each to rank")
    sides = (num_query, num_gallery, num_query, num_gallery)
    arrays = [as_array(values) for values in protocol[:4]]
    for name, values, size in zip(Protocol._fields, arrays, sides, strict=False):
        if values.shape != (size,):
            raise DataError(f"{name} has shape {list(values.shape)}; need [{size}], one label per image")
    by_pid = np.argsort(arrays[1], kind="stable")
    grouped = arrays[1][by_pid]
    begin, end = (grouped.searchsorted(arrays[0], side) for side in ("left", "right"))
    return Grouped(*arrays, protocol.mask, by_pid, begin, end)


def same_identity(labels: Grouped, start: int, stop: int) -> SameIdentity:
    """Return all pairs of one identity of the queries start, ..., stop - 1, junk by camera included."""
    begin, count = labels.begin[start:stop], (labels.end - labels.begin)[start:stop]
    query = np.repeat(np.arange(stop - start), count)
    within = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
    gallery = labels.by_pid[begin[query] + within]
    if labels.mask is None:
        junk = labels.g_camids[gallery] == labels.q_camids[query + start]
        return SameIdentity(query, gallery, junk, None)
    left_out = labels.mask(start, stop)
    kept = ~left_out[query, gallery]
    return SameIdentity(query[kept], gallery[kept], np.zeros(kept.sum(), dtype=bool), left_out)


def finite_range(rows: np.ndarray | torch.Tensor, first_query: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and largest distance of each row [c, G], [c] each, on the CPU.

    Raises DataError when a row holds NaN or infinity; row 0 is the query `first_query`.
    """
    found = rows.aminmax(dim=1) if isinstance(rows, torch.Tensor) else (rows.min(axis=1), rows.max(axis=1))
    low, high = map(as_array, found)  # both NaN where a row holds NaN
    broken = ~(np.isfinite(low) & np.isfinite(high))
    if broken.any():
        raise DataError(
            f"the distances of query {first_query + broken.argmax()} (0-based) hold NaN or infinity; check the features"
        )
    return low, high


def no_match(labels: Grouped) -> DataError:
    """Return the error that says why no query has a match, and what to do."""
    start = f"none of the {len(labels.q_pids)} queries has a match among {len(labels.g_pids)} gallery images: "
    if (labels.end > labels.begin).any() and labels.mask is not None:
        return DataError(start + "the data set's rule calls each image of a query's identity junk; check its labels")
    if (labels.end > labels.begin).any():
        return DataError(
            start + "each image of a query's identity has the query's own camera id, which the protocol removes; "
            "check the camera ids, or give query and gallery different ones"
        )
    query, gallery = np.unique(labels.q_pids)[:3].tolist(), np.unique(labels.g_pids)[:3].tolist()
    return DataError(
        start + f"they share no identity (query ids begin {query}, gallery ids {gallery}); check the two lists"
    )
