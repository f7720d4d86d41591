"""What every model returns in training mode."""

from typing import NamedTuple

import torch


class ModelOutput(NamedTuple):
    """Branches of one batch, the global one first, then the local ones; B images, C classes, D features."""

    logits: list[torch.Tensor]  # each [B, C]; cosines in [-1, 1] where the head has a margin
    pre_bn: list[torch.Tensor]  # each [B, D], before the neck: what metric losses see
    bnneck: list[torch.Tensor]  # each [B, D], after the neck: what the classifiers see
    projection: torch.Tensor | None = None  # [B, 128] of a projection head
    extra: dict[str, torch.Tensor] = {}  # further outputs by name; the default is never written to
