"""Linear layers by oneDNN while a model embeds: the same results, chosen by the instructions, and all put back."""

import copy

import pytest
import torch
from torch import nn

from model.layers.lora import LoRALinear
from model.layers.packed import LEAST_WIDTH, packed_linears
from utils.device import mkl_is_slow

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
EPS = torch.finfo(torch.float32).eps
ZEN_5 = {"sse4a": True, "avx512_f": True, "avx_vnni": True}


def make_layers(width: int = 2 * LEAST_WIDTH) -> nn.Module:
    torch.manual_seed(0)
    wide = nn.Linear(width, LEAST_WIDTH)
    return nn.Sequential(wide, nn.GELU(), nn.Linear(LEAST_WIDTH, width, bias=False), nn.Linear(width, 8)).eval()


def packed(model: nn.Module) -> list[bool]:
    return ["forward" in layer.__dict__ for layer in model.modules() if isinstance(layer, nn.Linear)]


def set_instructions(monkeypatch: pytest.MonkeyPatch, found: dict[str, bool]) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)


@pytest.mark.parametrize("shape", [(2 * LEAST_WIDTH,), (3, 2 * LEAST_WIDTH), (2, 5, 2 * LEAST_WIDTH), (0, 4, 256)])
def test_products_are_those_of_float64(shape):
    model, x = make_layers(), torch.randn(shape)
    exact = copy.deepcopy(model).double()
    with torch.inference_mode(), packed_linears(model, CPU, None, "packed"):
        found, first = model(x), model[0](x)
    assert found.shape == (*shape[:-1], 8)
    # an inner product of n terms is wrong by at most n eps times that of the absolute values
    bound = EPS * x.shape[-1] * (x.double().abs() @ exact[0].weight.abs().T + exact[0].bias.abs())
    assert ((first - exact[0](x.double())).abs() <= bound).all()
    torch.testing.assert_close(found, model(x), rtol=1e-4, atol=1e-5)


def test_rows_of_another_layout_are_read_as_they_are():
    model, x = make_layers(), torch.randn(2 * LEAST_WIDTH, 6).T
    with torch.inference_mode(), packed_linears(model, CPU, None, "packed"):
        found = model(x)
    torch.testing.assert_close(found, model(x.contiguous()), rtol=1e-4, atol=1e-5)


def test_wide_plain_layers_alone_are_packed_and_put_back():
    model = make_layers()
    model.append(LoRALinear(nn.Linear(256, 256), 2, 1.0))
    with packed_linears(model, CPU, None, "packed"):
        assert packed(model) == [True, True, False, False]
        with packed_linears(model, CPU, None, "packed"):  # as of a second user of the model
            assert packed(model) == [True, True, False, False]
        assert packed(model) == [True, True, False, False]
    assert packed(model) == [False] * 4
    with pytest.raises(RuntimeError, match="stop"), packed_linears(model, CPU, None, "packed"):
        raise RuntimeError("stop")
    assert packed(model) == [False] * 4


def test_each_context_has_the_weights_of_its_time():
    model, x = make_layers(), torch.randn(4, 256)
    with torch.inference_mode():
        for _ in range(2):
            with packed_linears(model, CPU, None, "packed"):
                found = model(x)
            torch.testing.assert_close(found, model(x), rtol=1e-4, atol=1e-5)
            model[0].weight.data.mul_(3)


@pytest.mark.parametrize(
    ("device", "amp", "choice", "packs"),
    [
        (CPU, None, "packed", True),
        (CPU, None, "plain", False),
        (CPU, torch.bfloat16, "packed", False),
        (CUDA, None, "packed", False),
    ],
)
def test_only_float32_on_a_cpu_is_packed(device, amp, choice, packs):
    model = make_layers()
    with packed_linears(model, device, amp, choice):
        assert any(packed(model)) == packs


@pytest.mark.parametrize("missing", [None, *ZEN_5])
def test_the_instructions_decide_where_the_key_does_not(monkeypatch, missing):
    set_instructions(monkeypatch, ZEN_5 | ({missing: False} if missing else {}))
    model = make_layers()
    with packed_linears(model, CPU, None):
        assert any(packed(model)) == (missing is None)


def test_a_torch_that_cannot_say_packs_nothing(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not mkl_is_slow()
