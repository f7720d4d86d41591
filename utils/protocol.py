"""Which images count for a query: matches, other identities, and junk (same identity and same camera).

Reference: Zheng et al., Scalable Person Re-identification, ICCV 2015.
"""

from typing import Any, NamedTuple

import numpy as np

from utils.distance import as_array
from utils.errors import DataError


class Labels(NamedTuple):
    """Integer labels of queries and gallery, and the gallery's images grouped by identity."""

    q_pids: np.ndarray  # [Q]
    g_pids: np.ndarray  # [G]
    q_camids: np.ndarray  # [Q]
    g_camids: np.ndarray  # [G]
    by_pid: np.ndarray  # [G]: gallery indices grouped by rising pid, rising within a pid
    begin: np.ndarray  # [Q]: where the query's pid begins in by_pid
    end: np.ndarray  # [Q]


class SameIdentity(NamedTuple):
    """All pairs of one identity of some successive queries, in order of the queries."""

    query: np.ndarray  # int64 [M]: rows of the block, the first of its queries is 0
    gallery: np.ndarray  # int64 [M]: gallery indices
    junk: np.ndarray  # bool [M]: the cameras are the same too


def make_labels(shape: tuple[int, int], q_pids: Any, g_pids: Any, q_camids: Any, g_camids: Any) -> Labels:
    """Return the labels (integer arrays, tensors, lists) of `shape` = (Q, G) images; DataError where sizes disagree."""
    num_query, num_gallery = shape
    if num_query == 0 or num_gallery == 0:
        raise DataError(f"{num_query} query and {num_gallery} gallery images; need at least one of each to rank")
    sides = (num_query, num_gallery, num_query, num_gallery)
    arrays = [as_array(values) for values in (q_pids, g_pids, q_camids, g_camids)]
    for name, values, size in zip(("q_pids", "g_pids", "q_camids", "g_camids"), arrays, sides, strict=True):
        if values.shape != (size,):
            raise DataError(f"{name} has shape {list(values.shape)}; need [{size}], one label per image")
    by_pid = np.argsort(arrays[1], kind="stable")
    grouped = arrays[1][by_pid]
    return Labels(*arrays, by_pid, grouped.searchsorted(arrays[0], "left"), grouped.searchsorted(arrays[0], "right"))


def same_identity(labels: Labels, start: int, stop: int) -> SameIdentity:
    """Return all pairs of one identity of the queries start, ..., stop - 1, junk included."""
    begin, count = labels.begin[start:stop], (labels.end - labels.begin)[start:stop]
    query = np.repeat(np.arange(stop - start), count)
    within = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
    gallery = labels.by_pid[begin[query] + within]
    return SameIdentity(query, gallery, labels.g_camids[gallery] == labels.q_camids[query + start])


def finite_range(rows: np.ndarray, first_query: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and largest distance of each row [c, G], [c] each.

    Raises DataError when a row holds NaN or infinity; row 0 is the query `first_query`.
    """
    low, high = rows.min(axis=1), rows.max(axis=1)  # both NaN where a row holds NaN
    check_range(low, high, first_query)
    return low, high


def check_range(low: np.ndarray, high: np.ndarray, first_query: int) -> None:
    """Raise DataError, as `finite_range` does, for the smallest and largest distances [c] of rows."""
    broken = ~(np.isfinite(low) & np.isfinite(high))
    if broken.any():
        raise DataError(
            f"the distances of query {first_query + broken.argmax()} (0-based) hold NaN or infinity; check the features"
        )


def no_match(labels: Labels) -> DataError:
    """Return the error that says why no query has a match, and what to do."""
    start = f"none of the {len(labels.q_pids)} queries has a match among {len(labels.g_pids)} gallery images: "
    if (labels.end > labels.begin).any():
        return DataError(
            start + "each image of a query's identity has the query's own camera id, which the protocol removes; "
            "check the camera ids, or give query and gallery different ones"
        )
    query, gallery = np.unique(labels.q_pids)[:3].tolist(), np.unique(labels.g_pids)[:3].tolist()
    return DataError(
        start + f"they share no identity (query ids begin {query}, gallery ids {gallery}); check the two lists"
    )
