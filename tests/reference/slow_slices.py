"""mAP and Rank-1 of parts of a test in the most obvious way: one query at a time, its gallery restricted by hand."""

from collections.abc import Sequence

import numpy as np

from tests.reference.retrieval import ranked_matches


def average_precision(matches: list[bool]) -> float:
    """Return the mean over the matches of (matches so far / rank), ranks counted from 1."""
    precisions = [sum(matches[:rank]) / rank for rank in range(1, len(matches) + 1) if matches[rank - 1]]
    return sum(precisions) / len(precisions)


def score(
    queries: Sequence[int],
    distmat: np.ndarray,
    q_pids: Sequence[int],
    g_pids: Sequence[int],
    q_camids: Sequence[int],
    g_camids: Sequence[int],
    columns: Sequence[int] | None = None,
) -> tuple[int, int, float, float]:
    """Return (valid queries, their identities, mAP, R1) of `queries` against the gallery images `columns` (None: all).

    The means are NaN where no query has a match.
    """
    columns = range(len(g_pids)) if columns is None else columns
    precisions, first, pids = [], [], set()
    for query in queries:
        distances = [distmat[query][column] for column in columns]
        labels = [g_pids[column] for column in columns], [g_camids[column] for column in columns]
        matches = ranked_matches(distances, q_pids[query], q_camids[query], *labels)
        if any(matches):
            precisions.append(average_precision(matches))
            first.append(matches[0])
            pids.add(q_pids[query])
    if not precisions:
        return 0, 0, float("nan"), float("nan")
    return len(precisions), len(pids), sum(precisions) / len(precisions), sum(first) / len(first)
