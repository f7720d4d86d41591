"""Persons searched by any combination of modalities: one CLIP with adapters for each, and the fusion of several.

References: Zuo et al., ReID5o: Achieving Omni Multi-modal Person Re-identification in a Single Model, NeurIPS 2025 (the
task and the first layers); Luo et al., Bag of Tricks and A Strong Baseline for Deep Person Re-identification, CVPRW
2019 (the neck).
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from configs.modalities import MODALITIES, TEXT, sets_of
from model.backbones.clip_adapted import AdaptedTower
from model.backbones.clip_joint import JointClip, cut_without_waiting
from model.layers.heads import make_linear, make_neck
from model.layers.masked_fusion import MaskedFusion
from model.layers.masked_norm import MaskedNorm
from model.outputs import GLOBAL, ModelOutput
from model.parts import Part
from model.weights.load import LoadReport, WeightRules, load_param
from model.weights.multimodal import TEXT_TOWER, VISION, MultiModalRules
from utils.precision import at_least_float32, without_autocast

Tensors = Mapping[str, torch.Tensor]  # by modality
BLOCKS, TEXT_BLOCKS = f"{VISION}blocks.", f"{TEXT_TOWER}transformer.resblocks."
SHARED = (BLOCKS, f"{VISION}ln_post.", TEXT_TOWER)  # beginnings of names of CLIP's own weights
TEXT_PROJECTION = f"{TEXT_TOWER}text_projection"
ADAPTERS = (".lora_a.", ".lora_b.")
BEFORE_THE_BLOCKS = (f"{VISION}tokenizers.", f"{TEXT_TOWER}token_embedding.", f"{TEXT_TOWER}positional_embedding")


class MultiModalReID(nn.Module):
    """Images and captions by modality -> ModelOutput in training mode, one embedding [B, D] in evaluation.

    z_m is the feature of modality m; phi(S) = neck(fuse({s(z_m) : m in S})) of a set S of them is what classifiers,
    losses and searches see, of one modality as of several. `vision` encodes images, `text` captions (None = none);
    `semantic` is s, None = the identity.

    Inputs are {modality: images [B, 3, H, W] or tokens int64 [B, L]}, masks {modality: bool [B]}: a modality that is
    left out or masked is missing, and whatever a masked place holds changes nothing. `modalities` has those that the
    model reads, in the order of MODALITIES, `sets` every set that it trains: RGB, then those of a query.
    """

    side_counts, side_rows = (0, 0), 0  # there is no side information

    def __init__(
        self,
        vision: AdaptedTower,
        text: JointClip | None,
        num_class: int,
        fusion: MaskedFusion,
        semantic: nn.Module | None = None,
        head_dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.modalities = tuple(
            name for name in MODALITIES if name in vision.tokenizers or (name == TEXT and text is not None)
        )
        self.sets = sets_of(self.modalities)
        self.num_class, self.feat_dim = num_class, vision.width
        self.branches = {GLOBAL: vision.width}
        self.vision, self.text, self.semantic, self.fusion = vision, text, semantic, fusion
        self.bottleneck = make_neck(vision.width, MaskedNorm)
        self.head_dropout = nn.Dropout(head_dropout)
        self.classifier = make_linear(vision.width, num_class)
        self._sizes = tuple(dict.fromkeys(map(len, self.sets)))
        for size in self._sizes:  # sets stand in the order of their sizes
            places = [list(map(self.modalities.index, names)) for names in self.sets if len(names) == size]
            self.register_buffer(f"of_size_{size}", torch.tensor(places), persistent=False)  # [sets of it, size]

    def forward(self, inputs: Tensors, mask: Tensors | None = None) -> ModelOutput | torch.Tensor:
        """Return ModelOutput (training) or the embedding [B, D] (evaluation); arguments and errors as in `embed`."""
        return self.forward_output(inputs, mask) if self.training else self.embed(inputs, mask)

    def forward_output(self, inputs: Tensors, mask: Tensors | None = None) -> ModelOutput:
        """Return ModelOutput in either mode, its lists one entry for each of `sets`; arguments as in `embed`.

        `extra` has `valid`, bool [B, sets]: whether all modalities of a set are there. Values of other rows are 0, and
        they are in no statistic. A mask on the CPU spares the work on what is missing without a wait for the device.
        """
        self._check(inputs)
        z, there = self._features(self.modalities, inputs, mask)
        z = z if self.semantic is None else self.semantic(z)
        by_size = [(z[:, places], there[:, places].all(2)) for places in self._places()]  # [B, n, size, D], [B, n]
        fused = torch.cat([self.fusion(rows.flatten(0, 1)).unflatten(0, rows.shape[:2]) for rows, _ in by_size], 1)
        valid = torch.cat([whole for _, whole in by_size], 1)  # [B, sets]
        pre_bn = torch.where(valid[..., None], at_least_float32(fused), 0)
        bnneck = self._neck(fused.flatten(0, 1), valid.flatten()).view_as(fused)
        logits = self.classifier(self.head_dropout(bnneck))
        by_set = [list(values.unbind(1)) for values in (logits, pre_bn, bnneck)]
        return ModelOutput(*by_set, extra={"valid": valid})

    def encode(self, modality: str, x: torch.Tensor) -> torch.Tensor:
        """Return z [B, D] of images [B, 3, H, W] or tokens int64 [B, L] of a modality, before the semantic head.

        At least float32, not normalised. Raises ValueError for a modality that the model does not read, and for
        captions of more than INPUT.TEXT.LENGTH tokens.
        """
        self._check((modality,))
        z = self.text.text_feature(x) if modality == TEXT else self.vision(x, modality)
        return at_least_float32(z)

    def fuse(self, z: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return phi [B, D] of features z [B, n, D] of n modalities, in any order, where `valid`, bool [B, n], is True.

        At least float32, not normalised. What is not valid may hold anything; a row without any gives zeros.
        """
        z = torch.where(valid[..., None], z, 0)
        z = z if self.semantic is None else self.semantic(z)
        return self._neck(self.fusion(z, valid), valid.any(1))

    def embed(self, inputs: Tensors, mask: Tensors | None = None) -> torch.Tensor:
        """Return phi [B, D] of what is there, at least float32, not normalised; zeros where nothing is.

        Raises ValueError where there are no inputs at all, and for a modality that the model does not read.
        """
        self._check(inputs)
        return self.fuse(*self._features([name for name in self.modalities if name in inputs], inputs, mask))

    def embed_batch(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return phi [B, D] of the `modalities` of a batch, as far as they are `present`, where it says so."""
        return self.embed(_cut(batch["modalities"]), batch.get("present"))

    def encode_batch(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return z [B, D] of a batch of items of one modality; ValueError for one of several."""
        if len(batch["modalities"]) != 1:
            raise ValueError(
                f"a batch of {', '.join(batch['modalities']) or 'nothing'}, expected items of one modality"
            )
        ((modality, x),) = _cut(batch["modalities"]).items()
        return self.encode(modality, x)

    def merged_visual(self, modality: str) -> dict[str, torch.Tensor]:
        """Return the image tower of one modality by open_clip's names, `visual.*`, its adapters folded in, detached.

        Raises ValueError for a modality that is none of images here.
        """
        return {f"visual.{name}": value for name, value in self.vision.folded(modality).items()}

    def _check(self, names: Collection[str]) -> None:
        unknown = [name for name in names if name not in self.modalities]
        if unknown or not len(names):
            got = f"'{unknown[0]}' is no modality of this model" if unknown else "no modality is given to this model"
            raise ValueError(f"{got}, which has {', '.join(self.modalities)} (MODEL.MULTIMODAL.MODALITIES)")

    def _features(
        self, names: Sequence[str], inputs: Tensors, mask: Tensors | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return z [B, n, D] of the modalities `names`, zeros where they are missing, and which are there, [B, n]."""
        first = next(iter(inputs.values()))
        mask = mask or {}
        z, there = [], []
        for name in names:
            present = mask.get(name)
            z.append(self._present(name, inputs[name], present) if name in inputs else self._absent(name, len(first)))
            if present is None or name not in inputs:
                present = torch.full((len(first),), name in inputs)
            there.append(present.to(first.device, non_blocking=True))
        return torch.stack(z, 1), torch.stack(there, 1)

    def _present(self, modality: str, x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        """Return z [B, D] where a modality is `present`, bool [B], and zeros elsewhere."""
        if present is None:
            return self.encode(modality, x)
        if not _tells_rows(present):
            z = self.encode(modality, torch.where(present.view(-1, *[1] * (x.dim() - 1)), x, 0))
            return torch.where(present[:, None], z, 0)
        rows = present.nonzero().squeeze(1).to(x.device, non_blocking=True)
        if len(rows) == len(x):
            return self.encode(modality, x)
        if len(rows) == 0:
            return self._absent(modality, len(x))
        z = self.encode(modality, x[rows])
        return z.new_zeros(len(x), self.feat_dim).index_copy(0, rows, z)

    def _absent(self, modality: str, count: int) -> torch.Tensor:
        """Return zeros [count, D] through which the weights of a modality alone have gradients of 0.

        None would be another: several processes wait for a gradient, and an optimizer decays what has one of 0.
        """
        own = self.text.parameters() if modality == TEXT else self.vision.own_weights(modality)
        nothing = [weight.flatten()[:0].sum() for weight in own if weight.requires_grad]
        zeros = self.vision.proj.new_zeros(count, self.feat_dim)
        return at_least_float32(zeros + torch.stack(nothing).sum() if nothing else zeros)

    def _places(self) -> list[torch.Tensor]:
        """Return the places int64 [n, size] in `modalities` of the n sets of each size."""
        return [self.get_buffer(f"of_size_{size}") for size in self._sizes]

    def _neck(self, fused: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        with without_autocast(fused):
            return self.bottleneck(at_least_float32(fused), valid)

    def keep_embedding_only(self) -> None:
        """Remove what training alone reads: the classifier."""
        del self.classifier

    @property
    def depth(self) -> int:
        """Number of blocks of the image tower."""
        return len(self.vision.blocks)

    def part_of(self, name: str) -> Part:
        """Return the part of the model in which a parameter is; see `Part`. Layers of a tower count from its input.

        The trunk are CLIP's weights that all modalities of images share, and those of its text tower, but for both
        projections; all else is new, and its biases learn as fast as its weights.
        """
        last = self.depth + 1
        blocks = next((blocks for blocks in (BLOCKS, TEXT_BLOCKS) if name.startswith(blocks)), "")
        if blocks:
            layer = int(name.removeprefix(blocks).split(".")[0]) + 1
        else:
            layer = 0 if name.startswith(BEFORE_THE_BLOCKS) else last
        if name.startswith(SHARED) and name != TEXT_PROJECTION and not any(part in name for part in ADAPTERS):
            return Part("trunk", layer)
        return Part("head", last) if name.startswith("classifier") else Part("new", layer, alike=True)

    def load_param(self, path: str | Path, key: str = "TEST.WEIGHT") -> LoadReport:
        """Load a trained checkpoint of ours; see `model.weights.load.load_param`."""
        return load_param(self, self.weight_rules(), path, key)

    def weight_rules(self) -> WeightRules:
        """Return what is known about checkpoints for this model."""
        return MultiModalRules(self)


def _tells_rows(mask: torch.Tensor) -> bool:
    """Return whether nothing has to wait for the places at which a mask is True."""
    return mask.device.type == "cpu" and not torch.compiler.is_compiling()


def _cut(inputs: Tensors) -> dict[str, torch.Tensor]:
    """Return the inputs, their captions cut to the longest where nothing has to wait for that."""
    return {name: cut_without_waiting(x) if name == TEXT else x for name, x in inputs.items()}
