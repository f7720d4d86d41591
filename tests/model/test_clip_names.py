"""Names, shapes and numbers of weights are those of Model B's checkpoints with CLIP."""

import pytest
import torch
from torch import nn

from model.families.clip_fusion import make_fused
from model.layers.jigsaw import Jigsaw
from tests.model import clips
from tests.model.builds import make_cfg, make_outline
from tests.model.clips import HF_WIDTH, JPM, RANDOM, build

GLOBAL_ONLY = ("MODEL.JPM", False)


def names(model: nn.Module, *prefixes: str) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items() if name.startswith(prefixes)}


def fusion_names(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return names(model, "fuse_", "afem.", "sem_refine_proj.")


def test_names_and_shapes_of_minimal(sources):
    expected = {"fuse_proj_global_min.weight": (24, 40), "fuse_proj_global_min.bias": (24,)}
    assert fusion_names(build(sources, "minimal")) == expected
    assert fusion_names(build(sources, "minimal", *GLOBAL_ONLY)) == expected


def test_names_and_shapes_of_quickwin(sources):
    def head(kind: str, mine: str, theirs: str) -> dict[str, tuple[int, ...]]:
        return {
            **dict.fromkeys((f"fuse_ln_{kind}_{mine}.weight", f"fuse_ln_{kind}_{mine}.bias"), (24,)),
            **dict.fromkeys((f"fuse_ln_{kind}_{theirs}.weight", f"fuse_ln_{kind}_{theirs}.bias"), (16,)),
            **{f"fuse_gate_{kind}.0.weight": (6, 40), f"fuse_gate_{kind}.0.bias": (6,)},
            **{f"fuse_gate_{kind}.2.weight": (1, 6), f"fuse_gate_{kind}.2.bias": (1,)},
            **{f"fuse_proj_{kind}.weight": (24, 40), f"fuse_proj_{kind}.bias": (24,)},
        }

    whole = head("global", "backbone", "clip")
    assert fusion_names(build(sources, "quickwin")) == whole | head("local", "bb", "cf")
    assert fusion_names(build(sources, "quickwin", *GLOBAL_ONLY)) == whole


@pytest.mark.parametrize("variant", ["hf", "hf without afem", "hf without refine"])
def test_names_and_shapes_of_hf_do_not_depend_on_its_switches(variant, sources):
    assert fusion_names(build(sources, variant)) == {
        **{"fuse_fc.weight": (24, 88), "fuse_fc.bias": (24,)},
        **{"sem_refine_proj.weight": (24, 64), "sem_refine_proj.bias": (24,)},
        **{"afem.group_weight": (32,), "afem.linear.0.weight": (64, 64), "afem.linear.0.bias": (64,)},
        **dict.fromkeys([f"afem.linear.1.{name}" for name in ("weight", "bias", "running_mean", "running_var")], (64,)),
        "afem.linear.1.num_batches_tracked": (),
    }


def test_towers_keep_only_the_image_part_under_the_published_names(sources):
    ours = names(build(sources, "minimal", *RANDOM), "clip_model.")
    theirs = {f"clip_model.{name}": value for name, value in clips.make_open_clip().state_dict().items()}
    expected = {name: tuple(value.shape) for name, value in theirs.items() if name.startswith("clip_model.visual.")}
    assert ours == expected | {"clip_model.visual.positional_embedding": (1 + 12, 32)}
    ours = names(build(sources, "hf"), "clip_model.")
    vision = {name: value for name, value in clips.make_hf().state_dict().items() if name.startswith("vision_model.")}
    expected = {name.replace("vision_model.", "clip_model."): tuple(value.shape) for name, value in vision.items()}
    assert ours == expected | {"clip_model.embeddings.position_embedding.weight": (1 + 12, HF_WIDTH)}
    modules = {".".join(name.split(".")[:2]) for name in ours}
    assert modules == {f"clip_model.{part}" for part in ("embeddings", "encoder", "pre_layrnorm", "post_layernorm")}


# fusion -> its parameters at Model B's sizes: C = 768, D = 512 (ViT-B-16) or 640 (TinyCLIP-61M/32), by hand
GATE = (768 + 512) * 192 + 192 + 192 + 1
HEAD = 2 * (768 + 512) + GATE + (768 + 512) * 768 + 768
AFEM = 32 + 640 * 640 + 640 + 2 * 640
TRUE_SIZE = {
    "minimal": 1280 * 768 + 768,
    "quickwin": 2 * HEAD,
    "hf": (768 + 640) * 768 + 768 + AFEM + 640 * 768 + 768,
}


def tower_size(width: int, patch: int, tokens: int, projection: int) -> int:
    """Return the parameters of a CLIP ViT of 12 blocks: no bias in the patch embedding, two norms outside them."""
    block = 12 * width**2 + 13 * width  # attention 4 w^2 + 4 w, MLP 8 w^2 + 5 w, norms 4 w
    return 3 * patch**2 * width + width + tokens * width + 4 * width + 12 * block + width * projection


VIT_B_16 = tower_size(768, 16, 197, 512)  # 86.2 M
TRUE_TOWER = {"minimal": VIT_B_16, "quickwin": VIT_B_16, "hf": tower_size(640, 32, 50, 0)}


@pytest.mark.parametrize("variant", TRUE_SIZE)
def test_numbers_of_weights_at_model_bs_sizes(variant, tmp_path):
    from transformers import CLIPConfig

    vision = {"hidden_size": 640, "intermediate_size": 2560, "num_hidden_layers": 12, "num_attention_heads": 10}
    CLIPConfig(vision_config={**vision, "patch_size": 32, "image_size": 224}).save_pretrained(tmp_path)
    opts = {
        "minimal": (),
        "quickwin": ("MODEL.CLIP_FUSION", "quickwin"),
        "hf": ("MODEL.CLIP_IMPL", "hf", "MODEL.CLIP_LOCAL_PATH", str(tmp_path)),
    }[variant]
    size = ("INPUT.SIZE_TRAIN", [256, 256], "MODEL.STRIDE_SIZE", [12, 12])
    plain, base = make_outline(*size, *JPM), make_outline(*size).base
    with torch.device("meta"):
        model = make_fused(make_cfg(*opts), base, {"num_class": 751, "jigsaw": Jigsaw()}, trained_elsewhere=True)
    tower = sum(weight.numel() for weight in model.clip_model.parameters())
    count = sum(weight.numel() for weight in model.parameters()) - sum(weight.numel() for weight in plain.parameters())
    assert count - tower == TRUE_SIZE[variant]
    assert tower == TRUE_TOWER[variant]
    assert model.clip_model.info.feat_dim == (640 if variant == "hf" else 512)
    if variant == "minimal":
        assert tuple(model.fuse_proj_global_min.weight.shape) == (768, 1280)
