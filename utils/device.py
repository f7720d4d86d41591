"""Where and in which precision a run computes."""

import logging
import random

import numpy as np
import torch

from utils.errors import ConfigError

logger = logging.getLogger(__name__)

BF16_COMPUTE_CAPABILITY = (8, 0)  # of CUDA cards; is_bf16_supported looks at the current card, which may be another
BF16_UNITS = ("amx_bf16", "avx512_bf16")  # instruction sets of x86 CPUs, the fastest first


def resolve_device(name: str, device_id: str, local_rank: int = 0, world_size: int = 1) -> torch.device:
    """Return the torch device for MODEL.DEVICE (auto: cuda > mps > cpu).

    On CUDA the index is the first of MODEL.DEVICE_ID for a single process and the local rank otherwise. Raises
    ConfigError when the device that was asked for is absent.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    if (name == "cuda" and not cuda) or (name == "mps" and not mps):
        here = [kind for kind, there in (("cuda", cuda), ("mps", mps), ("cpu", True)) if there]
        raise ConfigError(f"MODEL.DEVICE {name} is not available here; use {' or '.join(here)} or auto")
    if name != "cuda":
        return torch.device(name)
    if world_size > 1:
        return torch.device("cuda", local_rank)
    first_id = device_id.split(",")[0].strip()
    if not first_id.isdecimal() or int(first_id) >= torch.cuda.device_count():
        raise ConfigError(
            f"MODEL.DEVICE_ID '{device_id}' names no device here; there are {torch.cuda.device_count()} (from 0), and "
            "several at once need MODEL.DIST_TRAIN True and torchrun"
        )
    return torch.device("cuda", int(first_id))


def resolve_amp(mode: str, device: torch.device, key: str = "SOLVER.AMP") -> torch.dtype | None:
    """Return the autocast type that `mode` (auto, off, fp16, bf16) means on `device`, None = off.

    auto is bf16 where the device multiplies it natively (CUDA; CPUs with amx_bf16 or avx512_bf16), fp16 on older CUDA
    cards, off elsewhere. Raises ConfigError naming `key` for fp16 outside CUDA, where it is slow and overflows.
    """
    return _choose_amp(mode, device, key)[0]


def announce_amp(mode: str, device: torch.device, key: str = "SOLVER.AMP") -> torch.dtype | None:
    """Return what `resolve_amp` returns, and log it in one line with what decided it."""
    logger.info("%s %s: %s", key, mode, describe_amp(mode, device, key))
    return resolve_amp(mode, device, key)


def describe_amp(mode: str, device: torch.device, key: str = "SOLVER.AMP") -> str:
    """Return the name of the type that `resolve_amp` returns, and what decided it; errors as there."""
    amp, why = _choose_amp(mode, device, key)
    name = "float32" if amp is None else str(amp).removeprefix("torch.")
    return f"{name} ({why})" if why else name


def _choose_amp(mode: str, device: torch.device, key: str) -> tuple[torch.dtype | None, str]:
    """Return the type, and what the log should say of it, '' = nothing."""
    if mode == "auto":
        return _choose_auto(device)
    if mode == "fp16" and device.type != "cuda":
        raise ConfigError(f"{key} fp16 needs a CUDA device, this run is on {device.type}; use bf16, off or auto")
    emulated = mode == "bf16" and device.type == "cpu" and not bf16_unit()
    why = "emulated, slower than off: no bf16 instructions" if emulated else ""
    return {"off": None, "fp16": torch.float16, "bf16": torch.bfloat16}[mode], why


def _choose_auto(device: torch.device) -> tuple[torch.dtype | None, str]:
    """Return the type of auto on `device`, and what decided it."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if torch.cuda.get_device_capability(device) >= BF16_COMPUTE_CAPABILITY:
            return torch.bfloat16, name
        return torch.float16, f"{name} has no bf16"
    if device.type == "cpu":
        unit = bf16_unit()
        return (torch.bfloat16, unit) if unit else (None, "no bf16 instructions found in this CPU")
    return None, f"{device.type} gains nothing from it"


def bf16_unit() -> str:
    """Return the instruction set with which this CPU multiplies bf16, '' = none, or a torch that cannot say."""
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return next((name for name in BF16_UNITS if found.get(name)), "")


def mkl_is_slow() -> bool:
    """Return whether oneDNN multiplies float32 matrices on this CPU twice as fast as MKL, which torch takes for them.

    On AMD's CPUs MKL multiplies no faster than by AVX2. Their AVX-512 units are twice as wide from Zen 5 on, with which
    avx_vnni came; sse4a tells AMD's CPUs from others. False from a torch that cannot say.
    """
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return torch.backends.mkl.is_available() and all(found.get(name) for name in ("sse4a", "avx512_f", "avx_vnni"))


def autocast(device: torch.device, amp: torch.dtype | None) -> torch.autocast:
    """Return the autocast context of a run; a no-op when `amp` is None."""
    return torch.autocast(device.type, dtype=amp, enabled=amp is not None)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch on all devices, and keep cuDNN to deterministic algorithms."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, also in the patch embedding
