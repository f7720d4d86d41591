"""Batch normalisation over the batch of all processes, also on CPUs, where torch's own does not run.

Reference: Ioffe and Szegedy, Batch Normalization, ICML 2015, algorithm 1, with the sums taken over all processes.
"""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from model.layers.masked_norm import MaskedNorm
from utils.distributed import num_processes, shared_sum
from utils.precision import at_least_float32

PLAIN_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class SyncedNorm(_BatchNorm):
    """nn.SyncBatchNorm for CPUs; inputs [B, C, ...], of any B on each process.

    Not a subclass of it, because DistributedDataParallel refuses those outside GPUs.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the normalised input, in its type."""
        if not self.training or num_processes() == 1:
            return super().forward(input)
        values = at_least_float32(input).transpose(0, 1).flatten(1)  # [C, n], n of this process
        own_count = values.new_full((1,), values.shape[1])
        sums = shared_sum(torch.cat([values.sum(1), own_count]))
        mean, count = sums[:-1] / sums[-1], sums[-1].detach()
        shape = (1, -1, *[1] * (input.dim() - 2))
        centred = at_least_float32(input) - mean.view(shape)
        squared = centred.square().transpose(0, 1).flatten(1).sum(1)
        variance = shared_sum(squared) / count  # two passes: a mean far from 0 costs no digits
        self._update_running(mean.detach(), variance.detach() * count / (count - 1))
        result = centred * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            result = result * self.weight.view(shape)
        if self.bias is not None:
            result = result + self.bias.view(shape)
        return result.to(input.dtype)

    def _check_input_dim(self, input: torch.Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch normalisation needs [B, C, ...], got {list(input.shape)}")

    @torch.no_grad()
    def _update_running(self, mean: torch.Tensor, unbiased: torch.Tensor) -> None:
        if not self.track_running_stats:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


def sync_norms(module: nn.Module, device: torch.device) -> None:
    """Replace the batch normalisations within `module`, which is on `device`, by ones over all processes, in place.

    Names, parameters and buffers stay the very same objects, so an optimizer made before still holds them. One over
    some rows takes those of all processes and stays the same object too.
    """
    kind = SyncedNorm if device.type == "cpu" else nn.SyncBatchNorm
    for parent in list(module.modules()):
        if isinstance(parent, MaskedNorm):
            parent.over_ranks = True
        for name, child in list(parent.named_children()):
            if type(child) in PLAIN_NORMS:
                setattr(parent, name, _synced(kind, child))


def _synced(kind: type[_BatchNorm], norm: _BatchNorm) -> _BatchNorm:
    settings = (norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    synced = kind(norm.num_features, *settings, device="meta")
    for name in ("weight", "bias"):
        synced.register_parameter(name, getattr(norm, name))
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        synced.register_buffer(name, getattr(norm, name))
    return synced.train(norm.training)
