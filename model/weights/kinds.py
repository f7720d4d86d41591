"""What the names in a file tell about the model it is from."""

from collections.abc import Mapping

import torch

FOR_REID = "which TEST.WEIGHT and MODEL.PRETRAIN_CHOICE self or finetune take"
FOR_IMAGENET = "which MODEL.PRETRAIN_CHOICE imagenet takes"


def describe(weights: Mapping[str, torch.Tensor]) -> str:
    """Return in words what the names of a state dict look like."""
    signs = {
        "a checkpoint of IRRA, which MODEL.NAME irra takes": ("base_model.visual.conv1.weight",),
        "a checkpoint of several modalities, which MODEL.NAME multimodal takes": (
            "vision.tokenizers.vis.conv1.weight",
        ),
        "a checkpoint of CLIP-ReID, which MODEL.NAME clip_reid takes": (
            "bottleneck_proj.weight",
            "prompt_learner.cls_ctx",
        ),
        "a CLIP model": ("visual.conv1.weight", "visual.class_embedding", "image_encoder.conv1.weight"),
        f"a TransReID checkpoint with JPM, {FOR_REID}": ("b1.0.norm1.weight",),
        f"a TransReID checkpoint, {FOR_REID}": ("base.cls_token",),
        "a PCB checkpoint, which MODEL.NAME pcb takes": (
            "reduction.whole.weight",
            "reduction.part1.weight",
            "Pcb.branch.0.0.weight",
        ),
        "a PCB of torchreid, whose trunk MODEL.NAME pcb takes with MODEL.PRETRAIN_CHOICE self": (
            "conv5.layers.0.weight",
        ),
        f"a ResNet ReID checkpoint, {FOR_REID}": ("base.conv1.weight",),
        f"a distilled DeiT, {FOR_IMAGENET}": ("dist_token",),
        f"a plain ViT, {FOR_IMAGENET}": ("cls_token", "backbone.cls_token"),
        f"a plain ResNet, {FOR_IMAGENET}": ("layer1.0.conv1.weight", "backbone.layer1.0.conv1.weight"),
    }
    for text, names in signs.items():
        if any(name in weights for name in names):
            return text
    return f"an unknown model (its weights are called {', '.join(list(weights)[:3])}, ...)"
