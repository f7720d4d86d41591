"""Which of two equal ways computes the products of linear layers while a model embeds in float32 on a CPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from utils.device import mkl_is_slow

AUTO, PLAIN, PACKED = "auto", "plain", "packed"  # of TEST.LINEAR
LEAST_WIDTH = 128  # of a layer; below it, what goes to oneDNN and back costs more than its product


@contextmanager
def packed_linears(
    model: nn.Module, device: torch.device, amp: torch.dtype | None, choice: str = AUTO
) -> Iterator[None]:
    """Let oneDNN compute the linear layers of `model` in this context, from copies of their weights as they are now.

    Results are equal to rounding. auto does so where `mkl_is_slow`. Nothing happens but in float32 on a CPU, to layers
    narrower than LEAST_WIDTH or with adapters, and to those of a context around this one.
    """
    packs = device.type == "cpu" and amp is None and torch.backends.mkldnn.is_available()
    packs &= choice == PACKED or (choice == AUTO and mkl_is_slow())
    layers = [module for module in model.modules() if packs and _can_pack(module)]
    for layer in layers:
        layer.forward = _pack(layer)
    try:
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _can_pack(module: nn.Module) -> bool:
    if type(module) is not nn.Linear or "forward" in module.__dict__:
        return False
    whole = type(module.weight) is nn.Parameter and type(module.weight.data) is torch.Tensor  # of one process
    return whole and module.weight.dtype == torch.float32 and min(module.weight.shape) >= LEAST_WIDTH


def _pack(layer: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what computes a layer [..., I] -> [..., O] by oneDNN; its weights take their memory once more."""
    weight = layer.weight.detach().to_mkldnn()
    bias = None if layer.bias is None else layer.bias.detach().to_mkldnn()
    return lambda x: F.linear(x.to_mkldnn(), weight, bias).to_dense()
