"""ImageNet files, of ViT, distilled DeiT and ResNet -> our trunks."""

import math
from collections.abc import Mapping

import torch

from model.weights.load import Weights

CLASSIFIER_PREFIXES = ("head", "fc.", "fc_norm.", "pre_logits")  # of ImageNet files
DISTILLATION = "dist"  # in dist_token, head_dist


def imagenet_trunk(weights: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> Weights:
    """Return the trunk in an ImageNet file (ViT, distilled DeiT, ResNet), without classifiers, by our names.

    The position of a distillation token is dropped. A patch projection stored as a matrix takes the shape
    [D, 3, p, p] that it has in the state dict `target`. A prefix `backbone.` is removed.
    """
    weights = {name.removeprefix("backbone."): value for name, value in weights.items()}
    distilled = "dist_token" in weights
    trunk = {}
    for name, value in weights.items():
        if name.startswith(CLASSIFIER_PREFIXES) or DISTILLATION in name:
            continue
        if name == "pos_embed":
            value = without_distillation(value, distilled)
        if name == "patch_embed.proj.weight" and name in target and value.numel() == target[name].numel():
            value = value.reshape(target[name].shape)
        trunk[name] = value
    return trunk


def without_distillation(pos_embed: torch.Tensor, distilled: bool) -> torch.Tensor:
    """Return a position embedding [1, 1 + N, D] from [1, 1 + N, D] or, of a distilled DeiT, [1, 2 + N, D].

    Which of them it is says `distilled` or, where the file does not tell, a number of slots that is two above a square.
    """
    if pos_embed.dim() == 3 and (distilled or _has_two_extra_slots(pos_embed)):
        return torch.cat([pos_embed[:, :1], pos_embed[:, 2:]], dim=1)
    return pos_embed


def _has_two_extra_slots(pos_embed: torch.Tensor) -> bool:
    count = pos_embed.shape[1]
    return count > 2 and not _is_square(count - 1) and _is_square(count - 2)


def _is_square(count: int) -> bool:
    return math.isqrt(count) ** 2 == count
