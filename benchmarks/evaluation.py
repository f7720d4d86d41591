"""Time and memory of CMC/mAP/mINP against the textbook loop, on synthetic features; asserts that they agree.

python benchmarks/evaluation.py [queries gallery width]     (default 2000 12000 256; 0.5 GB, under a minute)
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import compare, measure
from utils.distance import squared_distances, squared_norms
from utils.metrics import rank_distances, rank_features

NUM_IDS, NUM_CAMS = 200, 8
REPEATS = 3


def textbook(distmat, q_pids, g_pids, q_camids, g_camids, kind, max_rank=50):
    """Return (cmc, ap of the valid queries, mINP) by sorting the whole matrix of indices and a loop over queries.

    `kind` is numpy's sort: "stable", whose ties are defined, or the faster default None, whose ties are not.
    """
    order = np.argsort(distmat, axis=1, kind=kind)
    matches = (g_pids[order] == q_pids[:, None]).astype(np.int32)
    curves, ap, inp = [], [], []
    for query in range(len(distmat)):
        junk = (g_pids[order[query]] == q_pids[query]) & (g_camids[order[query]] == q_camids[query])
        hits = matches[query][~junk]
        if not hits.any():
            continue
        found = hits.cumsum()
        curves.append(np.minimum(found[:max_rank], 1))
        precision = found / np.arange(1, len(found) + 1)
        ap.append((precision * hits).sum() / found[-1])
        inp.append(found[-1] / (np.flatnonzero(hits)[-1] + 1))
    return np.mean(curves, axis=0), np.array(ap), np.mean(inp)


def check(expected, ranking) -> None:
    cmc, ap, mean_inp = expected
    np.testing.assert_allclose(ranking.cmc, cmc, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ranking.ap[ranking.num_pos > 0], ap, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ranking.mINP, mean_inp, rtol=0, atol=1e-12)


def main(argv: list[str]) -> None:
    num_query, num_gallery, width = (int(value) for value in argv) if argv else (2000, 12000, 256)
    rng = np.random.default_rng(0)
    labels = [rng.integers(high, size=size) for high in (NUM_IDS, NUM_CAMS) for size in (num_query, num_gallery)]
    centres = rng.standard_normal((NUM_IDS, width))
    qf, gf = ((centres[pids] + 4 * rng.standard_normal((len(pids), width))).astype(np.float32) for pids in labels[:2])
    norms = squared_norms(qf, "query"), squared_norms(gf, "gallery")
    distmat = squared_distances(qf, gf, *norms)
    print(f"{num_query} queries x {num_gallery} gallery images, {width} values each")

    expected, stable = measure(lambda: textbook(distmat, *labels, "stable"), REPEATS)
    _, unstable = measure(lambda: textbook(distmat, *labels, None), REPEATS)
    ranking, ours = measure(lambda: rank_distances(distmat, *labels), REPEATS)
    check(expected, ranking)
    print(compare("distances given, stable argsort loop", stable, ours))
    print(compare("distances given, unstable argsort loop", unstable, ours))

    tied = np.round(distmat / distmat.max(), 2)
    expected, stable = measure(lambda: textbook(tied, *labels, "stable"), 1)
    ranking, ours = measure(lambda: rank_distances(tied, *labels), REPEATS)
    check(expected, ranking)
    print(compare("distances rounded to 2 decimals (heavy ties), stable argsort loop", stable, ours))

    expected, stable = measure(lambda: textbook(squared_distances(qf, gf, *norms), *labels, "stable"), 1)
    ranking, ours = measure(lambda: rank_features(qf, gf, *labels), REPEATS)
    np.testing.assert_allclose(np.nanmean(ranking.ap), np.mean(expected[1]), rtol=0, atol=1e-5)
    print(compare("from features, stable argsort loop", stable, ours))


if __name__ == "__main__":
    main(sys.argv[1:])
