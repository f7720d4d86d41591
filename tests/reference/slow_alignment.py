"""The losses of sets of modalities as their formulas read: float64, one pair at a time, no masks."""

import math
from collections.abc import Sequence

import torch

from tests.reference.slow_image_text import sdm, unit

Labels = Sequence[int]
Sets = Sequence[tuple[str, ...]]


def zero() -> torch.Tensor:
    return torch.zeros((), dtype=torch.float64)


def mean(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """0 without values."""
    return sum(values, zero()) / max(len(values), 1)


def one_way(rows: torch.Tensor, others: torch.Tensor, row_labels: Labels, labels: Labels, t: float) -> torch.Tensor:
    losses = []
    for row, own in zip(rows, row_labels, strict=True):
        logits = [(unit(row) * unit(other)).sum() / t for other in others]
        positives = [j for j, label in enumerate(labels) if label == own]
        if not positives:
            continue
        highest = max(logit.item() for logit in logits)
        log_sum = torch.log(sum(torch.exp(logit - highest) for logit in logits)) + highest
        losses.append(-sum((logits[j] - log_sum) / len(positives) for j in positives))
    return mean(losses)


def alignment(query: torch.Tensor, gallery: torch.Tensor, q_labels: Labels, g_labels: Labels, t: float) -> torch.Tensor:
    there = one_way(query, gallery, q_labels, g_labels, t)
    back = one_way(gallery, query, g_labels, q_labels, t)
    return (there + back) / 2


def of_sets(
    rows: Sequence[torch.Tensor], valid: torch.Tensor, pids: Labels, sets: Sets, t: float, form: str = "ce"
) -> torch.Tensor:
    """Mean over the sizes present, of the mean over the sets of a size that have a valid row; `sets` begin with RGB."""
    anchors = [i for i in range(len(pids)) if valid[i, 0]]
    by_size: dict[int, list[torch.Tensor]] = {}
    for place, names in enumerate(sets):
        own = [i for i in range(len(pids)) if valid[i, place]]
        if place == 0 or not own:
            continue
        if form == "ce":
            labels = [pids[i] for i in own], [pids[i] for i in anchors]
            value = alignment(rows[place][own], rows[0][anchors], *labels, t)
        else:
            pairs = [i for i in own if i in anchors]
            value = sdm(rows[0][pairs], rows[place][pairs], [pids[i] for i in pairs], 1 / t)
        by_size.setdefault(len(names), []).append(value)
    return mean([mean(values) for values in by_size.values()])


def penalty(rows: Sequence[torch.Tensor], target: float, band: float) -> torch.Tensor:
    values = []
    for row in rows:
        length = torch.sqrt((row * row).sum())
        above, below = length - (target + band), (target - band) - length
        values.append(above**2 if above > 0 else below**2 if below > 0 else zero())
    return mean(values)


def identity(logits: Sequence[torch.Tensor], valid: torch.Tensor, pids: Labels, smoothing: float = 0.0) -> torch.Tensor:
    """Mean over the valid rows of a set, then over the sets that have any."""
    of_sets = []
    for place, own in enumerate(logits):
        losses = []
        for i, pid in enumerate(pids):
            if not valid[i, place]:
                continue
            log_sum = torch.log(torch.exp(own[i] - own[i].max().item()).sum()) + own[i].max().item()
            classes = len(own[i])
            wanted = [smoothing / classes + (1 - smoothing) * (c == pid) for c in range(classes)]
            losses.append(sum(share * (log_sum - own[i][c]) for c, share in enumerate(wanted)))
        if losses:
            of_sets.append(mean(losses))
    return mean(of_sets)


def align_weight(epoch: int, w: float, start: int, ramp: int) -> float:
    """w(e): 0 before `start`, then w (e - start + 1) / ramp, w from epoch start + ramp - 1 on."""
    if epoch < start:
        return 0.0
    return w if epoch >= start + ramp - 1 else w * (epoch - start + 1) / ramp


def warmup_cosine(passed: int, warmup: int, epochs: int, first: float = 0.01, lowest: float = 0.01) -> float:
    """The factor at the 0-based epoch."""
    if passed < warmup:
        return first + (1 - first) * (passed + 1) / warmup
    return lowest + (1 - lowest) * (1 + math.cos(math.pi * (passed - warmup) / (epochs - warmup))) / 2
