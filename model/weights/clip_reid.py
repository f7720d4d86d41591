"""Checkpoints of CLIP-ReID, ours and the original's, which have the same names."""

from __future__ import annotations

from torch import nn

from model.weights.load import LoadReport, Weights
from model.weights.refusals import of_a_deeper_model, of_another_kind

TOWER, TEXT, PROMPTS = "image_encoder.", "text_encoder.", "prompt_learner."
SIDES = "cv_embed"
POSITIONS = "positional_embedding"  # the end of the name of the image tower's table
BEYOND_THE_TOWER = {  # MODEL.PRETRAIN_CHOICE -> what else it takes from a ReID checkpoint
    "self": (TEXT, f"{PROMPTS}token_"),
    "finetune": (TEXT, PROMPTS, "bottleneck", "classifier", "supcon_head", SIDES),
}


class ClipReIDRules:
    """Weight rules of a `model`, a `ClipReID`."""

    grid = None  # a table of another grid is refused: the embedding would be another

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def translate(self, weights: Weights) -> Weights:
        """Return a checkpoint's weights by this model's names, which they have."""
        return weights

    def deciding_keys(self, name: str) -> str:
        if name.endswith("num_batches_tracked"):
            return ""
        if name.startswith(TOWER) and name.endswith(POSITIONS):
            return "INPUT.SIZE_TEST (and SIZE_TRAIN) and MODEL.STRIDE_SIZE decide it"
        if name.startswith(TOWER):
            return "MODEL.NAME, or of clip_reid MODEL.CLIP_BACKBONE, decides it"
        if name == SIDES:
            cameras, views = self.model.side_counts
            return (
                f"the data gives {cameras} cameras x {views} views "
                "(MODEL.SIE_CAMERA, MODEL.SIE_VIEW and the training set decide it)"
            )
        if name.startswith("bottleneck"):
            return "TEST.NECK_FEAT after asks for it" if self.model.neck_feat == "after" else ""
        return ""

    def refusal(self, weights: Weights) -> str:
        deeper = of_a_deeper_model(self.model, weights, TOWER, self.deciding_keys)
        return of_another_kind(weights, TOWER) or deeper

    def warnings(self, report: LoadReport) -> list[str]:
        if SIDES not in report.surplus:
            return []
        return [
            "the checkpoint was trained with side information, which is off here, so its embedding differs; "
            "set MODEL.SIE_CAMERA / MODEL.SIE_VIEW as in its training"
        ]
