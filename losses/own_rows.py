"""The mean over rows of which each process has another number, such as the masked words of its captions."""

import torch

from utils.distributed import num_processes, sum_over_ranks
from utils.precision import at_least_float32


def mean_of_own_rows(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of `values` [M], times M * processes / (M of all processes): a scalar of at least float32.

    The mean of the results over the processes, which is also what DistributedDataParallel makes of the gradients, is
    the mean over the rows of all of them. Without any row the result is a differentiable 0. All processes call it
    together; nobody waits for a value on the device.
    """
    values = at_least_float32(values)
    own = torch.full((), len(values), dtype=values.dtype, device=values.device)
    share = own * num_processes() / sum_over_ranks(own).clamp(min=1)
    return values.sum() / max(len(values), 1) * share
