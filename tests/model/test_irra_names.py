"""The numbers of IRRA's weights at published sizes, their names, parts and first values."""

import math

import pytest
import torch
from torch import nn

from model import make_model
from tests.cfgs import cfg_with
from tests.model.irras import make_irra
from tests.reference.slow_irra import first_std

CLASSES = 11_003  # of CUHK-PEDES
COUNTS = {
    "base_model.visual.": 86_189_568,
    "base_model.": 149_617_664,
    "cross_attn.": 1_050_624,
    "cross_modal_transformer.": 12_609_536,
    "ln_": 3_072,
    "mlm_head.": 25_609_984,
    "classifier.": 513 * CLASSES,
    "": 194_535_419,
}
SHAPES = {
    "visual.conv1.weight": (768, 3, 16, 16),
    "visual.class_embedding": (768,),
    "visual.positional_embedding": (193, 768),
    "visual.transformer.resblocks.11.attn.in_proj_weight": (2304, 768),
    "visual.transformer.resblocks.0.mlp.c_fc.weight": (3072, 768),
    "visual.proj": (768, 512),
    "token_embedding.weight": (49408, 512),
    "positional_embedding": (77, 512),
    "transformer.resblocks.11.mlp.c_fc.weight": (2048, 512),
    "ln_final.bias": (512,),
    "text_projection": (512, 512),
}
DEVIATIONS = 5  # of the estimate of a standard deviation


@pytest.fixture(scope="module")
def outline() -> nn.Module:
    """IRRA on ViT-B/16 with 384 x 128 images, without memory for its weights."""
    cfg = cfg_with("MODEL.NAME", "irra", "MODEL.CLIP_BACKBONE", "ViT-B-16-quickgelu", "MODEL.CLIP_PRETRAIN", "openai")
    with torch.device("meta"):
        return make_model(cfg, CLASSES, 1, 1, pretrained=False)


def test_numbers_of_parameters_are_the_published_ones(outline):
    counted = {
        start: sum(weight.numel() for name, weight in outline.named_parameters() if name.startswith(start))
        for start in COUNTS
    }
    assert counted == COUNTS
    assert outline.num_class == CLASSES and outline.feat_dim == 512


def test_towers_have_the_names_and_shapes_of_openai_s_clip(outline):
    shapes = {name: tuple(value.shape) for name, value in outline.state_dict().items()}
    assert {name: shapes[f"base_model.{name}"] for name in SHAPES} == SHAPES
    parts = {"base_model", "cross_attn", "cross_modal_transformer", "ln_pre_t", "ln_pre_i", "ln_post", "mlm_head"}
    assert {name.split(".")[0] for name in shapes} == parts | {"classifier"}
    assert not [name for name in shapes if "logit_scale" in name or "mask" in name]
    assert outline.cross_attn.num_heads == outline.cross_modal_transformer.resblocks[3].attn.num_heads == 8


@pytest.mark.parametrize(
    ("name", "kind", "layer"),
    [
        ("cross_attn.in_proj_bias", "new", 13),
        ("cross_attn.out_proj.weight", "new", 13),
        ("cross_modal_transformer.resblocks.2.mlp.c_fc.weight", "new", 13),
        ("classifier.bias", "head", 13),
        ("mlm_head.dense.weight", "head", 13),
        ("mlm_head.ln.bias", "head", 13),
        ("ln_pre_t.weight", "trunk", 13),
        ("ln_pre_i.bias", "trunk", 13),
        ("ln_post.weight", "trunk", 13),
        ("base_model.visual.conv1.weight", "trunk", 0),
        ("base_model.visual.positional_embedding", "trunk", 0),
        ("base_model.visual.transformer.resblocks.0.ln_1.weight", "trunk", 1),
        ("base_model.visual.transformer.resblocks.11.ln_1.weight", "trunk", 12),
        ("base_model.visual.ln_post.weight", "trunk", 13),
        ("base_model.visual.proj", "trunk", 13),
        ("base_model.token_embedding.weight", "trunk", 0),
        ("base_model.transformer.resblocks.3.attn.in_proj_bias", "trunk", 4),
        ("base_model.text_projection", "trunk", 13),
    ],
)
def test_each_weight_has_its_part(outline, name, kind, layer):
    assert name in dict(outline.named_parameters())
    part = outline.part_of(name)
    assert (part.kind, part.layer, part.tower) == (kind, layer, False)


@pytest.mark.parametrize("depth", [2, 4])
def test_new_parts_have_the_first_values_of_the_paper_s_code(tmp_path, depth):
    model = make_irra(tmp_path, "MODEL.CMT_DEPTH", depth, first=True)
    drawn = 0
    for name, weight in model.named_parameters():
        if name.startswith("base_model."):
            continue
        std = first_std(name, model.feat_dim, depth)
        if std is not None:
            drawn += 1
            share = DEVIATIONS / math.sqrt(2 * weight.numel())
            assert abs(weight.std().item() / std - 1) < share, name
            assert abs(weight.mean().item()) < DEVIATIONS * std / math.sqrt(weight.numel()), name
        elif "attn" in name or name == "classifier.bias":
            assert not weight.any(), name
        elif "ln_" in name or ".ln." in name:
            assert (weight == (1.0 if name.endswith("weight") else 0.0)).all(), name
        else:  # biases of linear layers, uniform between the bounds of their width
            fan_in = model.get_parameter(name.replace(".bias", ".weight")).shape[1]
            assert weight.abs().max() <= fan_in**-0.5 and weight.std() > 0.4 * fan_in**-0.5, name
    assert drawn == 5 + 4 * depth


def test_first_values_of_the_published_size_are_these(outline):
    stds = {
        "cross_attn.in_proj_weight": 0.0441942,
        "cross_attn.out_proj.weight": 0.015625,
        "cross_modal_transformer.resblocks.0.attn.in_proj_weight": 0.0441942,
        "cross_modal_transformer.resblocks.0.mlp.c_proj.weight": 0.015625,
        "cross_modal_transformer.resblocks.0.mlp.c_fc.weight": 0.03125,
        "mlm_head.dense.weight": 0.03125,
        "mlm_head.fc.weight": 0.015625,
        "classifier.weight": 0.001,
    }
    assert {name: round(first_std(name, outline.feat_dim, outline.cross_depth), 7) for name in stds} == stds
