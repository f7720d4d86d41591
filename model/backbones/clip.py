"""CLIP's image towers, open_clip's and transformers', and the images that they want to see.

Reference: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from utils.errors import ConfigError

SIZE_KEY = "MODEL.CLIP_INPUT_SIZE"


class Normalisation(NamedTuple):
    """RGB mean and standard deviation of images in [0, 1]."""

    mean: Sequence[float]
    std: Sequence[float]


class TowerInfo(NamedTuple):
    """What is known about a tower beside its weights."""

    feat_dim: int  # D
    image_size: tuple[int, int]  # (height, width) in pixels
    normalisation: Normalisation
    source: str  # of its weights, for messages
    reloadable: bool  # False: random weights, which only a checkpoint can bring back


class OpenClipTower(nn.Module):
    """The image tower of an open_clip model: images [B, 3, *image_size] -> projected features [B, D].

    The weights are called `visual.*`, as in open_clip's files. `grid` is set where the tower is open_clip's own ViT,
    whose position table can be resized.
    """

    interpolation = "bicubic"
    antialias = True  # of the position table
    positions = "visual.positional_embedding"

    def __init__(self, visual: nn.Module, info: TowerInfo) -> None:
        super().__init__()
        self.visual = visual
        self.grid = tuple(visual.grid_size) if self.positions in self.state_dict() else None  # (rows, columns)
        self.info = info

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.visual(images)


class HfTower(nn.Module):
    """The image tower of a transformers CLIP: images [B, 3, *image_size] -> [B, D], class token after post_layernorm.

    It takes the parts of `vision`, a transformers CLIPVisionModel (of versions that wrap it: its `vision_model`), so
    that the weights are called `embeddings.*`, `pre_layrnorm.*`, `encoder.*` and `post_layernorm.*` in all versions.
    The position table is drawn anew for `info.image_size`.
    """

    interpolation = "bilinear"
    antialias = False  # of the position table
    positions = "embeddings.position_embedding.weight"

    def __init__(self, vision: nn.Module, info: TowerInfo) -> None:
        super().__init__()
        patch = vision.embeddings.patch_embedding.kernel_size
        self.grid = (info.image_size[0] // patch[0], info.image_size[1] // patch[1])
        self.embeddings = PatchTokens(vision.embeddings, self.grid)
        self.pre_layrnorm = vision.pre_layrnorm
        self.encoder = vision.encoder
        self.post_layernorm = vision.post_layernorm
        self.info = info

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.pre_layrnorm(self.embeddings(images))  # [B, 1 + N, D]
        tokens = self.encoder(inputs_embeds=tokens).last_hidden_state
        return self.post_layernorm(tokens[:, 0])


Tower = OpenClipTower | HfTower


class PatchTokens(nn.Module):
    """Images [B, 3, H, W] -> class token and patches [B, 1 + N, D]: transformers' CLIP embeddings for any grid."""

    def __init__(self, embeddings: nn.Module, grid: tuple[int, int]) -> None:
        super().__init__()
        self.class_embedding = embeddings.class_embedding
        self.patch_embedding = embeddings.patch_embedding
        self.position_embedding = nn.Embedding(1 + grid[0] * grid[1], len(self.class_embedding))
        nn.init.normal_(self.position_embedding.weight, std=embeddings.config.initializer_range)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.patch_embedding(images).flatten(2).transpose(1, 2)  # [B, N, D]
        first = self.class_embedding.expand(patches.shape[0], 1, -1).to(patches.dtype)
        return torch.cat([first, patches], dim=1) + self.position_embedding.weight


class Renormalise(nn.Module):
    """Images [B, 3, H, W] normalised by `old` -> [B, 3, *size] normalised by `new`, resized where sizes differ.

    Resizing aligns pixel centres as usual (align_corners False), by default without antialiasing, as in Model B.
    """

    def __init__(
        self,
        old: Normalisation,
        new: Normalisation,
        size: tuple[int, int],
        interpolation: str,
        antialias: bool = False,
    ) -> None:
        super().__init__()
        mean, std, new_mean, new_std = (torch.tensor(row, dtype=torch.float64) for row in (*old, *new))
        scale, shift = std / new_std, (mean - new_mean) / new_std
        self.register_buffer("scale", scale.float().reshape(3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.float().reshape(3, 1, 1), persistent=False)
        self.size = size
        self.interpolation = interpolation
        self.antialias = antialias

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images * self.scale + self.shift
        if tuple(images.shape[-2:]) == self.size:
            return images
        resizing = {"mode": self.interpolation, "align_corners": False, "antialias": self.antialias}
        return F.interpolate(images, size=self.size, **resizing)


def check_patches(size: Sequence[float], patch: int, tower: str) -> tuple[int, int]:
    """Return MODEL.CLIP_INPUT_SIZE as integers; ConfigError when the tower's patches do not fill it."""
    if not isinstance(patch, int) or patch < 1:
        raise ConfigError(
            f"{tower} has patches of {patch} pixels, expected a whole number above 0; mend its description"
        )
    if any(side % patch for side in size):
        below = [max(int(side // patch), 1) * patch for side in size]
        above = [int(-(-side // patch)) * patch for side in size]
        near = f"{below} or {above}" if below != above else f"{below}"
        raise ConfigError(
            f"{SIZE_KEY} {list(size)} is no multiple of the patches of {tower}, {patch} x {patch} pixels; set {near}"
        )
    return int(size[0]), int(size[1])
