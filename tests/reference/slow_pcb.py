"""PCB by its formulas, one image, stripe and channel after the other, from the weights of a model."""

import torch
from torch import nn

from model.pcb import PCB


def slow_pool(block: torch.Tensor, kind: str, power: float = 1.0) -> torch.Tensor:
    """Return [c] of a block [c, r, w]: the largest, the mean, or the mean of powers of its numbers."""
    pooled = []
    for channel in block:
        numbers = [number for row in channel.tolist() for number in row]
        if kind == "max":
            pooled.append(max(numbers))
        elif kind == "avg":
            pooled.append(sum(numbers) / len(numbers))
        else:
            pooled.append((sum(max(number, 1e-6) ** power for number in numbers) / len(numbers)) ** (1 / power))
    return torch.tensor(pooled, dtype=block.dtype)


def slow_linear(layer: nn.Linear, rows: torch.Tensor) -> torch.Tensor:
    """Return W x + b for each row x."""
    return torch.stack([layer.weight.detach().mv(row) + layer.bias.detach() for row in rows])


def slow_norm(norm: nn.BatchNorm1d, rows: torch.Tensor, training: bool) -> torch.Tensor:
    """Return rows [B, d] normalised by their own statistics (training) or by the running ones."""
    mean = rows.mean(0) if training else norm.running_mean
    variance = ((rows - mean) ** 2).mean(0) if training else norm.running_var
    return (rows - mean) / (variance + norm.eps).sqrt() * norm.weight.detach() + norm.bias.detach()


def slow_branches(model: PCB, images: torch.Tensor, training: bool) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return name -> (reduced, normed) features [B, d] of every branch, without dropout and erasing."""
    with torch.no_grad():
        before = model.base.before_last_stage(images)
        maps = model.base.layer4(before)
        own = model.global_stage4(before) if model.own_stage4 else maps
    branches = {}
    if "global" in model.branches:
        reduced = slow_linear(model.reduction["whole"], _pooled(own, model.global_pool, 0))
        if model.gated:
            mean = torch.stack([slow_pool(one, "avg") for one in own])
            opened = slow_norm(model.gate[1], slow_linear(model.gate[0], mean), training)
            reduced = reduced / (1 + (-opened).exp())
        branches["global"] = (reduced, slow_norm(model.bottleneck["whole"], reduced, training))
    rows = maps.shape[2] // max(1, model.parts)
    for number in range(model.parts):
        name = f"part{number + 1}"
        stripe = maps[:, :, number * rows : (number + 1) * rows]
        reduced = slow_linear(model.reduction[name], _pooled(stripe, model.part_pool, number))
        branches[name] = (reduced, slow_norm(model.bottleneck[name], reduced, training))
    return branches


def _pooled(maps: torch.Tensor, pooling: nn.Module, number: int) -> torch.Tensor:
    power = pooling.power[number].item() if pooling.kind == "gem" else 1.0
    return torch.stack([slow_pool(one, pooling.kind, power) for one in maps])


def slow_embedding(model: PCB, images: torch.Tensor) -> torch.Tensor:
    """Return the embedding [B, D'] of evaluation mode: [global, part_1, ..., part_S] of each image."""
    rows = []
    branches = [normed for _, normed in slow_branches(model, images, training=False).values()]
    for index in range(len(images)):
        pieces = [branch[index] for branch in branches]
        rows.append(torch.cat([piece / piece.norm() for piece in pieces] if model.part_norm else pieces))
    return torch.stack(rows)


def slow_band(rows: int, ratio: float, first: int) -> list[int]:
    """Return the rows of the band that begins at `first`."""
    count = 0
    while count + 1 <= ratio * rows:
        count += 1
    return list(range(first, first + count))
