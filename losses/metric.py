"""The metric losses of a run: Triplet or TripletX, or both by brightness, each on its own feature source."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from losses.branches import ALL_ALIKE, HALVES, SUM, Reduce, Views, combine_branches, over_branches
from losses.routing import Anchors, Routing, nothing_to_route, route
from losses.triplet import TripletLoss
from losses.tripletx import TripletXLoss

if TYPE_CHECKING:
    from configs.phases import Phase
    from datasets.batch import Batch
    from model import ModelOutput

NAMES = ("triplet", "tripletx")


class MetricLosses(nn.Module):
    """The terms triplet and tripletx with the feature source of each, `pre_bn` or `bnneck`; ValueError for another one.

    The values of the branches become one by `reduce`. `further` names features [B, *] of the model output's `extra`
    that have no neck: they join the branches of pre_bn, unless images are routed between pre_bn and bnneck. `views` is
    what the triplet loss sees; of all but each branch by itself its terms are summed. Routed images know no views.
    """

    def __init__(
        self,
        triplet: TripletLoss,
        tripletx: TripletXLoss,
        routing: Routing,
        sources: dict[str, str],
        reduce: Reduce = HALVES,
        further: Sequence[str] = (),
        views: Views = ALL_ALIKE,
    ) -> None:
        super().__init__()
        if not set(sources.values()) <= {"pre_bn", "bnneck"}:
            raise ValueError(f"sources got {sources}, expected pre_bn or bnneck for triplet and for tripletx")
        self.triplet = triplet
        self.tripletx = tripletx
        self.routing = routing
        self.sources = sources
        self.reduce = reduce
        self.further = tuple(further)
        self.views = views

    def forward(self, output: "ModelOutput", batch: "Batch", phase: "Phase") -> dict[str, torch.Tensor]:
        """Return the term or terms with weight, where the phase is routed both.

        The batch holds `pids` and `camids` [B] int64, and `brightness` [B] in [0, 1] where the phase is routed.
        """
        if phase.routed:
            values = self.routed(output, batch, phase.epoch, phase.weights["triplet"] > 0)
            return dict(zip(NAMES, values, strict=True))
        return {name: self.of_all(name, output, batch, phase.epoch) for name in NAMES if phase.weights.get(name)}

    def of_all(self, name: str, output: "ModelOutput", batch: "Batch", epoch: int) -> torch.Tensor:
        """Return the loss `name`, triplet or tripletx, over the whole batch and all branches."""
        if name == "triplet":
            reduce = self.reduce if self.views.kind == "each" else SUM
            return combine_branches(self.triplet, self.views(self._source(output, name)), batch["pids"], reduce)

        def tripletx(feat: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return self.tripletx(feat, labels, batch["camids"], epoch)

        return combine_branches(tripletx, self._source(output, name), batch["pids"], self.reduce)

    def routed(
        self, output: "ModelOutput", batch: "Batch", epoch: int, triplet_has_weight: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (triplet, tripletx) of a batch that is routed by batch["brightness"] [B].

        Where hard routing leaves no valid anchor at all, the triplet loss of the whole batch takes the place of the
        first value, or of the second when the first has no weight.
        """
        if "brightness" not in batch:
            raise ValueError("brightness routing needs batch['brightness']")
        feats = [self._source(output, name) for name in NAMES]
        shared = 1 if self.routing.global_only else min(map(len, feats))
        feats = [branches[:shared] for branches in feats]
        anchors = Anchors(batch["pids"], batch["camids"], batch["brightness"], epoch)

        def losses(bright: torch.Tensor, dark: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return route((bright, dark), anchors, self.triplet, self.tripletx, self.routing)

        bright, dark = (self.reduce(values) for values in over_branches(losses, *feats))
        if self.routing.soft:
            return bright, dark
        whole = combine_branches(self.triplet, feats[0], anchors.labels, self.reduce)
        nothing = nothing_to_route(anchors.labels, anchors.brightness, self.routing)
        if triplet_has_weight:
            return torch.where(nothing, whole, bright), dark
        return bright, torch.where(nothing, whole, dark)

    def _source(self, output: "ModelOutput", name: str) -> Sequence[torch.Tensor]:
        if self.sources[name] == "bnneck":
            return output.bnneck
        return [*output.pre_bn, *(output.extra[further] for further in self.further)]

    def extra_repr(self) -> str:
        """Return the sources and the routing for printing."""
        views = "" if self.views == ALL_ALIKE else f", {self.views}"
        return f"sources={self.sources}, {self.reduce}, {self.routing}{views}"
