"""IRRA as its formulas read: float64 tensors by their published names, one caption, word or head at a time.

A `state` is a state dict of IRRA's names in float64; no module is built, nothing is cached, cut or left out. The blocks
are those of `slow_clip_reid`.
"""

import math
from collections.abc import Sequence

import torch

from tests.reference.slow_clip_reid import State, block, depth, layer_norm, linear, quick_gelu

TOWERS = "base_model."


def image_tokens(
    state: State, images: torch.Tensor, stride: tuple[int, int], heads: int, activation: object = quick_gelu
) -> torch.Tensor:
    """The class token and all patches, [B, 1 + N, D]."""
    name = f"{TOWERS}visual."
    kernel = state[f"{name}conv1.weight"]
    size = kernel.shape[-1]
    tokens = [state[f"{name}class_embedding"].expand(len(images), -1)]
    for y in range(0, images.shape[2] - size + 1, stride[0]):
        for x in range(0, images.shape[3] - size + 1, stride[1]):
            tokens.append(torch.einsum("bcyx,wcyx->bw", images[:, :, y : y + size, x : x + size], kernel))
    tokens = layer_norm(torch.stack(tokens, 1) + state[f"{name}positional_embedding"], state, f"{name}ln_pre")
    for number in range(depth(state, name)):
        tokens = block(tokens, state, f"{name}transformer.resblocks.{number}", heads, activation, causal=False)
    return layer_norm(tokens, state, f"{name}ln_post") @ state[f"{name}proj"]


def words(state: State, caption: Sequence[int], heads: int, activation: object = quick_gelu) -> torch.Tensor:
    """All tokens of one caption, [L, D]."""
    table, places = state[f"{TOWERS}token_embedding.weight"], state[f"{TOWERS}positional_embedding"]
    x = torch.stack([table[word] + places[place] for place, word in enumerate(caption)])[None]
    for number in range(depth(state, TOWERS)):
        x = block(x, state, f"{TOWERS}transformer.resblocks.{number}", heads, activation, causal=True)
    return (layer_norm(x, state, f"{TOWERS}ln_final") @ state[f"{TOWERS}text_projection"])[0]


def end(caption: Sequence[int]) -> int:
    """The first place of the largest token."""
    return max(range(len(caption)), key=lambda place: (caption[place], -place))


def text_features(state: State, captions: Sequence[Sequence[int]], heads: int) -> torch.Tensor:
    return torch.stack([words(state, caption, heads)[end(caption)] for caption in captions])


def cross_attention(state: State, text: torch.Tensor, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Words [L, D] on image tokens [1 + N, D] -> what they read [L, D], and their weights [heads, L, 1 + N]."""
    width = text.shape[-1]
    heads = max(1, width // 64)
    text, patches = layer_norm(text, state, "ln_pre_t"), layer_norm(patches, state, "ln_pre_i")
    weight, bias = state["cross_attn.in_proj_weight"], state["cross_attn.in_proj_bias"]
    q = text @ weight[:width].t() + bias[:width]
    k = patches @ weight[width : 2 * width].t() + bias[width : 2 * width]
    v = patches @ weight[2 * width :].t() + bias[2 * width :]
    parts, shares = [], []
    for head in range(heads):
        own = slice(head * width // heads, (head + 1) * width // heads)
        shares.append((q[:, own] @ k[:, own].t() / math.sqrt(width // heads)).softmax(-1))
        parts.append(shares[-1] @ v[:, own])
    return linear(torch.cat(parts, -1), state, "cross_attn.out_proj"), torch.stack(shares)


def word_logits(
    state: State, caption: Sequence[int], labels: Sequence[int], patches: torch.Tensor, heads: int, masked: bool = False
) -> torch.Tensor:
    """The scores of all words at the labelled places of one caption, from its tokens and those of its image.

    `masked`: what is behind the end of the caption is not there at all.
    """
    if masked:
        caption, labels = caption[: end(caption) + 1], labels[: end(caption) + 1]
    x = cross_attention(state, words(state, caption, heads), patches)[0][None]
    for number in range(depth(state, "cross_modal_")):
        name = f"cross_modal_transformer.resblocks.{number}"
        x = block(x, state, name, max(1, x.shape[-1] // 64), quick_gelu, causal=False)
    x = layer_norm(x[0], state, "ln_post")
    x = layer_norm(quick_gelu(linear(x, state, "mlm_head.dense")), state, "mlm_head.ln")
    scores = linear(x, state, "mlm_head.fc")
    return scores[[place for place, label in enumerate(labels) if label]]


def longer_table(table: torch.Tensor, length: int) -> torch.Tensor:
    """A table of word positions for another length: its first rows, or more, linear between the centres of rows."""
    if length <= len(table):
        return table[:length]
    rows = []
    for row in range(length):
        place = min(max((row + 0.5) * len(table) / length - 0.5, 0.0), len(table) - 1.0)
        low = math.floor(place)
        high = min(low + 1, len(table) - 1)
        rows.append(table[low] * (1 - (place - low)) + table[high] * (place - low))
    return torch.stack(rows)


def first_std(name: str, width: int, blocks: int) -> float | None:
    """The standard deviation of a weight's first values; None where it is not drawn from a normal distribution."""
    into, stream, hidden = width**-0.5, width**-0.5 * (2 * blocks) ** -0.5, (2 * width) ** -0.5
    stds = {
        "attn.in_proj_weight": into,
        **dict.fromkeys(("attn.out_proj.weight", "mlp.c_proj.weight", "mlm_head.fc.weight"), stream),
        **dict.fromkeys(("mlp.c_fc.weight", "mlm_head.dense.weight"), hidden),
        "classifier.weight": 0.001,
    }
    return next((std for end, std in stds.items() if name.endswith(end)), None)
