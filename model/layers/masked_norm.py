"""Batch normalisation over some rows of a batch, chosen by a mask, without a wait for the device that holds it.

Reference: Ioffe and Szegedy, Batch Normalization, ICML 2015, algorithm 1, with sums over the chosen rows.
"""

import torch
from torch import nn

from utils.distributed import shared_sum
from utils.precision import at_least_float32


class MaskedNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d of the rows [n, C] of an input [N, C] for which a mask, bool [N], is True; zeros in all others.

    The other rows may hold anything, NaN too: they change no result, statistic or gradient. Names are those of
    nn.BatchNorm1d; C is `num_features`. Where less than two rows are chosen the running statistics stay as they are.
    With `over_ranks` the rows are those of all processes.
    """

    over_ranks = False

    def forward(self, input: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the normalised input in at least float32."""
        mask = mask[:, None]
        values = torch.where(mask, at_least_float32(input), 0)
        normal = self._of_batch(values, mask) if self.training else super().forward(values)
        return torch.where(mask, normal, 0)

    def _of_batch(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        own_count = mask.sum(dtype=values.dtype)[None]
        sums = self._summed(torch.cat([values.sum(0), own_count]))
        count = sums[-1].detach().clamp(min=1)
        mean = sums[:-1] / count
        centred = torch.where(mask, values - mean, 0)
        variance = self._summed(centred.square().sum(0)) / count  # two passes: a mean far from 0 costs no digits
        self._update_running(mean, variance, count)
        return torch.addcmul(self.bias, centred * (variance + self.eps).rsqrt(), self.weight)

    def _summed(self, sums: torch.Tensor) -> torch.Tensor:
        return shared_sum(sums) if self.over_ranks else sums

    @torch.no_grad()
    def _update_running(self, mean: torch.Tensor, variance: torch.Tensor, count: torch.Tensor) -> None:
        several = count > 1
        share = self.momentum * several.to(self.running_mean.dtype)
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)
        self.num_batches_tracked += several
