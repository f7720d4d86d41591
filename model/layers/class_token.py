"""The last block of a transformer for its class token alone: no other token of what comes out is used.

Only the class token asks, all tokens answer. The result is that of the whole block, up to rounding, for a few percent
of its work, or about a sixth where keys and values have to be made.
"""

import torch
from timm.layers import AttentionRope, apply_rot_embed_cat
from timm.models.eva import EvaAttention, EvaBlock
from timm.models.vision_transformer import Attention, Block
from torch import nn

from model.layers.lora import LoRALinear, some_outputs

ATTENTIONS = (Attention, AttentionRope, EvaAttention)
LINEARS = (nn.Linear, LoRALinear)


def asks_alone(block: nn.Module) -> bool:
    """Return whether `class_token_rows` can do this block: one of timm's whose parts it knows.

    A block whose own forward, or that of its attention, somebody's hooks wait for has to run whole.
    """
    if type(block) not in (Block, EvaBlock) or type(block.attn) not in ATTENTIONS:
        return False
    attn = block.attn
    layers = [attn.qkv] if _is_fused(attn) else [attn.q_proj, attn.k_proj, attn.v_proj]
    if not all(type(layer) in LINEARS for layer in layers):
        return False
    same_width = len({layer.out_features for layer in layers}) == 1  # else keys are shared between heads
    return same_width and not is_watched(block, attn, *layers)


def is_watched(*modules: nn.Module) -> bool:
    """Return whether one of the modules has hooks, which only a call of the module itself runs."""
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return any(getattr(module, kind) for module in modules for kind in kinds)


def class_token_rows(
    block: nn.Module, tokens: torch.Tensor, rotation: torch.Tensor | None = None, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the class token [B, G, D] behind a block that `asks_alone`, of tokens [B, T, D], the class token first.

    `bias` [G, T] is added to what the class token of each of G groups pays to each token before the softmax: -inf
    hides a token, None = one group that sees all. `rotation` is as in `model.layers.pooling.run_block`. Dropout and
    stochastic depth draw for each group of each image.
    """
    attended = _attend(block.attn, block.norm1(tokens), rotation, bias)  # [B, G, D]
    first = tokens[:, :1].expand_as(attended).flatten(0, 1).unsqueeze(1)  # [B * G, 1, D]: each group draws its own
    update = attended.flatten(0, 1).unsqueeze(1)
    first = first + block.drop_path1(scaled(block, 1, update))
    first = first + block.drop_path2(scaled(block, 2, block.mlp(block.norm2(first))))
    return first.view_as(attended)


def scaled(block: nn.Module, part: int, update: torch.Tensor) -> torch.Tensor:
    """Return the update of the attention (part 1) or the MLP (2), times the block's layer scale if it has one."""
    if isinstance(block, Block):
        return (block.ls1 if part == 1 else block.ls2)(update)
    gamma = block.gamma_1 if part == 1 else block.gamma_2
    return update if gamma is None else gamma * update


def _attend(
    attn: nn.Module, tokens: torch.Tensor, rotation: torch.Tensor | None, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return [B, G, D]: what the class token of each group reads from normalised tokens [B, T, D]."""
    first = tokens[:, :1]
    if type(attn) is Attention and type(attn.qkv) is nn.Linear and isinstance(attn.k_norm, nn.Identity):
        read = _read_tokens(attn, tokens, bias)
    else:
        read = _read_values(attn, tokens, rotation, bias)
    read = attn.norm(read.transpose(1, 2).flatten(2))  # [B, G, heads * d]
    gate = getattr(attn, "gate", None)  # older releases of timm have none
    if gate is not None:
        read = read * gate(first).sigmoid()
    return attn.proj_drop(attn.proj(read))


def _read_tokens(attn: Attention, tokens: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return what each head reads, [B, heads, G, d], without keys and values.

    One query reads many tokens x, so its side of the products is the small one: q . (W_k x) = (W_k^T q) . x, and
    sum_t a_t (W_v x_t) = W_v sum_t a_t x_t. The bias of the keys adds the same to every score and cancels.
    """
    heads = attn.num_heads
    _, key_weight, value_weight = attn.qkv.weight.unflatten(0, (3, heads, -1))  # [heads, d, D] each
    query = attn.q_norm(_by_head(some_outputs(attn.qkv, tokens[:, :1], slice(attn.qkv.out_features // 3)), heads))
    asked = ((query * attn.scale) @ key_weight).squeeze(2)  # [B, heads, D]
    scores = (asked @ tokens.transpose(1, 2)).unsqueeze(2)  # [B, heads, 1, T]
    weights = attn.attn_drop(_softmax(scores, bias))
    read = (weights.flatten(1, 2) @ tokens).unflatten(1, (heads, -1)) @ value_weight.transpose(1, 2)
    if attn.qkv.bias is None:
        return read
    value_bias = attn.qkv.bias.unflatten(0, (3, heads, 1, -1))[2]
    return read + weights.sum(-1, keepdim=True) * value_bias  # dropout lets the weights sum to another number than 1


def _read_values(
    attn: nn.Module, tokens: torch.Tensor, rotation: torch.Tensor | None, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return what each head reads, [B, heads, G, d], from the keys and values of all tokens."""
    query, keys, values = (_by_head(part, attn.num_heads) for part in _project(attn, tokens[:, :1], tokens))
    query, keys = attn.q_norm(query), attn.k_norm(keys)
    if rotation is not None:  # the class token is not rotated
        prefix, half = attn.num_prefix_tokens, attn.rotate_half
        patches = apply_rot_embed_cat(keys[:, :, prefix:], rotation, half=half)
        keys = torch.cat([keys[:, :, :prefix], patches], dim=2).type_as(values)
    scores = (query.type_as(keys) * attn.scale) @ keys.transpose(-2, -1)  # [B, heads, 1, T]
    return attn.attn_drop(_softmax(scores, bias)).type_as(values) @ values


def _softmax(scores: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return the weights [B, heads, G, T] of scores [B, heads, 1, T] that each of G groups biases."""
    return (scores if bias is None else scores + bias).softmax(dim=-1)


def _is_fused(attn: nn.Module) -> bool:
    return attn.qkv is not None


def _by_head(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # [B, heads, tokens, d]


def _project(attn: nn.Module, first: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the query [B, 1, E] of the first token and the keys and values [B, T, E] of all."""
    if not _is_fused(attn):
        return attn.q_proj(first), attn.k_proj(tokens), attn.v_proj(tokens)
    width = attn.qkv.out_features // 3
    query = some_outputs(attn.qkv, first, slice(width))
    keys_values = some_outputs(attn.qkv, tokens, slice(width, None))
    if isinstance(attn, EvaAttention) and attn.q_bias is not None:
        query = query + attn.q_bias
        keys_values = keys_values + torch.cat([attn.k_bias, attn.v_bias])
    return query, *keys_values.chunk(2, dim=-1)
