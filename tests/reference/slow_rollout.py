"""Attention roll-out written out slowly: float64, one image, one head and one pair of tokens at a time.

Follows Abnar and Zuidema, ACL 2020, section 3: the matrices (A + I) / 2 of all layers are multiplied whole. Attention
is computed from the raw weights of a block and the tokens that enter it, never read from a running attention layer.
"""

import math

import torch
from torch import nn


@torch.no_grad()
def rollout(
    blocks: list[nn.Module], inputs: list[torch.Tensor], rotations: list[torch.Tensor | None], fusion: str = "mean"
) -> torch.Tensor:
    """Return the product [T, T] of all layers, the last one leftmost; inputs[l] [T, D] are what enters blocks[l]."""
    product = torch.eye(len(inputs[0]), dtype=torch.float64)
    for block, tokens, rotation in zip(blocks, inputs, rotations, strict=True):
        product = half_identity(join_heads(attention(block, tokens, rotation), fusion)) @ product
    return product


def half_identity(joined: torch.Tensor) -> torch.Tensor:
    return 0.5 * joined + 0.5 * torch.eye(len(joined), dtype=torch.float64)


def join_heads(heads: list[torch.Tensor], fusion: str) -> torch.Tensor:
    """Return the mean, largest or smallest weight over the heads, rows summing to 1."""
    count = len(heads[0])
    joined = torch.zeros(count, heads[0].shape[1], dtype=torch.float64)
    for row in range(count):
        for column in range(heads[0].shape[1]):
            values = [float(head[row, column]) for head in heads]
            joined[row, column] = {"mean": sum(values) / len(values), "max": max(values), "min": min(values)}[fusion]
        joined[row] /= joined[row].sum()
    return joined


def attention(block: nn.Module, tokens: torch.Tensor, rotation: torch.Tensor | None) -> list[torch.Tensor]:
    """Return softmax(q k^T / sqrt(d)) [T, T] of each head of a timm block for tokens [T, D].

    `rotation` is [N, 2d] or [heads, N, 2d] for the last N tokens.
    """
    layer = block.attn
    query, key = _queries_and_keys(layer, norm(block.norm1, tokens))
    size = query.shape[1] // layer.num_heads
    prefix = 0 if rotation is None else len(tokens) - rotation.shape[-2]
    heads = []
    for head in range(layer.num_heads):
        part = slice(head * size, (head + 1) * size)
        q, k = (_head_norm(norm, x[:, part]) for norm, x in ((layer.q_norm, query), (layer.k_norm, key)))
        if rotation is not None:
            own = rotation if rotation.dim() == 2 else rotation[head]
            half = getattr(layer, "rotate_half", False)
            q, k = (torch.cat([x[:prefix], _rotate(x[prefix:], own.double(), half)]) for x in (q, k))
        heads.append(_softmax_rows(q @ k.t() / math.sqrt(size)))
    return heads


@torch.no_grad()
def latent_attention(pool: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Return the weights [T], mean over the heads, with which attention pooling reads tokens [T, D], normed already."""
    query = _linear(pool.q, pool.latent[0, :1].double())
    key = _linear(pool.kv, tokens.double())[:, : query.shape[1]]
    size = query.shape[1] // pool.num_heads
    total = torch.zeros(len(tokens), dtype=torch.float64)
    for head in range(pool.num_heads):
        part = slice(head * size, (head + 1) * size)
        q, k = _head_norm(pool.q_norm, query[:, part]), _head_norm(pool.k_norm, key[:, part])
        total += _softmax_rows(q @ k.t() / math.sqrt(size))[0]
    return total / pool.num_heads


def _queries_and_keys(layer: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if layer.qkv is None:
        return _linear(layer.q_proj, x), _linear(layer.k_proj, x)
    query, key, _ = _linear(layer.qkv, x).chunk(3, dim=1)
    if getattr(layer, "q_bias", None) is not None:
        query = query + layer.q_bias.double()
    return query, key


def _linear(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    if isinstance(layer, nn.Identity):
        return x
    bias = 0 if layer.bias is None else layer.bias.double()
    return x @ layer.weight.double().t() + bias


def norm(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return LayerNorm of each row of x [T, D] in float64."""
    x = x.double()
    centred = x - x.mean(-1, keepdim=True)
    spread = (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt()
    return centred / spread * layer.weight.double() + layer.bias.double()


def _head_norm(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    if hasattr(layer, "factor"):  # a constant in place of a norm
        return x * layer.factor
    return x if isinstance(layer, nn.Identity) else norm(layer, x)


def _rotate(x: torch.Tensor, rotation: torch.Tensor, half: bool) -> torch.Tensor:
    """Return each row of x [N, d] turned pair by pair by its sines and cosines, rotation [N, 2d]."""
    turned = torch.zeros_like(x)
    width = x.shape[1]
    pairs = [(i, i + width // 2) for i in range(width // 2)] if half else [(i, i + 1) for i in range(0, width, 2)]
    for row in range(len(x)):
        sine, cosine = rotation[row, :width], rotation[row, width:]
        for i, j in pairs:
            turned[row, i] = x[row, i] * cosine[i] - x[row, j] * sine[i]
            turned[row, j] = x[row, j] * cosine[j] + x[row, i] * sine[j]
    return turned


def _softmax_rows(scores: torch.Tensor) -> torch.Tensor:
    weights = torch.zeros_like(scores)
    for row in range(len(scores)):
        exponents = [math.exp(float(score - scores[row].max())) for score in scores[row]]
        weights[row] = torch.tensor(exponents, dtype=torch.float64) / sum(exponents)
    return weights
