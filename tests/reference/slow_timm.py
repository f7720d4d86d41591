"""A TransReID model on a trunk of timm, run the long way: attention written out, all tokens, branch after branch."""

import torch
from torch import nn

from tests.reference.slow_transreid import Outputs, Shape, rearrange


def train_outputs(model: nn.Module, images: torch.Tensor) -> Outputs:
    """Return what `model`, in training mode, should return; its feature is the class token of the last block."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    pre_bn = _features(model, images)
    names = [f"_{number}" if number else "" for number in range(len(pre_bn))]
    bnneck = [model.get_submodule(f"bottleneck{name}")(feat) for name, feat in zip(names, pre_bn, strict=True)]
    logits = [model.get_submodule(f"classifier{name}")(feat) for name, feat in zip(names, bnneck, strict=True)]
    return Outputs(logits, pre_bn, bnneck, None)


def _features(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    base, jigsaw = model.base, model.jigsaw
    tokens = base.forward_tokens(images, skip_last=1)  # [B, P + N, D]
    rotation, prefix = base.rotations()[-1], base.num_prefix
    if jigsaw is None:
        return [base.norm(base.blocks[-1](tokens, rope=rotation))[:, 0]]
    feats = [model.b1[1](model.b1[0](tokens, rope=rotation))[:, 0]]
    count = tokens.shape[1] - prefix
    shape = Shape(1, 0, 1, 0, 0, 0, shift=jigsaw.shift, groups=jigsaw.groups)
    order = rearrange(torch.arange(count)[:, None], shape)[:, 0]
    length = count // jigsaw.branches
    for branch in range(jigsaw.branches):
        patches = order[branch * length : (branch + 1) * length]
        part = torch.cat([tokens[:, :prefix], tokens[:, prefix + patches]], dim=1)
        feats.append(model.b2[1](model.b2[0](part, rope=rotation[..., patches, :]))[:, 0])
    return feats
