"""Margins of cosine classifiers: each function turns cosines into logits for the ordinary cross-entropy.

All share one signature, (cosine [B, C] in [-1, 1], labels [B], scale s, margin m) -> logits [B, C] of at least
float32, and differ in the logit of the target class and, for circle, of the others. Labels outside 0..C-1 raise.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from utils.precision import at_least_float32

MIN_SQUARED_SINE = 1e-12  # the gradient of the sine is infinite at |cosine| = 1; below this it is 0

Margin = Callable[[torch.Tensor, torch.Tensor, float, float], torch.Tensor]


def arcface(cosine: torch.Tensor, labels: torch.Tensor, scale: float, margin: float) -> torch.Tensor:
    """Return s cos(angle + m) for the target and s c for the others.

    Where angle + m would pass pi (c <= cos(pi - m)) the target is s (c - m sin(pi - m)), which keeps it falling with
    the angle. m is in radians, [0, pi].
    Reference: Deng et al., ArcFace, CVPR 2019, equation 3.
    """
    cosine = at_least_float32(cosine)
    target = _target(cosine, labels)  # [B, 1]
    sine = (1 - target.square()).clamp(min=MIN_SQUARED_SINE).sqrt()
    shifted = target * math.cos(margin) - sine * math.sin(margin)
    linear = target - margin * math.sin(math.pi - margin)
    target = torch.where(target > math.cos(math.pi - margin), shifted, linear)
    return _with_target(scale * cosine, labels, scale * target)


def cosface(cosine: torch.Tensor, labels: torch.Tensor, scale: float, margin: float) -> torch.Tensor:
    """Return s (c - m) for the target and s c for the others.

    Reference: Wang et al., CosFace, CVPR 2018, equation 4.
    """
    cosine = at_least_float32(cosine)
    return _with_target(scale * cosine, labels, scale * (_target(cosine, labels) - margin))


amsoftmax = cosface  # Wang et al., Additive Margin Softmax, 2018, equation 6: the same formula


def circle(cosine: torch.Tensor, labels: torch.Tensor, scale: float, margin: float) -> torch.Tensor:
    """Return s [1 + m - c]+ (c - (1 - m)) for the target and s [c + m]+ (c - m) for the others.

    The factors [.]+ weigh a logit by its distance from its optimum and carry no gradient.
    Reference: Sun et al., Circle Loss, CVPR 2020, equations 6 and 8.
    """
    cosine = at_least_float32(cosine)
    target = _target(cosine, labels)
    others = F.relu(cosine + margin).detach() * (cosine - margin)
    target = F.relu(1 + margin - target).detach() * (target - (1 - margin))
    return _with_target(scale * others, labels, scale * target)


MARGINS: dict[str, Margin] = {"arcface": arcface, "cosface": cosface, "amsoftmax": amsoftmax, "circle": circle}


def _target(cosine: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cosine.gather(1, labels[:, None])


def _with_target(logits: torch.Tensor, labels: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return logits.scatter(1, labels[:, None], target)
