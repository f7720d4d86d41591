"""The spectral feature transform as the formula reads: loops over Python floats.

Reference: Luo et al., Spectral Feature Transformation for Person Re-identification, ICCV 2019, equations 3 to 5.
"""

import math

from tests.reference.slow_losses import Rows, softmax


def cosine(a: list[float], b: list[float]) -> float:
    lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths


def affinity(feat: Rows, temperature: float) -> list[list[float]]:
    """Return A: row i is the softmax over j of cos(x_i, x_j) / T."""
    return [softmax([cosine(one, other) / temperature for other in feat]) for one in feat]


def transform(feat: Rows, temperature: float) -> list[list[float]]:
    """Return A X."""
    return [
        [sum(share * row[column] for share, row in zip(shares, feat, strict=True)) for column in range(len(feat[0]))]
        for shares in affinity(feat, temperature)
    ]
