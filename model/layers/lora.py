"""Low-rank adapters: the linear layers of a transformer's blocks stay as they are and learn a small correction each.

Reference: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, section 4.1.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from utils.errors import ConfigError, DataError

PARTS = ("lora_a", "lora_b", "lora_scale")


class LoRALinear(nn.Linear):
    """x [..., in] -> x W^T + bias + s (x A^T) B^T, with A [r, in], B [out, r] and s = alpha / r.

    W and bias are those of `linear`, by the same names and frozen; only `lora_a` (A, uniform as torch's linear layers)
    and `lora_b` (B, 0, so that the start is the layer as it was) learn. `lora_scale` (s) is a buffer, so that a
    checkpoint can be folded without its configuration. Device and dtype are those of W. Raises ConfigError for a rank
    outside 1..min(in, out).
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        width, height = linear.in_features, linear.out_features
        check_rank("MODEL.LORA.RANK", rank, linear)
        super().__init__(width, height, linear.bias is not None, device="meta")  # nothing is drawn for W
        self.weight, self.bias = linear.weight, linear.bias
        self.requires_grad_(False)
        self.lora_a, self.lora_b = first_factors(linear.weight, rank)
        self.register_buffer("lora_scale", linear.weight.new_tensor(alpha / rank))
        self.train(linear.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        reduced = self.lora_scale * F.linear(x, self.lora_a)  # [..., r]
        return super().forward(x) + F.linear(reduced, self.lora_b)

    def merged(self) -> nn.Linear:
        """Return the plain linear layer that gives the same values."""
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        weight = merged_weight(self.weight, self.lora_a, self.lora_b, self.lora_scale)
        linear.weight = nn.Parameter(weight, requires_grad=self.weight.requires_grad)
        linear.bias = self.bias
        return linear.train(self.training)


def check_rank(key: str, rank: int, linear: nn.Linear) -> None:
    """Raise ConfigError, which names the `key`, for a rank outside 1..min(in, out) of a linear layer."""
    width, height = linear.in_features, linear.out_features
    if not 1 <= rank <= min(width, height):
        raise ConfigError(f"{key} got {rank}, allowed: 1 to {min(width, height)} for a layer from {width} to {height}")


def first_factors(weight: torch.Tensor, rank: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Return A [r, in], uniform in +-1/sqrt(in), and B [out, r], 0, for a weight [out, in], of its device and dtype."""
    height, width = weight.shape
    lora_a = nn.Parameter(weight.new_empty(rank, width))
    nn.init.kaiming_uniform_(lora_a, a=math.sqrt(5))
    return lora_a, nn.Parameter(weight.new_zeros(height, rank))


def some_outputs(linear: nn.Linear, x: torch.Tensor, rows: slice) -> torch.Tensor:
    """Return the outputs `rows` of a linear layer, with its adapter if it has one: [..., number of rows]."""
    y = F.linear(x, linear.weight[rows], None if linear.bias is None else linear.bias[rows])
    if not isinstance(linear, LoRALinear):
        return y
    return y + F.linear(linear.lora_scale * F.linear(x, linear.lora_a), linear.lora_b[rows])


@torch.no_grad()
def merged_weight(
    weight: torch.Tensor, lora_a: torch.Tensor, lora_b: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Return W + s B A [out, in] in W's dtype, computed in at least float32; `scale` is s [] of any float type."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return (weight.to(dtype) + scale.to(dtype) * (lora_b.to(dtype) @ lora_a.to(dtype))).to(weight.dtype)


def add_lora(blocks: Iterable[nn.Module], rank: int, alpha: float, targets: Sequence[str]) -> int:
    """Replace the `targets` of every block by LoRALinear, in place, and return how many layers that are.

    A target is the dotted name of a linear layer in a timm block (attn.qkv) or of the module that holds some (attn).
    Other parameters of the blocks stay as they are; freezing them is the caller's. Raises ConfigError for a target that
    a block does not have and for a rank that a layer cannot have.
    """
    count = 0
    for block in blocks:
        # a subclass may have another forward, or a caller that reads its weight past it
        layers = {name: module for name, module in block.named_modules() if type(module) is nn.Linear}
        chosen = dict.fromkeys(name for target in targets for name in _matches(target, layers, type(block).__name__))
        for name in chosen:
            block.set_submodule(name, LoRALinear(layers[name], rank, alpha))
        for module in block.modules():
            if hasattr(module, "qkv_bias_separate") and isinstance(module.qkv, LoRALinear):
                module.qkv_bias_separate = True  # else timm's EVA and BEiT read qkv.weight and pass by the adapter
        count += len(chosen)
    return count


def merge_lora(module: nn.Module) -> int:
    """Replace every LoRALinear below `module` by the plain layer that gives the same values; return how many."""
    adapted = [name for name, layer in module.named_modules() if isinstance(layer, LoRALinear)]
    for name in adapted:
        module.set_submodule(name, module.get_submodule(name).merged())
    return len(adapted)


def fold_lora(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state dict with its adapters folded into `*.weight`, the names of a model that has none.

    Weights without adapters come back equal. Raises DataError for adapters that are incomplete or of other shapes than
    their weight.
    """
    prefixes = dict.fromkeys(name.rpartition("lora_")[0] for name in weights if name.rpartition(".")[2] in PARTS)
    folded = {name: weight for name, weight in weights.items() if name.rpartition(".")[2] not in PARTS}
    for prefix in prefixes:
        names = [f"{prefix}{part}" for part in ("weight", *PARTS)]
        missing = [name for name in names if name not in weights]
        if missing:
            raise DataError(f"the adapter of {names[0]} is incomplete: {', '.join(missing)} is not in the file")
        weight, lora_a, lora_b, scale = (weights[name] for name in names)
        whole, *parts = (list(tensor.shape) for tensor in (weight, lora_a, lora_b, scale))
        if len(whole) != 2 or parts != [[*parts[0][:1], *whole[1:]], [*whole[:1], *parts[0][:1]], []]:
            raise DataError(f"the adapter of {names[0]} {whole} does not fit it: A, B and scale are {parts}")
        folded[names[0]] = merged_weight(weight, lora_a, lora_b, scale)
    return folded


def _matches(target: str, layers: Mapping[str, nn.Linear], block: str) -> list[str]:
    """Return the names among `layers` that a target stands for; ConfigError when there is none."""
    found = [name for name in layers if name == target or name.startswith(f"{target}.")]
    if not found:
        possible = [*layers, *dict.fromkeys(name.rpartition(".")[0] for name in layers if "." in name)]
        near = difflib.get_close_matches(target, possible, n=1)
        raise ConfigError(
            f"MODEL.LORA.TARGETS got '{target}'; the plain linear layers of a {block}: {', '.join(layers) or 'none'}"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    return found
