"""TransReID written out slowly: a state dict by its published names, and what the model gives for it. No timm.

Follows He et al., TransReID, ICCV 2021, and the layout of the released checkpoints.
"""

from typing import NamedTuple

import torch


class Shape(NamedTuple):
    """Everything about an architecture that a state dict does not say by itself."""

    width: int
    depth: int
    heads: int
    hidden: int  # width of the MLP
    rows: int  # patches
    columns: int
    patch: int = 16
    stride: int = 16
    qkv_bias: bool = True
    scale: float | None = None  # attention scale; None = (width / heads)^-1/2
    side_rows: int = 0
    branches: int = 0  # local branches; 0 = no jigsaw module
    shift: int = 5
    groups: int = 2
    rearrange: bool = True


def make_state(shape: Shape, num_class: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return random float32 weights under the names of a TransReID checkpoint."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def draw(name: str, *size: int) -> None:
        state[name] = 0.3 * torch.randn(*size, generator=generator)

    def draw_norm(name: str) -> None:
        state[f"{name}.weight"] = 1 + 0.2 * torch.randn(shape.width, generator=generator)
        draw(f"{name}.bias", shape.width)

    def draw_block(name: str) -> None:
        draw_norm(f"{name}.norm1")
        draw(f"{name}.attn.qkv.weight", 3 * shape.width, shape.width)
        if shape.qkv_bias:
            draw(f"{name}.attn.qkv.bias", 3 * shape.width)
        draw(f"{name}.attn.proj.weight", shape.width, shape.width)
        draw(f"{name}.attn.proj.bias", shape.width)
        draw_norm(f"{name}.norm2")
        draw(f"{name}.mlp.fc1.weight", shape.hidden, shape.width)
        draw(f"{name}.mlp.fc1.bias", shape.hidden)
        draw(f"{name}.mlp.fc2.weight", shape.width, shape.hidden)
        draw(f"{name}.mlp.fc2.bias", shape.width)

    draw("base.cls_token", 1, 1, shape.width)
    draw("base.pos_embed", 1, 1 + shape.rows * shape.columns, shape.width)
    if shape.side_rows:
        draw("base.sie_embed", shape.side_rows, 1, shape.width)
    draw("base.patch_embed.proj.weight", shape.width, 3, shape.patch, shape.patch)
    draw("base.patch_embed.proj.bias", shape.width)
    for number in range(shape.depth):
        draw_block(f"base.blocks.{number}")
    draw_norm("base.norm")
    draw("base.fc.weight", 1000, shape.width)
    draw("base.fc.bias", 1000)
    if shape.branches:
        for name in ("b1", "b2"):
            draw_block(f"{name}.0")
            draw_norm(f"{name}.1")
    suffixes = ["", *(f"_{number + 1}" for number in range(shape.branches))]
    for suffix in suffixes:
        draw(f"classifier{suffix}.weight", num_class, shape.width)
    for suffix in suffixes:
        draw_norm(f"bottleneck{suffix}")
        draw(f"bottleneck{suffix}.running_mean", shape.width)
        state[f"bottleneck{suffix}.running_var"] = 0.5 + torch.rand(shape.width, generator=generator)
        state[f"bottleneck{suffix}.num_batches_tracked"] = torch.tensor(7)
    return state


class Outputs(NamedTuple):
    """What training sees: one tensor for each branch, the global one first."""

    logits: list[torch.Tensor]  # [B, C]
    pre_bn: list[torch.Tensor]  # [B, D]
    bnneck: list[torch.Tensor]  # [B, D]
    projection: torch.Tensor | None  # [B, 128]


def embed(
    state: dict[str, torch.Tensor],
    shape: Shape,
    images: torch.Tensor,
    side_row: list[int] | None = None,
    side_factor: float = 3.0,
    after_neck: bool = False,
) -> torch.Tensor:
    """Return the embedding [B, D'] in float64; `side_row` is the row of sie_embed for each image."""
    state = {name: value.double() for name, value in state.items()}
    feats = branch_features(state, shape, images, side_row, side_factor)
    if after_neck:
        feats = [_neck(state, name, feat) for name, feat in zip(_numbered("bottleneck", feats), feats, strict=True)]
    return torch.cat([feats[0], *(feat / shape.branches for feat in feats[1:])], dim=1)


def train_outputs(
    state: dict[str, torch.Tensor],
    shape: Shape,
    images: torch.Tensor,
    side_row: list[int] | None = None,
    side_factor: float = 3.0,
) -> Outputs:
    """Return what a model in training mode returns, in the precision of `state`, from which gradients can be had.

    Nothing is dropped. The necks use the statistics of the batch and update the running ones in `state`.
    """
    pre_bn = branch_features(with_adapters(state), shape, images, side_row, side_factor)
    bnneck = [batch_neck(state, name, feat) for name, feat in zip(_numbered("bottleneck", pre_bn), pre_bn, strict=True)]
    heads = [state[f"{name}.weight"] for name in _numbered("classifier", pre_bn)]
    logits = [feat @ head.t() for feat, head in zip(bnneck, heads, strict=True)]
    projection = None
    if "supcon_head.0.weight" in state:
        hidden = _linear(state, "supcon_head.0", pre_bn[0])
        projection = _linear(state, "supcon_head.2", torch.where(hidden > 0, hidden, 0 * hidden))
    return Outputs(logits, pre_bn, bnneck, projection)


def branch_features(
    state: dict[str, torch.Tensor],
    shape: Shape,
    images: torch.Tensor,
    side_row: list[int] | None = None,
    side_factor: float = 3.0,
) -> list[torch.Tensor]:
    """Return the features [B, D] of the branches, one image at a time and one branch after the other."""
    rows = []
    for number, image in enumerate(images.to(state["base.cls_token"].dtype)):
        tokens = _tokens(state, shape, image)
        if side_row is not None:
            tokens = tokens + side_factor * state["base.sie_embed"][side_row[number]]
        rows.append(_features_of(state, shape, tokens))
    return [torch.stack(feats) for feats in zip(*rows, strict=True)]


def with_adapters(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights W + s B A where low-rank adapters A, B with factor s lie beside W."""
    adapted = dict(state)
    for name in state:
        if name.endswith(".lora_a"):
            layer = name.removesuffix(".lora_a")
            update = state[f"{layer}.lora_b"] @ state[name]
            adapted[f"{layer}.weight"] = state[f"{layer}.weight"] + state[f"{layer}.lora_scale"] * update
    return adapted


def batch_neck(state: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    """Return x [B, D] normalised by its own statistics, and move the running ones a tenth of the way to them."""
    mean, variance = x.mean(0), (x - x.mean(0)).square().mean(0)
    unbiased = variance * len(x) / (len(x) - 1)
    for kind, value in (("running_mean", mean), ("running_var", unbiased)):
        state[f"{name}.{kind}"] = 0.9 * state[f"{name}.{kind}"] + 0.1 * value.detach()
    return (x - mean) / (variance + 1e-5).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def _numbered(name: str, branches: list[torch.Tensor]) -> list[str]:
    return [f"{name}_{number}" if number else name for number in range(len(branches))]


def _tokens(state: dict[str, torch.Tensor], shape: Shape, image: torch.Tensor) -> torch.Tensor:
    weight = state["base.patch_embed.proj.weight"].reshape(shape.width, -1)
    tokens = [state["base.cls_token"][0, 0]]
    for row in range(shape.rows):
        for column in range(shape.columns):
            top, left = row * shape.stride, column * shape.stride
            patch = image[:, top : top + shape.patch, left : left + shape.patch]
            tokens.append(weight @ patch.reshape(-1) + state["base.patch_embed.proj.bias"])
    return torch.stack(tokens) + state["base.pos_embed"][0]


def _features_of(state: dict[str, torch.Tensor], shape: Shape, tokens: torch.Tensor) -> list[torch.Tensor]:
    """Return the feature [D] of each branch from the tokens of one image."""
    own_blocks = shape.depth - 1 if shape.branches else shape.depth
    for number in range(own_blocks):
        tokens = _block(state, shape, f"base.blocks.{number}", tokens)
    if not shape.branches:
        return [_norm(state, "base.norm", tokens)[0]]
    feats = [_norm(state, "b1.1", _block(state, shape, "b1.0", tokens))[0]]
    patches = rearrange(tokens[1:], shape) if shape.rearrange else tokens[1:]
    length = (len(tokens) - 1) // shape.branches
    for branch in range(shape.branches):
        part = torch.cat([tokens[:1], patches[branch * length : (branch + 1) * length]])
        feats.append(_norm(state, "b2.1", _block(state, shape, "b2.0", part))[0])
    return feats


def rearrange(patches: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Return the patches [N, width] shifted and shuffled as the jigsaw module deals them, with its padding."""
    moved = shape.shift - 1
    patches = torch.cat([patches[moved:], patches[:moved]])
    last_but_one = patches[-2:-1]
    while len(patches) % shape.groups:
        patches = torch.cat([patches, last_but_one])
    return patches.view(shape.groups, -1, shape.width).transpose(0, 1).reshape(-1, shape.width)


def _block(state: dict[str, torch.Tensor], shape: Shape, name: str, tokens: torch.Tensor) -> torch.Tensor:
    tokens = tokens + _attention(state, shape, f"{name}.attn", _norm(state, f"{name}.norm1", tokens))
    hidden = _linear(state, f"{name}.mlp.fc1", _norm(state, f"{name}.norm2", tokens))
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    return tokens + _linear(state, f"{name}.mlp.fc2", hidden)


def _attention(state: dict[str, torch.Tensor], shape: Shape, name: str, tokens: torch.Tensor) -> torch.Tensor:
    query, key, value = _linear(state, f"{name}.qkv", tokens).split(shape.width, dim=1)
    size = shape.width // shape.heads
    scale = size**-0.5 if shape.scale is None else shape.scale
    mixed = []
    for head in range(shape.heads):
        part = slice(head * size, (head + 1) * size)
        score = scale * query[:, part] @ key[:, part].t()
        weight = score.exp() / score.exp().sum(dim=1, keepdim=True)
        mixed.append(weight @ value[:, part])
    return _linear(state, f"{name}.proj", torch.cat(mixed, dim=1))


def _linear(state: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    return x @ state[f"{name}.weight"].t() + state.get(f"{name}.bias", torch.zeros(()))


def _norm(state: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    spread = (centred.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
    return centred / spread * state[f"{name}.weight"] + state[f"{name}.bias"]


def _neck(state: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    spread = (state[f"{name}.running_var"] + 1e-5).sqrt()
    return (x - state[f"{name}.running_mean"]) / spread * state[f"{name}.weight"] + state[f"{name}.bias"]
