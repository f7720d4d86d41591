"""TransReID with CLIP's image features: fused into the branches before the necks, or joined to the embedding.

Reference: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021; the
fusions and their weights' names are Model B's.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from model.backbones.clip import Normalisation, ToClip, Tower, check_fingerprint, fingerprint, fit_positions
from model.convert import LoadReport, Weights
from model.layers.fusion import FeatureEnhancement, gated_join, make_gate
from model.outputs import ModelOutput
from model.pretrained import FUSION
from model.transreid import TransReID
from utils.checkpoint import read_weights
from utils.errors import DataError

logger = logging.getLogger(__name__)

TOWER = "clip_model."
FINGERPRINT = "clip_fingerprint"
GLOBAL_PROJECTION = "fuse_proj_global."  # of quickwin, and of minimal in older checkpoints
MINIMAL_PROJECTION = "fuse_proj_global_min."
# first weight of a fusion -> the keys that build it; quickwin also has the older name of minimal
FUSION_SIGNS = {
    "fuse_gate_global.0.weight": "MODEL.CLIP_IMPL open_clip and MODEL.CLIP_FUSION quickwin",
    "fuse_fc.weight": "MODEL.CLIP_IMPL hf",
    f"{MINIMAL_PROJECTION}weight": "MODEL.CLIP_IMPL open_clip and MODEL.CLIP_FUSION minimal",
    f"{GLOBAL_PROJECTION}weight": "MODEL.CLIP_IMPL open_clip and MODEL.CLIP_FUSION minimal",
}
WITHOUT_FUSION = (
    "set MODEL.USE_CLIP False, or MODEL.CLIP_FUSION concat, which has no weights, or train it further with "
    "MODEL.PRETRAIN_CHOICE finetune"
)
SAME_RTOL, SAME_ATOL = 1e-3, 1e-4  # weights that were stored in half precision still count as the same


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
        self.to_clip = ToClip(pixel, info.normalisation, info.image_size, tower.interpolation)
        self.clip_model = tower
        self.tower_trained = trained
        self.tower_left_out = not trained and info.reloadable
        if not trained:
            tower.requires_grad_(False).eval()
        if self.tower_left_out:
            self.register_buffer(FINGERPRINT, fingerprint(tower))
            self.register_state_dict_post_hook(_leave_out_tower)
            self.register_load_state_dict_pre_hook(_check_tower)
            self.register_load_state_dict_post_hook(_forgive_absent_tower)
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

    def load_param(self, path: str | Path, key: str = "TEST.WEIGHT") -> LoadReport:
        """As TransReID.load_param; a checkpoint without this model's fusion is refused with all that it lacks."""
        try:
            return super().load_param(path, key)
        except DataError as error:
            weights = self._renamed(read_weights(path, key))
            needed = [name for name in self.state_dict() if name.startswith(FUSION) and self.deciding_keys(name)]
            absent = [name for name in needed if name not in weights]
            if not absent or not any(name.startswith("base.") for name in weights):
                raise
            raise DataError(f"{key} '{path}' lacks {_listed(absent)}: {self._way_out(absent, weights)}") from error

    def translate(self, weights: Weights) -> Weights:
        weights = self._fitted(self._renamed(super().translate(weights)))
        ours = {f"{TOWER}{name}": value for name, value in self.clip_model.state_dict().items()}
        theirs = {name: value for name, value in weights.items() if name.startswith(TOWER)}
        unused = theirs if self.tower_left_out else theirs.keys() - ours.keys()
        if self.tower_left_out and theirs:
            self._say_ignored(theirs, ours)
        elif unused:  # such as the text tower, which Model B's checkpoints hold
            logger.info("%d weights %s* of the file are no part of the image tower: ignored", len(unused), TOWER)
        return {name: value for name, value in weights.items() if name not in unused}

    def deciding_keys(self, name: str) -> str:
        if name.endswith("num_batches_tracked") or name == FINGERPRINT:
            return ""
        if name.startswith(TOWER):
            return "MODEL.CLIP_BACKBONE or MODEL.CLIP_HF_ID, and MODEL.CLIP_INPUT_SIZE decide it"
        if name.startswith(FUSION):
            return "MODEL.CLIP_IMPL, MODEL.CLIP_FUSION and the widths of tower and trunk decide it"
        return super().deciding_keys(name)

    def _renamed(self, weights: Weights) -> Weights:
        """Return the weights with the position table that Model B's hf tower saved under this model's name."""
        old, new = f"{TOWER}embeddings.position_embedding", f"{TOWER}embeddings.position_embedding.weight"
        if old in weights and new not in weights:
            table = weights[old]
            table = table.squeeze(0) if table.dim() == 3 else table
            weights = {name: value for name, value in weights.items() if name != old} | {new: table}
        return weights

    def _fitted(self, weights: Weights) -> Weights:
        """Return the weights with a trained tower's positions for this model's images, and with a fingerprint of
        another length, which would be left out, as one of this length that no tower has."""
        name, marks = f"{TOWER}{self.clip_model.positions}", weights.get(FINGERPRINT)
        if name in weights and not self.tower_left_out:
            weights = weights | {name: fit_positions(weights[name], self.clip_model)}
        if marks is not None and self.tower_left_out and marks.shape != self.clip_fingerprint.shape:
            weights = weights | {FINGERPRINT: torch.full_like(self.clip_fingerprint, -1)}
        return weights

    def _say_ignored(self, theirs: Weights, ours: Weights) -> None:
        """Log that the file's tower is not used, as a warning where it is not this model's."""
        both = [name for name in ours if name in theirs and ours[name].shape == theirs[name].shape]
        same = all(
            torch.allclose(theirs[name].float(), ours[name].float().cpu(), rtol=SAME_RTOL, atol=SAME_ATOL)
            for name in both
        )
        source = self.clip_model.info.source
        if same:
            logger.info("%d weights %s* of the file are ignored: the tower is that of %s", len(theirs), TOWER, source)
            return
        logger.warning(
            "%d weights %s* of the file are ignored, although they are not those of %s, so the embedding differs; "
            "if they were trained, set MODEL.CLIP_FINETUNE True",
            *(len(theirs), TOWER, source),
        )

    def _way_out(self, absent: Iterable[str], weights: Weights) -> str:
        theirs = next((keys for sign, keys in FUSION_SIGNS.items() if sign in weights), None)
        tower_only = all(name.startswith(TOWER) for name in absent)
        if tower_only and not self.tower_trained:
            return "random weights (MODEL.CLIP_PRETRAIN '') cannot be had again; name a tag or MODEL.CLIP_LOCAL_PATH"
        if theirs is None:
            return f"it was trained without CLIP fusion; {WITHOUT_FUSION}"
        if tower_only:
            return "it was trained with a frozen CLIP tower; set MODEL.CLIP_FINETUNE False as in its training"
        return f"its fusion is that of {theirs}; set them as in its training"


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

    def _renamed(self, weights: Weights) -> Weights:
        """Also take `fuse_proj_global`, as older checkpoints of this fusion call the projection."""
        weights = super()._renamed(weights)
        old = weights.get(f"{GLOBAL_PROJECTION}weight")
        is_minimal = old is not None and old.shape == self.fuse_proj_global_min.weight.shape
        if not is_minimal or any(name.startswith((MINIMAL_PROJECTION, "fuse_gate_global.")) for name in weights):
            return weights
        return {
            name.replace(GLOBAL_PROJECTION, MINIMAL_PROJECTION) if name.startswith(GLOBAL_PROJECTION) else name: value
            for name, value in weights.items()
        }


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

    def _warnings(self, report: LoadReport) -> list[str]:
        trained = bool(self.afem.linear[1].num_batches_tracked)  # its batch norm counts batches only where it is used
        warnings = super()._warnings(report)
        if trained != self.uses_afem:
            how = "with" if trained else "without"
            keys = "MODEL.CLIP_USE_AFEM and CLIP_USE_SEM_REFINE"
            warnings.append(f"the checkpoint was trained {how} AFEM; set {keys} as in its training")
        return warnings

    def deciding_keys(self, name: str) -> str:
        if name.startswith("afem."):
            asked, key = self.uses_afem, "MODEL.CLIP_USE_AFEM True asks for it"
        elif name.startswith("sem_refine_proj."):
            asked, key = self.uses_refine, "MODEL.CLIP_USE_SEM_REFINE True asks for it"
        else:
            return super().deciding_keys(name)
        return f"{key}, and the width of the tower decides it" if asked and super().deciding_keys(name) else ""


class Concatenation(ClipTransReID):
    """concat: trained without CLIP; the embedding is [e / |e|, weight * t / |t|], e the model's own, t CLIP's.

    With features normalised afterwards, cosines are (cos e + weight^2 cos t) / (1 + weight^2).
    """

    def __init__(self, *args: Any, weight: float = 1.0, **common: Any) -> None:
        super().__init__(*args, **common)
        self.clip_weight = weight

    def forward(
        self, images: torch.Tensor, cam_label: torch.Tensor | None = None, view_label: torch.Tensor | None = None
    ) -> ModelOutput | torch.Tensor:
        """As TransReID.forward; the embedding is [B, D' + D]."""
        output = super().forward(images, cam_label, view_label)
        if self.training:
            return output
        clip = self.clip_weight * F.normalize(self.clip_features(images), dim=1)
        return torch.cat([F.normalize(output, dim=1), clip], dim=1)


def _leave_out_tower(module: nn.Module, state: Weights, prefix: str, local_metadata: dict[str, Any]) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}{TOWER}")]:
        del state[name]


def _forgive_absent_tower(module: nn.Module, keys: Any) -> None:
    absent = (f".{TOWER}", f".{FINGERPRINT}")  # Model B's checkpoints have no fingerprint
    keys.missing_keys[:] = [name for name in keys.missing_keys if not any(part in f".{name}" for part in absent)]


def _check_tower(module: ClipTransReID, state: Weights, prefix: str, *_: Any) -> None:
    if f"{prefix}{FINGERPRINT}" in state:
        check_fingerprint(state[f"{prefix}{FINGERPRINT}"], module.clip_fingerprint, module.clip_model)


def _listed(names: list[str]) -> str:
    """Return the names of fusion weights, and how many weights of the tower."""
    fusion = [name for name in names if not name.startswith(TOWER)]
    tower = len(names) - len(fusion)
    return ", ".join(fusion + [f"{TOWER}* ({tower} weights)"] * bool(tower))
