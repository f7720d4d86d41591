"""Time and memory of k-reciprocal re-ranking against the dense textbook loops; asserts that they agree.

The timed baseline runs in float32, where near-ties may swap neighbours. At sizes up to 10,000 images the result is
checked to 1e-6 against the same loops in float64, and how far the float32 baseline is from them is printed; beyond, the
result is checked against the float32 baseline, which may differ in a few of a million entries.

python benchmarks/reranking.py [--size small | market]     (small: 1.4 GB, under a minute)
python benchmarks/reranking.py 1000 5000 20 6 256          (queries, gallery images, k1, k2, values of a feature)
market takes about 8 GB for the textbook loops and 5 minutes on 2 cores.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import MIB, Bar, compare, cores, keep_size, measure, read_size
from tests.reference.reranking import re_rank
from utils.errors import run_command
from utils.ranking.reranking import re_ranking

SIZES = {"small": (1000, 5000, 20, 6, 256), "market": (3368, 15913, 20, 6, 256)}
SHARE_OF_TIME = {SIZES["small"]: Bar("time over the textbook's", 1 / 5, 1 / 10, "x")}
SHARE_OF_MEMORY = {SIZES["small"]: Bar("memory over the textbook's", 1 / 4, 1 / 4, "x")}
SECONDS = {SIZES["market"]: Bar("time", 15, 8, "s")}
MEMORY = {SIZES["market"]: Bar("memory, the result included", 1000, 1000, "MB")}
IMAGES_PER_ID = 30
LAMBDA = 0.3
TOLERANCE = 1e-6
FLOAT64_LIMIT = 10_000  # images up to which the float64 loops are run too
NEAR_TIES = 1e-4  # the largest share of entries in which the float32 baseline may differ


def make_case(num_query: int, num_gallery: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return unit features of queries and gallery, about IMAGES_PER_ID around each centre."""
    rng = np.random.default_rng(0)
    total = num_query + num_gallery
    centres = rng.standard_normal((max(1, total // IMAGES_PER_ID), width))
    feat = centres[rng.integers(len(centres), size=total)] + 1.5 * rng.standard_normal((total, width))
    feat = (feat / np.linalg.norm(feat, axis=1, keepdims=True)).astype(np.float32)
    return feat[:num_query], feat[num_query:]


def main(argv: list[str] | None = None) -> None:
    size = read_size(
        argv, "benchmarks/reranking.py", __doc__, SIZES, "queries, gallery images, k1, k2, values of a feature"
    )
    num_query, num_gallery, k1, k2, width = size
    query, gallery = make_case(num_query, num_gallery, width)
    print(f"{num_query} queries + {num_gallery} gallery images, {width} values each, k1 {k1}, k2 {k2}, {cores()}")
    result, ours = measure(lambda: re_ranking(query, gallery, k1, k2, LAMBDA), 3)
    textbook, dense = measure(lambda: re_rank(query, gallery, k1, k2, LAMBDA, dtype=np.float32), 1)
    print(compare("dense float32 loops with a stable argsort", dense, ours))
    judged = [
        (SHARE_OF_TIME, ours.seconds / dense.seconds),
        (SHARE_OF_MEMORY, ours.peak_bytes / dense.peak_bytes),
        (SECONDS, ours.seconds),
        (MEMORY, ours.peak_bytes / 1e6),
    ]
    judged = [(bars[size], value) for bars, value in judged if size in bars]
    for bar, value in judged:
        print(bar.judge(value))
    check(result, textbook, query, gallery, (k1, k2))
    costs = (("dense loops", dense), ("ours", ours))
    rows = [{"code": code, "s": cost.seconds, "MiB": cost.peak_bytes / MIB} for code, cost in costs]
    keep_size("reranking", {"rows": rows, "bars": [bar.facts(value) for bar, value in judged]}, size, SIZES)


def check(result: np.ndarray, textbook: np.ndarray, query: np.ndarray, gallery: np.ndarray, k: tuple[int, int]) -> None:
    """Assert that `result` [Q, G] is what the textbook loops give, and print how near it is; k = (k1, k2)."""
    if len(query) + len(gallery) <= FLOAT64_LIMIT:
        expected = re_rank(query, gallery, *k, LAMBDA)
        gaps = [float(np.abs(values - expected).max()) for values in (result, textbook)]
        print(f"largest difference to float64: {gaps[0]:.1e} ours, {gaps[1]:.1e} baseline")
        np.testing.assert_allclose(result, expected, rtol=0, atol=TOLERANCE)
        return
    gap = np.abs(result - textbook)
    share = float(np.mean(gap > TOLERANCE))
    print(f"differ from the float32 baseline by more than {TOLERANCE:.0e}: {share:.1e} of the entries (near-ties)")
    np.testing.assert_array_less(share, NEAR_TIES)


if __name__ == "__main__":
    sys.exit(run_command(main))
