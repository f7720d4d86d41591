"""Where and in which precision a run computes."""

import random

import numpy as np
import torch

from utils.errors import ConfigError


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
    if not first_id.isdigit() or int(first_id) >= torch.cuda.device_count():
        raise ConfigError(
            f"MODEL.DEVICE_ID '{device_id}' names no device here; there are {torch.cuda.device_count()} (from 0), and "
            "several at once need MODEL.DIST_TRAIN True and torchrun"
        )
    return torch.device("cuda", int(first_id))


def resolve_amp(mode: str, device: torch.device) -> torch.dtype | None:
    """Return the autocast type for SOLVER.AMP, None = off; auto is bf16 (or fp16 on older cards) on CUDA, else off.

    Raises ConfigError for fp16 outside CUDA, where it is slow and overflows.
    """
    if mode == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if mode == "fp16" and device.type != "cuda":
        raise ConfigError(f"SOLVER.AMP fp16 needs a CUDA device, this run is on {device.type}; use bf16, off or auto")
    return {"off": None, "fp16": torch.float16, "bf16": torch.bfloat16}[mode]


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
