"""A backbone with necks and identity heads: one global branch and, with the jigsaw patch module, several local ones.

Reference: He et al., TransReID: Transformer-based Object Re-Identification, ICCV 2021.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.backbones.vit import side_counts
from model.layers.heads import make_head, make_neck, make_projection
from model.layers.jigsaw import Jigsaw, branch_tokens, seen_bias
from model.layers.pooling import ends_in_groups
from model.outputs import GLOBAL, ModelOutput
from model.parts import Part
from model.weights.load import LoadReport, WeightRules, load_param
from model.weights.transreid import TransReIDRules
from utils.errors import ConfigError

NECK_FEATS = ("before", "after")
PROJECTION_SOURCES = ("pre_bn", "bnneck")


class TransReID(nn.Module):
    """Images [B, 3, H, W] -> ModelOutput in training mode, embedding [B, D'] in evaluation mode.

    `base` maps (images, cam_label, view_label) to features [B, D], D = base.feat_dim. With a `jigsaw` (transformers
    only) its last block and norm are copied as they are now: into `b1` for the global branch, and into `b2` for the
    local ones, which each see the class token (all tokens that are no patches) and a part of the patches. The originals
    stay in the state dict, frozen.
    `neck` False leaves out the BNNecks. The embedding is [g, l_1/n, ..., l_n/n] (D' = D without local branches), taken
    `before` or `after` the necks. With `projection`, pre_bn or bnneck, training also projects that feature of the
    global branch. The names of all weights are those of TransReID's and Model B's checkpoints.

    `branches` are the parts of the embedding in its order, name -> width: `global`, `local_1`, `local_2`, ...
    """

    def __init__(
        self,
        base: nn.Module,
        num_class: int,
        head: str = "softmax",
        jigsaw: Jigsaw | None = None,
        neck: bool = True,
        neck_feat: str = "after",
        projection: str | None = None,
    ) -> None:
        super().__init__()
        if neck_feat not in NECK_FEATS:
            raise ConfigError(f"TEST.NECK_FEAT got '{neck_feat}', allowed: {', '.join(NECK_FEATS)}")
        if projection is not None and projection not in PROJECTION_SOURCES:
            raise ConfigError(f"LOSS.SUPCON.FEAT_SRC got '{projection}', allowed: {', '.join(PROJECTION_SOURCES)}")
        self.base = base
        self.feat_dim = base.feat_dim
        self.num_class = num_class
        self.jigsaw = jigsaw
        self.neck_feat = neck_feat
        if jigsaw is not None:
            self._add_branches(jigsaw)
        num_local = jigsaw.branches if jigsaw is not None else 0
        self._suffixes = ["", *(f"_{number}" for number in range(1, num_local + 1))]
        self.branches = dict.fromkeys([GLOBAL, *(f"local{suffix}" for suffix in self._suffixes[1:])], self.feat_dim)
        for suffix in self._suffixes:
            self.add_module(f"classifier{suffix}", make_head(head, self.feat_dim, num_class))
        for suffix in self._suffixes:
            self.add_module(f"bottleneck{suffix}", make_neck(self.feat_dim) if neck else nn.Identity())
        self.projection_source = projection
        if projection is not None:  # last, so that all other first weights are those of a model without it
            self.supcon_head = make_projection(self.feat_dim)

    def _add_branches(self, jigsaw: Jigsaw) -> None:
        if self.base.num_patches < jigsaw.branches:
            raise ConfigError(
                f"MODEL.DEVIDE_LENGTH: {self.base.num_patches} patches cannot be divided into {jigsaw.branches} "
                "branches; use larger images, a smaller MODEL.STRIDE_SIZE or fewer branches"
            )
        if jigsaw.rearrange and self.base.num_patches < jigsaw.shift:
            raise ConfigError(f"MODEL.SHIFT_NUM {jigsaw.shift} exceeds the {self.base.num_patches} patches of an image")
        self.b1, self.b2 = self.base.take_branches(2)
        tokens = branch_tokens(self.base.num_patches, jigsaw, self.base.num_prefix)
        bias = seen_bias(tokens, self.base.num_prefix + self.base.num_patches)
        self.register_buffer("local_tokens", torch.tensor(tokens), persistent=False)  # [n, P + L]
        self.register_buffer("local_bias", torch.tensor(bias), persistent=False)  # [n, P + N]

    def forward(
        self, images: torch.Tensor, cam_label: torch.Tensor | None = None, view_label: torch.Tensor | None = None
    ) -> ModelOutput | torch.Tensor:
        """Return ModelOutput (training) or the embedding (evaluation) of images [B, 3, H, W].

        `cam_label` and `view_label` are [B] int64 from 0; None or negative = unknown. They matter only with side
        information.
        """
        if self.training:
            return self.forward_output(images, cam_label, view_label)
        return self._embedding(images, cam_label, view_label)

    def forward_output(
        self, images: torch.Tensor, cam_label: torch.Tensor | None = None, view_label: torch.Tensor | None = None
    ) -> ModelOutput:
        """Return ModelOutput in either mode; arguments as in `forward`."""
        pre_bn = self._branches(images, cam_label, view_label)
        bnneck = self._necks(pre_bn)
        logits = [self.get_submodule(f"classifier{name}")(x) for name, x in zip(self._suffixes, bnneck, strict=True)]
        projection = None
        if self.projection_source is not None:
            projection = self.supcon_head(pre_bn[0] if self.projection_source == "pre_bn" else bnneck[0])
        return ModelOutput(logits=logits, pre_bn=pre_bn, bnneck=bnneck, projection=projection)

    def embed_batch(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the embedding [B, D'] of a batch whose `images` are normalised, as evaluation mode gives it.

        `camids` and `viewids` are read where the batch has them. All tensors are on the model's device.
        """
        return self._embedding(batch["images"], batch.get("camids"), batch.get("viewids"))

    def embedding_of(self, output: ModelOutput) -> torch.Tensor:
        """Return the embedding [B, D'] of an output of either mode, after the necks whatever `neck_feat` is."""
        return _joined(output.bnneck)

    def _embedding(
        self, images: torch.Tensor, cam_label: torch.Tensor | None, view_label: torch.Tensor | None
    ) -> torch.Tensor:
        """Return [g, l_1/n, ..., l_n/n] of the branches; g itself when there is no local one."""
        branches = self._branches(images, cam_label, view_label)
        return _joined(branches if self.neck_feat == "before" else self._necks(branches))

    def _necks(self, pre_bn: list[torch.Tensor]) -> list[torch.Tensor]:
        return [self.get_submodule(f"bottleneck{name}")(x) for name, x in zip(self._suffixes, pre_bn, strict=True)]

    def _branches(
        self, images: torch.Tensor, cam_label: torch.Tensor | None, view_label: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """Return the features [B, D] of the global and the local branches."""
        if self.jigsaw is None:
            return [self.base(images, cam_label, view_label)]
        tokens = self.base.forward_tokens(images, cam_label, view_label, skip_last=1)  # [B, P + N, D]
        rotation = self.base.rotations()[-1]
        local = ends_in_groups(self.b2, tokens, self.local_tokens, self.local_bias, rotation)  # [B, n, D]
        return [self.b1(tokens, rotation), *local.unbind(1)]

    @property
    def side_counts(self) -> tuple[int, int]:
        """The cameras and viewpoints that side information tells apart; 0 = that side is off."""
        return side_counts(self.base)

    @property
    def side_rows(self) -> int:
        """Rows of the side information, 0 = none."""
        return getattr(self.base, "side_rows", 0)

    def keep_neutral_side(self) -> None:
        """Replace the table of side information by its mean, which is right for images without labels."""
        self.base.keep_neutral_side()

    def keep_embedding_only(self) -> None:
        """Remove what training alone reads: classifiers and projection; `forward` then works in evaluation mode."""
        for suffix in self._suffixes:
            delattr(self, f"classifier{suffix}")
        if self.projection_source is not None:
            del self.supcon_head

    def part_of(self, name: str) -> Part:
        """Return the part of the model in which a parameter is; see `Part`."""
        after_blocks = self.base.depth + 1
        if name.startswith("base."):
            return self.base.part_of(name.removeprefix("base."))
        if name.startswith(("b1.0.", "b2.0.")):  # copies of the last block
            return Part("new" if ".lora_" in name else "trunk", self.base.depth)
        if name.startswith(("b1.", "b2.")):  # and of what follows it
            return Part("trunk", after_blocks)
        return Part("head" if name.startswith("classifier") else "new", after_blocks)

    def load_param(self, path: str | Path, key: str = "TEST.WEIGHT") -> LoadReport:
        """Load a trained checkpoint, ours or TransReID's; see `model.weights.load.load_param`."""
        return load_param(self, self.weight_rules(), path, key)

    def weight_rules(self) -> WeightRules:
        """Return what is known about checkpoints for this model."""
        return TransReIDRules(self)


def _joined(branches: list[torch.Tensor]) -> torch.Tensor:
    """Return [g, l_1/n, ..., l_n/n] of the features [B, D] of branches."""
    first, *local = branches
    return torch.cat([first, *(branch / len(local) for branch in local)], dim=1)
