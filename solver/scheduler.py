"""Learning rate as a pure function of the epoch, so that a resumed run needs no more than the epoch's number."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from yacs.config import CfgNode

from configs.keys.solver import AFTER_WARMUP, SCHEDULERS, STEPPED, WARMUP_COSINE
from configs.own_values import own_value
from configs.stages import WITHOUT_IMAGES, last_stage, solver_of, warmup_epochs
from utils.errors import ConfigError

WARMUP_METHODS = ("linear", "constant")


@dataclass(frozen=True)
class Warmup:
    """The first epochs t < epochs; `factor` in [0, 1] is the first learning rate / the base learning rate.

    linear: from `factor` at t = 0 towards the full rate at t = epochs; constant: `factor` throughout. Raises
    ConfigError for anything else.
    """

    epochs: int = 0
    factor: float = 0.01
    method: str = "linear"

    def __post_init__(self) -> None:
        if self.method not in WARMUP_METHODS:
            raise ConfigError(f"SOLVER.WARMUP_METHOD got '{self.method}', allowed: {', '.join(WARMUP_METHODS)}")
        if self.epochs < 0 or not 0 <= self.factor <= 1:
            raise ConfigError(
                f"SOLVER.WARMUP_EPOCHS got {self.epochs} and SOLVER.WARMUP_FACTOR {self.factor}, "
                "expected at least 0 epochs and a factor from 0 to 1"
            )

    def progress(self, epoch: float) -> float:
        """Return the share of the warm-up that has passed at `epoch` <= epochs, in [0, 1]; constant: 0."""
        return epoch / self.epochs if self.method == "linear" else 0.0

    def factor_at(self, epoch: float) -> float:
        """Return f (1 - t/W) + t/W at t = `epoch` <= W = epochs for linear, f for constant; f = factor."""
        progress = self.progress(epoch)
        return self.factor * (1 - progress) + progress


def cosine_lr(epoch: float, peak: float, base_lr: float, max_epochs: int, min_factor: float, warmup: Warmup) -> float:
    """Return the learning rate at `epoch` t >= 0 of a group whose own rate is `peak`.

    t < W:      a + t (peak - a) / W           a = warmup.factor * base_lr, W = warmup.epochs (constant: a)
    W <= t < E: b + (peak - b) (1 + cos(pi t / E)) / 2      b = min_factor * base_lr, E = max_epochs
    t >= E:     b
    The floors a and b come from base_lr for every group, and the cosine counts from epoch 0, not from W: both as in
    TransReID, whose figures rest on them.
    Reference: Loshchilov & Hutter, SGDR, ICLR 2017, equation 5.
    """
    if epoch < warmup.epochs:
        start = warmup.factor * base_lr
        return start + warmup.progress(epoch) * (peak - start)
    return _cosine(epoch, peak, min_factor * base_lr, max_epochs)


def warmup_cosine_lr(epoch: int, peak: float, max_epochs: int, min_factor: float, warmup: Warmup) -> float:
    """Return the learning rate at `epoch` t + 1 >= 1 of a group whose own rate is `peak`.

    t < W:      peak (f + (1 - f) (t + 1) / W)           f = warmup.factor, W = warmup.epochs (constant: peak f)
    W <= t < E: peak (m + (1 - m) (1 + cos(pi (t - W) / (E - W))) / 2)       m = min_factor, E = max_epochs
    t >= E:     peak m
    Unlike `cosine_lr` the warm-up ends at the peak, the cosine begins there, and all groups fall by the same factor.
    Reference: Loshchilov & Hutter, SGDR, ICLR 2017, equation 5.
    """
    passed = epoch - 1
    if passed < warmup.epochs:
        return peak * warmup.factor_at(epoch)
    return peak * _cosine(passed - warmup.epochs, 1.0, min_factor, max_epochs - warmup.epochs)


def multistep_lr(epoch: float, peak: float, steps: Sequence[int], gamma: float, warmup: Warmup) -> float:
    """Return peak * gamma^(number of `steps` <= epoch), times the warm-up's factor while epoch < warmup.epochs.

    Steps ascend.
    Reference: Luo et al., Bag of Tricks for Deep Person Re-identification, CVPRW 2019, section 3.1.
    """
    lr = peak * gamma ** bisect_right(steps, epoch)
    if epoch < warmup.epochs:
        lr *= warmup.factor_at(epoch)
    return lr


@dataclass(frozen=True)
class AfterWarmup:
    """IRRA's schedules, whose curve begins where the warm-up ends: (epoch from 1, peak of a group) -> learning rate.

    With t = epoch - 1, K = warmup.epochs, E = max_epochs, p = peak, c = target_lr: while t < K the warm-up's factor
    times p, then with r = (t - K) / (E - K), 1 from t = E on,
    after_warmup_cosine: c + (p - c) (1 + cos(pi r)) / 2
    after_warmup_step:   p * gamma^(number of `steps` <= t)
    after_warmup_linear: p (1 - r)
    after_warmup_exp:    p * power^r
    after_warmup_poly:   c + (p - c) (1 - r)^power
    Reference: Jiang & Ye, IRRA, CVPR 2023, and its code, whose poly has power^(1 - r) and so rises.
    """

    curve: str  # one of AFTER_WARMUP
    max_epochs: int
    warmup: Warmup
    target_lr: float = 0.0
    power: float = 0.9
    steps: Sequence[int] = ()
    gamma: float = 0.1

    def __call__(self, epoch: int, peak: float) -> float:
        """Return the learning rate at `epoch`; ValueError for a curve that is none of AFTER_WARMUP."""
        passed, rest = epoch - 1, self.max_epochs - self.warmup.epochs
        if passed < self.warmup.epochs:
            return peak * self.warmup.factor_at(passed)
        share = (passed - self.warmup.epochs) / rest if passed < self.max_epochs else 1.0
        match self.curve.removeprefix("after_warmup_"):
            case "cosine":
                return self.target_lr + 0.5 * (peak - self.target_lr) * (1 + math.cos(math.pi * share))
            case "step":
                return peak * self.gamma ** bisect_right(self.steps, passed)
            case "linear":
                return peak * (1 - share)
            case "exp":
                return peak * self.power**share
            case "poly":
                return self.target_lr + (peak - self.target_lr) * (1 - share) ** self.power
        raise ValueError(f"'{self.curve}' is none of {', '.join(AFTER_WARMUP)}")


def prompt_lr(epoch: float, peak: float, first: float, lowest: float, warmup: int, max_epochs: int) -> float:
    """Return CLIP-ReID's learning rate of stage 1 at `epoch` t >= 0.

    t < W:      first + t (peak - first) / W                                   W = warmup
    W <= t < E: lowest + (peak - lowest) (1 + cos(pi t / E)) / 2               E = max_epochs
    t >= E:     lowest
    Reference: Li et al., CLIP-ReID, AAAI 2023, section 4.2, and its code.
    """
    if epoch < warmup:
        return first + epoch * (peak - first) / warmup
    return _cosine(epoch, peak, lowest, max_epochs)


def _cosine(epoch: float, peak: float, lowest: float, max_epochs: int) -> float:
    if epoch >= max_epochs:
        return lowest
    return lowest + 0.5 * (peak - lowest) * (1 + math.cos(math.pi * epoch / max_epochs))


class EpochScheduler:
    """Sets the learning rate of every group to schedule(epoch, initial_lr) * lr_scale at the start of each epoch.

    `schedule` is a pure function (epoch, peak) -> lr; epochs count from 1 and may come in any order. At construction
    every group gets `start_lr` * lr_scale. The scale is outside the schedule, whose floors come from BASE_LR: inside,
    a slow layer's rate would rise towards them. There is no state to save. Raises ValueError for a group without
    `initial_lr` or `lr_scale` and for a negative start_lr.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, schedule: Callable[[int, float], float], start_lr: float
    ) -> None:
        if any("initial_lr" not in group or "lr_scale" not in group for group in optimizer.param_groups):
            raise ValueError("every parameter group needs 'initial_lr', the peak of its schedule, and 'lr_scale'")
        if start_lr < 0:
            raise ValueError(f"start_lr must not be negative, got {start_lr}")
        self._optimizer = optimizer
        self._schedule = schedule
        self._peaks = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self._scales = [float(group["lr_scale"]) for group in optimizer.param_groups]
        self._set([start_lr * scale for scale in self._scales])

    def add_group(self, group: dict[str, Any]) -> None:
        """Put one more group of parameters, with `initial_lr` and `lr_scale`, into the optimizer and the schedule."""
        self._optimizer.add_param_group(group)
        self._peaks.append(float(group["initial_lr"]))
        self._scales.append(float(group["lr_scale"]))

    def lr_at(self, epoch: int) -> list[float]:
        """Return the learning rate of each group at `epoch`, without setting it; ValueError below epoch 1."""
        if epoch < 1:
            raise ValueError(f"epochs count from 1, got {epoch}")
        return [self._schedule(epoch, peak) * scale for peak, scale in zip(self._peaks, self._scales, strict=True)]

    def step(self, epoch: int) -> None:
        """Set the learning rates of `epoch`; call it before the epoch's first batch."""
        self._set(self.lr_at(epoch))

    @property
    def last_lr(self) -> list[float]:
        """The learning rate that each group has now."""
        return [group["lr"] for group in self._optimizer.param_groups]

    def _set(self, rates: list[float]) -> None:
        for group, lr in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = lr


def make_schedule(cfg: CfgNode, stage: str = "") -> Callable[[int, float], float]:
    """Return SOLVER.SCHEDULER as a function (epoch, peak learning rate) -> lr; ConfigError names a key in error.

    Epochs are those of `stage`, "" = the last one.
    """
    solver, kind = solver_of(cfg, stage), own_value(cfg, "SOLVER.SCHEDULER")
    if solver.MAX_EPOCHS < 1:
        raise ConfigError(f"SOLVER.MAX_EPOCHS got {solver.MAX_EPOCHS}, expected at least 1")
    if _is_of_prompts(cfg, stage):
        return partial(
            prompt_lr,
            first=solver.WARMUP_LR_INIT,
            lowest=solver.LR_MIN,
            warmup=solver.WARMUP_EPOCHS,
            max_epochs=solver.MAX_EPOCHS,
        )
    if kind == "cosine":
        return partial(
            cosine_lr,
            base_lr=solver.BASE_LR,
            max_epochs=solver.MAX_EPOCHS,
            min_factor=solver.MIN_LR_FACTOR,
            warmup=_make_warmup(cfg, stage),
        )
    if kind == WARMUP_COSINE:
        return partial(
            warmup_cosine_lr,
            max_epochs=solver.MAX_EPOCHS,
            min_factor=solver.MIN_LR_FACTOR,
            warmup=_make_warmup(cfg, stage),
        )
    steps = tuple(solver.STEPS)
    if kind in STEPPED and list(steps) != sorted(set(steps)):
        raise ConfigError(f"SOLVER.STEPS got {steps}, expected ascending epochs")
    if kind == "multistep":
        return partial(multistep_lr, steps=steps, gamma=solver.GAMMA, warmup=_make_warmup(cfg, stage))
    if kind in AFTER_WARMUP:
        curve = (solver.TARGET_LR, solver.POWER, steps, solver.GAMMA)
        return AfterWarmup(kind, solver.MAX_EPOCHS, _make_warmup(cfg, stage), *curve)
    raise ConfigError(f"SOLVER.SCHEDULER got '{kind}', allowed: {', '.join(SCHEDULERS)}")


def create_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer, stage: str = "") -> EpochScheduler:
    """Return the schedule SOLVER.SCHEDULER of a stage for its `optimizer`; ConfigError names a key that cannot work."""
    solver = solver_of(cfg, stage)
    if _is_of_prompts(cfg, stage):
        return EpochScheduler(optimizer, make_schedule(cfg, stage), solver.WARMUP_LR_INIT)
    return EpochScheduler(optimizer, make_schedule(cfg, stage), _make_warmup(cfg, stage).factor * solver.BASE_LR)


def _make_warmup(cfg: CfgNode, stage: str) -> Warmup:
    solver = solver_of(cfg, stage)
    return Warmup(warmup_epochs(cfg, stage), solver.WARMUP_FACTOR, solver.WARMUP_METHOD)


def _is_of_prompts(cfg: CfgNode, stage: str) -> bool:
    return (stage or last_stage(cfg)) in WITHOUT_IMAGES
