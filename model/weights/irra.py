"""Checkpoints of IRRA, ours and the original's, which have the same names."""

from __future__ import annotations

from torch import nn

from model.weights.convert import fitted_text_positions
from model.weights.load import LoadReport, Weights
from model.weights.refusals import of_a_deeper_model, of_another_kind

TOWERS = "base_model."
IMAGE_POSITIONS = f"{TOWERS}visual.positional_embedding"
TEXT_POSITIONS = f"{TOWERS}positional_embedding"
BLOCKS = (f"{TOWERS}visual.transformer.", f"{TOWERS}transformer.")
BEYOND_THE_TOWERS = {  # MODEL.PRETRAIN_CHOICE -> what else it takes from a checkpoint
    "self": (),
    "finetune": ("classifier", "cross_", "ln_", "mlm_head"),
}


class IrraRules:
    """Weight rules of a `model`, an `Irra`."""

    grid = None  # a table of another grid is refused: the embedding would be another

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def translate(self, weights: Weights) -> Weights:
        """Return a checkpoint's weights; where its captions have another length, with positions for ours."""
        return fitted_text_positions(weights, TEXT_POSITIONS, self.model.get_parameter(TEXT_POSITIONS))

    def deciding_keys(self, name: str) -> str:
        if name == IMAGE_POSITIONS:
            return "INPUT.SIZE_TEST (and SIZE_TRAIN) and MODEL.STRIDE_SIZE decide it"
        return "MODEL.CLIP_BACKBONE decides it" if name.startswith(TOWERS) else ""

    def refusal(self, weights: Weights) -> str:
        deeper = of_a_deeper_model(self.model, weights, BLOCKS, self.deciding_keys)
        return of_another_kind(weights, TOWERS) or deeper

    def warnings(self, report: LoadReport) -> list[str]:
        return []
