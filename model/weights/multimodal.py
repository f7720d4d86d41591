"""Checkpoints of the model of several modalities; its names are its own."""

from __future__ import annotations

import logging

from torch import nn

from configs.modalities import MODALITIES, TEXT
from model.weights.convert import fitted_text_positions
from model.weights.load import LoadReport, Weights
from model.weights.refusals import of_a_deeper_model, of_another_kind

logger = logging.getLogger(__name__)

VISION, TEXT_TOWER = "vision.", "text."
TOKENIZERS = f"{VISION}tokenizers."
POSITIONS = ".positional_embedding"  # the end of the name of a modality's table
TEXT_POSITIONS = f"{TEXT_TOWER}positional_embedding"
BLOCKS = (f"{VISION}blocks.", f"{TEXT_TOWER}transformer.")
BEYOND_THE_TOWERS = {  # MODEL.PRETRAIN_CHOICE -> what else it takes from a checkpoint
    "self": (),
    "finetune": ("semantic.", "fusion.", "bottleneck", "classifier"),
}
PRCV = ("clip_encoder.", "null_tokens.", "feature_fusion.", "bn_neck.")  # how names begin in files of PRCV2025REID
PRCV_REFUSAL = (
    " is a checkpoint of PRCV2025REID (its weights are called clip_encoder.*), which cannot give the same embedding "
    "here: it was trained without CLIP's first norm and with another activation, on squashed images, and a single "
    "modality went past its fusion; train anew from CLIP's own weights (MODEL.PRETRAIN_CHOICE imagenet)"
)


class MultiModalRules:
    """Weight rules of a `model`, a `MultiModalReID`."""

    grid = None  # a table of another grid is refused: the embedding would be another

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def translate(self, weights: Weights) -> Weights:
        """Return a checkpoint's weights without those of modalities that the model does not read.

        Where its captions have another length, with positions for ours.
        """
        others = [name for name in MODALITIES if name not in self.model.modalities]
        alien = [name for name in weights if any(_is_of(name, other) for other in others)]
        if alien:
            logger.info("%d weights of the file are of modalities that this model does not read: ignored", len(alien))
        weights = {name: value for name, value in weights.items() if name not in set(alien)}
        if TEXT not in self.model.modalities:
            return weights
        return fitted_text_positions(weights, TEXT_POSITIONS, self.model.get_parameter(TEXT_POSITIONS))

    def deciding_keys(self, name: str) -> str:
        if name.endswith("num_batches_tracked") or name.startswith("classifier"):
            return ""
        modality = next((own for own in self.model.modalities if _is_of(name, own)), "")
        if name.startswith(TOKENIZERS) and name.endswith(POSITIONS):
            return f"INPUT.SIZE_TEST (and SIZE_TRAIN), MODEL.STRIDE_SIZE and {_reads(modality)} decide it"
        if modality:
            rank = "MODEL.MULTIMODAL.RANK, " if ".lora_" in name else ""
            return f"{rank}MODEL.CLIP_BACKBONE and {_reads(modality)} decide it"
        if name.startswith("semantic."):
            return "MODEL.MULTIMODAL.SEMANTIC True asks for it"
        if name.startswith("fusion."):
            return "MODEL.CLIP_BACKBONE and MODEL.MULTIMODAL.MLP_RATIO decide it"
        return "MODEL.CLIP_BACKBONE decides it"

    def refusal(self, weights: Weights) -> str:
        if any(name.startswith(PRCV) for name in weights):
            return PRCV_REFUSAL
        deeper = of_a_deeper_model(self.model, weights, BLOCKS, self.deciding_keys)
        return of_another_kind(weights, VISION) or deeper

    def warnings(self, report: LoadReport) -> list[str]:
        if not any(name.startswith("semantic.") for name in report.surplus):
            return []
        return [
            "the checkpoint was trained with a semantic head, so its embedding differs; set MODEL.MULTIMODAL.SEMANTIC "
            "True"
        ]


def _is_of(name: str, modality: str) -> bool:
    """Return whether one modality alone goes through a weight."""
    if modality == TEXT:
        return name.startswith(TEXT_TOWER)
    return name.startswith(f"{TOKENIZERS}{modality}.") or name.endswith((f".lora_a.{modality}", f".lora_b.{modality}"))


def _reads(modality: str) -> str:
    return f"MODEL.MULTIMODAL.MODALITIES, which has {modality},"
