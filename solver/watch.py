"""What reaches the weights in an epoch: the largest gradient of each, and the range of the loss."""

from collections.abc import Sequence

import torch
from torch import nn


class Watch:
    """Sees each loss and, after clipping, the gradients of each optimizer step; waits for no device before `read`."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._none = torch.zeros((), device=self._parameters[0].device)
        self._largest = self._none.expand(len(self._parameters)).clone()
        self._low, self._high = self._none + torch.inf, self._none - torch.inf
        self.losses = self.updates = 0

    def see_loss(self, total: torch.Tensor) -> None:
        """Take in the loss of a batch."""
        self.losses += 1
        total = total.detach().float()
        self._low, self._high = torch.minimum(self._low, total), torch.maximum(self._high, total)

    def see_gradients(self) -> None:
        """Take in the gradients with which the optimizer steps next; under fp16 they may still be scaled."""
        self.updates += 1
        there = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norms = iter(torch._foreach_norm(there, torch.inf) if there else ())
        values = [self._none if parameter.grad is None else next(norms).float() for parameter in self._parameters]
        self._largest = torch.maximum(self._largest, torch.stack(values))

    def read(self) -> tuple[list[float], float, float]:
        """Return the largest absolute gradient of each parameter, the smallest loss and the largest one."""
        *largest, low, high = torch.cat([self._largest, torch.stack([self._low, self._high])]).tolist()
        return largest, low, high
