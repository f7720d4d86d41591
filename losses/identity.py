"""Identity loss: cross-entropy over the training identities, with label smoothing and with a margin if there is one."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from losses.branches import EVERY, HALVES, Draws, Reduce, combine_branches
from losses.margin_softmax import Margin
from utils.precision import at_least_float32

if TYPE_CHECKING:
    from configs.phases import Phase
    from datasets.batch import Batch
    from model import ModelOutput


def identity_loss(logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Return the mean over the batch of -sum_c q_c log softmax(logits)_c, a scalar of at least float32.

    logits is [B, C] in any float type, labels is [B] int64 in 0..C-1; q = (1 - smoothing) one-hot + smoothing / C.
    Reference: Szegedy et al., Rethinking the Inception Architecture, CVPR 2016, section 7.
    """
    return F.cross_entropy(at_least_float32(logits), labels, label_smoothing=smoothing)


def identity_losses(logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Return the loss [B] of each row, of which `identity_loss` is the mean."""
    return F.cross_entropy(at_least_float32(logits), labels, reduction="none", label_smoothing=smoothing)


def warmed_margin(margin: float, epoch: int, warmup_epochs: int) -> float:
    """Return the margin at `epoch`, from 1: m min(1, (epoch - 1) / warmup_epochs), m itself where that is 0."""
    return margin if epoch > warmup_epochs else margin * (epoch - 1) / warmup_epochs


class IdentityLoss(nn.Module):
    """`identity_loss` on logits, or on cosines that `margin` first turns into logits.

    smoothing is in [0, 1); margin is a function of `losses.margin_softmax` with its scale s > 0 and margin m >= 0, or
    None for plain logits; m grows from 0 over `warmup_epochs` >= 0. ValueError outside these ranges.
    """

    def __init__(
        self,
        smoothing: float = 0.0,
        margin: Margin | None = None,
        scale: float = 30.0,
        margin_size: float = 0.5,
        warmup_epochs: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing got {smoothing}, expected a number in [0, 1)")
        if scale <= 0 or margin_size < 0:
            raise ValueError(f"got scale {scale} and margin {margin_size}, expected scale > 0 and margin >= 0")
        if warmup_epochs < 0:
            raise ValueError(f"warmup_epochs got {warmup_epochs}, expected a number of at least 0")
        self.smoothing = smoothing
        self.margin = margin
        self.scale = scale
        self.margin_size = margin_size
        self.warmup_epochs = warmup_epochs

    def forward(self, logits: torch.Tensor, labels: torch.Tensor, epoch: int | None = None) -> torch.Tensor:
        """Return the scalar loss of logits (or cosines) [B, C] with labels [B]; no `epoch` has the full margin."""
        if self.margin is not None:
            size = self.margin_size if epoch is None else warmed_margin(self.margin_size, epoch, self.warmup_epochs)
            logits = self.margin(logits, labels, self.scale, size)
        return identity_loss(logits, labels, self.smoothing)

    def extra_repr(self) -> str:
        """Return the hyper-parameters for printing."""
        kind = "softmax" if self.margin is None else f"{self.margin.__name__} s={self.scale} m={self.margin_size}"
        warmup = f" over {self.warmup_epochs} epochs" if self.margin is not None and self.warmup_epochs else ""
        return f"{kind}{warmup}, smoothing={self.smoothing}"


class IdentityTerm(nn.Module):
    """The identity loss over all branches, or those that `draws` leaves in a step; `reduce` makes one of the values."""

    def __init__(self, loss: IdentityLoss, reduce: Reduce = HALVES, draws: Draws = EVERY) -> None:
        super().__init__()
        self.loss = loss
        self.reduce = reduce
        self.draws = draws

    def forward(self, output: "ModelOutput", batch: "Batch", phase: "Phase") -> dict[str, torch.Tensor]:
        """Return the term `id`: the loss of the logits of every branch.

        Where branches are drawn the batch tells its `step`, and all processes draw the same.
        """
        kept = self.draws.kept(len(output.logits), batch)
        epoch = phase.epoch if self.loss.warmup_epochs else None

        def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return self.loss(logits, labels, epoch)

        return {"id": combine_branches(loss, output.logits, batch["pids"], self.reduce, kept)}

    def extra_repr(self) -> str:
        """Return how the branches add up for printing."""
        return f"{self.reduce}" if self.draws == EVERY else f"{self.reduce}, {self.draws}"
