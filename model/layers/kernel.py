"""Which of two equal ways of computing attention runs."""

import torch
from timm.layers import use_fused_attn
from torch import nn

from utils.device import bf16_unit

AUTO, FUSED, WRITTEN_OUT = "auto", "fused", "written_out"  # of MODEL.ATTENTION
SLOW_FUSED = {True: ("avx512_bf16", "amx_bf16"), False: ("avx512_bf16",)}  # in training or not: units of CPUs, in bf16


def choose_attention(
    model: nn.Module, device: torch.device, amp: torch.dtype | None, training: bool, choice: str = AUTO
) -> None:
    """Set timm's attention layers of `model` to torch's fused kernel or to the written-out products, equal to rounding.

    auto is the faster one: the fused kernel, but for bf16 on CPUs whose unit is in SLOW_FUSED, where its backward pass
    or all of it takes longer than the products. The instructions decide, not a clock, so that a machine always computes
    the same. TIMM_FUSED_ATTN=0 in the environment rules the fused kernel out, as everywhere in timm.
    """
    slow = device.type == "cpu" and amp == torch.bfloat16 and bf16_unit() in SLOW_FUSED[training]
    fused = use_fused_attn() and (choice == FUSED or (choice == AUTO and not slow))
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused
