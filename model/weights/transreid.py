"""Checkpoints of TransReID, and of Model B, whose CLIP fusion adds layers: what their names mean for a `TransReID`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from model.layers.lora import LoRALinear, fold_lora
from model.weights.load import LoadReport, Weights
from utils.errors import DataError

TRUNK = ("base.", "b1.", "b2.")  # how names of a trunk and of its copies begin
FUSION = ("clip_model.", "fuse_", "afem.", "sem_refine_proj.")  # what Model B's CLIP fusion adds
BEYOND_THE_TRUNK = {  # MODEL.PRETRAIN_CHOICE -> what else it takes from a ReID checkpoint
    "self": ("b2.",),
    "finetune": ("b2.", "bottleneck", "classifier", "supcon_head", "clip_fingerprint", *FUSION),
}


class TransReIDRules:
    """Weight rules of a `model`, a `TransReID`: its names are those of TransReID's checkpoints."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.grid = model.base.grid

    def translate(self, weights: Weights) -> Weights:
        """Return a checkpoint's weights by this model's names; adapters are folded in where this model has none."""
        return weights if any(isinstance(layer, LoRALinear) for layer in self.model.modules()) else fold_lora(weights)

    def deciding_keys(self, name: str) -> str:
        base, jigsaw = self.model.base, self.model.jigsaw
        if name.startswith(("classifier", "supcon_head")) or name.endswith("num_batches_tracked"):
            return ""
        if name.startswith("bottleneck"):
            return "MODEL.NECK and TEST.NECK_FEAT after ask for it" if self.model.neck_feat == "after" else ""
        if name.startswith(("b1.", "b2.")):
            return "MODEL.JPM True asks for it (with MODEL.TRANSFORMER_TYPE and MODEL.VIT)"
        name = name.removeprefix("base.")
        unused = (f"blocks.{len(base.blocks) - 1}", *base.tail_names) if jigsaw is not None else ()
        if name.startswith(tuple(f"{module}." for module in unused)):
            return ""
        return base.deciding_keys(name)

    def refusal(self, weights: Weights) -> str:
        base, jigsaw, ours = self.model.base, self.model.jigsaw, self.model.state_dict()
        if jigsaw is None and any(name.startswith("b1.") for name in weights):
            if self.grid is None:  # a ResNet
                return " was trained on a transformer; set MODEL.NAME transformer and the rest as in its training"
            return " was trained with the jigsaw module; set MODEL.JPM True as in its training"
        adapters = [name for name in weights if ".lora_" in name and name.startswith(TRUNK) and name not in ours]
        if adapters:  # of a model without adapters they are folded in
            return (
                f": {adapters[0]} is in the file, but not in this model; set MODEL.LORA.TARGETS as in its "
                "training, or MODEL.LORA.RANK 0, which folds the file's adapters into its weights"
            )
        deeper = [name for name in weights if name.startswith("base.blocks.") and name not in ours]
        if deeper and any(name in weights for name in ours):
            return (
                f": {deeper[0]} is in the file, but not in this model; "
                "MODEL.TRANSFORMER_TYPE and MODEL.VIT.DEPTH decide it"
            )
        last = f"base.blocks.{len(base.blocks) - 1}." if jigsaw is not None else ""
        whole_trunk = last and f"base.{base.norm_name}.weight" in weights
        if whole_trunk and not any(name.startswith(last) for name in weights):
            return (  # its own last block is untrained and would become a working one here
                f": {last}* is not in the file, which has fewer blocks than this model; "
                "MODEL.TRANSFORMER_TYPE and MODEL.VIT.DEPTH decide it"
            )
        return ""

    def warnings(self, report: LoadReport) -> list[str]:
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
        if self.model.jigsaw is not None:
            names = {name for name in (*report.surplus, *report.missing) if name.startswith("bottleneck_")}
            if names:
                warnings.append(
                    "the checkpoint has another number of local necks than MODEL.DEVIDE_LENGTH "
                    f"{self.model.jigsaw.branches}; the embedding is that of this run's branches"
                )
        if report.resized:
            warnings.append(
                "the checkpoint was trained with another patch grid (INPUT.SIZE_TRAIN, MODEL.STRIDE_SIZE) than this "
                f"model's {self.grid[0]} x {self.grid[1]}"
            )
        return warnings


def reid_trunk(weights: Mapping[str, torch.Tensor], tail_names: Sequence[str] = ("norm",)) -> Weights:
    """Return the trunk in a ReID checkpoint, with or without `base.` before its names.

    Where the checkpoint has a jigsaw module, its trained global block and what follows it (`b1`) stand for the last
    block and the modules `tail_names` of the trunk, which were left untrained. Raises DataError for branches that are
    those of no such trunk.
    """
    trunk = {name.removeprefix("base."): value for name, value in weights.items() if name.startswith("base.")}
    if not trunk:
        return dict(weights)
    numbers = [name.split(".")[1] for name in trunk if name.startswith("blocks.")]
    last = max((int(number) for number in numbers if number.isdecimal()), default=None)
    replaced = {f"b1.{index}.": name for index, name in enumerate((f"blocks.{last}", *tail_names))}
    for name, value in weights.items():
        if not name.startswith("b1."):
            continue
        prefix = next((prefix for prefix in replaced if name.startswith(prefix)), None)
        if prefix is None or last is None:
            raise DataError(f"the file's {name} belongs to another trunk than MODEL.TRANSFORMER_TYPE names")
        trunk[f"{replaced[prefix]}.{name.removeprefix(prefix)}"] = value
    return trunk
