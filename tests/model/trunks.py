"""Trunks of timm, one of each kind, in tiny sizes, and weight files as their authors name them."""

from typing import NamedTuple

import timm
import torch
from yacs.config import CfgNode

from tests.model.builds import make_cfg

SIZES = {"embed_dim": 48, "depth": 2, "num_heads": 2}
TINY = ("MODEL.VIT.EMBED_DIM", 48, "MODEL.VIT.DEPTH", 2, "MODEL.VIT.NUM_HEADS", 2, "MODEL.DROP_PATH", 0.0)


class Kind(NamedTuple):
    """A timm model; `pooling` and `prefix` (class and register tokens) as its authors describe it."""

    name: str
    patch: int
    pooling: str
    prefix: int


KINDS = {
    "vit": Kind("vit_tiny_patch16_224", 16, "token", 1),
    "deit3": Kind("deit3_small_patch16_224", 16, "token", 1),
    "dinov2": Kind("vit_small_patch14_dinov2", 14, "token", 1),
    "dinov2_registers": Kind("vit_small_patch14_reg4_dinov2", 14, "token", 5),
    "dinov3": Kind("vit_small_patch16_dinov3", 16, "token", 5),
    "eva02": Kind("eva02_tiny_patch14_224", 14, "avg", 1),
    "eva02_clip": Kind("eva02_base_patch16_clip_224", 16, "token", 1),
    "siglip": Kind("vit_base_patch16_siglip_224", 16, "map", 0),
    "clip": Kind("vit_base_patch16_clip_quickgelu_224", 16, "token", 1),
    "beit3": Kind("beit3_base_patch16_224", 16, "avg", 1),
    "gap_registers": Kind("vit_base_patch16_reg4_gap_256", 16, "avg", 4),
    "perception_encoder": Kind("vit_pe_core_tiny_patch16_384", 16, "map", 1),
    "rope_mixed": Kind("vit_small_patch16_rope_mixed_224", 16, "token", 1),
}


def kind_cfg(kind: str, *opts: object, rows: int = 4, columns: int = 3) -> CfgNode:
    """Return the configuration of a tiny trunk of this kind on rows x columns patches without overlap."""
    name, patch, *_ = KINDS[kind]
    size = [rows * patch, columns * patch]
    return make_cfg(
        *("MODEL.TRANSFORMER_TYPE", f"timm/{name}", *TINY, "MODEL.STRIDE_SIZE", [patch, patch]),
        *("INPUT.SIZE_TRAIN", size, "INPUT.SIZE_TEST", size, "TEST.NECK_FEAT", "before", *opts),
    )


def make_timm(kind: str, rows: int = 4, columns: int = 3, seed: int = 5) -> torch.nn.Module:
    """Return timm's own tiny model of this kind with random weights, none of them 0 or 1 as after initialisation."""
    name, patch, *_ = KINDS[kind]
    model = timm.create_model(name, num_classes=0, img_size=(rows * patch, columns * patch), **SIZES).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    return model


def as_dinov2(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return timm's weights of DINOv2 with registers as Meta's files hold them."""
    theirs = {name: value for name, value in state.items() if name not in ("cls_token", "reg_token", "pos_embed")}
    class_position = torch.randn(1, 1, state["cls_token"].shape[-1])
    return theirs | {
        "cls_token": state["cls_token"] - class_position,
        "register_tokens": state["reg_token"],
        "pos_embed": torch.cat([class_position, state["pos_embed"]], dim=1),
        "mask_token": torch.zeros(1, state["cls_token"].shape[-1]),
    }


def as_dinov3(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return timm's weights of DINOv3 as Meta's files hold them."""
    names = {"reg_token": "storage_tokens"}
    theirs = {
        names.get(name, name).replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma"): value
        for name, value in state.items()
    }
    for block in range(SIZES["depth"]):  # the distilled models' biases are 0, and timm has none
        theirs[f"blocks.{block}.attn.qkv.bias"] = torch.zeros(3 * SIZES["embed_dim"])
    return theirs | {"mask_token": torch.zeros(1, SIZES["embed_dim"]), "rope_embed.periods": torch.ones(6)}


def as_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return timm's weights of a CLIP image tower as OpenAI's and OpenCLIP's files hold them."""
    width = SIZES["embed_dim"]
    theirs = {
        "class_embedding": state["cls_token"].flatten(),
        "positional_embedding": state["pos_embed"][0],
        "conv1.weight": state["patch_embed.proj.weight"],
        "proj": torch.randn(width, 16),
    }
    inside = {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    for name, value in state.items():
        if name.startswith("blocks."):
            _, block, rest = name.split(".", 2)
            rest = rest.replace("attn.qkv.", "attn.in_proj_")
            for ours, named in inside.items():
                rest = rest.replace(ours, named)
            theirs[f"transformer.resblocks.{block}.{rest}"] = value
        elif name.startswith(("norm_pre.", "norm.")):
            theirs[name.replace("norm_pre", "ln_pre").replace("norm.", "ln_post.")] = value
    text = {"text_projection": torch.randn(4, 4), "token_embedding.weight": torch.randn(8, 4)}
    return {f"visual.{name}": value for name, value in theirs.items()} | text
