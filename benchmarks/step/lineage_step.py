"""The reference step of benchmarks/train_step.py: loss, optimizer and loop body as the lineage writes them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.step.lineage_model import LineageModel
from processor.step import compiling
from utils.device import autocast

LOCAL_SHARE = 0.5  # of the local branches in both losses


class Rates(NamedTuple):
    """The settings of SGD."""

    lr: float
    bias_factor: float
    weight_decay: float
    momentum: float


class LoopLevers(NamedTuple):
    """What differs from the lineage around the network: precision, optimizer groups, waiting for the device."""

    amp: torch.dtype | None = None  # with a loss scaler where it is float16
    grouped_optimizer: bool = False
    no_sync: bool = False


def hardest_pairs(feat: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the distance [N] to the farthest sample of the own label and to the nearest of another one.

    Boolean indexing needs the same number of samples of every label.
    """
    squared = feat.square().sum(1, keepdim=True).expand(len(feat), len(feat))
    squared = squared + squared.t() - 2 * feat @ feat.t()
    distance = squared.clamp(min=1e-12).sqrt()
    same = labels.expand(len(feat), len(feat)).eq(labels.expand(len(feat), len(feat)).t())
    positive = distance[same].contiguous().view(len(feat), -1).max(dim=1).values
    negative = distance[~same].contiguous().view(len(feat), -1).min(dim=1).values
    return positive, negative


def triplet(feat: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the soft-margin triplet loss, a scalar."""
    positive, negative = hardest_pairs(feat.float(), labels)
    return F.soft_margin_loss(negative - positive, torch.ones_like(negative))


def total_loss(logits: list[torch.Tensor], feats: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Return identity plus triplet loss, in each half global branch and half mean of the local ones."""
    total = 0
    for outputs, loss in ((logits, F.cross_entropy), (feats, triplet)):
        values = [loss(output, labels) for output in outputs[1:]]
        total = total + LOCAL_SHARE * sum(values) / len(values) + (1 - LOCAL_SHARE) * loss(outputs[0], labels)
    return total


def make_sgd(model: nn.Module, rates: Rates, grouped: bool) -> torch.optim.Optimizer:
    """Return SGD with one parameter group per tensor or, `grouped`, one per learning rate and a fused kernel."""
    groups = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            lr = rates.lr * (rates.bias_factor if "bias" in name else 1)
            groups.append({"params": [parameter], "lr": lr, "weight_decay": rates.weight_decay})
    if not grouped:
        return torch.optim.SGD(groups, momentum=rates.momentum)
    merged: dict[float, dict] = {}
    for group in groups:
        merged.setdefault(group["lr"], {**group, "params": []})["params"] += group["params"]
    return torch.optim.SGD(list(merged.values()), momentum=rates.momentum, fused=True)


def make_step(model: LineageModel, rates: Rates, levers: LoopLevers, compiled: bool = False) -> Callable[[dict], float]:
    """Return a function that trains one step on a batch and returns the loss, NaN where it does not wait for it.

    The batch holds `images` float32 [B, 3, H, W], `pids`, `camids` and `viewids` [B], on the model's device.
    """
    device = next(model.parameters()).device
    optimizer = make_sgd(model, rates, levers.grouped_optimizer)
    scaler = torch.amp.GradScaler(device.type, enabled=levers.amp == torch.float16)
    network = torch.compile(model, dynamic=False, backend=compiling.BACKEND) if compiled else model

    def step(batch: dict) -> float:
        optimizer.zero_grad()
        with autocast(device, levers.amp):
            logits, feats = network(batch["images"], batch["camids"], batch["viewids"])
            loss = total_loss(logits, feats, batch["pids"])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if levers.no_sync:
            return float("nan")
        accuracy = (logits[0].max(1).indices == batch["pids"]).float().mean()
        values = loss.item(), accuracy.item()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return values[0]

    return step
