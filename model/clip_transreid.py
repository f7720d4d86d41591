"""TransReID with CLIP's image features: fused into the branches before the necks, or joined to the embedding.

Reference: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021; the
fusions and their weights' names are Model B's.
"""

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from model.backbones.clip import Normalisation, Renormalise, Tower
from model.layers.fusion import FeatureEnhancement, gated_join, make_gate
from model.parts import Part
from model.transreid import TransReID
from model.weights.clip_fusion import TOWER, ClipFusionRules, MinimalFusionRules, RefineFusionRules, leave_out_tower
from model.weights.load import WeightRules

logger = logging.getLogger(__name__)

AT_TESTS = "clip"  # the branch that `Concatenation` joins to the embedding, and no ModelOutput has


class ClipTransReID(TransReID):
    """TransReID that also runs a CLIP tower; the subclasses say what its features do.

    `tower` sees the batch, which is normalised by `pixel`, renormalised and resized as it wants. Untrained it is frozen
    and stays in evaluation mode, and if its source can give the same weights again it is left out of the state dict;
    `clip_fingerprint`, the norms of its weights, stands there for it and refuses another tower.
    `base` and `common` are TransReID's arguments.
    """

    def __init__(self, base: nn.Module, tower: Tower, trained: bool, pixel: Normalisation, **common: Any) -> None:
        super().__init__(base, **common)
        info = tower.info
        self.to_clip = Renormalise(pixel, info.normalisation, info.image_size, tower.interpolation)
        self.clip_model = tower
        self.tower_trained = trained
        self.tower_left_out = not trained and info.reloadable
        if not trained:
            tower.requires_grad_(False).eval()
        if self.tower_left_out:
            leave_out_tower(self)
        elif not trained:
            logger.info("the frozen CLIP tower has random weights (%s), so checkpoints hold it", info.source)

    def train(self, mode: bool = True) -> "ClipTransReID":
        super().train(mode)
        if not self.tower_trained:
            self.clip_model.eval()
        return self

    def clip_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return CLIP's features [B, D] of images [B, 3, H, W]; no gradient reaches a frozen tower."""
        with torch.set_grad_enabled(self.tower_trained and torch.is_grad_enabled()):
            return self.clip_model(self.to_clip(images))

    def part_of(self, name: str) -> Part:
        if name.startswith(TOWER):
            return Part("trunk", self.base.depth + 1, tower=True)
        return super().part_of(name)

    def weight_rules(self) -> WeightRules:
        return ClipFusionRules(self)


class MinimalFusion(ClipTransReID):
    """open_clip minimal: g' = Linear([g, t]) for global feature g and CLIP's feature t; local branches as they are."""

    def __init__(self, *args: Any, **common: Any) -> None:
        super().__init__(*args, **common)
        self.fuse_proj_global_min = nn.Linear(self.feat_dim + self.clip_model.info.feat_dim, self.feat_dim)

    def _branches(
        self, images: torch.Tensor, cam_label: torch.Tensor | None, view_label: torch.Tensor | None
    ) -> list[torch.Tensor]:
        own, *local = super()._branches(images, cam_label, view_label)
        return [self.fuse_proj_global_min(torch.cat([own, self.clip_features(images)], dim=1)), *local]

    def weight_rules(self) -> WeightRules:
        return MinimalFusionRules(self)


class GatedFusion(ClipTransReID):
    """open_clip quickwin: b = LN(x), u = LN(t), a = gate([b, u]), x' = Linear([(1 - a) b, a u]) for every branch x.

    The global branch has its own weights, the local ones share theirs.
    """

    def __init__(self, *args: Any, **common: Any) -> None:
        super().__init__(*args, **common)
        own, clip = self.feat_dim, self.clip_model.info.feat_dim
        self.fuse_ln_global_backbone = nn.LayerNorm(own)
        self.fuse_ln_global_clip = nn.LayerNorm(clip)
        self.fuse_gate_global = make_gate(own, clip)
        self.fuse_proj_global = nn.Linear(own + clip, own)
        if self.jigsaw is not None:
            self.fuse_ln_local_bb = nn.LayerNorm(own)
            self.fuse_ln_local_cf = nn.LayerNorm(clip)
            self.fuse_gate_local = make_gate(own, clip)
            self.fuse_proj_local = nn.Linear(own + clip, own)

    def _branches(
        self, images: torch.Tensor, cam_label: torch.Tensor | None, view_label: torch.Tensor | None
    ) -> list[torch.Tensor]:
        own, *local = super()._branches(images, cam_label, view_label)
        clip = self.clip_features(images)
        joined = gated_join(self.fuse_ln_global_backbone(own), self.fuse_ln_global_clip(clip), self.fuse_gate_global)
        fused = self.fuse_proj_global(joined)
        if not local:
            return [fused]
        parts = self.fuse_ln_local_bb(torch.stack(local, dim=1))  # [B, n, C]
        clip = self.fuse_ln_local_cf(clip).unsqueeze(1).expand(-1, len(local), -1)  # [B, n, D]
        joined = gated_join(parts, clip, self.fuse_gate_local)
        return [fused, *self.fuse_proj_local(joined).unbind(1)]


class RefineFusion(ClipTransReID):
    """hf: g' = Linear([g, t]) + Linear(AFEM(t)); without `afem` the last term is Linear(t), without `refine` 0.

    AFEM and the last linear layer are there either way, as Model B's checkpoints have them, frozen where unused.
    """

    def __init__(self, *args: Any, afem: bool = True, refine: bool = True, **common: Any) -> None:
        super().__init__(*args, **common)
        own, clip = self.feat_dim, self.clip_model.info.feat_dim
        self.uses_afem, self.uses_refine = afem and refine, refine
        self.fuse_fc = nn.Linear(own + clip, own)
        self.afem = FeatureEnhancement(clip, self.uses_afem).requires_grad_(self.uses_afem)
        self.sem_refine_proj = nn.Linear(clip, own).requires_grad_(self.uses_refine)

    def _branches(
        self, images: torch.Tensor, cam_label: torch.Tensor | None, view_label: torch.Tensor | None
    ) -> list[torch.Tensor]:
        own, *local = super()._branches(images, cam_label, view_label)
        clip = self.clip_features(images)
        fused = self.fuse_fc(torch.cat([own, clip], dim=1))
        if self.uses_refine:
            fused = fused + self.sem_refine_proj(self.afem(clip) if self.uses_afem else clip)
        return [fused, *local]

    def weight_rules(self) -> WeightRules:
        return RefineFusionRules(self)


class Concatenation(ClipTransReID):
    """concat: trained without CLIP; the embedding is [e / |e|, weight * t / |t|], e the model's own, t CLIP's.

    With features normalised afterwards, cosines are (cos e + weight^2 cos t) / (1 + weight^2).
    """

    def __init__(self, *args: Any, weight: float = 1.0, **common: Any) -> None:
        super().__init__(*args, **common)
        self.clip_weight = weight
        self.branches = self.branches | {AT_TESTS: self.clip_model.info.feat_dim}

    def _embedding(
        self, images: torch.Tensor, cam_label: torch.Tensor | None, view_label: torch.Tensor | None
    ) -> torch.Tensor:
        own = super()._embedding(images, cam_label, view_label)  # [B, D']
        clip = self.clip_weight * F.normalize(self.clip_features(images), dim=1)  # [B, D]
        return torch.cat([F.normalize(own, dim=1), clip], dim=1)
