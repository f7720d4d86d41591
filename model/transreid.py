"""A backbone with necks and identity heads: one global branch and, with the jigsaw patch module, several local ones.

Reference: He et al., TransReID: Transformer-based Object Re-Identification, ICCV 2021.
"""

import logging
from pathlib import Path

import torch
from torch import nn

from model.convert import LoadReport, Weights, load_weights
from model.layers.heads import make_head, make_neck, make_projection
from model.layers.jigsaw import Jigsaw, branch_tokens, seen_bias
from model.layers.lora import LoRALinear, fold_lora
from model.layers.pooling import ends_in_groups
from model.outputs import ModelOutput
from model.pretrained import FUSION, log_report
from utils.checkpoint import read_weights
from utils.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

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
        self.jigsaw = jigsaw
        self.neck_feat = neck_feat
        if jigsaw is not None:
            self._add_branches(jigsaw)
        num_local = jigsaw.branches if jigsaw is not None else 0
        self._suffixes = ["", *(f"_{number}" for number in range(1, num_local + 1))]
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
        pre_bn = self._branches(images, cam_label, view_label)
        if not self.training and self.neck_feat == "before":
            return _embedding(pre_bn)
        bnneck = [self.get_submodule(f"bottleneck{name}")(x) for name, x in zip(self._suffixes, pre_bn, strict=True)]
        if not self.training:
            return _embedding(bnneck)
        logits = [self.get_submodule(f"classifier{name}")(x) for name, x in zip(self._suffixes, bnneck, strict=True)]
        projection = None
        if self.projection_source is not None:
            projection = self.supcon_head(pre_bn[0] if self.projection_source == "pre_bn" else bnneck[0])
        return ModelOutput(logits=logits, pre_bn=pre_bn, bnneck=bnneck, projection=projection)

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

    def load_param(self, path: str | Path, key: str = "TEST.WEIGHT") -> LoadReport:
        """Load a trained checkpoint, ours or TransReID's, and return the report, which is logged too.

        `key` is the config key that named the file. Raises ConfigError when there is no such file, and DataError when
        it is damaged, is no such checkpoint, or lacks a weight on which the embedding depends (or has it in another
        shape). Classifiers and weights that no embedding depends on may differ.
        """
        weights = self.translate(read_weights(path, key))
        source = f"{key} '{path}'"
        if self.jigsaw is None and any(name.startswith("b1.") for name in weights):
            raise DataError(f"{source} was trained with the jigsaw module; set MODEL.JPM True as in its training")
        adapters = [name for name in weights if ".lora_" in name and name not in self.state_dict()]
        if adapters:  # of a model without adapters they are folded in
            raise DataError(
                f"{source}: {adapters[0]} is in the file, but not in this model; set MODEL.LORA.TARGETS as in its "
                "training, or MODEL.LORA.RANK 0, which folds the file's adapters into its weights"
            )
        deeper = [name for name in weights if name.startswith("base.blocks.") and name not in self.state_dict()]
        if deeper and any(name in weights for name in self.state_dict()):
            raise DataError(
                f"{source}: {deeper[0]} is in the file, but not in this model; "
                "MODEL.TRANSFORMER_TYPE and MODEL.VIT.DEPTH decide it"
            )
        last = f"base.blocks.{len(self.base.blocks) - 1}." if self.jigsaw is not None else ""
        whole_trunk = last and f"base.{self.base.norm_name}.weight" in weights
        if whole_trunk and not any(name.startswith(last) for name in weights):
            raise DataError(  # its own last block is untrained and would become a working one here
                f"{source}: {last}* is not in the file, which has fewer blocks than this model; "
                "MODEL.TRANSFORMER_TYPE and MODEL.VIT.DEPTH decide it"
            )
        report = load_weights(self, weights, source, self.deciding_keys, self.base.grid)
        report = report._replace(warnings=tuple(self._warnings(report)))
        log_report(report)
        return report

    def translate(self, weights: Weights) -> Weights:
        """Return a checkpoint's weights by this model's names; adapters are folded in where this model has none."""
        return weights if any(isinstance(layer, LoRALinear) for layer in self.modules()) else fold_lora(weights)

    def deciding_keys(self, name: str) -> str:
        """Return what decides presence and shape of a weight, or '' when the embedding does not depend on it."""
        if name.startswith(("classifier", "supcon_head")) or name.endswith("num_batches_tracked"):
            return ""
        if name.startswith("bottleneck"):
            return "MODEL.NECK and TEST.NECK_FEAT after ask for it" if self.neck_feat == "after" else ""
        if name.startswith(("b1.", "b2.")):
            return "MODEL.JPM True asks for it (with MODEL.TRANSFORMER_TYPE and MODEL.VIT)"
        name = name.removeprefix("base.")
        unused = (f"blocks.{len(self.base.blocks) - 1}", *self.base.tail_names) if self.jigsaw is not None else ()
        if name.startswith(tuple(f"{module}." for module in unused)):
            return ""
        return self.base.deciding_keys(name)

    def _warnings(self, report: LoadReport) -> list[str]:
        warnings = []
        if "base.sie_embed" in report.surplus:
            warnings.append(
                "the checkpoint was trained with side information, which is off here, so its embedding differs; "
                "set MODEL.SIE_CAMERA / MODEL.SIE_VIEW as in its training"
            )
        fusion = [name for name in report.surplus if name.startswith(FUSION)]
        if fusion:
            layers = dict.fromkeys(name.split(".")[0] for name in fusion)
            warnings.append(
                f"the checkpoint was trained with a CLIP fusion that this model lacks: {len(fusion)} weights "
                f"({', '.join(layers)}) are unused and the features are those before the fusion; "
                "set MODEL.USE_CLIP, CLIP_IMPL and CLIP_FUSION as in its training"
            )
        if self.jigsaw is not None:
            names = {name for name in (*report.surplus, *report.missing) if name.startswith("bottleneck_")}
            if names:
                warnings.append(
                    "the checkpoint has another number of local necks than MODEL.DEVIDE_LENGTH "
                    f"{self.jigsaw.branches}; the embedding is that of this run's branches"
                )
        if report.resized:
            warnings.append(
                "the checkpoint was trained with another patch grid (INPUT.SIZE_TRAIN, MODEL.STRIDE_SIZE) than this "
                f"model's {self.base.grid[0]} x {self.base.grid[1]}"
            )
        return warnings


def _embedding(branches: list[torch.Tensor]) -> torch.Tensor:
    """Return [g, l_1/n, ..., l_n/n] of branches [B, D] each; g itself when there is no local branch."""
    first, *local = branches
    return torch.cat([first, *(branch / len(local) for branch in local)], dim=1)
