"""What the log says of a step beside its losses: scalars of float32 on the device, without a gradient."""

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from datasets.batch import Batch
    from model import ModelOutput


def accuracy(output: "ModelOutput", batch: "Batch") -> torch.Tensor:
    """Return the share of images whose identity the global branch's classifier names."""
    return (output.logits[0].argmax(1) == batch["pids"]).float().mean()


def mean_accuracy(output: "ModelOutput", batch: "Batch") -> torch.Tensor:
    """Return the share of images whose identity a classifier names, as the mean over those of all branches."""
    return (torch.stack(output.logits).argmax(2) == batch["pids"]).float().mean()


class DarkShare:
    """The share of images that are dark: batch["brightness"] [B] in [0, 1] strictly below the threshold."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def __call__(self, output: "ModelOutput", batch: "Batch") -> torch.Tensor:
        """Return the share of dark images in the batch."""
        return (batch["brightness"] < self.threshold).float().mean()
