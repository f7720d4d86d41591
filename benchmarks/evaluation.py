"""Time and memory of CMC/mAP/mINP against the textbook loop, on synthetic features; asserts that they agree.

python benchmarks/evaluation.py [--size small | veri | msmt17]      (small: 0.5 GB, under a minute)
python benchmarks/evaluation.py 2000 12000 256                      (queries, gallery images, values of a feature)
msmt17 takes about 12 GB for the textbook loop, which holds the matrix of distances and that of sort indices, and 10
minutes on 2 cores. Where there is a CUDA GPU, it ranks too, from features that lie on it.
"""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import MIB, Bar, Cost, compare, cores, keep_size, measure, read_size
from utils.errors import run_command
from utils.ranking.distance import feature_distances, squared_distances, squared_norms
from utils.ranking.protocol import Protocol
from utils.ranking.rank import Ranking, make_distances, rank, rank_distances

SIZES = {"small": (2000, 12000, 256), "veri": (1678, 11579, 256), "msmt17": (11659, 82161, 256)}
SECONDS = {SIZES["veri"]: Bar("time from features", 0.5, 0.25, "s")}
MEMORY = {
    SIZES["veri"]: Bar("extra memory", 100, 100, "MB"),
    SIZES["msmt17"]: Bar("extra memory", 2000, 500, "MB"),
}
NUM_IDS, NUM_CAMS = 200, 8
MANY_PAIRS = 10**8  # from here on each thing is run once, and the variants are left out
GPU_ROWS = 100  # queries whose distances the GPU and the CPU rank both

Textbook = tuple[np.ndarray, np.ndarray, float]  # CMC, AP of the valid queries, mINP


def textbook(
    distmat: np.ndarray,
    q_pids: np.ndarray,
    g_pids: np.ndarray,
    q_camids: np.ndarray,
    g_camids: np.ndarray,
    kind: str | None = "stable",
    max_rank: int = 50,
) -> Textbook:
    """Return (cmc, ap of the valid queries, mINP) by the sort indices of the whole matrix and a loop over queries.

    `kind` is numpy's sort: "stable", whose ties are defined, or the faster default None, whose ties are not.
    """
    order = np.argsort(distmat, axis=1, kind=kind)
    curves, ap, inp = [], [], []
    for query in range(len(distmat)):
        same = g_pids[order[query]] == q_pids[query]
        junk = same & (g_camids[order[query]] == q_camids[query])
        hits = same[~junk].astype(np.int32)
        if not hits.any():
            continue
        found = hits.cumsum()
        curves.append(np.minimum(found[:max_rank], 1))
        precision = found / np.arange(1, len(found) + 1)
        ap.append((precision * hits).sum() / found[-1])
        inp.append(found[-1] / (np.flatnonzero(hits)[-1] + 1))
    return np.mean(curves, axis=0), np.array(ap), np.mean(inp)


def make_case(num_query: int, num_gallery: int, width: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return query features, gallery features and labels (q_pids, g_pids, q_camids, g_camids)."""
    rng = np.random.default_rng(0)
    labels = [rng.integers(high, size=size) for high in (NUM_IDS, NUM_CAMS) for size in (num_query, num_gallery)]
    centres = rng.standard_normal((NUM_IDS, width)).astype(np.float32)
    qf, gf = (centres[pids] + 4 * rng.standard_normal((len(pids), width), dtype=np.float32) for pids in labels[:2])
    return qf, gf, labels


def check(expected: Textbook, ranking: Ranking) -> None:
    """Assert that a ranking has the CMC, the AP of each valid query and the mINP of the textbook."""
    cmc, ap, mean_inp = expected
    np.testing.assert_allclose(ranking.cmc, cmc, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ranking.ap[ranking.num_pos > 0], ap, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ranking.mINP, mean_inp, rtol=0, atol=1e-12)


def rank_on_gpu(qf: np.ndarray, gf: np.ndarray, labels: list[np.ndarray], expected: Ranking) -> float:
    """Print and return the seconds from features on the GPU to all metrics; assert that they are those of the CPU."""
    query, gallery = (torch.from_numpy(feat).cuda() for feat in (qf, gf))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    rank(make_distances(query, gallery), Protocol(*labels))  # loads its kernels
    peak = torch.cuda.max_memory_allocated() - before
    ranking, ours = measure(lambda: rank(make_distances(query, gallery), Protocol(*labels)), 3)
    print(f"on {torch.cuda.get_device_name()}: {ours.seconds:.2f} s, {peak / MIB:.0f} MiB of its memory")
    np.testing.assert_allclose(ranking.mAP, expected.mAP, rtol=0, atol=1e-5)
    rows = make_distances(query[:GPU_ROWS], gallery).rows(0, min(GPU_ROWS, len(query)))
    few = [labels[0][:GPU_ROWS], labels[1], labels[2][:GPU_ROWS], labels[3]]
    np.testing.assert_array_equal(rank_distances(torch.from_numpy(rows).cuda(), *few).ap, rank_distances(rows, *few).ap)
    return ours.seconds


def describe(title: str, baseline: Cost, ours: Cost) -> dict:
    """Print the line that compares two costs and return it as a row of the kept table."""
    print(compare(title, baseline, ours))
    costs = (("baseline", baseline), ("ours", ours))
    seconds = {f"{name}, s": round(cost.seconds, 3) for name, cost in costs}
    memory = {f"{name}, MiB": round(cost.peak_bytes / MIB, 1) for name, cost in costs}
    return {"comparison": title, **seconds, **memory, "times faster": round(baseline.seconds / ours.seconds, 1)}


def compare_variants(distmat: np.ndarray, labels: list[np.ndarray], repeats: int) -> list[dict]:
    """Print and return the lines of distances that are given: stable sort, unstable sort, heavy ties."""
    _, stable = measure(lambda: textbook(distmat, *labels), repeats)
    _, unstable = measure(lambda: textbook(distmat, *labels, kind=None), repeats)
    _, ours = measure(lambda: rank_distances(distmat, *labels), repeats)
    rows = [
        describe("distances given, stable argsort loop", stable, ours),
        describe("distances given, unstable argsort loop", unstable, ours),
    ]
    tied = np.round(distmat / distmat.max(), 2)
    expected, stable = measure(lambda: textbook(tied, *labels), 1)
    ranking, ours = measure(lambda: rank_distances(tied, *labels), repeats)
    check(expected, ranking)
    rows.append(describe("distances rounded to 2 decimals (heavy ties), stable argsort loop", stable, ours))
    return rows


def main(argv: list[str] | None = None) -> None:
    size = read_size(argv, "benchmarks/evaluation.py", __doc__, SIZES, "queries, gallery images, values of a feature")
    qf, gf, labels = make_case(*size)
    repeats = 3 if size[0] * size[1] < MANY_PAIRS else 1
    print("{} queries x {} gallery images, {} values each, {}".format(*size, cores()))

    def from_features() -> tuple[np.ndarray, Textbook]:
        distmat = squared_distances(qf, gf, squared_norms(qf, "query"), squared_norms(gf, "gallery"))
        return distmat, textbook(distmat, *labels)

    ranking, ours = measure(lambda: rank(feature_distances(qf, gf), Protocol(*labels)), repeats)
    facts = {}
    if torch.cuda.is_available():
        facts["on the GPU, s"] = rank_on_gpu(qf, gf, labels, ranking)
    (distmat, expected), baseline = measure(from_features, 1)
    rows = [describe("from features, stable argsort loop", baseline, ours)]
    judged = [(SECONDS, ours.seconds), (MEMORY, ours.peak_bytes / 1e6)]
    judged = [(bars[size], value) for bars, value in judged if size in bars]
    for bar, value in judged:
        print(bar.judge(value))
    check(expected, rank_distances(distmat, *labels))
    # blocks of another size round another way; a swap of neighbours moves single queries a little
    np.testing.assert_allclose(np.nanmean(ranking.ap), np.mean(expected[1]), rtol=0, atol=1e-5)
    print("equal: CMC, mINP and the AP of each query to 1e-12 on the same distances, mAP from features to 1e-5")
    if repeats > 1:
        rows += compare_variants(distmat, labels, repeats)
    facts |= {"rows": rows, "bars": [bar.facts(value) for bar, value in judged]}
    keep_size("evaluation", facts, size, SIZES)


if __name__ == "__main__":
    sys.exit(run_command(main))
