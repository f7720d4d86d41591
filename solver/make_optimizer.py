"""Optimizers of the model and of the class centres."""

import difflib
import inspect
import logging
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import nn
from yacs.config import CfgNode

from utils.errors import ConfigError

logger = logging.getLogger(__name__)

UNSUITABLE = ("Optimizer", "LBFGS", "SparseAdam", "Muon")  # abstract, one group only, sparse only, matrices only
KINDS = ("weight", "bias", "classifier weight", "classifier bias")
FUSED_CLASSES = ("SGD", "Adam", "AdamW")
FUSED_DEVICES = ("cpu", "cuda", "mps")


class GroupRule(NamedTuple):
    """Learning rate and weight decay of a parameter, by its name."""

    base_lr: float
    weight_decay: float
    bias_lr_factor: float = 1.0  # on base_lr, names with "bias"
    weight_decay_bias: float = 0.0  # names with "bias"
    fc_lr_factor: float | None = None  # on base_lr, names with "classifier" or "arcface"; wins over bias_lr_factor

    def settings(self, name: str) -> tuple[str, float, float]:
        """Return (kind, one of KINDS; lr; weight decay) for the parameter `name`."""
        is_bias = "bias" in name
        kind = "bias" if is_bias else "weight"
        lr = self.base_lr * (self.bias_lr_factor if is_bias else 1)
        if self.fc_lr_factor is not None and ("classifier" in name or "arcface" in name):
            kind, lr = f"classifier {kind}", self.base_lr * self.fc_lr_factor
        return kind, lr, self.weight_decay_bias if is_bias else self.weight_decay


def make_optimizer(
    cfg: CfgNode, model: nn.Module, criterion: nn.Module
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer | None]:
    """Return (optimizer of the model, optimizer of criterion.center or None without a centre loss).

    The model must be on its device already. Parameters with requires_grad False are in no group. Raises ConfigError
    for an optimizer that torch does not have or that cannot train a model in groups.
    """
    rule = GroupRule(
        base_lr=cfg.SOLVER.BASE_LR,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
        weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
        fc_lr_factor=cfg.SOLVER.FC_LR_FACTOR if cfg.SOLVER.LARGE_FC_LR else None,
    )
    groups = group_parameters(model.named_parameters(), rule)
    optimizer = build_optimizer(cfg.SOLVER.OPTIMIZER_NAME, groups, cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM)
    for group in groups:
        logger.info(
            "optimizer group '%s': %d tensors, lr %g, weight decay %g",
            *(group["name"], len(group["params"]), group["lr"], group["weight_decay"]),
        )
    if criterion.center is None:
        return optimizer, None
    return optimizer, build_optimizer("SGD", [{"params": [criterion.center.centers]}], cfg.SOLVER.CENTER_LR)


def group_parameters(named: Iterable[tuple[str, nn.Parameter]], rule: GroupRule) -> list[dict]:
    """Return the trainable parameters in one group per (lr, weight decay), plain weights first.

    Each group has params, lr, weight_decay, initial_lr (= lr, what the schedule scales) and name (the kinds it holds).
    Raises ValueError when nothing is trainable.
    """
    groups: dict[tuple[float, float], dict] = {}
    kinds: dict[tuple[float, float], set[int]] = {}  # positions in KINDS
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        kind, lr, weight_decay = rule.settings(name)
        key = (lr, weight_decay)
        group = groups.setdefault(key, {"params": [], "lr": lr, "initial_lr": lr, "weight_decay": weight_decay})
        group["params"].append(parameter)
        kinds.setdefault(key, set()).add(KINDS.index(kind))
    if not groups:
        raise ValueError("the model has no trainable parameter")
    for key, group in groups.items():
        group["name"] = " + ".join(KINDS[index] for index in sorted(kinds[key]))
    return [groups[key] for key in sorted(groups, key=lambda key: min(kinds[key]))]


def build_optimizer(name: str, groups: list[dict], lr: float, momentum: float = 0.0) -> torch.optim.Optimizer:
    """Return the torch.optim class `name` over `groups`; momentum goes to SGD only.

    SGD, Adam and AdamW run fused (one kernel per group) where the parameters' device has that. Raises ConfigError
    naming SOLVER.OPTIMIZER_NAME for any other class than torch's dense, groupwise ones.
    """
    choices = {
        key: value
        for key, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and key not in UNSUITABLE
    }
    if name not in choices:
        near = difflib.get_close_matches(name, choices, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"SOLVER.OPTIMIZER_NAME got '{name}', allowed: {', '.join(sorted(choices))}{hint}")
    options = {"momentum": momentum} if name == "SGD" else {}
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    if name in FUSED_CLASSES:
        options["fused"] = devices <= set(FUSED_DEVICES)
    if "weight_decay" not in inspect.signature(choices[name]).parameters:
        logger.warning("%s has no weight decay: SOLVER.WEIGHT_DECAY and WEIGHT_DECAY_BIAS have no effect", name)
    return choices[name](groups, lr=lr, **options)
