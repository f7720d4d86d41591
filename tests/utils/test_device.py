"""Which precision a device gets, and what the log says of it."""

import logging
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from utils import device as devices
from utils.device import announce_amp, resolve_amp
from utils.errors import ConfigError

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda:1", "mps"))


@pytest.fixture
def announced(caplog: pytest.LogCaptureFixture) -> Callable[..., tuple[torch.dtype | None, str]]:
    """announced(mode, device[, key]) returns the type that announce_amp returns, and its line."""

    def call(*args: object) -> tuple[torch.dtype | None, str]:
        caplog.clear()
        with caplog.at_level(logging.INFO, "utils.device"):
            amp = announce_amp(*args)
        (line,) = caplog.messages
        return amp, line

    return call


def fake_cpu(monkeypatch: pytest.MonkeyPatch, **units: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, **units}, raising=False)


def fake_cuda(monkeypatch: pytest.MonkeyPatch, *capability: int) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", {CUDA: capability}.get)
    monkeypatch.setattr(torch.cuda, "get_device_name", {CUDA: "Card"}.get)


@pytest.mark.parametrize(
    ("units", "amp", "why"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16, "bfloat16 (avx512_bf16)"),
        ({"avx512_bf16": True, "amx_bf16": True}, torch.bfloat16, "bfloat16 (amx_bf16)"),
        ({"avx512_bf16": False}, None, "float32 (no bf16 instructions found in this CPU)"),
        ({}, None, "float32 (no bf16 instructions found in this CPU)"),
    ],
)
def test_auto_on_a_cpu_follows_its_instructions(monkeypatch, announced, units, amp, why):
    fake_cpu(monkeypatch, **units)
    assert resolve_amp("auto", CPU) == amp
    assert announced("auto", CPU, "TEST.AMP") == (amp, f"TEST.AMP auto: {why}")


def test_a_torch_that_does_not_know_its_cpu_stays_in_float32(monkeypatch):
    monkeypatch.setattr(devices, "torch", SimpleNamespace(cpu=SimpleNamespace(), bfloat16=torch.bfloat16))
    assert resolve_amp("auto", CPU) is None


@pytest.mark.parametrize(
    ("capability", "amp", "why"),
    [((9, 0), torch.bfloat16, "bfloat16 (Card)"), ((7, 5), torch.float16, "float16 (Card has no bf16)")],
)
def test_auto_on_cuda_asks_the_card_that_is_used(monkeypatch, announced, capability, amp, why):
    fake_cuda(monkeypatch, *capability)
    assert resolve_amp("auto", CUDA) == amp
    assert announced("auto", CUDA) == (amp, f"SOLVER.AMP auto: {why}")


def test_what_is_asked_for_is_taken_and_auto_is_off_on_mps(announced):
    assert resolve_amp("off", CPU) is None and resolve_amp("bf16", MPS) == torch.bfloat16
    assert resolve_amp("fp16", CUDA) == torch.float16 and resolve_amp("auto", MPS) is None
    assert announced("off", CUDA) == (None, "SOLVER.AMP off: float32")


@pytest.mark.parametrize("key", ["SOLVER.AMP", "TEST.AMP"])
def test_fp16_outside_cuda_is_refused_by_its_key(key):
    for device in (CPU, MPS):
        for function in (resolve_amp, announce_amp):
            with pytest.raises(ConfigError, match=f"^{key} fp16 needs a CUDA device, this run is on {device.type}"):
                function("fp16", device, key)


def test_bf16_on_a_cpu_without_its_instructions_is_said_to_be_slow(monkeypatch, announced):
    fake_cpu(monkeypatch, avx512_bf16=False)
    slow = "bfloat16 (emulated, slower than off: no bf16 instructions)"
    assert announced("bf16", CPU) == (torch.bfloat16, f"SOLVER.AMP bf16: {slow}")
    fake_cpu(monkeypatch, avx512_bf16=True)
    assert announced("bf16", CPU) == (torch.bfloat16, "SOLVER.AMP bf16: bfloat16")
