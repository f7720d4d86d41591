"""Checkpoints with a CLIP fusion: Model B's names, which fusion a file holds, and the tower that some leave out."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from model.weights.clip_towers import check_fingerprint, fingerprint, fit_positions
from model.weights.load import LoadReport, Weights
from model.weights.transreid import FUSION, TransReIDRules

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


class ClipFusionRules(TransReIDRules):
    """TransReID's rules and those of a tower, for a `ClipTransReID`; a checkpoint without its fusion is refused."""

    def translate(self, weights: Weights) -> Weights:
        weights = self._fitted(self._renamed(super().translate(weights)))
        ours = {f"{TOWER}{name}": value for name, value in self.model.clip_model.state_dict().items()}
        theirs = {name: value for name, value in weights.items() if name.startswith(TOWER)}
        unused = theirs if self.model.tower_left_out else theirs.keys() - ours.keys()
        if self.model.tower_left_out and theirs:
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

    def refusal(self, weights: Weights) -> str:
        needed = [name for name in self.model.state_dict() if name.startswith(FUSION) and self.deciding_keys(name)]
        absent = [name for name in needed if name not in weights]
        if absent and any(name.startswith("base.") for name in weights):
            return f" lacks {_listed(absent)}: {self._way_out(absent, weights)}"
        return super().refusal(weights)

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
        name, marks = f"{TOWER}{self.model.clip_model.positions}", weights.get(FINGERPRINT)
        if name in weights and not self.model.tower_left_out:
            weights = weights | {name: fit_positions(weights[name], self.model.clip_model)}
        if marks is not None and self.model.tower_left_out and marks.shape != self.model.clip_fingerprint.shape:
            weights = weights | {FINGERPRINT: torch.full_like(self.model.clip_fingerprint, -1)}
        return weights

    def _say_ignored(self, theirs: Weights, ours: Weights) -> None:
        """Log that the file's tower is not used, as a warning where it is not this model's."""
        both = [name for name in ours if name in theirs and ours[name].shape == theirs[name].shape]
        same = all(
            torch.allclose(theirs[name].float(), ours[name].float().cpu(), rtol=SAME_RTOL, atol=SAME_ATOL)
            for name in both
        )
        source = self.model.clip_model.info.source
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
        if tower_only and not self.model.tower_trained:
            return "random weights (MODEL.CLIP_PRETRAIN '') cannot be had again; name a tag or MODEL.CLIP_LOCAL_PATH"
        if theirs is None:
            return f"it was trained without CLIP fusion; {WITHOUT_FUSION}"
        if tower_only:
            return "it was trained with a frozen CLIP tower; set MODEL.CLIP_FINETUNE False as in its training"
        return f"its fusion is that of {theirs}; set them as in its training"


class MinimalFusionRules(ClipFusionRules):
    """Rules of open_clip's minimal fusion."""

    def _renamed(self, weights: Weights) -> Weights:
        """Also take `fuse_proj_global`, as older checkpoints of this fusion call the projection."""
        weights = super()._renamed(weights)
        old = weights.get(f"{GLOBAL_PROJECTION}weight")
        is_minimal = old is not None and old.shape == self.model.fuse_proj_global_min.weight.shape
        if not is_minimal or any(name.startswith((MINIMAL_PROJECTION, "fuse_gate_global.")) for name in weights):
            return weights
        return {
            name.replace(GLOBAL_PROJECTION, MINIMAL_PROJECTION) if name.startswith(GLOBAL_PROJECTION) else name: value
            for name, value in weights.items()
        }


class RefineFusionRules(ClipFusionRules):
    """Rules of hf's fusion, whose AFEM and refine branch are held where they are not used."""

    def deciding_keys(self, name: str) -> str:
        if name.startswith("afem."):
            asked, key = self.model.uses_afem, "MODEL.CLIP_USE_AFEM True asks for it"
        elif name.startswith("sem_refine_proj."):
            asked, key = self.model.uses_refine, "MODEL.CLIP_USE_SEM_REFINE True asks for it"
        else:
            return super().deciding_keys(name)
        return f"{key}, and the width of the tower decides it" if asked and super().deciding_keys(name) else ""

    def warnings(self, report: LoadReport) -> list[str]:
        norm = self.model.afem.linear[1]
        trained = bool(norm.num_batches_tracked)  # it counts batches only where it is used
        warnings = super().warnings(report)
        if trained != self.model.uses_afem:
            how = "with" if trained else "without"
            keys = "MODEL.CLIP_USE_AFEM and CLIP_USE_SEM_REFINE"
            warnings.append(f"the checkpoint was trained {how} AFEM; set {keys} as in its training")
        return warnings


def leave_out_tower(model: nn.Module) -> None:
    """Keep the tower out of the model's state dict; the buffer `clip_fingerprint` stands there for it.

    Loading a state dict with the fingerprint of another tower raises DataError.
    """
    model.register_buffer(FINGERPRINT, fingerprint(model.clip_model))
    model.register_state_dict_post_hook(_leave_out_tower)
    model.register_load_state_dict_pre_hook(_check_tower)
    model.register_load_state_dict_post_hook(_forgive_absent_tower)


def _leave_out_tower(module: nn.Module, state: Weights, prefix: str, local_metadata: dict[str, Any]) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}{TOWER}")]:
        del state[name]


def _forgive_absent_tower(module: nn.Module, keys: Any) -> None:
    absent = (f".{TOWER}", f".{FINGERPRINT}")  # Model B's checkpoints have no fingerprint
    keys.missing_keys[:] = [name for name in keys.missing_keys if not any(part in f".{name}" for part in absent)]


def _check_tower(module: nn.Module, state: Weights, prefix: str, *_: Any) -> None:
    if f"{prefix}{FINGERPRINT}" in state:
        check_fingerprint(state[f"{prefix}{FINGERPRINT}"], module.clip_fingerprint, module.clip_model)


def _listed(names: list[str]) -> str:
    """Return the names of fusion weights, and how many weights of the tower."""
    fusion = [name for name in names if not name.startswith(TOWER)]
    tower = len(names) - len(fusion)
    return ", ".join(fusion + [f"{TOWER}* ({tower} weights)"] * bool(tower))
