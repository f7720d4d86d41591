"""Losses written as the formulas read: one loop per index, Python floats, no masks."""

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def euclidean(a: Sequence[float], b: Sequence[float]) -> float:
    return math.sqrt(sum((p - q) ** 2 for p, q in zip(a, b, strict=True)))


def triplet(feat: Rows, labels: Sequence[int], margin: float | None, hard_factor: float = 0.0) -> float:
    losses = []
    for i, anchor in enumerate(feat):
        positives = [euclidean(anchor, feat[j]) for j in range(len(feat)) if j != i and labels[j] == labels[i]]
        negatives = [euclidean(anchor, feat[j]) for j in range(len(feat)) if labels[j] != labels[i]]
        if positives and negatives:
            gap = (1 + hard_factor) * max(positives) - (1 - hard_factor) * min(negatives)
            losses.append(math.log(1 + math.exp(gap)) if margin is None else max(0.0, gap + margin))
    return sum(losses) / len(losses) if losses else 0.0


def softmax(logits: Sequence[float]) -> list[float]:
    highest = max(logits)
    powers = [math.exp(value - highest) for value in logits]
    return [power / sum(powers) for power in powers]


def cross_entropy(logits: Rows, labels: Sequence[int], smoothing: float = 0.0) -> float:
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        target = [smoothing / len(row) + (1 - smoothing) * (c == label) for c in range(len(row))]
        total -= sum(q * math.log(p) for q, p in zip(target, softmax(row), strict=True))
    return total / len(labels)


def margin_logits(kind: str, cosine: Rows, labels: Sequence[int], scale: float, margin: float) -> list[list[float]]:
    return [
        [scale * _margin_logit(kind, c, k == label, margin) for k, c in enumerate(row)]
        for row, label in zip(cosine, labels, strict=True)
    ]


def _margin_logit(kind: str, c: float, is_target: bool, margin: float) -> float:
    if kind == "circle":
        if is_target:
            return max(0.0, 1 + margin - c) * (c - (1 - margin))
        return max(0.0, c + margin) * (c - margin)
    if not is_target:
        return c
    if kind in ("cosface", "amsoftmax"):
        return c - margin
    angle = math.acos(c)
    return math.cos(angle + margin) if angle + margin < math.pi else c - margin * math.sin(math.pi - margin)


def center(feat: Rows, labels: Sequence[int], centers: Rows) -> float:
    squares = [euclidean(row, centers[label]) ** 2 for row, label in zip(feat, labels, strict=True)]
    return sum(min(max(square, 1e-12), 1e12) for square in squares) / len(squares)


def combine(values: Sequence[float], global_weight: float) -> float:
    if len(values) == 1:
        return values[0]
    return global_weight * values[0] + (1 - global_weight) * sum(values[1:]) / (len(values) - 1)
