"""Which way attention is computed, and that both ways give the same."""

import pytest
import torch
from torch import nn

from model.layers.kernel import choose_attention
from tests.model.builds import images, make_tiny

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PLAIN_ON = (("avx512_bf16", True), ("avx512_bf16", False), ("amx_bf16", True))  # unit of a CPU in bf16, training


def flags(model: nn.Module) -> set[bool]:
    return {module.fused_attn for module in model.modules() if hasattr(module, "fused_attn")}


@pytest.fixture
def unit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name = getattr(request, "param", "avx512_bf16")
    monkeypatch.setattr("model.layers.kernel.bf16_unit", lambda: name)
    return name


@pytest.mark.parametrize("unit", ["avx512_bf16", "amx_bf16", ""], indirect=True)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("amp", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("device", [CPU, CUDA])
def test_products_are_written_out_only_where_the_fused_kernel_is_slower(unit, training, amp, device):
    model = make_tiny()
    choose_attention(model, device, amp, training)
    slow = device == CPU and amp == torch.bfloat16 and (unit, training) in PLAIN_ON
    assert flags(model) == {not slow}


def test_the_choice_is_made_anew_for_each_precision(unit):
    model = make_tiny("MODEL.JPM", True, "MODEL.DEVIDE_LENGTH", 3).eval()
    with torch.inference_mode():
        before = model(images())
        choose_attention(model, CPU, torch.bfloat16, training=False)
        assert flags(model) == {False}
        torch.testing.assert_close(model(images()), before)
        choose_attention(model, CPU, None, training=False)
        assert flags(model) == {True}
        assert torch.equal(model(images()), before)


@pytest.mark.parametrize(("choice", "fused"), [("fused", True), ("written_out", False)])
@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_a_key_decides_in_place_of_the_instructions(unit, choice, fused, amp):
    model = make_tiny()
    choose_attention(model, CPU, amp, True, choice)
    assert flags(model) == {fused}


def test_the_user_can_rule_the_fused_kernel_out(monkeypatch):
    monkeypatch.setattr("model.layers.kernel.use_fused_attn", lambda: False)
    model = make_tiny()
    for choice in ("auto", "fused"):
        choose_attention(model, CPU, None, True, choice)
        assert flags(model) == {False}
