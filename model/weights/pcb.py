"""Checkpoints of PCB: ours, and those of pytorch-reid-lite and torchreid, whose names and shapes are translated."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import nn

from model.outputs import GLOBAL
from model.weights.load import LoadReport, Weights
from model.weights.refusals import of_a_deeper_model, of_another_kind

WHOLE = "whole"  # layers of the global branch: `global` is a word of Python, which TorchScript reads as no name
BEYOND_THE_TRUNK = {  # MODEL.PRETRAIN_CHOICE -> what else it takes from a ReID checkpoint
    "self": ("global_stage4.",),
    "finetune": ("global_stage4.", "global_pool.", "part_pool.", "gate.", "reduction.", "bottleneck.", "classifier."),
}
LITE = (  # names of pytorch-reid-lite -> ours, {} is the number of the stripe; stripes count from 0 there
    (r"model\.(.+)", "base.{}"),
    (r"Pcb\.branch\.(\d+)\.0\.(.+)", "reduction.part{}.{}"),
    (r"Pcb\.branch\.(\d+)\.1\.(.+)", "bottleneck.part{}.{}"),
    (r"Pcb\.classifier\.(\d+)\.(.+)", "classifier.part{}.{}"),
    (r"fc(?:_g)?\.0\.(.+)", "reduction.whole.{}"),
    (r"fc(?:_g)?\.1\.(.+)", "bottleneck.whole.{}"),
    (r"classifier(?:_g)?\.(weight|bias)", "classifier.whole.{}"),
)
LITE_GATE = (r"mask(?:_g)?\.([01]\..+)", "gate.{}")
SHARED = "conv5.layers."  # torchreid's one reduction of all stripes: a convolution without bias, then its norm
OF_SHARED = ("reduction.part", "bottleneck.part")  # what torchreid's becomes
OF_PART = re.compile(r"(?:reduction|bottleneck)\.part(\d+)\.")
OF_STEM = ("conv1.", "bn1.", "layer1.")


class PcbRules:
    """Weight rules of a `model`, a `PCB`."""

    grid = None  # there is no position embedding

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def translate(self, weights: Weights) -> Weights:
        """Return the weights of a checkpoint, ours or pytorch-reid-lite's, by our names."""
        return by_our_names(weights, self.model.gated)

    def deciding_keys(self, name: str) -> str:
        if name.startswith("classifier.") or name.endswith("num_batches_tracked"):
            return ""
        trunk = getattr(self.model.base, "kind", "")
        for start, keys in (
            ("base.", f"MODEL.PCB.TRUNK {trunk} decides it"),
            ("global_stage4.", f"MODEL.PCB.OWN_STAGE4 True asks for it, of TRUNK {trunk}"),
            ("gate.", "MODEL.PCB.GATE True asks for it"),
            ("global_pool.", "MODEL.PCB.GLOBAL_POOL gem asks for it"),
            ("part_pool.", f"MODEL.PCB.PART_POOL gem asks for it, with PARTS {self.model.parts}"),
        ):
            if name.startswith(start):
                return keys
        branch = _branch(name)
        width = self.model.branches[branch]
        if branch == GLOBAL:
            return f"MODEL.PCB.GLOBAL_DIM {width} and TRUNK {trunk} decide it"
        return f"MODEL.PCB.PARTS {self.model.parts}, PART_DIM {width} and TRUNK {trunk} decide it"

    def refusal(self, weights: Weights) -> str:
        theirs = max((int(found[1]) for name in weights if (found := OF_PART.match(name))), default=0)
        if theirs > self.model.parts > 0:
            return (
                f" was trained with {theirs} stripes, this model has {self.model.parts}, which are others; set "
                f"MODEL.PCB.PARTS {theirs}"
            )
        sees_the_shared = GLOBAL in self.model.branches and not self.model.own_stage4
        if sees_the_shared and any(name.startswith("global_stage4.") for name in weights):
            return " has a last stage for its global branch; set MODEL.PCB.OWN_STAGE4 True as in its training"
        deeper = of_a_deeper_model(self.model, weights, "base.layer", self.deciding_keys)
        return of_another_kind(weights, "base.") or deeper

    def warnings(self, report: LoadReport) -> list[str]:
        warnings = []
        for start, key in (
            ("gate.", "GATE True"),
            ("global_pool.", "GLOBAL_POOL gem"),
            ("part_pool.", "PART_POOL gem"),
        ):
            if any(name.startswith(start) for name in report.surplus):
                warnings.append(f"the checkpoint was trained with MODEL.PCB.{key}, so its embedding differs; set it")
        left = sorted({_branch(name) for name in report.surplus if name.startswith("reduction.")})
        if left:
            warnings.append(
                f"the checkpoint has the branches {', '.join(left)} too, which this model lacks, so its embedding "
                "differs; set MODEL.PCB.PARTS and GLOBAL_DIM as in its training"
            )
        return warnings


def by_our_names(weights: Mapping[str, torch.Tensor], gated: bool = False) -> Weights:
    """Return weights with pytorch-reid-lite's names and shapes turned into ours; all others as they are.

    Its gate is left as it is too unless the model is `gated`: most of its runs made one and did not use it.
    """
    table = (*LITE, LITE_GATE) if gated else LITE
    translated = {}
    for name, value in weights.items():
        ours = _our_name(name, table)
        if ours.startswith(("reduction.", "gate.")) and value.dim() == 4 and value.shape[2:] == (1, 1):
            value = value[:, :, 0, 0]  # a convolution of one pixel
        translated[ours] = value
    return translated


def is_torchreid(weights: Mapping[str, torch.Tensor]) -> bool:
    """Return whether weights are those of torchreid's pcb_p4 or pcb_p6."""
    return f"{SHARED}0.weight" in weights and any(name.startswith(OF_STEM) for name in weights)


def from_torchreid(weights: Mapping[str, torch.Tensor], parts: int) -> Weights:
    """Return torchreid's weights by our names: its trunk, and its one reduction copied into each of the stripes.

    Its classifiers are left out: they follow a ReLU that is not here.
    """
    trunk = {f"base.{name}": value for name, value in weights.items() if not name.startswith((SHARED, "classifier."))}
    shared = {name.removeprefix(SHARED): value for name, value in weights.items() if name.startswith(SHARED)}
    matrix = shared.pop("0.weight").flatten(1)  # [d, c]
    reduction = {"reduction.part{}.weight": matrix, "reduction.part{}.bias": matrix.new_zeros(len(matrix))}
    norm = {f"bottleneck.part{{}}.{name.removeprefix('1.')}": value for name, value in shared.items()}
    copies = {
        name.format(number): value for number in range(1, parts + 1) for name, value in (reduction | norm).items()
    }
    return trunk | copies


def _branch(name: str) -> str:
    """Return the branch of a layer `<kind>.<branch>.*`."""
    layer = name.split(".")[1]
    return GLOBAL if layer == WHOLE else layer


def _our_name(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, ours in table:
        found = re.fullmatch(pattern, name)
        if found:
            groups = [str(int(part) + 1) if part.isdecimal() else part for part in found.groups()]
            return ours.format(*groups)
    return name
