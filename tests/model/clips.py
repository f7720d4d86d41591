"""Tiny CLIP towers on disk, as open_clip and transformers hold them, and models that use them."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from tests.model.builds import make_tiny

SIZE = (32, 24)  # pixels that the towers see: 4 x 3 patches
OPEN_CLIP_WIDTH, HF_WIDTH, TRUNK_WIDTH = 16, 64, 24  # features of the towers and of builds.TINY_VIT
VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 4, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1}
JPM = ("MODEL.JPM", True)
CALM = ("MODEL.DROP_PATH", 0.0)


class Sources(NamedTuple):
    """Paths of a tower's description in open_clip's format, of weights for it, and of a transformers folder."""

    json: str
    weights: str
    hf: str


def write_sources(folder: Path) -> Sources:
    """Write all three; the weights are random."""
    description, weights = folder / "tiny.json", folder / "tiny.pt"
    write_description(description)
    torch.save(make_open_clip().state_dict(), weights)
    return Sources(str(description), str(weights), str(write_hf(folder / "hf")))


def write_description(path: Path, **vision: object) -> str:
    """Write a model in open_clip's format, with other values of vision_cfg where given, and return its path."""
    path.write_text(json.dumps({"embed_dim": OPEN_CLIP_WIDTH, "vision_cfg": {**VISION, **vision}, "text_cfg": TEXT}))
    return str(path)


def make_open_clip(seed: int = 11, **vision: object) -> nn.Module:
    """Return open_clip's own model, both towers, with other first values than 0 and 1 wherever it can tell."""
    import open_clip

    torch.manual_seed(seed)
    return redraw(open_clip.CLIP(OPEN_CLIP_WIDTH, {**VISION, **vision}, TEXT)).eval()


def make_hf(seed: int = 12, **options: object) -> nn.Module:
    """Return transformers' own CLIP, both towers; `options` are of its vision_config."""
    from transformers import CLIPConfig, CLIPModel

    vision = {"hidden_size": HF_WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 8}
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    text |= {"vocab_size": 20, "max_position_embeddings": 4, "bos_token_id": 0, "eos_token_id": 1}
    torch.manual_seed(seed)
    config = CLIPConfig(vision_config={**vision, **options}, text_config=text, projection_dim=8)
    return redraw(CLIPModel(config)).eval()


def write_hf(folder: Path, weights: bool = True, **options: object) -> Path:
    """Write such a model as the hub holds it, with the names vision_model.* and text_model.*; return the folder."""
    from safetensors.torch import save_file

    model = make_hf(**options)
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    if weights:
        state = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def redraw(module: nn.Module) -> nn.Module:
    """Move every weight of a model away from its first value, so that a layer left out shows."""
    with torch.no_grad():
        for weight in module.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return module


def variants(sources: Sources) -> dict[str, tuple]:
    """Return the options of every fusion, each with a trained tower where it can have one."""
    common = ("MODEL.USE_CLIP", True, "MODEL.CLIP_INPUT_SIZE", SIZE)
    own = (*common, "MODEL.CLIP_BACKBONE", sources.json, "MODEL.CLIP_LOCAL_PATH", sources.weights)
    hf = (*common, "MODEL.CLIP_IMPL", "hf", "MODEL.CLIP_LOCAL_PATH", sources.hf)
    no_afem, no_refine = ("MODEL.CLIP_USE_AFEM", False), ("MODEL.CLIP_USE_SEM_REFINE", False)
    concat = ("MODEL.CLIP_FUSION", "concat")
    return {
        "minimal": own,
        "quickwin": (*own, "MODEL.CLIP_FUSION", "quickwin"),
        "hf": hf,
        "hf without afem": (*hf, *no_afem),
        "hf without refine": (*hf, *no_refine),
        "concat": (*own, *concat),
        "hf concat": (*hf, *concat),
    }


FUSED = ("minimal", "quickwin", "hf", "hf without afem", "hf without refine")  # keys of variants
FROZEN = ("MODEL.CLIP_FINETUNE", False)
RANDOM = ("MODEL.CLIP_PRETRAIN", "", "MODEL.CLIP_LOCAL_PATH", "")


def build(sources: Sources, variant: str, *opts: object, seed: int = 0, **counts: int) -> nn.Module:
    """Return a tiny model with the fusion, a jigsaw module unless `opts` switch it off, and no stochastic depth."""
    return make_tiny(*JPM, *CALM, *variants(sources)[variant], *opts, seed=seed, **counts)
