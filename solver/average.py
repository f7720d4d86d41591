"""The moving average of a model's weights, kept beside those that are trained.

Reference: Polyak & Juditsky, Acceleration of Stochastic Approximation by Averaging, SIAM J. Control Optim. 1992.
"""

from typing import Any

from timm.utils import ModelEmaV3
from torch import nn


class Average:
    """A copy of a model in eval mode whose weights follow it: average = d average + (1 - d) weights after each step.

    d is `decay`, in [0, 1), but after update n no more than 1 - n ** -(2/3), so that weights from before training are
    soon forgotten. Running statistics are averaged likewise, whole numbers copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._ema = ModelEmaV3(model, decay=decay, use_warmup=True)
        self._updates = 0

    @property
    def model(self) -> nn.Module:
        """The copy: what is saved and tested beside the model."""
        return self._ema.module

    def update(self, model: nn.Module) -> None:
        """Move towards the weights of the model, on their device, without waiting for it."""
        self._updates += 1
        self._ema.update(model, self._updates)

    def state_dict(self) -> dict[str, Any]:
        """Return `weights` and `updates`, the number of steps so far."""
        return {"weights": self.model.state_dict(), "updates": self._updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` returned; RuntimeError where the weights do not fit."""
        self.model.load_state_dict(dict(state["weights"]))
        self._updates = state["updates"]
