"""Parameters of the trunks that have recipes, work of one forward pass, and licence of their weights, as a table.

1 GFLOP = 10^9 floating point operations, a multiply-add counts as two. Counted are the matrix products (convolution,
linear layers, attention, pooling) of one image through the trunk with a class token or pooling (of the last block no
more than that needs), without side information, jigsaw module, necks and heads; norms, activations and rotations are
left out. Nothing is downloaded.

python benchmarks/trunks.py     (no arguments; ten seconds on one core, no memory for weights)
"""

import sys
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from model.backbones.vit import VisionTransformer
from model.backbones.vit_types import Dropping, build_trunk, published_weights

TRUNKS = {  # MODEL.TRANSFORMER_TYPE: recipe in configs/VeRi
    "deit_base_patch16_224_TransReID": "deit_transreid",
    "timm/deit3_base_patch16_224.fb_in22k_ft_in1k": "deit3_transreid",
    "timm/vit_base_patch14_reg4_dinov2.lvd142m": "dinov2_transreid",
    "timm/vit_base_patch16_dinov3.lvd1689m": "dinov3_transreid",
    "timm/eva02_base_patch14_224.mim_in22k": "eva02_transreid",
    "timm/eva02_base_patch16_clip_224.merged2b": "eva02_clip_transreid",
    "timm/vit_base_patch16_siglip_256.v2_webli": "siglip_transreid",
    "timm/vit_base_patch16_clip_quickgelu_224.openai": "clip_transreid",
}
SIZES = ((256, 256), (256, 128))  # y, x in pixels; a trunk takes the next smaller multiples of its patch
OVERLAP = 12  # TransReID's stride, for the patches of 16 pixels that it was chosen for
OVERLAP_PATCH = 16
HEADER = (
    *("`MODEL.TRANSFORMER_TYPE`", "parameters", "GFLOP 256x256", "GFLOP 256x128", "the same at stride 12"),
    *("licence of the weights", "recipe"),
)


class Work(NamedTuple):
    """Parameters of a trunk and floating point operations of one image through it."""

    parameters: int
    flop: int


def count_work(kind: str, size: tuple[int, int], stride: int | None = None) -> Work:
    """Count one forward pass of the trunk `kind` at about `size` (y, x) in pixels; `stride` None = its patch size."""
    with torch.device("meta"):
        trunk = build_trunk(kind, {}, Dropping())
        patch = trunk.patch_embed.patch_size[0]
        size = tuple(side // patch * patch for side in size)
        model = VisionTransformer(trunk, size, (stride or patch,) * 2, imagenet_head=False).requires_grad_(False)
        image = torch.empty(1, 3, *size)
    with FlopCounterMode(display=False) as counter:
        model.eval()(image)
    return Work(sum(weight.numel() for weight in model.parameters()), counter.get_total_flops())


def describe(kind: str, recipe: str) -> list[str]:
    """Return the cells of one row."""
    plain = [count_work(kind, size) for size in SIZES]
    cells = [f"{work.flop / 1e9:.1f}" for work in plain]
    overlapping = "-"
    if f"patch{OVERLAP_PATCH}_" in kind:
        overlapping = " / ".join(f"{count_work(kind, size, OVERLAP).flop / 1e9:.1f}" for size in SIZES)
    licence = timm.get_pretrained_cfg(published_weights(kind, {})).license or "see its page"
    return [f"`{kind}`", f"{plain[0].parameters / 1e6:.1f} M", *cells, overlapping, licence, f"`{recipe}`"]


def main() -> None:
    print(f"| {' | '.join(HEADER)} |")
    print("|---" * len(HEADER) + "|")
    for kind, recipe in TRUNKS.items():
        print(f"| {' | '.join(describe(kind, recipe))} |")


if __name__ == "__main__":
    main()
