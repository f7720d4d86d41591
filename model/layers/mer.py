"""Adapters of several modalities on one linear layer: all share its weight, each learns a correction of its own.

Reference: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, section 4.1, with one pair of
matrices for each modality.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from model.layers.lora import check_rank, first_factors, merged_weight


class MERLinear(nn.Module):
    """x [..., in] -> x W^T + b + s (x A_m^T) B_m^T [..., out] of modality m, A_m [r, in], B_m [out, r], s = alpha / r.

    W and b are those of `linear`, by the same names; `lora_a.<m>` are uniform in +-1/sqrt(in), `lora_b.<m>` 0, so that
    every modality begins with the layer as it was. Raises ConfigError for a rank outside 1..min(in, out).
    """

    def __init__(self, linear: nn.Linear, modalities: Sequence[str], rank: int, alpha: float) -> None:
        super().__init__()
        check_rank("MODEL.MULTIMODAL.RANK", rank, linear)
        self.weight = linear.weight
        self.register_parameter("bias", linear.bias)
        factors = {modality: first_factors(linear.weight, rank) for modality in modalities}
        self.lora_a = nn.ParameterDict({modality: lora_a for modality, (lora_a, _) in factors.items()})
        self.lora_b = nn.ParameterDict({modality: lora_b for modality, (_, lora_b) in factors.items()})
        self.scale = alpha / rank

    def forward(self, x: torch.Tensor, modality: str) -> torch.Tensor:
        """Return what the layer makes of x [..., in] of one modality; ValueError for one without adapters."""
        lora_a, lora_b = self._factors(modality)
        if not self.weight.requires_grad:  # then a gradient of the whole weight would be for the adapters alone
            return F.linear(x, self.weight, self.bias) + F.linear(self.scale * F.linear(x, lora_a), lora_b)
        # once on the weight, not on every token: its gradient is wanted anyway
        return F.linear(x, torch.addmm(self.weight, lora_b, lora_a, alpha=self.scale), self.bias)

    def merged(self, modality: str) -> torch.Tensor:
        """Return W + s B_m A_m [out, in], detached; ValueError for a modality without adapters."""
        return merged_weight(self.weight, *self._factors(modality), self.weight.new_tensor(self.scale))

    def extra_repr(self) -> str:
        """Return sizes and scale for printing."""
        height, width = self.weight.shape
        return f"in_features={width}, out_features={height}, scale={self.scale:g}"

    def _factors(self, modality: str) -> tuple[nn.Parameter, nn.Parameter]:
        if modality not in self.lora_a:
            raise ValueError(f"'{modality}' has no adapters here; there are {', '.join(self.lora_a)}")
        return self.lora_a[modality], self.lora_b[modality]
