"""Weights of a file into a model: one way for all systems, which say by their rules what the file's names mean."""

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import nn

from model.weights.convert import resize_pos_embed
from model.weights.kinds import describe
from utils.checkpoint import read_weights
from utils.errors import DataError

logger = logging.getLogger(__name__)

Weights = dict[str, torch.Tensor]
SHOWN = 4  # names of a kind that a report spells out
NECK_PREFIX = "bottleneck"  # all families call their necks alike


class LoadReport(NamedTuple):
    """What happened to each weight when a file was loaded; str() is one paragraph for a log."""

    source: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]  # in the model only: left as they were
    surplus: tuple[str, ...]  # in the file only: ignored
    resized: tuple[str, ...]  # position embeddings interpolated to the model's grid; also in `matched`
    misshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]  # name -> (file's shape, model's shape): ignored
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        shapes = [f"{name} {list(theirs)} for {list(ours)}" for name, (theirs, ours) in self.misshaped.items()]
        kinds = {
            "missing": self.missing,
            "surplus": self.surplus,
            "resized": self.resized,
            "of another shape, left out": tuple(shapes),
        }
        parts = [f"{len(names)} {kind}{_some(names)}" for kind, names in kinds.items() if names]
        return "; ".join([f"{self.source}: {len(self.matched)} weights matched", *parts, *self.warnings])


class WeightRules(Protocol):
    """What a system knows about checkpoints for one of its models: its own, the original code's, those of relatives."""

    grid: tuple[int, int] | None  # (rows, columns) that position embeddings of another grid take; None = there are none

    def translate(self, weights: Weights) -> Weights:
        """Return a file's weights by the model's names; DataError for weights that contradict each other."""

    def deciding_keys(self, name: str) -> str:
        """Return which config keys decide presence and shape of a weight, or '' where no embedding depends on it."""

    def refusal(self, weights: Weights) -> str:
        """Return why translated weights belong to another model, as the words that follow the file's name; or ''."""

    def warnings(self, report: LoadReport) -> list[str]:
        """Return what a user may miss in a file that was loaded, the config keys to set included."""


def load_param(model: nn.Module, rules: WeightRules, path: str | Path, key: str = "TEST.WEIGHT") -> LoadReport:
    """Load a trained checkpoint and return the report, which is logged too.

    `key` is the config key that named the file. Raises ConfigError when there is no such file, and DataError when it is
    damaged, is no such checkpoint, or lacks a weight on which the embedding depends (or has it in another shape); the
    model is then as it was. Classifiers and weights that no embedding depends on may differ.
    """
    source = f"{key} '{path}'"
    weights = rules.translate(read_weights(path, key))
    refusal = rules.refusal(weights)
    if refusal:
        raise DataError(f"{source}{refusal}")
    report = load_weights(model, weights, source, rules.deciding_keys, rules.grid)
    report = report._replace(warnings=tuple(rules.warnings(report)))
    log_report(report)
    return report


def load_weights(
    module: nn.Module,
    weights: Mapping[str, torch.Tensor],
    source: str,
    deciding_keys: Callable[[str], str],
    grid: tuple[int, int] | None = None,
    prefixes: tuple[str, ...] = ("",),
) -> LoadReport:
    """Copy into `module` the weights whose names and shapes agree and return the report.

    A position embedding that differs in its grid only is resized to `grid` (rows, columns). `deciding_keys(name)` says
    which config keys decide a weight, or '' where nothing depends on it; `source` opens every message. Only weights
    of the module that start with one of `prefixes` are considered. Raises DataError, and changes nothing, when no
    weight matches, when one that matters is missing or has another shape, and when one is no number of its type here.
    """
    target = {name: value for name, value in module.state_dict().items() if name.startswith(prefixes)}
    usable, resized, misshaped = {}, [], {}
    whole = [name for name in target if name in weights and _is_whole_for(weights[name], target[name])]
    for name in (name for name in target if name in weights and name not in whole):
        value = weights[name]
        if grid is not None and _differs_in_grid(name, value, target[name], grid):
            value = resize_pos_embed(value, grid, num_prefix=target[name].shape[1] - math.prod(grid))
            resized.append(name)
        if value.shape == target[name].shape:
            usable[name] = value
        else:
            misshaped[name] = (tuple(value.shape), tuple(target[name].shape))
    missing = [name for name in target if name not in weights]
    needed = [name for name in target if deciding_keys(name)]
    trunk = [name for name in needed if not name.startswith(NECK_PREFIX)]
    if (trunk or not usable) and not any(name in weights for name in trunk):
        raise DataError(f"{source} holds {describe(weights)}; none of its weights fits this model")
    fatal = [name for name in needed if name in misshaped or name not in weights]
    if fatal:
        raise DataError(_fatal_message(source, fatal, misshaped, target, deciding_keys))
    _check_numbers(source, {name: weights[name] for name in whole}, usable, target)
    module.load_state_dict(usable, strict=False)
    return LoadReport(
        source=source,
        matched=tuple(usable),
        missing=tuple(missing),
        surplus=tuple(name for name in weights if name not in target),
        resized=tuple(resized),
        misshaped=misshaped,
    )


def log_report(report: LoadReport) -> None:
    """Log a report, as a warning when something is left out that a user may miss."""
    logger.log(logging.WARNING if report.warnings or report.misshaped else logging.INFO, "%s", report)


def _is_whole_for(value: torch.Tensor, target: torch.Tensor) -> bool:
    return target.is_floating_point() and not value.is_floating_point()


def _is_finite(value: torch.Tensor, target: torch.Tensor) -> bool:
    """Return whether all values are finite, also in the type of the target, which may hold less."""
    narrower = target.is_floating_point() and torch.finfo(value.dtype).max > torch.finfo(target.dtype).max
    return not value.is_floating_point() or bool((value.to(target.dtype) if narrower else value).isfinite().all())


def _differs_in_grid(name: str, value: torch.Tensor, target: torch.Tensor, grid: tuple[int, int]) -> bool:
    same_width = name.endswith("pos_embed") and value.dim() == 3 and value.shape[::2] == target.shape[::2]
    return same_width and target.shape[1] != value.shape[1] > max(1, target.shape[1] - math.prod(grid))


def _fatal_message(
    source: str,
    fatal: list[str],
    misshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
    target: Mapping[str, torch.Tensor],
    deciding_keys: Callable[[str], str],
) -> str:
    name = next((name for name in fatal if name in misshaped), fatal[0])  # a wrong shape says more than an absence
    ours = list(target[name].shape)
    if name in misshaped:
        what = f"{name} is {list(misshaped[name][0])} in the file, but {ours} in this model"
    else:
        what = f"{name} {ours} is not in the file"
    others = f" ({len(fatal) - 1} more weights do not fit)" if len(fatal) > 1 else ""
    return f"{source}: {what}; {deciding_keys(name)}{others}"


def _check_numbers(source: str, whole: Weights, usable: Weights, target: Mapping[str, torch.Tensor]) -> None:
    """Raise DataError for weights that are `whole` numbers where fractions are needed, or that are not finite."""
    if whole:
        kind = str(next(iter(whole.values())).dtype).removeprefix("torch.")
        raise DataError(
            f"{source}: {_listed(list(whole))} holds whole numbers ({kind}) where this model has fractions; it is "
            "quantized, or no weight: take the file of the float32 model"
        )
    broken = [name for name, value in usable.items() if not _is_finite(value, target[name])]
    if broken:
        raise DataError(f"{source}: {_listed(broken)} holds values that are not finite; copy or train it again")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN])


def _some(names: tuple[str, ...]) -> str:
    more = f", ... {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" ({', '.join(names[:SHOWN])}{more})"
