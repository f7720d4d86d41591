"""CLIP-ReID: CLIP's image tower at three levels, two necks and classifiers, and prompts for each identity.

Reference: Li et al., CLIP-ReID: Exploiting Vision-Language Model for Image Re-Identification without Concrete Text
Labels, AAAI 2023.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.backbones.clip_levels import Levels, levels, widths_of
from model.backbones.clip_text import PromptLearner, TextEncoder
from model.layers import sie
from model.layers.heads import make_head, make_neck, make_projection
from model.outputs import GLOBAL, ModelOutput
from model.parts import Part
from model.weights.clip_reid import ClipReIDRules
from model.weights.load import LoadReport, WeightRules, load_param
from utils.precision import at_least_float32

INIT_STD = 0.02
FROM_THE_START = ("conv1.", "class_embedding", "positional_embedding", "ln_pre.")  # of a ViT, before the blocks
BLOCKS = "transformer.resblocks."
TEXT_CHUNK = 256  # identities whose texts are computed together


class ClipReID(nn.Module):
    """Images [B, 3, H, W] -> ModelOutput in training mode, embedding [B, W + D] in evaluation mode.

    `visual` is a tower of open_clip that `clip_levels.fit_tower` fitted. Its last layer gives the feature f
    of width W, its projection into the space of texts f_p of width D; each has a neck and a classifier, and the
    embedding is [f, f_p], taken `before` or `after` the necks. `text` are the text encoder and the prompts, None where
    no stage needs them. `sides` are the cameras and viewpoints to embed, 0 = off, and the factor of their row, which is
    added to the class token. With `projection`, pre_bn or bnneck, training also projects that feature of the first
    branch. The names of all weights are those of CLIP-ReID's checkpoints.

    In training mode `extra` holds `last`, the feature of the last but one layer, which has no neck.
    """

    def __init__(
        self,
        visual: nn.Module,
        num_class: int,
        text: tuple[TextEncoder, PromptLearner] | None = None,
        sides: tuple[int, int, float] = (0, 0, 1.0),
        head: str = "softmax",
        neck_feat: str = "after",
        projection: str | None = None,
    ) -> None:
        super().__init__()
        self.num_class, self.neck_feat = num_class, neck_feat
        own, projected = widths_of(visual)
        self.feat_dim = own
        self.branches = {GLOBAL: own, "projected": projected}
        self.image_encoder = visual
        self.camera_num, self.view_num, self.sie_coe = sides
        self.side_rows = sie.count_rows(self.camera_num, self.view_num)
        if self.side_rows:
            self.cv_embed = nn.Parameter(torch.empty(self.side_rows, own))
            nn.init.trunc_normal_(self.cv_embed, std=INIT_STD)
        self.classifier, self.classifier_proj = make_head(head, own, num_class), make_head(head, projected, num_class)
        self.bottleneck, self.bottleneck_proj = make_neck(own), make_neck(projected)
        self.has_text = text is not None
        if text is not None:
            self.text_encoder, self.prompt_learner = text
            self.text_encoder.requires_grad_(False)
        self.projection_source = projection
        if projection is not None:  # last, so that all other first weights are those of a model without it
            self.supcon_head = make_projection(own)

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
        found = self._levels(images, cam_label, view_label)
        pre_bn = [found.own, found.projected]
        bnneck = self._necks(pre_bn)
        logits = [self.classifier(bnneck[0]), self.classifier_proj(bnneck[1])]
        projection = None
        if self.projection_source is not None:
            projection = self.supcon_head(pre_bn[0] if self.projection_source == "pre_bn" else bnneck[0])
        return ModelOutput(logits, pre_bn, bnneck, projection, {"last": found.last})

    def embed_batch(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the embedding [B, W + D] of a batch whose `images` are normalised, as evaluation mode gives it.

        `camids` and `viewids` are read where the batch has them. All tensors are on the model's device.
        """
        return self._embedding(batch["images"], batch.get("camids"), batch.get("viewids"))

    def embedding_of(self, output: ModelOutput) -> torch.Tensor:
        """Return the embedding [B, W + D] of an output of either mode, after the necks whatever `neck_feat` is."""
        return torch.cat(output.bnneck, dim=1)

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """Return f_p [B, D] of images [B, 3, H, W], without side information: what prompts are fitted to."""
        return levels(self.image_encoder, images).projected

    def encode_text(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the text features [n, D] of labels [n] int64 in 0..C-1, not normalised."""
        return self.text_encoder(self.prompt_learner(labels), self.prompt_learner.end)

    @torch.no_grad()
    def prototypes(self) -> torch.Tensor:
        """Return the text features [C, D] of all identities, at least float32, without a gradient."""
        everyone = torch.arange(self.num_class, device=self.prompt_learner.cls_ctx.device)
        return torch.cat([at_least_float32(self.encode_text(labels)) for labels in everyone.split(TEXT_CHUNK)])

    def _levels(self, images: torch.Tensor, cam_label: torch.Tensor | None, view_label: torch.Tensor | None) -> Levels:
        side = None
        if self.side_rows:
            counts = (self.camera_num, self.view_num)
            side = self.sie_coe * sie.look_up(self.cv_embed, *counts, cam_label, view_label, images.shape[0])
        return levels(self.image_encoder, images, side)

    def _embedding(
        self, images: torch.Tensor, cam_label: torch.Tensor | None, view_label: torch.Tensor | None
    ) -> torch.Tensor:
        found = self._levels(images, cam_label, view_label)
        branches = [found.own, found.projected]
        return torch.cat(branches if self.neck_feat == "before" else self._necks(branches), dim=1)

    def _necks(self, branches: list[torch.Tensor]) -> list[torch.Tensor]:
        return [self.bottleneck(branches[0]), self.bottleneck_proj(branches[1])]

    @property
    def side_counts(self) -> tuple[int, int]:
        """The cameras and viewpoints that side information tells apart; 0 = that side is off."""
        return self.camera_num, self.view_num

    def keep_neutral_side(self) -> None:
        """Replace the table of side information by its mean, which is right for images without labels."""
        self.cv_embed = nn.Parameter(self.cv_embed.detach().mean(0, keepdim=True))
        self.camera_num, self.view_num, self.side_rows = 0, 0, sie.NEUTRAL_ROWS

    def keep_embedding_only(self) -> None:
        """Remove what training alone reads: classifiers, projection, text; `forward` then works in evaluation mode."""
        del self.classifier, self.classifier_proj
        if self.projection_source is not None:
            del self.supcon_head
        if self.has_text:
            del self.text_encoder, self.prompt_learner

    @property
    def depth(self) -> int:
        """Number of blocks of the image tower; a ResNet has none."""
        return len(getattr(getattr(self.image_encoder, "transformer", None), "resblocks", ()))

    def part_of(self, name: str) -> Part:
        """Return the part of the model in which a parameter is; see `Part`."""
        tower = name.removeprefix("image_encoder.")
        if tower == name:
            return Part("head" if name.startswith("classifier") else "new", self.depth + 1)
        if tower.startswith(BLOCKS):
            return Part("trunk", int(tower.removeprefix(BLOCKS).split(".")[0]) + 1)
        return Part("trunk", 0 if self.depth and tower.startswith(FROM_THE_START) else self.depth + 1)

    def load_param(self, path: str | Path, key: str = "TEST.WEIGHT") -> LoadReport:
        """Load a trained checkpoint, ours or CLIP-ReID's; see `model.weights.load.load_param`."""
        return load_param(self, self.weight_rules(), path, key)

    def weight_rules(self) -> WeightRules:
        """Return what is known about checkpoints for this model."""
        return ClipReIDRules(self)
