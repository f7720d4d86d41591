"""The losses between images and captions as their formulas read: float64, one pair at a time, no masks."""

import math
from collections.abc import Sequence

import torch

EPS = 1e-8
Labels = Sequence[int]


def unit(row: torch.Tensor) -> torch.Tensor:
    """A zero row stays zero."""
    return row / torch.sqrt((row * row).sum()) if bool((row != 0).any()) else row


def shares(logits: list[torch.Tensor]) -> list[torch.Tensor]:
    highest = max(logit.item() for logit in logits)
    powers = [torch.exp(logit - highest) for logit in logits]
    whole = sum(powers)
    return [power / whole for power in powers]


def matches(pids: Labels, image_ids: Labels | None = None, soft_label: float = 1.0) -> list[list[float]]:
    """Y_ij: 1 for pairs of one image, `soft_label` for others of one identity, 0 for the rest."""
    count = len(pids)
    found = [[0.0] * count for _ in range(count)]
    for i in range(count):
        for j in range(count):
            if pids[i] == pids[j]:
                is_own = image_ids is None or image_ids[i] == image_ids[j]
                found[i][j] = 1.0 if is_own else soft_label
    return found


def divergence(logits: list[list[torch.Tensor]], targets: list[list[float]]) -> torch.Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for row, wanted in zip(logits, targets, strict=True):
        for share, target in zip(shares(row), wanted, strict=True):
            total = total + share * (torch.log(share) - math.log(target + EPS))
    return total / len(logits)


def cosines(left: torch.Tensor, right: torch.Tensor, scale: float) -> list[list[torch.Tensor]]:
    return [[scale * (unit(a) * unit(b)).sum() for b in right] for a in left]


def sdm(
    image: torch.Tensor,
    text: torch.Tensor,
    pids: Labels,
    scale: float = 50.0,
    image_ids: Labels | None = None,
    soft_label: float = 1.0,
) -> torch.Tensor:
    targets = [[y / sum(row) for y in row] for row in matches(pids, image_ids, soft_label)]
    return divergence(cosines(image, text, scale), targets) + divergence(cosines(text, image, scale), targets)


def itc(image: torch.Tensor, text: torch.Tensor, scale: float = 50.0) -> torch.Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for logits in (cosines(image, text, scale), cosines(text, image, scale)):
        for i, row in enumerate(logits):
            total = total - torch.log(shares(row)[i]) / len(logits)
    return total / 2


def cmpm(image: torch.Tensor, text: torch.Tensor, pids: Labels, target: str = "l1") -> torch.Tensor:
    targets = []
    for row in matches(pids):
        length = sum(row) if target == "l1" else math.sqrt(sum(y * y for y in row))
        targets.append([y / length for y in row])
    to_text = [[(a * unit(b)).sum() for b in text] for a in image]
    to_image = [[(a * unit(b)).sum() for b in image] for a in text]
    return divergence(to_text, targets) + divergence(to_image, targets)


def cross_entropy(logits: torch.Tensor, labels: Labels) -> torch.Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for row, label in zip(logits, labels, strict=True):
        others = torch.exp(row - row[label])
        total = total + torch.log(others.sum())
    return total / max(len(labels), 1)
