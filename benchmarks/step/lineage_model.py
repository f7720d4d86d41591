"""The reference network of benchmarks/train_step.py: TransReID as its lineage computes it, in plain torch.

Attention writes out its softmax, every branch sees all of its tokens, the local branches run one by one. `Levers`
switches on what the framework does instead, one after the other. Weights have TransReID's names.
Reference: He et al., TransReID: Transformer-based Object Re-Identification, ICCV 2021.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

NORM_EPS = 1e-6
IMAGENET_CLASSES = 1000


class Sizes(NamedTuple):
    """Everything that the shapes of the network depend on."""

    width: int
    depth: int  # blocks; the last one is copied into the branches
    heads: int
    patch: int
    stride: int
    image: tuple[int, int]  # y, x in pixels
    num_class: int
    cameras: int
    views: int  # 1 = viewpoints are not embedded
    sie_coe: float
    branches: int  # local ones
    shift: int
    groups: int
    drop_path: float

    @property
    def patches(self) -> int:
        """How many patches an image has."""
        rows, columns = ((side - self.patch) // self.stride + 1 for side in self.image)
        return rows * columns


class Levers(NamedTuple):
    """What differs from the lineage within the network, and for the same result."""

    fused_attention: bool = False
    batched_branches: bool = False  # the local branches as one batch
    class_token_only: bool = False  # the last blocks compute the one token that is read


class Attention(nn.Module):
    """Tokens [B, T, D] -> [B, T, D], or [B, 1, D] when only the class token asks."""

    def __init__(self, width: int, heads: int, levers: Levers) -> None:
        super().__init__()
        self.heads, self.scale, self.levers = heads, (width // heads) ** -0.5, levers
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, last: bool = False) -> torch.Tensor:
        batch, tokens, width = x.shape
        if last and self.levers.class_token_only:
            weight, bias = self.qkv.weight, self.qkv.bias
            queries = F.linear(x[:, :1], weight[:width], bias[:width])
            q = queries.reshape(batch, 1, self.heads, -1).transpose(1, 2)
            pairs = F.linear(x, weight[width:], bias[width:]).reshape(batch, tokens, 2, self.heads, -1)
            k, v = pairs.permute(2, 0, 3, 1, 4)
        else:
            q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if self.levers.fused_attention:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(batch, q.shape[2], width))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm block with stochastic depth."""

    def __init__(self, sizes: Sizes, drop_path: float, levers: Levers) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(sizes.width, eps=NORM_EPS)
        self.attn = Attention(sizes.width, sizes.heads, levers)
        self.norm2 = nn.LayerNorm(sizes.width, eps=NORM_EPS)
        self.mlp = Mlp(sizes.width)
        self.drop_path, self.levers = drop_path, levers

    def forward(self, x: torch.Tensor, last: bool = False) -> torch.Tensor:
        kept = x[:, :1] if last and self.levers.class_token_only else x
        x = kept + self._drop(self.attn(self.norm1(x), last))
        return x + self._drop(self.mlp(self.norm2(x)))

    def _drop(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.drop_path == 0:
            return x
        keep = 1 - self.drop_path
        mask = (keep + torch.rand(x.shape[0], 1, 1, dtype=x.dtype, device=x.device)).floor()
        return x.div(keep) * mask


class Branch(nn.Sequential):
    """The last block and the norm: tokens [B, T, D] -> the class token [B, D]."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        block, norm = self
        return norm(block(tokens, last=True))[:, 0]


class Patches(nn.Module):
    """The convolution that makes patches, under its name in checkpoints."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, sizes.width, sizes.patch, stride=sizes.stride)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class Trunk(nn.Module):
    """Images -> tokens after all blocks but the last, which like `norm` and `fc` is held for its weights only."""

    def __init__(self, sizes: Sizes, levers: Levers) -> None:
        super().__init__()
        self.sizes = sizes
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + sizes.patches, sizes.width))
        self.sie_embed = nn.Parameter(torch.zeros(sizes.cameras * sizes.views, 1, sizes.width))
        self.patch_embed = Patches(sizes)
        rates = [sizes.drop_path * index / (sizes.depth - 1) for index in range(sizes.depth)]
        self.blocks = nn.ModuleList(Block(sizes, rate, levers) for rate in rates)
        self.norm = nn.LayerNorm(sizes.width, eps=NORM_EPS)
        self.fc = nn.Linear(sizes.width, IMAGENET_CLASSES)

    def forward(self, images: torch.Tensor, cameras: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(images)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1)
        rows = cameras * self.sizes.views + views if self.sizes.views > 1 else cameras
        x = x + self.pos_embed + self.sizes.sie_coe * self.sie_embed[rows]
        for block in self.blocks[:-1]:
            x = block(x)
        return x


class LineageModel(nn.Module):
    """Images and labels -> (logits, features) of the global and the local branches, or the embedding in eval mode."""

    def __init__(self, sizes: Sizes, levers: Levers | None = None) -> None:
        super().__init__()
        levers = levers or Levers()
        self.sizes, self.levers = sizes, levers
        self.base = Trunk(sizes, levers)
        for name in ("b1", "b2"):
            block = Block(sizes, sizes.drop_path, levers)
            self.add_module(name, Branch(block, nn.LayerNorm(sizes.width, eps=NORM_EPS)))
        suffixes = ["", *(f"_{number}" for number in range(1, sizes.branches + 1))]
        for suffix in suffixes:
            self.add_module(f"classifier{suffix}", nn.Linear(sizes.width, sizes.num_class, bias=False))
            neck = nn.BatchNorm1d(sizes.width)
            neck.bias.requires_grad_(False)
            self.add_module(f"bottleneck{suffix}", neck)
        self._suffixes = suffixes

    def forward(
        self, images: torch.Tensor, cameras: torch.Tensor, views: torch.Tensor
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]] | torch.Tensor:
        tokens = self.base(images, cameras, views)
        feats = [self.b1(tokens), *self._local(tokens)]
        necks = [
            self.get_submodule(f"bottleneck{name}")(feat) for name, feat in zip(self._suffixes, feats, strict=True)
        ]
        if not self.training:
            return torch.cat([feats[0], *(feat / self.sizes.branches for feat in feats[1:])], dim=1)
        heads = (self.get_submodule(f"classifier{name}") for name in self._suffixes)
        return [head(neck) for head, neck in zip(heads, necks, strict=True)], feats

    def _local(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        first, mixed = tokens[:, :1], self._shuffled(tokens[:, 1:])
        length = self.sizes.patches // self.sizes.branches
        parts = [
            torch.cat((first, mixed[:, index * length : (index + 1) * length]), dim=1)
            for index in range(self.sizes.branches)
        ]
        if self.levers.batched_branches:
            return list(self.b2(torch.cat(parts)).chunk(self.sizes.branches))
        return [self.b2(part) for part in parts]

    def _shuffled(self, patches: torch.Tensor) -> torch.Tensor:
        """Return the patches [B, N, D] shifted and dealt out by columns of `groups` rows."""
        batch, count, width = patches.shape
        moved = self.sizes.shift - 1
        patches = torch.cat((patches[:, moved:], patches[:, :moved]), dim=1)
        while patches.shape[1] % self.sizes.groups:
            patches = torch.cat((patches, patches[:, count - 2 : count - 1]), dim=1)
        return patches.reshape(batch, self.sizes.groups, -1, width).transpose(1, 2).reshape(batch, -1, width)
