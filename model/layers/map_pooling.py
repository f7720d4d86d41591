"""From the stripes of a feature map to one vector each."""

import torch
from torch import nn

from utils.errors import ConfigError
from utils.precision import at_least_float32, without_autocast

FIRST_POWER, SMALLEST = 3.0, 1e-6
KINDS = ("max", "avg", "gem")


def split_rows(maps: torch.Tensor, count: int) -> torch.Tensor:
    """Return maps [B, c, h, w] as [B, c, S, h / S, w]: S = `count` stripes from top to bottom, a view.

    Raises ConfigError, naming both numbers, where S does not divide h.
    """
    rows = maps.shape[2]
    if rows % count:
        raise ConfigError(
            f"MODEL.PCB.PARTS {count} does not divide the {rows} rows of the map; images of another height "
            "(INPUT.SIZE_TRAIN, SIZE_TEST), another MODEL.LAST_STRIDE or another number of stripes may"
        )
    return maps.unflatten(2, (count, rows // count))


class StripePooling(nn.Module):
    """Stripes [B, c, S, r, w] -> [B, c, S] by `kind`: max, avg, or gem with one learnt power a stripe.

    Of two equal largest numbers each has half of the gradient. Raises ConfigError, naming `key`, for another kind.
    """

    def __init__(self, kind: str, count: int, key: str) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ConfigError(f"{key} got '{kind}', allowed: {', '.join(KINDS)}")
        self.kind = kind
        if kind == "gem":
            self.power = nn.Parameter(torch.full((count,), FIRST_POWER))

    def forward(self, stripes: torch.Tensor) -> torch.Tensor:
        if self.kind == "max":
            return stripes.amax(dim=(3, 4))
        if self.kind == "avg":
            return stripes.mean(dim=(3, 4))
        return generalised_mean(stripes, self.power)

    def extra_repr(self) -> str:
        """Return the kind for printing."""
        return self.kind


def generalised_mean(stripes: torch.Tensor, power: torch.Tensor) -> torch.Tensor:
    """Return (mean of x^p)^(1 / p) over rows and columns of stripes [B, c, S, r, w] with powers p [S]: [B, c, S].

    Numbers below 1e-6 count as 1e-6; at least float32, whatever autocast says.
    Reference: Radenovic et al., Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI 2019, eq. 3.
    """
    with without_autocast(stripes):
        raised = at_least_float32(stripes).clamp(min=SMALLEST).pow(power.view(-1, 1, 1))
        return raised.mean(dim=(3, 4)).pow(1 / power)
