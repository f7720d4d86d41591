"""Optimizers of the model and of the class centres."""

import difflib
import inspect
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from yacs.config import CfgNode

from configs.keys.solver import ADAMS
from configs.stages import solver_of
from solver.centers import find_centers
from solver.layer_decay import layer_scale
from utils.errors import ConfigError

if TYPE_CHECKING:
    from model.parts import Part

logger = logging.getLogger(__name__)

UNSUITABLE = ("Optimizer", "LBFGS", "SparseAdam", "Muon")  # abstract, one group only, sparse only, matrices only
KINDS = (
    *("weight", "bias", "trunk weight", "trunk bias", "new layers weight", "new layers bias"),
    *("classifier weight", "classifier bias", "CLIP weight", "CLIP bias"),
)
FUSED_CLASSES = ("SGD", "Adam", "AdamW")
FUSED_DEVICES = ("cpu", "cuda", "mps")


class GroupRule(NamedTuple):
    """Learning rate and weight decay of a parameter, by its part of the model and whether it is a bias."""

    base_lr: float
    weight_decay: float
    bias_lr_factor: float = 1.0  # on base_lr, of biases
    weight_decay_bias: float = 0.0  # of biases
    fc_lr_factor: float | None = None  # on base_lr, of heads; wins over bias_lr_factor
    new_lr_factor: float | None = None  # on base_lr, of heads, new weights and `alike` biases; wins over fc_lr_factor
    clip_lr_scale: float | None = None  # on the schedule from base_lr, of a tower; wins over all three
    layer_decay: float = 1.0  # each layer of the trunk below the heads learns slower by this factor, 1 = equally fast

    def settings(self, part: "Part", is_bias: bool) -> tuple[str, float, float]:
        """Return (kind, one of KINDS; lr; weight decay) for a parameter."""
        kind = "bias" if is_bias else "weight"
        place, factor = self._place_and_factor(part, is_bias)
        return place + kind, self.base_lr * factor, self.weight_decay_bias if is_bias else self.weight_decay

    def _place_and_factor(self, part: "Part", is_bias: bool) -> tuple[str, float]:
        """Return (what a kind begins with, factor on base_lr)."""
        usual = self.bias_lr_factor if is_bias else 1
        head = self.fc_lr_factor if self.new_lr_factor is None else self.new_lr_factor
        if self.clip_lr_scale is not None and part.tower:
            return "CLIP ", 1
        if head is not None and part.kind == "head":
            return "classifier ", head
        if self.new_lr_factor is None:
            return "", usual
        if part.kind == "new":
            return "new layers ", usual if is_bias and not part.alike else self.new_lr_factor
        return "trunk ", usual

    def scale(self, part: "Part", last: int) -> float:
        """Return the factor on what the schedule gives for a parameter of a model whose last layer is `last`."""
        if self.clip_lr_scale is not None and part.tower:
            return self.clip_lr_scale
        return layer_scale(part.layer, last, self.layer_decay)


def make_optimizer(
    cfg: CfgNode, model: nn.Module, criterion: nn.Module, stage: str = ""
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer | None]:
    """Return (optimizer of the model, optimizer of the criterion's class centres or None without a centre loss).

    The model must be on its device already. Parameters with requires_grad False are in no group. `stage` "" is the
    last one. Raises ConfigError for an optimizer that torch does not have or that cannot train a model in groups.
    """
    solver = solver_of(cfg, stage)
    rule = GroupRule(
        base_lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        fc_lr_factor=solver.FC_LR_FACTOR if solver.LARGE_FC_LR else None,
        new_lr_factor=solver.NEW_LR_FACTOR if solver.NEW_LR_FACTOR != 1 else None,
        clip_lr_scale=cfg.MODEL.CLIP_LR_SCALE if cfg.MODEL.CLIP_SEPARATE_LR else None,
        layer_decay=solver.LAYER_DECAY,
    )
    groups = group_parameters(model.named_parameters(), model.part_of, rule)
    adam = (solver.BETAS, solver.ADAM_EPS)
    optimizer = build_optimizer(solver.OPTIMIZER_NAME, groups, solver.BASE_LR, solver.MOMENTUM, *adam)
    for line in describe_groups(groups):
        logger.info(line)
    centers = find_centers(criterion)
    return optimizer, build_optimizer("SGD", [{"params": centers}], solver.CENTER_LR) if centers else None


def group_outside(cfg: CfgNode, stage: str, name: str, parameters: Sequence[nn.Parameter]) -> dict:
    """Return the group of weights outside the model, `name`d for the log, which learn in a stage as new layers do."""
    solver = solver_of(cfg, stage)
    lr = solver.BASE_LR * solver.NEW_LR_FACTOR
    rates = {"lr": lr, "initial_lr": lr, "lr_scale": 1.0, "weight_decay": solver.WEIGHT_DECAY}
    return {"params": list(parameters), **rates, "name": name}


def group_parameters(
    named: Iterable[tuple[str, nn.Parameter]], part_of: Callable[[str], "Part"], rule: GroupRule
) -> list[dict]:
    """Return the trainable parameters in one group per (lr, weight decay, scale of the layer or of the CLIP tower).

    `part_of(name)` is what the model says about a parameter; whatever has "bias" in its name is a bias.
    Each group has params, weight_decay, name (the kinds it holds), initial_lr (what the schedule sees), lr_scale > 0
    (factor on what the schedule gives) and lr, their product. Scale 1 and plain weights come first, so group 0 has the
    rate that is logged. Raises ConfigError when nothing is trainable, and for a layer decay without blocks.
    """
    parts = [(name, parameter, part_of(name)) for name, parameter in named]
    layers = {part.layer for _, _, part in parts}
    if rule.layer_decay != 1 and len(layers) < 2:
        raise ConfigError(
            f"SOLVER.LAYER_DECAY got {rule.layer_decay}, but the model has no transformer blocks; set 1.0"
        )
    groups: dict[tuple[float, float, float], dict] = {}
    kinds: dict[tuple[float, float, float], set[int]] = {}  # positions in KINDS
    for name, parameter, part in parts:
        if not parameter.requires_grad:
            continue
        kind, lr, weight_decay = rule.settings(part, "bias" in name)
        scale = rule.scale(part, max(layers))
        rates = {"lr": lr * scale, "initial_lr": lr, "lr_scale": scale}
        group = groups.setdefault((lr, weight_decay, scale), {"params": [], **rates, "weight_decay": weight_decay})
        group["params"].append(parameter)
        kinds.setdefault((lr, weight_decay, scale), set()).add(KINDS.index(kind))
    if not groups:
        raise ConfigError("the model has no trainable parameter; see MODEL.FREEZE_BLOCKS and what else freezes")
    for key, group in groups.items():
        group["name"] = " + ".join(KINDS[index] for index in sorted(kinds[key]))
    return [groups[key] for key in sorted(groups, key=lambda key: (key[2] != 1, -key[2], min(kinds[key])))]


def describe_groups(groups: list[dict]) -> list[str]:
    """Return one line for the groups of a (lr, weight decay) and kind, with their rates where layers differ."""
    alike: dict[tuple[float, float, str], list[dict]] = {}
    for group in groups:
        alike.setdefault((group["initial_lr"], group["weight_decay"], group["name"]), []).append(group)
    lines = []
    for (_, weight_decay, name), members in alike.items():
        rates = sorted({group["lr"] for group in members})
        lr = f"{rates[0]:g}" if len(rates) == 1 else f"{rates[0]:g} to {rates[-1]:g} in {len(rates)} layers"
        size = sum(len(group["params"]) for group in members)
        lines.append(f"optimizer group '{name}': {size} tensors, lr {lr}, weight decay {weight_decay:g}")
    return lines


def build_optimizer(
    name: str,
    groups: list[dict],
    lr: float,
    momentum: float = 0.0,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> torch.optim.Optimizer:
    """Return the torch.optim class `name` over `groups`; momentum goes to SGD only, betas and eps to ADAMS.

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
    if name in ADAMS:
        options |= {"betas": tuple(betas), "eps": eps}
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    if name in FUSED_CLASSES:
        options["fused"] = devices <= set(FUSED_DEVICES)
    if "weight_decay" not in inspect.signature(choices[name]).parameters:
        logger.warning("%s has no weight decay: SOLVER.WEIGHT_DECAY and WEIGHT_DECAY_BIAS have no effect", name)
    return choices[name](groups, lr=lr, **options)
