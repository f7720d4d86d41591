"""What a model of several modalities is written as: the tower of one of them, adapters folded in, or their fusion."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from configs.modalities import TEXT
from model.layers.mer import MERLinear

FUSION = "fusion"  # beside the modalities, what can be written


class ImageEmbedder(nn.Module):
    """Images [B, 3, H, W] of one modality -> embedding [B, D] as tests compute it; a copy of `model` on the CPU.

    `pixels` is (mean, std) of RGB in 0..1 where the images are float32 RGB in 0..255, None where they are normalised.
    `flip` averages the features of an image and its mirror. Unless `fused` these features are returned, the input of
    the fusion; `unit` normalises what is fused.
    """

    input = "images"

    def __init__(
        self,
        model: nn.Module,
        modality: str,
        pixels: tuple[Sequence[float], Sequence[float]] | None,
        flip: bool,
        unit: bool,
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.model, self.modality = alone(model, modality, fused), modality
        self.flip, self.unit, self.fused, self.normalise = flip, unit and fused, fused, pixels is not None
        if pixels is not None:
            mean, std = (torch.tensor(row, dtype=torch.float32).reshape(3, 1, 1) for row in pixels)
            self.register_buffer("pixel_mean", mean)  # an exported graph may call a node `mean`
            self.register_buffer("pixel_std", std)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.normalise:
            images = (images / 255 - self.pixel_mean) / self.pixel_std
        feat = self.model.encode(self.modality, images)
        if self.flip:
            feat = (feat + self.model.encode(self.modality, images.flip(3))) / 2
        return fused_alone(self.model, feat, self.unit) if self.fused else feat


class TokenEmbedder(nn.Module):
    """Captions [B, L] int64 -> embedding [B, D] as tests compute it; the rest is as of an `ImageEmbedder`."""

    input = "tokens"
    modality = TEXT

    def __init__(self, model: nn.Module, unit: bool, fused: bool = True) -> None:
        super().__init__()
        self.model = alone(model, TEXT, fused)
        self.unit, self.fused = unit and fused, fused

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        feat = self.model.encode(TEXT, tokens)
        return fused_alone(self.model, feat, self.unit) if self.fused else feat


class FusionEmbedder(nn.Module):
    """Features [B, M, D] of the items of queries, and which of them are there, bool [B, M] -> embedding [B, D].

    A copy of the fusion of `model` on the CPU; `unit` normalises the embedding.
    """

    input = "features"

    def __init__(self, model: nn.Module, unit: bool) -> None:
        super().__init__()
        self.model, self.unit = copied(model), unit
        self.model.keep_embedding_only()
        self.model.vision = self.model.text = None

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        feat = self.model.fuse(features, mask)
        return F.normalize(feat, dim=1) if self.unit else feat


class FoldedLinear(nn.Module):
    """A linear layer [..., in] -> [..., out] with the adapters of one modality in its weight; called as MERLinear."""

    def __init__(self, linear: MERLinear, modality: str) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(linear.merged(modality), requires_grad=False), linear.bias

    def forward(self, x: torch.Tensor, modality: str) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias)


def alone(model: nn.Module, modality: str, fused: bool) -> nn.Module:
    """Return a copy of a model on the CPU that holds what encodes one modality, adapters folded in, and its fusion.

    Unless `fused` it has no fusion.
    """
    kept = copied(model)
    kept.keep_embedding_only()
    if modality == TEXT:
        kept.vision = None
    else:
        kept.text = None
        for name in [name for name in kept.vision.tokenizers if name != modality]:
            del kept.vision.tokenizers[name]
        for name in [name for name, layer in kept.named_modules() if isinstance(layer, MERLinear)]:
            kept.set_submodule(name, FoldedLinear(kept.get_submodule(name), modality))
    if not fused:
        kept.semantic = kept.fusion = kept.bottleneck = None
    return kept


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of a model in evaluation mode on the CPU, without gradients."""
    return copy.deepcopy(model).cpu().float().requires_grad_(False).eval()


def fused_alone(model: nn.Module, feat: torch.Tensor, unit: bool) -> torch.Tensor:
    """Return the embeddings [B, D] of queries of one item each, of features [B, D]; `unit` normalises them."""
    feat = model.fuse(feat[:, None], torch.ones_like(feat[:, :1], dtype=torch.bool))
    return F.normalize(feat, dim=1) if unit else feat
