"""CLIP's image tower for several modalities: blocks that all share, adapters and a first layer of its own for each.

References: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021; Hu et al.,
LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022; Zuo et al., ReID5o, NeurIPS 2025 (the first layers).
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import nn

from model.layers.depth import add_update
from model.layers.mer import MERLinear

IN_BLOCK = {  # layers here -> open_clip's; q, k and v are the thirds of attn.in_proj_*
    "ln_1": "ln_1",
    "out": "attn.out_proj",
    "ln_2": "ln_2",
    "fc1": "mlp.c_fc",
    "fc2": "mlp.c_proj",
    "ls_1": "ls_1",
    "ls_2": "ls_2",
}
THIRDS = ("q", "k", "v")


class AdaptedTower(nn.Module):
    """Images [B, 3, H, W] of one modality -> features [B, D], not normalised.

    `visual` is open_clip's ViT, fitted to the images, whose parts and values it takes over. Its patches, class token,
    positions and first norm are copied for each of the `modalities`; its blocks, last norm and projection serve them
    all, and each linear layer of a block has adapters for each. Features begin as those of `visual`. `drop_path` is the
    stochastic depth of the last block, which grows linearly from 0. Raises ConfigError for a rank that a layer cannot
    have.
    """

    def __init__(
        self, visual: nn.Module, modalities: Sequence[str], rank: int, alpha: float, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        blocks = visual.transformer.resblocks
        drops = torch.linspace(0, drop_path, len(blocks), device="cpu").tolist()
        self.tokenizers = nn.ModuleDict({modality: ImageTokenizer(visual) for modality in modalities})
        self.blocks = nn.ModuleList(
            AdaptedBlock(block, modalities, (rank, alpha), drop) for block, drop in zip(blocks, drops, strict=True)
        )
        self.ln_post, self.proj = visual.ln_post, visual.proj

    @property
    def width(self) -> int:
        """D, the width of the features."""
        return self.proj.shape[1]

    def forward(self, images: torch.Tensor, modality: str) -> torch.Tensor:
        """Return the features [B, D] of images [B, 3, H, W]; ValueError for a modality that it does not have."""
        self.check(modality)
        tokens = self.tokenizers[modality](images)
        *blocks, last = self.blocks
        for block in blocks:
            tokens = block(tokens, modality)
        return self.ln_post(last(tokens, modality, first_only=True)[:, 0]) @ self.proj

    def check(self, modality: str) -> None:
        """Raise ValueError for a modality that the tower does not have."""
        if modality not in self.tokenizers:
            raise ValueError(
                f"'{modality}' is no modality of images of this model, which has {', '.join(self.tokenizers)}"
            )

    def own_weights(self, modality: str) -> list[nn.Parameter]:
        """Return the weights that one modality alone goes through."""
        own = (f"tokenizers.{modality}.", f".lora_a.{modality}", f".lora_b.{modality}")
        return [weight for name, weight in self.named_parameters() if name.startswith(own[0]) or name.endswith(own[1:])]

    def folded(self, modality: str) -> dict[str, torch.Tensor]:
        """Return the tower of one modality by open_clip's names, its adapters folded into the weights, detached.

        Raises ValueError for a modality that the tower does not have.
        """
        self.check(modality)
        weights = {**self.tokenizers[modality].state_dict(), "proj": self.proj.detach()}
        weights |= {f"ln_post.{name}": value for name, value in self.ln_post.state_dict().items()}
        for number, block in enumerate(self.blocks):
            inside = block.folded(modality)
            weights |= {f"transformer.resblocks.{number}.{name}": value for name, value in inside.items()}
        return weights


class ImageTokenizer(nn.Module):
    """Images [B, 3, H, W] -> normalised tokens [B, 1 + N, W]: copies of what a ViT of open_clip has before its blocks.

    Names are open_clip's.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.conv1 = copy.deepcopy(visual.conv1)
        self.class_embedding = copy.deepcopy(visual.class_embedding)
        self.positional_embedding = copy.deepcopy(visual.positional_embedding)
        self.ln_pre = copy.deepcopy(visual.ln_pre)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.conv1(images).flatten(2).transpose(1, 2)  # [B, N, W]
        first = self.class_embedding.expand(patches.shape[0], 1, -1)  # not len: exported graphs take any B
        return self.ln_pre(torch.cat([first, patches], dim=1) + self.positional_embedding)


class AdaptedBlock(nn.Module):
    """A block of open_clip's ViT whose six linear layers have adapters, `lora` = (rank, alpha), for each modality."""

    def __init__(
        self, block: nn.Module, modalities: Sequence[str], lora: tuple[int, float], drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.heads = block.attn.num_heads
        layers = [*_thirds(block.attn), block.attn.out_proj, block.mlp.c_fc, block.mlp.c_proj]
        self.q, self.k, self.v, self.out, self.fc1, self.fc2 = (MERLinear(layer, modalities, *lora) for layer in layers)
        self.ln_1, self.ln_2, self.ls_1, self.ls_2 = block.ln_1, block.ln_2, block.ls_1, block.ls_2
        self.activation = block.mlp.gelu
        self.drop_1, self.drop_2 = (DropPath(drop_path) if drop_path else nn.Identity() for _ in range(2))

    def forward(self, tokens: torch.Tensor, modality: str, first_only: bool = False) -> torch.Tensor:
        """Return tokens [B, T, W] of one modality after the block; `first_only` the first one alone, [B, 1, W]."""
        rows = tokens[:, :1] if first_only else tokens
        rows = add_update(rows, self.drop_1, lambda seen: self.ls_1(self._attend(seen, modality, first_only)), tokens)
        return add_update(rows, self.drop_2, lambda seen: self.ls_2(self._mix(seen, modality)))

    def _attend(self, tokens: torch.Tensor, modality: str, first_only: bool) -> torch.Tensor:
        normal = self.ln_1(tokens)
        asking = normal[:, :1] if first_only else normal
        rows = ((self.q, asking), (self.k, normal), (self.v, normal))
        q, k, v = (layer(x, modality).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer, x in rows)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2), modality)

    def _mix(self, tokens: torch.Tensor, modality: str) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(self.ln_2(tokens), modality)), modality)

    def folded(self, modality: str) -> dict[str, torch.Tensor]:
        """Return the block's weights by open_clip's names, the adapters of a modality folded in, detached."""
        weights = {}
        for kind in ("weight", "bias"):
            parts = [self._folded(getattr(self, layer), kind, modality) for layer in THIRDS]
            weights[f"attn.in_proj_{kind}"] = torch.cat(parts)
        for ours, theirs in IN_BLOCK.items():
            layer = getattr(self, ours)
            kinds = [name for name, _ in layer.named_parameters(recurse=False)]
            weights |= {f"{theirs}.{kind}": self._folded(layer, kind, modality) for kind in kinds}
        return weights

    def _folded(self, layer: nn.Module, kind: str, modality: str) -> torch.Tensor:
        if kind == "weight" and isinstance(layer, MERLinear):
            return layer.merged(modality)
        return getattr(layer, kind).detach()


def _thirds(attention: nn.MultiheadAttention) -> list[nn.Linear]:
    """Return the linear layers that make queries, keys and values, with copies of their rows of the fused weight."""
    width = attention.embed_dim
    layers = []
    rows = zip(attention.in_proj_weight.detach().chunk(3), attention.in_proj_bias.detach().chunk(3), strict=True)
    for weight, bias in rows:
        layer = nn.Linear(width, width, device="meta")
        layer.weight, layer.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
        layers.append(layer)
    return layers
