"""The model of several modalities as its formulas read: float64 tensors by its names, one sample or head at a time.

A `state` is a state dict in float64; no module is built, and what is missing is not there at all.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch

from tests.reference import slow_irra
from tests.reference.slow_clip_reid import EPS, State, attend, gelu, layer_norm, linear, quick_gelu

QUERIES = ("nir", "sk", "cp", "text")


def sets_of(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """RGB alone, then every set of the others, the smaller ones first."""
    others = [name for name in QUERIES if name in modalities]
    sets = [("vis",)]
    for size in range(1, len(others) + 1):
        sets += combinations(others, size)
    return sets


def mer(x: torch.Tensor, state: State, name: str, modality: str, scale: float) -> torch.Tensor:
    low_rank = x @ state[f"{name}.lora_a.{modality}"].t() @ state[f"{name}.lora_b.{modality}"].t()
    return linear(x, state, name) + scale * low_rank


def block(x: torch.Tensor, state: State, name: str, modality: str, heads: int, scale: float) -> torch.Tensor:
    def layer(x: torch.Tensor, part: str) -> torch.Tensor:
        return mer(x, state, f"{name}.{part}", modality, scale)

    normal = layer_norm(x, state, f"{name}.ln_1")
    x = x + layer(attend(layer(normal, "q"), layer(normal, "k"), layer(normal, "v"), heads), "out")
    return x + layer(quick_gelu(layer(layer_norm(x, state, f"{name}.ln_2"), "fc1")), "fc2")


def image_features(
    state: State, images: torch.Tensor, modality: str, stride: int, heads: int, scale: float
) -> torch.Tensor:
    """Images [B, 3, H, W] of a modality -> [B, D]."""
    own = f"vision.tokenizers.{modality}."
    kernel = state[f"{own}conv1.weight"]
    size = kernel.shape[-1]
    tokens = [state[f"{own}class_embedding"].expand(len(images), -1)]
    for y in range(0, images.shape[2] - size + 1, stride):
        for x in range(0, images.shape[3] - size + 1, stride):
            tokens.append(torch.einsum("bcyx,wcyx->bw", images[:, :, y : y + size, x : x + size], kernel))
    tokens = layer_norm(torch.stack(tokens, 1) + state[f"{own}positional_embedding"], state, f"{own}ln_pre")
    count = len({name.split(".")[2] for name in state if name.startswith("vision.blocks.")})
    for number in range(count):
        tokens = block(tokens, state, f"vision.blocks.{number}", modality, heads, scale)
    return layer_norm(tokens[:, 0], state, "vision.ln_post") @ state["vision.proj"]


def text_features(state: State, captions: torch.Tensor, heads: int) -> torch.Tensor:
    """Captions [B, L] -> [B, D]."""
    named = {f"{slow_irra.TOWERS}{name.removeprefix('text.')}": value for name, value in state.items()}
    return slow_irra.text_features(named, captions.tolist(), heads)


def semantic(x: torch.Tensor, state: State, name: str = "semantic") -> torch.Tensor:
    x = x + linear(linear(x, state, f"{name}.value"), state, f"{name}.out")
    hidden = layer_norm(linear(x, state, f"{name}.proj.0"), state, f"{name}.proj.1")
    return linear(torch.where(hidden > 0, hidden, 0), state, f"{name}.proj.4")


def fuse(features: torch.Tensor, state: State, heads: int, name: str = "fusion") -> torch.Tensor:
    """The n features [n, D] that are there -> [D]; zeros for none."""
    if not len(features):
        return torch.zeros(features.shape[1], dtype=features.dtype)
    width = features.shape[1]
    weight, bias = state[f"{name}.attn.in_proj_weight"], state[f"{name}.attn.in_proj_bias"]
    thirds = [slice(third * width, (third + 1) * width) for third in range(3)]
    q, k, v = ((features @ weight[rows].t() + bias[rows])[None] for rows in thirds)
    seen = linear(attend(q, k, v, heads)[0], state, f"{name}.attn.out_proj")
    hidden = layer_norm(features + seen, state, f"{name}.norm1")
    mixed = gelu(linear(layer_norm(hidden, state, f"{name}.mlp.0"), state, f"{name}.mlp.1"))
    each = layer_norm(hidden + linear(mixed, state, f"{name}.mlp.4"), state, f"{name}.norm2")
    return sum(each) / len(each)


def neck(x: torch.Tensor, state: State, name: str = "bottleneck") -> torch.Tensor:
    """Rows [n, D] by the running statistics."""
    centred = x - state[f"{name}.running_mean"]
    return centred / torch.sqrt(state[f"{name}.running_var"] + EPS) * state[f"{name}.weight"] + state[f"{name}.bias"]


def neck_of_batch(x: torch.Tensor, state: State, name: str = "bottleneck") -> torch.Tensor:
    """Rows [n, D] by their own mean and variance."""
    centred = x - x.mean(0)
    variance = (centred**2).mean(0)
    return centred / torch.sqrt(variance + EPS) * state[f"{name}.weight"] + state[f"{name}.bias"]


def fused(
    state: State, z: Mapping[str, torch.Tensor], there: Mapping[str, torch.Tensor], names: Sequence[str], heads: int
) -> list[torch.Tensor]:
    """What the fusion makes, sample by sample, of those of some modalities that are there, each z [B, D]."""
    rows = []
    for sample in range(len(next(iter(z.values())))):
        features = [z[name][sample] for name in names if there[name][sample]]
        features = torch.stack(features) if features else torch.zeros(0, state["vision.proj"].shape[1]).double()
        with_head = "semantic.value.weight" in state
        rows.append(fuse(semantic(features, state) if with_head else features, state, heads))
    return rows


def training_rows(
    state: State, z: Mapping[str, torch.Tensor], there: Mapping[str, torch.Tensor], heads: int
) -> dict[str, torch.Tensor]:
    """valid [B, sets], and of all sets fused and normed features and logits [B, sets, ...], zeros where not valid."""
    sets = sets_of(list(z))
    count = len(next(iter(z.values())))
    valid = torch.zeros(count, len(sets), dtype=torch.bool)
    features = torch.zeros(count, len(sets), state["vision.proj"].shape[1], dtype=torch.float64)
    for place, names in enumerate(sets):
        rows = fused(state, z, there, names, heads)
        for sample in range(count):
            valid[sample, place] = all(there[name][sample] for name in names)
            if valid[sample, place]:
                features[sample, place] = rows[sample]
    normal = torch.zeros_like(features)
    normal[valid] = neck_of_batch(features[valid], state)
    logits = normal @ state["classifier.weight"].t()
    return {"valid": valid, "pre_bn": features, "bnneck": normal, "logits": logits}
