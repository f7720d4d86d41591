"""The model as it trains: alone, or together with those of other processes."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from model.layers.synced_norm import sync_norms
from processor.step.compiling import CompiledTraining


def wrap(model: nn.Module, device: torch.device, world_size: int, sync_bn: bool) -> nn.Module:
    """Return `model` itself for one process, else in DistributedDataParallel, which averages the gradients.

    `sync_bn` makes its batch normalisations, in place, use the batch of all processes. The static_graph of
    DistributedDataParallel does not fit: losses come and go with the phases.
    """
    if world_size == 1:
        return model
    if sync_bn:
        sync_norms(model, device)
    # without device_ids: what a step hands over stays where it is, e.g. labels on the CPU that tell a shape
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model within what `wrap` and `CompiledTraining` made of it, of which it shares the weights."""
    while isinstance(model, (DistributedDataParallel, CompiledTraining)):
        model = model.module if isinstance(model, DistributedDataParallel) else model.model
    return model


def averaging(model: nn.Module, enabled: bool) -> AbstractContextManager:
    """Return the context of a forward and backward pass of what `wrap` returned.

    Unless `enabled`, the gradients stay those of this process; the next pass that averages includes them.
    """
    return nullcontext() if enabled or not isinstance(model, DistributedDataParallel) else model.no_sync()
