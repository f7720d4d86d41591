"""The parts of distillation as their formulas read: one number at a time, no tensors but those that carry gradients."""

from collections.abc import Sequence

import torch

Row = Sequence[torch.Tensor]


def shares(logits: Row, temperature: float) -> list[torch.Tensor]:
    highest = max(logit.item() for logit in logits)
    powers = [torch.exp((logit - highest) / temperature) for logit in logits]
    whole = sum(powers)
    return [power / whole for power in powers]


def divergence(p: Row, q: Row) -> torch.Tensor:
    return sum(a * (torch.log(a) - torch.log(b)) for a, b in zip(p, q, strict=True))


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of a zero row it is 0."""
    if not bool((a != 0).any()) or not bool((b != 0).any()):
        return 0.0 * (a * b).sum()
    return (a * b).sum() / (torch.sqrt((a * a).sum()) * torch.sqrt((b * b).sum()))


def logits(student: torch.Tensor, teacher: torch.Tensor, temperature: float, symmetric: bool = False) -> torch.Tensor:
    values = []
    for own, taught in zip(student, teacher.detach(), strict=True):
        q, p = shares(list(own), temperature), shares(list(taught), temperature)
        value = divergence(p, q)
        values.append((value + divergence(q, p)) / 2 if symmetric else value)
    return temperature * temperature * sum(values) / len(values)


def features(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    values = [1 - cosine(own, taught) for own, taught in zip(student, teacher.detach(), strict=True)]
    return sum(values) / len(values)


def relations(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    teacher, total = teacher.detach(), torch.zeros((), dtype=torch.float64)
    for i in range(len(student)):
        others = [j for j in range(len(student)) if j != i]
        own = shares([cosine(student[i], student[j]) for j in others], temperature)
        taught = shares([cosine(teacher[i], teacher[j]) for j in others], temperature)
        total = total + divergence(taught, own)
    return total / len(student)
