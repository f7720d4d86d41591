"""Which way attention is computed, and that both ways give the same."""

import pytest
import torch
from torch import nn

from model.layers.kernel import choose_attention
from tests.model.builds import images, make_tiny

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PLAIN_ON = ("avx512_bf16", CPU, torch.bfloat16)


def flags(model: nn.Module) -> set[bool]:
    return {module.fused_attn for module in model.modules() if hasattr(module, "fused_attn")}


@pytest.mark.parametrize("unit", ["avx512_bf16", "amx_bf16", ""])
@pytest.mark.parametrize("amp", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("device", [CPU, CUDA])
def test_products_are_written_out_only_where_the_fused_kernel_is_slower(unit, amp, device, monkeypatch):
    monkeypatch.setattr("model.layers.kernel.bf16_unit", lambda: unit)
    model = make_tiny()
    choose_attention(model, device, amp)
    assert flags(model) == {(unit, device, amp) != PLAIN_ON}


def test_the_choice_is_made_anew_for_each_precision(monkeypatch):
    monkeypatch.setattr("model.layers.kernel.bf16_unit", lambda: "avx512_bf16")
    model = make_tiny("MODEL.JPM", True, "MODEL.DEVIDE_LENGTH", 3).eval()
    with torch.inference_mode():
        before = model(images())
        choose_attention(model, CPU, torch.bfloat16)
        assert flags(model) == {False}
        torch.testing.assert_close(model(images()), before)
        choose_attention(model, CPU, None)
        assert flags(model) == {True}
        assert torch.equal(model(images()), before)


def test_the_user_can_rule_the_fused_kernel_out(monkeypatch):
    monkeypatch.setattr("model.layers.kernel.use_fused_attn", lambda: False)
    model = make_tiny()
    choose_attention(model, CPU, None)
    assert flags(model) == {False}
