"""One optimizer step: loss scaling for float16, clipping, accumulation, and the centres of the centre loss."""

import math

import torch
from torch import nn

from solver.make_optimizer import step_centers
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


def update_centers(
    criterion: nn.Module, optimizer: torch.optim.Optimizer, weight: float, scaler: torch.amp.GradScaler
) -> None:
    """Step the class centres with gradients averaged over all processes (they stand outside DDP), and clear them."""
    for parameter in criterion.center.parameters():
        if parameter.grad is not None:
            parameter.grad = mean_over_ranks(parameter.grad)
    step_centers(criterion, optimizer, weight, scaler)
    optimizer.zero_grad(set_to_none=True)
