"""Attention roll-out: from which patches a branch's feature comes if attention alone moved information.

With A_l the attention of layer l, averaged over its heads, and half of each token kept by the residual connection, the
share of token j in a feature that pools the last tokens with weights s is s^T (A_L/2 + I/2) ... (A_1/2 + I/2) e_j.
Reference: Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020, section 3.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from timm.layers import AttentionPoolLatent, AttentionRope
from timm.models.eva import EvaAttention
from timm.models.vision_transformer import Attention
from torch import nn

from model.backbones.vit import VisionTransformer
from model.layers.pooling import Pooling, reads_first_token
from model.transreid import TransReID
from utils.errors import ConfigError

HEAD_FUSIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {  # [B, heads, S, T] -> [B, S, T]
    "mean": lambda weights: weights.mean(1),
    "max": lambda weights: weights.amax(1),
    "min": lambda weights: weights.amin(1),
}
ATTENTION_KINDS = (Attention, AttentionRope, EvaAttention)
Weights = dict[nn.Module, torch.Tensor]


@torch.no_grad()
def rollout(
    model: TransReID,
    images: torch.Tensor,
    cam_label: torch.Tensor | None = None,
    view_label: torch.Tensor | None = None,
    head_fusion: str = "mean",
) -> dict[str, torch.Tensor]:
    """Return maps float32 [B, rows, columns] over the patch grid: "global", and "local 1", "local 2", ... with a JPM.

    `images` are normalised float32 [B, 3, H, W], labels as in `TransReID.forward`, the model is in evaluation mode. A
    value is the share (0..1) of the branch's feature that comes from a patch; what is missing to a sum of 1 comes from
    class and register tokens. A local branch starts from its own patches; others reach it through the shared blocks.
    `head_fusion` mean, max or min joins the heads, after which rows sum to 1 again. Only the trunk is looked at, not a
    CLIP tower. Raises ConfigError for a model without such attention.
    """
    if head_fusion not in HEAD_FUSIONS:
        raise ConfigError(f"--head-fusion got '{head_fusion}', allowed: {', '.join(HEAD_FUSIONS)}")
    base = _trunk(model)
    ends = _ends(model)
    shared = base.blocks[:-1]
    layers = [block.attn for block in shared]
    for block, _, *attn_pool in ends:
        layers += [block.attn, *attn_pool]
    with captured(layers, HEAD_FUSIONS[head_fusion]) as weights:
        model(images, cam_label=cam_label, view_label=view_label)
    flow, *local = (_start(end, weights, base.pooling) for end in ends)  # [B, 1, T]; [B, n, T] or [B * n, 1, P + L]
    if local:
        over_all = reads_first_token(model.b2[0], base.pooling)
        parts = local[0] if over_all else _over_all_tokens(local[0], model.local_tokens, flow)
        flow = torch.cat([flow, parts], dim=1)  # [B, 1 + n, T]
    for block in reversed(shared):
        flow = _back_through(flow, weights[block.attn])
    maps = flow[..., base.num_prefix :].unflatten(-1, base.grid)
    names = ["global", *(f"local {number}" for number in range(1, maps.shape[1]))]
    return dict(zip(names, maps.unbind(1), strict=True))


def patches_of(model: nn.Module) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """Return (patch, stride, input size), each (y, x) in pixels; ConfigError for a model without patches to map."""
    base = _trunk(model)
    return base.patch_embed.proj.kernel_size, base.patch_embed.proj.stride, base.image_size


def _trunk(model: nn.Module) -> VisionTransformer:
    """Return the trunk whose attention is rolled out; ConfigError for a model that has none."""
    base = model.base if isinstance(model, TransReID) else model
    if not isinstance(base, VisionTransformer):
        raise ConfigError(
            f"the attention of {type(base).__name__} cannot be rolled out; use a model with MODEL.NAME transformer"
        )
    return base


@contextmanager
def captured(layers: Sequence[nn.Module], fuse: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[Weights]:
    """Yield a dict that holds, for each of timm's attention layers that ran, its weights [B, S, T], rows summing to 1.

    Fused attention, which never makes the weights, is off in these layers until the end; the results stay those of
    before up to rounding. `fuse` joins the heads.
    """
    weights: Weights = {}
    fused = {layer: layer.fused_attn for layer in layers}
    hooks = []

    def keep(layer: nn.Module, attention: torch.Tensor) -> None:
        joined = fuse(attention.float())
        weights[layer] = joined / joined.sum(-1, keepdim=True)

    try:
        for layer in layers:
            layer.fused_attn = False
            hooks += _watch_pool(layer, keep) if isinstance(layer, AttentionPoolLatent) else [_watch(layer, keep)]
        yield weights
    finally:
        for hook in hooks:
            hook.remove()
        for layer, before in fused.items():
            layer.fused_attn = before


def _watch(layer: nn.Module, keep: Callable[[nn.Module, torch.Tensor], None]) -> torch.utils.hooks.RemovableHandle:
    """Read the softmax where it enters the dropout of attention weights."""
    return layer.attn_drop.register_forward_pre_hook(lambda _, inputs: keep(layer, inputs[0]))


def _watch_pool(
    layer: AttentionPoolLatent, keep: Callable[[nn.Module, torch.Tensor], None]
) -> list[torch.utils.hooks.RemovableHandle]:
    """Make the softmax from queries and keys: timm's attention pooling has no dropout of weights."""
    queries = []

    def finish(_: nn.Module, inputs: tuple, keys: torch.Tensor) -> None:
        keep(layer, (layer.scale * queries.pop() @ keys.transpose(-2, -1)).softmax(-1))

    return [
        layer.q_norm.register_forward_hook(lambda _, inputs, output: queries.append(output)),
        layer.k_norm.register_forward_hook(finish),
    ]


def _ends(model: TransReID) -> list[list[nn.Module]]:
    """Return what follows the shared blocks, [block, norm, attention pooling if any]: global and, with a JPM, local."""
    base = model.base
    if model.jigsaw is not None:
        ends = [[*model.b1], [*model.b2]]
    else:
        ends = [[base.blocks[-1], *(base.get_submodule(name) for name in base.tail_names)]]
    strange = {type(block.attn).__name__ for block in base.blocks if not isinstance(block.attn, ATTENTION_KINDS)}
    strange |= {type(layer).__name__ for end in ends for layer in end[2:] if not isinstance(layer, AttentionPoolLatent)}
    if strange:
        raise ConfigError(
            f"MODEL.TRANSFORMER_TYPE: the roll-out cannot read {', '.join(sorted(strange))}; attention of the kinds "
            f"{', '.join(kind.__name__ for kind in ATTENTION_KINDS)} is needed"
        )
    return ends


def _start(end: Sequence[nn.Module], weights: Weights, pooling: Pooling) -> torch.Tensor:
    """Return the shares [B, S, T] of the tokens that enter the last block in the feature that is pooled behind it.

    S is 1, or the number of local branches where the block serves them all at once.
    """
    block, _, *attn_pool = end
    attention = weights[block.attn]  # [B, T, T], or the rows [B, S, T] of the class token
    if reads_first_token(block, pooling):
        start = torch.zeros_like(attention)
        start[..., 0] = 1
        return (start + attention) / 2
    start = attention.new_zeros(attention.shape[:2])  # [B, T]
    if pooling.kind == "token":
        start[:, 0] = 1
    elif pooling.kind == "avg":
        start[:, pooling.first :] = 1 / (start.shape[1] - pooling.first)
    else:
        latent = weights[attn_pool[0]]  # [B, latent tokens, T - first]
        start[:, pooling.first :] = latent[:, 0] if attn_pool[0].pool == "token" else latent.mean(1)
    return _back_through(start.unsqueeze(1), attention)


def _over_all_tokens(shares: torch.Tensor, groups: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Return the shares [B, n, T] of all tokens of `flow` [B, 1, T] in n local branches.

    `shares` are [B * n, 1, L], of the tokens `groups` [n, L] of each branch.
    """
    index = groups.expand(flow.shape[0], *groups.shape)
    spread = flow.new_zeros(*index.shape[:2], flow.shape[2])
    return spread.scatter_add(2, index, shares.reshape(index.shape))


def _back_through(flow: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    """Return shares [B, K, T] of a layer's input tokens from those of its output tokens; attention is [B, T, T]."""
    return (flow + flow @ attention) / 2
