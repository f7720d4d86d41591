"""torch.compile of the training step's forward pass: one graph for the whole run, whatever phases and losses do.

Only training is compiled. An evaluation lasts seconds and its compilation minutes, and uncompiled it gives exactly what
test.py gives. The criterion stays eager too: its terms change with the phase, and each change would compile anew.
"""

import logging
import time
from typing import Any

import torch
from torch import nn

from utils.errors import ConfigError

logger = logging.getLogger(__name__)

BACKEND = "inductor"
NEEDS = {"cpu": "a C++ compiler (g++ or clang)", "cuda": "triton and a C compiler"}  # of this backend
MAX_REASON = 300  # characters of the compiler's own words in an error


class CompiledTraining(nn.Module):
    """`model` compiled for the batch size of its first call; batches of another size (a short last one) run eagerly.

    It shares the parameters of `model`, which stays what it is: weights are saved, loaded and evaluated there, under
    its own names. DistributedDataParallel goes around this module: torch then splits the graphs by the gradient
    buckets, so that communication overlaps with the backward pass.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._compiled = torch.compile(model.forward, dynamic=False, backend=BACKEND)
        self._batch_size: int | None = None
        self._started: float | None = None  # of the first call, until the second tells how long its step took

    def forward(self, images: torch.Tensor, **labels: torch.Tensor) -> Any:
        """Return the model's output for images [B, 3, H, W]."""
        if self._batch_size is None:
            self._batch_size = len(images)
            self._started = time.perf_counter()
            logger.info("MODEL.COMPILE: compiling for batches of %d images, which takes minutes", len(images))
        elif self._started is not None:  # the backward pass is compiled by now too
            seconds, self._started = time.perf_counter() - self._started, None
            logger.info("MODEL.COMPILE: the first step, compilation included, took %.1f s", seconds)
        forward = self._compiled if len(images) == self._batch_size else self.model.forward
        return forward(images, **labels)


def check_compiler(device: torch.device) -> None:
    """Raise ConfigError naming MODEL.COMPILE unless torch can compile for `device` here; takes seconds."""
    try:
        torch.compile(_probe, backend=BACKEND)(torch.ones(16, device=device))
    except Exception as error:  # each backend fails in its own way, and all mean that nothing can be compiled
        reason = " ".join(str(error).split())[:MAX_REASON]
        raise ConfigError(
            f"MODEL.COMPILE True: torch.compile does not work on {device.type} here; it needs "
            f"{NEEDS.get(device.type, 'a backend for it')}. Install that, or set MODEL.COMPILE False. It says: {reason}"
        ) from error


def _probe(values: torch.Tensor) -> torch.Tensor:
    return (values.sin() + 1).square()
