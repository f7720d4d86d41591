"""Spectral re-ranking in the most obvious way: one query at a time, the blurred features written out, in float64."""

from collections.abc import Sequence

import numpy as np

from tests.reference.expansion import unit


def blurred_order(
    query: np.ndarray, gallery: np.ndarray, order: Sequence[int], k: int, temperature: float
) -> list[int]:
    """Return `order`, the places of a gallery [G, D] for one query [D], with its first k sorted anew."""
    query, head = unit(query), [unit(gallery[place]) for place in order[:k]]
    scores = []
    for own in head:
        weights = np.exp([(own @ other - own @ own) / temperature for other in head])
        blurred = sum(weight * other for weight, other in zip(weights / weights.sum(), head, strict=True))
        scores.append(round(float(blurred @ query), 12))  # equal images have equal scores
    places = sorted(range(len(head)), key=lambda place: -scores[place])  # Python's sort is stable
    return [order[place] for place in places] + list(order[k:])


def average_precision(matches: Sequence[bool], rule: str = "standard", depth: int | None = None) -> float:
    """Return the AP of a list without junk, place by place; NaN without a match."""
    total, found = 0.0, 0
    for place, match in enumerate(matches):
        if not match:
            continue
        precision, before = (found + 1) / (place + 1), 1.0 if place == 0 else found / place
        if depth is None or place < depth:
            total += precision if rule == "standard" else (precision + before) / 2
        found += 1
    counted = found if depth is None else min(found, depth)
    return total / counted if found else float("nan")
