"""Which of two equal ways of computing attention runs."""

import torch
from timm.layers import use_fused_attn
from torch import nn

from utils.device import bf16_unit


def choose_attention(model: nn.Module, device: torch.device, amp: torch.dtype | None) -> None:
    """Set timm's attention layers of `model` to the faster of torch's fused kernel and the written-out products.

    That is the fused kernel, but for bf16 on CPUs with avx512_bf16 alone: there it takes twice the products' time.
    TIMM_FUSED_ATTN=0 in the environment rules it out, as everywhere in timm.
    """
    slow = device.type == "cpu" and amp == torch.bfloat16 and bf16_unit() == "avx512_bf16"
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = use_fused_attn() and not slow
