"""Why a file belongs to another model, as the words that follow the file's name; '' where it does not."""

from collections.abc import Callable

from torch import nn

from model.weights.load import Weights

A_CLIP = "is a CLIP, which MODEL.CLIP_LOCAL_PATH takes with MODEL.PRETRAIN_CHOICE imagenet"
KINDS = {  # how names of weights begin -> what such a file is, and what to do
    "reduction.": "is a checkpoint of PCB (its weights are called reduction.*); set MODEL.NAME pcb, and "
    "MODEL.PCB as in its training",
    "base.": "is a checkpoint of TransReID (its weights are called base.*); set MODEL.NAME transformer, or resnet50, "
    "and the rest as in its training",
    "image_encoder.": "is a checkpoint of CLIP-ReID (its weights are called image_encoder.*); set MODEL.NAME clip_reid",
    "base_model.": "is a checkpoint of IRRA (its weights are called base_model.*); set MODEL.NAME irra",
    "vision.": "is a checkpoint of several modalities (its weights are called vision.*); set MODEL.NAME multimodal",
    "visual.": A_CLIP,
    "vision_model.": A_CLIP,
}


def of_another_kind(weights: Weights, own: str) -> str:
    """Refuse a file of another kind, which has no weight whose name begins with `own`."""
    if any(name.startswith(own) for name in weights):
        return ""
    return next((f" {what}" for start, what in KINDS.items() if any(name.startswith(start) for name in weights)), "")


def of_a_deeper_model(
    model: nn.Module, weights: Weights, towers: str | tuple[str, ...], deciding_keys: Callable[[str], str]
) -> str:
    """Refuse a file of this model's kind that has more in its `towers`, the beginnings of names, than the model."""
    ours = model.state_dict()
    deeper = [name for name in weights if name.startswith(towers) and name not in ours]
    if deeper and any(name in weights for name in ours):
        return f": {deeper[0]} is in the file, but not in this model; {deciding_keys(deeper[0])}"
    return ""
