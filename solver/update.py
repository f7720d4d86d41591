"""One optimizer step: loss scaling for float16, clipping, accumulation, and the centres of the centre loss."""

import math

import torch
from torch import nn

from utils.distributed import mean_over_ranks


def make_scaler(device: torch.device, amp: torch.dtype | None) -> torch.amp.GradScaler:
    """Return the loss scaler of a run: active for float16, a no-op otherwise."""
    return torch.amp.GradScaler(device.type, enabled=amp == torch.float16)


def group_size(step: int, total_steps: int, accum_steps: int) -> int:
    """Return how many batches share the optimizer step of batch `step` (from 1); the last group may be smaller."""
    group_start = (math.ceil(step / accum_steps) - 1) * accum_steps
    return min(accum_steps, total_steps - group_start)


def update(model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, grad_clip: float) -> None:
    """Step with the accumulated gradients, clipped to the L2 norm `grad_clip` (0 = not), and clear them.

    The caller calls scaler.update() once all optimizers have stepped.
    """
    if grad_clip > 0:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    scaler.step(optimizer)
    optimizer.zero_grad(set_to_none=True)


def step_centers(
    criterion: nn.Module,
    center_optimizer: torch.optim.Optimizer,
    weight: float,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Move the class centres by CENTER_LR times the gradient of the unweighted centre loss.

    In the total the centre loss has the small `weight` (> 0), so that it hardly disturbs the features; its centres
    should learn at full speed, hence their gradients are divided by `weight` before the step. Under fp16 pass the
    scaler, before its update(): it unscales the gradients (unless its unscale_ did so) and skips the step on overflow.
    The centres stand outside DistributedDataParallel, so their gradients are averaged over the processes here.
    """
    if weight <= 0:
        raise ValueError(f"the weight of the centre loss must be positive, got {weight}")
    for parameter in criterion.center.parameters():
        if parameter.grad is not None:
            parameter.grad = mean_over_ranks(parameter.grad) / weight
    if scaler is None:
        center_optimizer.step()
    else:
        scaler.step(center_optimizer)
    center_optimizer.zero_grad(set_to_none=True)
