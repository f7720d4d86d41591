"""The class centres of the centre loss, which learn by an optimizer of their own, and at full speed.

In the total the centre loss has a small weight, so that it hardly disturbs the features. Its centres should move by
CENTER_LR times the gradient of the unweighted loss, so their gradients are divided by that weight before each step.
"""

import torch
from torch import nn

from utils.distributed import mean_over_ranks

CENTERS = "centers"  # what a term calls its class centres; there it leaves its `loss_weight` (> 0) in the total


def find_centers(criterion: nn.Module) -> list[nn.Parameter]:
    """Return the class centres of a criterion: its parameters of that name, [] without a centre loss."""
    return [parameter for name, parameter in criterion.named_parameters() if name.split(".")[-1] == CENTERS]


def step_centers(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    """Step the optimizer of the centres with the gradients of the unweighted loss, and clear them.

    Call it before the scaler's update(): under fp16 it unscales the gradients and skips the step on overflow. The
    centres stand outside DistributedDataParallel, so their gradients are averaged over the processes here, and before
    the scaler looks at them: all processes have to find the same overflow. Without any gradient nothing happens.
    """
    learning = [center for group in optimizer.param_groups for center in group["params"] if center.grad is not None]
    for center in learning:
        center.grad = mean_over_ranks(center.grad) / center.loss_weight
    if learning:
        scaler.step(optimizer)
        optimizer.zero_grad(set_to_none=True)
