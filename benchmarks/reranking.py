"""Time and memory of k-reciprocal re-ranking against the dense textbook loops; asserts float64's result to 1e-6.

The timed baseline runs in float32, where near-ties may swap neighbours; the result is checked against the same loops in
float64, and how far the float32 baseline is from them is printed.

python benchmarks/reranking.py [queries gallery k1 k2 width]     (default 1000 5000 20 6 256; 1.4 GB, under a minute)
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import compare, measure
from tests.reference.reranking import re_rank
from utils.reranking import re_ranking

IMAGES_PER_ID = 30
LAMBDA = 0.3
TOLERANCE = 1e-6


def main(argv: list[str]) -> None:
    num_query, num_gallery, k1, k2, width = (int(value) for value in argv) if argv else (1000, 5000, 20, 6, 256)
    rng = np.random.default_rng(0)
    total = num_query + num_gallery
    centres = rng.standard_normal((max(1, total // IMAGES_PER_ID), width))
    feat = centres[rng.integers(len(centres), size=total)] + 1.5 * rng.standard_normal((total, width))
    feat = (feat / np.linalg.norm(feat, axis=1, keepdims=True)).astype(np.float32)
    query, gallery = feat[:num_query], feat[num_query:]
    print(f"{num_query} queries + {num_gallery} gallery images, {width} values each, k1 {k1}, k2 {k2}")

    textbook, dense = measure(lambda: re_rank(query, gallery, k1, k2, LAMBDA, dtype=np.float32), 1)
    result, ours = measure(lambda: re_ranking(query, gallery, k1, k2, LAMBDA), 3)
    print(compare("dense float32 loops with a stable argsort", dense, ours))
    expected = re_rank(query, gallery, k1, k2, LAMBDA)
    print(f"largest difference to float64: {gap(result, expected):.1e} ours, {gap(textbook, expected):.1e} baseline")
    np.testing.assert_allclose(result, expected, rtol=0, atol=TOLERANCE)


def gap(distances: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(distances - expected).max())


if __name__ == "__main__":
    main(sys.argv[1:])
