"""One optimizer step: loss scaling for float16, clipping, accumulation, and the centres of the centre loss."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from configs.stages import solver_of
from solver.centers import step_centers
from solver.clipping import QuantileClip
from solver.make_optimizer import make_optimizer
from solver.watch import Watch
from utils.device import resolve_amp

Clip = Callable[[list[nn.Parameter]], None]  # bounds the gradients, in place


class Updater:
    """All that turns gradients into new weights; its state is that of both optimizers and of the loss scaler.

    A step takes place after every `accum_steps` batches and at the end of an epoch, with the mean gradient of its
    batches. `clip` gets the parameters whose gradients it bounds, unscaled: those of `optimizer`, or `parameters`,
    whose order decides the last bit of a norm over them. A `QuantileClip` starts anew at the first batch of an epoch.
    Without `scaler` losses are not scaled.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        center_optimizer: torch.optim.Optimizer | None = None,
        scaler: torch.amp.GradScaler | None = None,
        clip: Clip | None = None,
        accum_steps: int = 1,
        parameters: Sequence[nn.Parameter] | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.center_optimizer = center_optimizer
        self.scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
        self.accum_steps = accum_steps
        self.watch: Watch | None = None  # sees the losses and the gradients of the steps
        self._clip = clip
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._clipped = held if parameters is None else list(parameters)

    def updates_at(self, step: int, total_steps: int) -> bool:
        """Return whether the optimizers step after batch `step` (from 1) of the `total_steps` of an epoch."""
        return step % self.accum_steps == 0 or step == total_steps

    def backward(self, total: torch.Tensor, step: int, total_steps: int) -> None:
        """Add the gradients of a batch's loss, as its share in the mean over the batches of one optimizer step."""
        if step == 1 and isinstance(self._clip, QuantileClip):
            self._clip.reset()
        if self.watch is not None:
            self.watch.see_loss(total)
        self.scaler.scale(total / group_size(step, total_steps, self.accum_steps)).backward()

    def step(self) -> None:
        """Step with the gradients added so far, clipped, and clear them; where they overflowed fp16, only clear."""
        if self._clip is not None:
            self.scaler.unscale_(self.optimizer)
            self._clip(self._clipped)
        if self.watch is not None:
            self.watch.see_gradients()
        self.scaler.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        if self.center_optimizer is not None:
            step_centers(self.center_optimizer, self.scaler)
        self.scaler.update()

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return optimizer, center_optimizer ({} without one) and scaler, as a training state holds them."""
        centers = self.center_optimizer.state_dict() if self.center_optimizer else {}
        return {
            "optimizer": self.optimizer.state_dict(),
            "center_optimizer": centers,
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, dict[str, Any]]) -> None:
        """Take the entries of `state_dict` from a dict that may have others too; KeyError, ValueError where unfit."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.center_optimizer is not None:
            self.center_optimizer.load_state_dict(state["center_optimizer"])
        self.scaler.load_state_dict(state["scaler"])


def make_updater(cfg: CfgNode, stage: str, model: nn.Module, criterion: nn.Module, device: torch.device) -> Updater:
    """Return the updater of a stage ("" = the last one) for a model and a criterion on `device`.

    Raises ConfigError for an optimizer or a SOLVER.AMP that cannot work.
    """
    return updater_of(cfg, stage, model, make_optimizer(cfg, model, criterion, stage), device)


def updater_of(
    cfg: CfgNode,
    stage: str,
    model: nn.Module,
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer | None],
    device: torch.device,
) -> Updater:
    """Return the updater of a stage with the `optimizers` that `make_optimizer` returned."""
    solver = solver_of(cfg, stage)
    scaler = make_scaler(device, resolve_amp(solver.AMP, device))
    return Updater(*optimizers, scaler, make_clip(solver), solver.ACCUM_STEPS, list(model.parameters()))


def make_clip(solver: CfgNode) -> Clip | None:
    """Return what bounds the gradients of a stage with these solver keys, None = nothing."""
    if solver.GRAD_CLIP_QUANTILE > 0:
        return QuantileClip(quantile=solver.GRAD_CLIP_QUANTILE)
    return partial(clip_norm, largest=solver.GRAD_CLIP) if solver.GRAD_CLIP > 0 else None


def clip_norm(parameters: list[nn.Parameter], largest: float) -> None:
    """Bound the L2 norm of all gradients together to `largest`."""
    nn.utils.clip_grad_norm_(parameters, largest)


def make_scaler(device: torch.device, amp: torch.dtype | None) -> torch.amp.GradScaler:
    """Return the loss scaler of a run: active for float16, a no-op otherwise."""
    return torch.amp.GradScaler(device.type, enabled=amp == torch.float16)


def group_size(step: int, total_steps: int, accum_steps: int) -> int:
    """Return how many batches share the optimizer step of batch `step` (from 1); the last group may be smaller."""
    group_start = (math.ceil(step / accum_steps) - 1) * accum_steps
    return min(accum_steps, total_steps - group_start)
