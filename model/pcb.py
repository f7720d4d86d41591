"""PCB: stripes of a feature map as branches, beside a global one.

Reference: Sun et al., Beyond Part Models: Person Retrieval with Refined Part Pooling, ECCV 2018, section 3; with a
global branch, a norm in place of a ReLU, and the options of its many re-implementations.
"""

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from model.layers.erasing import erase_band, erase_bands
from model.layers.heads import make_head
from model.layers.map_pooling import StripePooling, split_rows
from model.outputs import GLOBAL, ModelOutput
from model.parts import Part
from model.weights.load import LoadReport, WeightRules, load_param
from model.weights.pcb import WHOLE, PcbRules
from utils.errors import ConfigError

POOLED, EMBEDDING = "pooled", "embedding"  # which feature of the global branch the spectral transform takes
GLOBAL_POOLED = "global_pooled"  # of ModelOutput.extra: what the global branch reduces, [B, c]
CLASSIFIER_STD, NORM_STD = 0.001, 0.02
TRUNK = ("base.", "global_stage4.")  # beginnings of names
ONLY_LAYER = 1  # a CNN has no blocks to tell apart


class PCB(nn.Module):
    """Images [B, 3, H, W] -> ModelOutput in training mode, embedding [B, D'] in evaluation mode.

    `base` makes the map [B, c, h, w], c = base.feat_dim, by `forward_map(images)`. The global branch, of width
    `global_dim`, pools all of it; each of the `parts` stripes, of width `part_dim`, its own h / parts rows; 0 = none of
    them. A branch is pooling, a linear reduction, a batch norm and `dropout`, with an identity head of the kind `head`
    on top; no two share weights. The embedding is that of all branches side by side after their norms, the global one
    first, then the parts from top to bottom; with `part_norm` each has length 1.

    `own_stage4`: the global branch has a copy of base.layer4, which then learns on its own; `base` also has
    `before_last_stage(images)`. `gate`: its reduced feature is multiplied by the sigmoid of a linear layer and a norm
    on the average of its map. `global_erase` and `part_erase` are the shares of rows of its map, and of each stripe,
    that training zeroes. `spectral`, pooled or embedding: which feature of it the spectral transform takes; pooled is
    then in `extra["global_pooled"]` [B, c] while training.

    `branches` are the parts of the embedding in its order, name -> width: `global`, `part1`, `part2`, ...
    Raises ConfigError for a combination without a meaning, and for a map whose rows `parts` does not divide.
    """

    side_counts, side_rows = (0, 0), 0  # there is no side information

    def __init__(
        self,
        base: nn.Module,
        num_class: int,
        parts: int = 6,
        part_dim: int = 256,
        global_dim: int = 256,
        part_pool: str = "max",
        global_pool: str = "max",
        dropout: float = 0.5,
        head: str = "softmax",
        part_norm: bool = False,
        own_stage4: bool = False,
        gate: bool = False,
        global_erase: float = 0.0,
        part_erase: float = 0.0,
        spectral: str | None = None,
    ) -> None:
        super().__init__()
        _refuse(parts, global_dim, own_stage4, gate, spectral)
        self.base, self.num_class, self.parts = base, num_class, parts
        self.part_norm, self.own_stage4, self.gated, self.spectral = part_norm, own_stage4, gate, spectral
        self.global_erase, self.part_erase = global_erase, part_erase
        self._part_names = [f"part{number}" for number in range(1, parts + 1)]
        self.branches = ({GLOBAL: global_dim} if global_dim else {}) | dict.fromkeys(self._part_names, part_dim)
        widths = {WHOLE if name == GLOBAL else name: width for name, width in self.branches.items()}
        self.feat_dim = next(iter(self.branches.values()))
        if own_stage4:
            self.global_stage4 = copy.deepcopy(base.layer4)
        if global_dim:
            self.global_pool = StripePooling(global_pool, 1, "MODEL.PCB.GLOBAL_POOL")
        if parts:
            self.part_pool = StripePooling(part_pool, parts, "MODEL.PCB.PART_POOL")
        if gate:
            self.gate = nn.Sequential(nn.Linear(base.feat_dim, global_dim), nn.BatchNorm1d(global_dim))
        self.reduction = nn.ModuleDict({name: nn.Linear(base.feat_dim, width) for name, width in widths.items()})
        self.bottleneck = nn.ModuleDict({name: nn.BatchNorm1d(width) for name, width in widths.items()})
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.ModuleDict({name: _classifier(head, width, num_class) for name, width in widths.items()})
        if global_dim:
            self._set_first_values()

    def _set_first_values(self) -> None:
        """Give the global branch the first values that published runs have; all others are torch's."""
        if not self.parts:
            nn.init.kaiming_normal_(self.reduction[WHOLE].weight, mode="fan_out")
            nn.init.zeros_(self.reduction[WHOLE].bias)
            nn.init.normal_(self.bottleneck[WHOLE].weight, mean=1.0, std=NORM_STD)
        if isinstance(self.classifier[WHOLE], nn.Linear):
            nn.init.normal_(self.classifier[WHOLE].weight, std=CLASSIFIER_STD)
            nn.init.zeros_(self.classifier[WHOLE].bias)

    def forward(
        self, images: torch.Tensor, cam_label: torch.Tensor | None = None, view_label: torch.Tensor | None = None
    ) -> ModelOutput | torch.Tensor:
        """Return ModelOutput (training) or the embedding (evaluation) of images [B, 3, H, W].

        The labels are accepted, so that all image models are called alike, and unused.
        """
        if self.training:
            return self.forward_output(images, cam_label, view_label)
        return self._embedding(images)

    def forward_output(
        self, images: torch.Tensor, cam_label: torch.Tensor | None = None, view_label: torch.Tensor | None = None
    ) -> ModelOutput:
        """Return ModelOutput in either mode; arguments as in `forward`."""
        pre_bn, pooled = self._reduced(images)
        bnneck = self._normed(pre_bn)
        logits = [head(x) for head, x in zip(self.classifier.values(), bnneck, strict=True)]
        extra = {GLOBAL_POOLED: pooled} if self.training and self.spectral == POOLED else {}
        return ModelOutput(logits, pre_bn, bnneck, None, extra)

    def global_logits(self, feature: torch.Tensor, source: str) -> torch.Tensor:
        """Return the global branch's logits [N, C] of features in place of its own, through the very same layers.

        `source` pooled: features [N, c] are reduced, normed and classified; embedding: [N, d] are classified as they
        are. In training mode a norm takes the statistics of these N rows, and its running ones move a second time in a
        step, as they do in the authors' code. Raises ConfigError for another source.
        """
        if source == EMBEDDING:
            return self.classifier[WHOLE](feature)
        if source != POOLED:
            raise ConfigError(f"LOSS.SPECTRAL.FEAT got '{source}', allowed: {POOLED}, {EMBEDDING}")
        return self.classifier[WHOLE](self.dropout(self.bottleneck[WHOLE](self.reduction[WHOLE](feature))))

    def embed_batch(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the embedding [B, D'] of a batch whose `images` are normalised, as evaluation mode gives it."""
        return self._embedding(batch["images"])

    def embedding_of(self, output: ModelOutput) -> torch.Tensor:
        """Return the embedding [B, D'] of an output of either mode."""
        return self._joined(output.bnneck)

    def _embedding(self, images: torch.Tensor) -> torch.Tensor:
        return self._joined(self._normed(self._reduced(images)[0]))

    def _joined(self, branches: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([F.normalize(branch, dim=1) for branch in branches] if self.part_norm else branches, dim=1)

    def _normed(self, pre_bn: list[torch.Tensor]) -> list[torch.Tensor]:
        return [self.dropout(norm(x)) for norm, x in zip(self.bottleneck.values(), pre_bn, strict=True)]

    def _reduced(self, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Return the reduced feature of each branch, and what the global one reduces, [B, c] or None without it."""
        part_map, global_map = self._maps(images)
        reduced, pooled = [], None
        if GLOBAL in self.branches:
            if self.training:
                global_map = erase_band(global_map, self.global_erase)
            pooled = self.global_pool(global_map.unsqueeze(2)).squeeze(2)
            feature = self.reduction[WHOLE](pooled)
            if self.gated:
                feature = feature * self.gate(global_map.mean(dim=(2, 3))).sigmoid()
            reduced.append(feature)
        if self.parts:
            stripes = split_rows(part_map, self.parts)
            if self.training:
                stripes = erase_bands(stripes, self.part_erase)
            vectors = self.part_pool(stripes).unbind(2)
            reduced += [self.reduction[name](x) for name, x in zip(self._part_names, vectors, strict=True)]
        return reduced, pooled

    def _maps(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the map of the parts and that of the global branch, the very same without a stage of its own."""
        if not self.own_stage4:
            maps = self.base.forward_map(images)
            return maps, maps
        before = self.base.before_last_stage(images)
        return self.base.layer4(before), self.global_stage4(before)

    def keep_embedding_only(self) -> None:
        """Remove what training alone reads, the classifiers; `forward` then works in evaluation mode."""
        del self.classifier

    def part_of(self, name: str) -> Part:
        """Return the part of the model in which a parameter is; see `Part`."""
        if name.startswith(TRUNK):
            return Part("trunk", ONLY_LAYER)
        return Part("head" if name.startswith("classifier.") else "new", ONLY_LAYER, alike=True)

    def load_param(self, path: str | Path, key: str = "TEST.WEIGHT") -> LoadReport:
        """Load a trained checkpoint, ours or pytorch-reid-lite's; see `model.weights.load.load_param`."""
        return load_param(self, self.weight_rules(), path, key)

    def weight_rules(self) -> WeightRules:
        """Return what is known about checkpoints for this model."""
        return PcbRules(self)


def _classifier(head: str, width: int, num_class: int) -> nn.Module:
    """Return the identity head [B, d] -> [B, C] of a branch; that of softmax has a bias here, as in published runs."""
    return nn.Linear(width, num_class) if head == "softmax" else make_head(head, width, num_class)


def _refuse(parts: int, global_dim: int, own_stage4: bool, gate: bool, spectral: str | None) -> None:
    """Raise ConfigError for a combination of options that has no meaning."""
    if not parts and not global_dim:
        raise ConfigError("MODEL.PCB.PARTS and GLOBAL_DIM are both 0, so there is no branch; set one of them")
    if own_stage4 and not (parts and global_dim):
        raise ConfigError(
            "MODEL.PCB.OWN_STAGE4 True needs a global branch beside stripes, which keep the trunk's last stage; got "
            f"PARTS {parts} and GLOBAL_DIM {global_dim}"
        )
    if gate and not global_dim:
        raise ConfigError("MODEL.PCB.GATE True acts on the global branch, but MODEL.PCB.GLOBAL_DIM is 0")
    if spectral is not None and not global_dim:
        raise ConfigError("LOSS.SPECTRAL acts on the global branch, but MODEL.PCB.GLOBAL_DIM is 0")
    if spectral == POOLED and gate:
        raise ConfigError(
            "LOSS.SPECTRAL.FEAT pooled mixes what the map was pooled to, MODEL.PCB.GATE needs the map itself; set FEAT "
            "embedding, or GATE False"
        )
