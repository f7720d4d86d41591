"""CLIP-ReID as its formulas read: float64 tensors by their published names, one head, row or pair at a time.

A `state` is a state dict of CLIP-ReID's names in float64; no module is built, nothing is cached or left out.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

State = dict[str, torch.Tensor]
EPS = 1e-5  # of all norms
RESNET_STRIDES = {1: 1, 2: 2, 3: 2, 4: 1}  # of the first block of each layer


class Levels(NamedTuple):
    last: torch.Tensor
    own: torch.Tensor
    projected: torch.Tensor


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x / (1 + torch.exp(-1.702 * x))


def gelu(x: torch.Tensor) -> torch.Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def layer_norm(x: torch.Tensor, state: State, name: str) -> torch.Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + EPS) * state[f"{name}.weight"] + state[f"{name}.bias"]


def batch_norm(x: torch.Tensor, state: State, name: str, training: bool) -> torch.Tensor:
    """Channels are dimension 1; the running statistics stay as they are."""
    others = [d for d in range(x.dim()) if d != 1]
    shape = [1, -1] + [1] * (x.dim() - 2)
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    if training:
        mean = x.mean(others)
        variance = ((x - mean.view(shape)) ** 2).mean(others)
    scaled = (x - mean.view(shape)) / torch.sqrt(variance.view(shape) + EPS)
    return scaled * state[f"{name}.weight"].view(shape) + state[f"{name}.bias"].view(shape)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, causal: bool = False) -> torch.Tensor:
    """q [B, Q, W], k and v [B, K, W] -> [B, Q, W], one head after the other."""
    width = q.shape[-1] // heads
    results = []
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        scores = torch.einsum("bqw,bkw->bqk", q[..., own], k[..., own]) / math.sqrt(width)
        if causal:
            for row in range(scores.shape[1]):
                scores[:, row, row + 1 :] = -math.inf
        shares = torch.exp(scores - scores.max(-1, keepdim=True).values)
        results.append(torch.einsum("bqk,bkw->bqw", shares / shares.sum(-1, keepdim=True), v[..., own]))
    return torch.cat(results, -1)


def block(x: torch.Tensor, state: State, name: str, heads: int, activation: object, causal: bool) -> torch.Tensor:
    width = x.shape[-1]
    normal = layer_norm(x, state, f"{name}.ln_1")
    weight, bias = state[f"{name}.attn.in_proj_weight"], state[f"{name}.attn.in_proj_bias"]
    thirds = [slice(third * width, (third + 1) * width) for third in range(3)]
    q, k, v = (normal @ weight[rows].t() + bias[rows] for rows in thirds)
    x = x + linear(attend(q, k, v, heads, causal), state, f"{name}.attn.out_proj")
    hidden = activation(linear(layer_norm(x, state, f"{name}.ln_2"), state, f"{name}.mlp.c_fc"))
    return x + linear(hidden, state, f"{name}.mlp.c_proj")


def linear(x: torch.Tensor, state: State, name: str) -> torch.Tensor:
    return x @ state[f"{name}.weight"].t() + state[f"{name}.bias"]


def depth(state: State, prefix: str) -> int:
    return len(
        {name.split(".resblocks.")[1].split(".")[0] for name in state if name.startswith(f"{prefix}transformer")}
    )


def vit(
    state: State,
    images: torch.Tensor,
    stride: tuple[int, int],
    heads: int,
    activation: object = quick_gelu,
    side: torch.Tensor | None = None,
) -> Levels:
    """`side` [B, W] is what is added to the class token, the coefficient included."""
    name = "image_encoder."
    kernel = state[f"{name}conv1.weight"]
    size = kernel.shape[-1]
    tokens = []
    for y in range(0, images.shape[2] - size + 1, stride[0]):
        for x in range(0, images.shape[3] - size + 1, stride[1]):
            tokens.append(torch.einsum("bcyx,wcyx->bw", images[:, :, y : y + size, x : x + size], kernel))
    first = state[f"{name}class_embedding"].expand(len(images), -1)
    tokens = torch.stack([first if side is None else first + side, *tokens], 1)
    tokens = layer_norm(tokens + state[f"{name}positional_embedding"], state, f"{name}ln_pre")
    outputs = []
    for number in range(depth(state, name)):
        tokens = block(tokens, state, f"{name}transformer.resblocks.{number}", heads, activation, causal=False)
        outputs.append(tokens)
    own = layer_norm(outputs[-1], state, f"{name}ln_post")
    return Levels(outputs[-2][:, 0], own[:, 0], (own @ state[f"{name}proj"])[:, 0])


def side_row(table: torch.Tensor, cameras: int, views: int, camera: int, view: int) -> torch.Tensor:
    """The row of the table [cameras * views, W]; a side of 0 is off, a negative label is the mean over its side."""
    of_camera = [0] if not cameras else range(cameras) if camera < 0 else [camera]
    of_view = [0] if not views else range(views) if view < 0 else [view]
    rows = [table[c * max(views, 1) + v] for c in of_camera for v in of_view]
    return sum(rows) / len(rows)


def convolve(x: torch.Tensor, kernel: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """Padded so that stride 1 keeps the size."""
    size = kernel.shape[-1]
    padded = x.new_zeros(*x.shape[:2], x.shape[2] + size - 1, x.shape[3] + size - 1)
    middle = size // 2
    padded[:, :, middle : middle + x.shape[2], middle : middle + x.shape[3]] = x
    total = 0
    for dy in range(size):
        for dx in range(size):
            seen = padded[:, :, dy : dy + x.shape[2], dx : dx + x.shape[3]][:, :, ::stride, ::stride]
            total = total + torch.einsum("bcyx,oc->boyx", seen, kernel[:, :, dy, dx])
    return total


def average_pool(x: torch.Tensor, size: int) -> torch.Tensor:
    return sum(x[:, :, dy::size, dx::size] for dy in range(size) for dx in range(size)) / size**2


def resnet(state: State, images: torch.Tensor, heads: int, training: bool = False) -> Levels:
    name = "image_encoder."

    def norm(x: torch.Tensor, where: str) -> torch.Tensor:
        return batch_norm(x, state, where, training)

    x = images
    for number, stride in ((1, 2), (2, 1), (3, 1)):
        x = norm(convolve(x, state[f"{name}conv{number}.weight"], stride), f"{name}bn{number}").clamp(min=0)
    x = average_pool(x, 2)
    outputs = []
    for layer, first_stride in RESNET_STRIDES.items():
        number = 0
        while f"{name}layer{layer}.{number}.conv1.weight" in state:
            own, stride = f"{name}layer{layer}.{number}.", first_stride if number == 0 else 1
            y = norm(convolve(x, state[f"{own}conv1.weight"]), f"{own}bn1").clamp(min=0)
            y = norm(convolve(y, state[f"{own}conv2.weight"]), f"{own}bn2").clamp(min=0)
            y = norm(convolve(average_pool(y, stride), state[f"{own}conv3.weight"]), f"{own}bn3")
            if f"{own}downsample.0.weight" in state:
                x = norm(convolve(average_pool(x, stride), state[f"{own}downsample.0.weight"]), f"{own}downsample.1")
            x = (x + y).clamp(min=0)
            number += 1
        outputs.append(x)
    last, own = outputs[-2].mean((2, 3)), outputs[-1].mean((2, 3))
    return Levels(last, own, attention_pool(state, f"{name}attnpool.", outputs[-1], heads))


def attention_pool(state: State, name: str, maps: torch.Tensor, heads: int) -> torch.Tensor:
    places = [maps[:, :, y, x] for y in range(maps.shape[2]) for x in range(maps.shape[3])]
    tokens = torch.stack([sum(places) / len(places), *places], 1) + state[f"{name}positional_embedding"]
    q, k, v = (linear(tokens, state, f"{name}{part}_proj") for part in "qkv")
    return linear(attend(q, k, v, heads), state, f"{name}c_proj")[:, 0]


def texts(
    state: State, labels: Sequence[int], heads: int, end: int = 11, activation: object = quick_gelu
) -> torch.Tensor:
    """One sentence after the other, over all positions of the context."""
    features = []
    for label in labels:
        prompt = [state["prompt_learner.token_prefix"][0], state["prompt_learner.cls_ctx"][label]]
        x = torch.cat([*prompt, state["prompt_learner.token_suffix"][0]])[None]
        x = x + state["text_encoder.positional_embedding"]
        for number in range(depth(state, "text_encoder.")):
            x = block(x, state, f"text_encoder.transformer.resblocks.{number}", heads, activation, causal=True)
        x = layer_norm(x, state, "text_encoder.ln_final")
        features.append(x[0, end] @ state["text_encoder.text_projection"])
    return torch.stack(features)


def necks(state: State, levels: Levels, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
    own = batch_norm(levels.own, state, "bottleneck", training)
    return own, batch_norm(levels.projected, state, "bottleneck_proj", training)


def scores(state: State, levels: Levels) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a training batch."""
    own, projected = necks(state, levels, training=True)
    return own @ state["classifier.weight"].t(), projected @ state["classifier_proj.weight"].t()


def embedding(state: State, levels: Levels, neck_feat: str) -> torch.Tensor:
    return torch.cat([levels.own, levels.projected] if neck_feat == "before" else necks(state, levels, False), 1)


def contrast(
    anchor: torch.Tensor, other: torch.Tensor, mine: Sequence[int], theirs: Sequence[int], t: float = 1.0
) -> torch.Tensor:
    """The loss L(A, B) -> scalar; anchors without a positive have no share in the mean."""
    losses = []
    for row, label in zip(anchor, mine, strict=True):
        logits = torch.stack([(row * column).sum() / t for column in other])
        top = logits.max().detach()
        normaliser = top + torch.log(torch.exp(logits - top).sum())
        positives = [j for j, their in enumerate(theirs) if their == label]
        if positives:
            losses.append(-sum(logits[j] - normaliser for j in positives) / len(positives))
    return sum(losses) / len(losses)


def cross_entropy(logits: torch.Tensor, labels: Sequence[int], smoothing: float) -> torch.Tensor:
    count = logits.shape[1]
    total = 0
    for row, label in zip(logits, labels, strict=True):
        log_p = row - torch.log(torch.exp(row - row.max().detach()).sum()) - row.max().detach()
        total = total - sum(((1 - smoothing) * (c == label) + smoothing / count) * log_p[c] for c in range(count))
    return total / len(labels)


def triplet(features: torch.Tensor, labels: Sequence[int], margin: float = 0.3) -> torch.Tensor:
    total, count = 0, len(labels)
    for i in range(count):
        apart = [((features[i] - features[j]) ** 2).sum().clamp(min=1e-300).sqrt() for j in range(count)]
        farthest = torch.stack([apart[j] for j in range(count) if j != i and labels[j] == labels[i]]).max()
        nearest = torch.stack([apart[j] for j in range(count) if labels[j] != labels[i]]).min()
        total = total + (farthest - nearest + margin).clamp(min=0)
    return total / count


def image_terms(
    state: State, levels: Levels, labels: Sequence[int], prototypes: torch.Tensor | None, smoothing: float = 0.1
) -> State:
    """The unweighted terms of a batch of images; without prototypes those of the baseline."""
    terms = {
        "id": sum(cross_entropy(logits, labels, smoothing) for logits in scores(state, levels)),
        "triplet": sum(triplet(features, labels) for features in levels),
    }
    if prototypes is not None:
        terms["i2t"] = cross_entropy(levels.projected @ prototypes.t(), labels, smoothing)
    return terms


def prompt_rate(epoch: int, base: float, first: float, lowest: float, warmup: int, epochs: int) -> float:
    if epoch < warmup:
        return first + epoch * (base - first) / warmup
    return lowest if epoch >= epochs else lowest + (base - lowest) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def image_rate(epoch: int, base: float, factor: float, warmup: int, steps: Sequence[int], gamma: float) -> float:
    warm = factor * (1 - epoch / warmup) + epoch / warmup if epoch < warmup else 1.0
    return base * warm * gamma ** sum(step <= epoch for step in steps)


class Adam:
    """Adam with L2 decay, or AdamW where `decoupled`, for one weight."""

    def __init__(self, decay: float, decoupled: bool = False) -> None:
        self.decay, self.decoupled = decay, decoupled
        self.steps, self.first, self.second = 0, 0.0, 0.0

    def step(self, weight: torch.Tensor, gradient: torch.Tensor, rate: float) -> torch.Tensor:
        self.steps += 1
        if self.decoupled:
            weight = weight * (1 - rate * self.decay)
        else:
            gradient = gradient + self.decay * weight
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        first, second = self.first / (1 - 0.9**self.steps), self.second / (1 - 0.999**self.steps)
        return weight - rate * first / (torch.sqrt(second) + 1e-8)


def resize_positions(table: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """A table of a square grid for another one: the first row as it is, the others bilinear between pixel centres."""
    side = math.isqrt(len(table) - 1)
    if len(table) - 1 == grid[0] * grid[1]:
        return table
    rows = [table[0]]
    for y in range(grid[0]):
        for x in range(grid[1]):
            value = 0
            for row, row_share in shares((y + 0.5) * side / grid[0] - 0.5, side):
                for column, column_share in shares((x + 0.5) * side / grid[1] - 0.5, side):
                    value = value + row_share * column_share * table[1 + row * side + column]
            rows.append(value)
    return torch.stack(rows)


def shares(place: float, size: int) -> list[tuple[int, float]]:
    """The two neighbours of a place on 0..size-1 and their shares; beyond the ends there is the end."""
    place = min(max(place, 0.0), size - 1.0)
    low = math.floor(place)
    return [(low, 1 - (place - low)), (min(low + 1, size - 1), place - low)]
