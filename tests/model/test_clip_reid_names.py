"""The names, shapes and numbers of CLIP-ReID's weights at published sizes, without memory for them."""

import open_clip
import pytest
import torch
from torch import nn

from model import make_model
from tests.cfgs import cfg_with

CLASSES, CAMERAS = 751, 6
NECK = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
NOT_KEPT = ("token_embedding.weight", "logit_scale", "attn_mask")
CLIPS = {"ViT-B-16": "ViT-B-16-quickgelu", "RN50": "RN50-quickgelu"}
OPTIONS = {
    "two stages": ("SOLVER.STAGES", ["stage1", "stage2"]),
    "baseline": ("SOLVER.STAGES", ["main"]),
    "side": ("MODEL.SIE_CAMERA", True),
}


def make_outline(name: str, *kinds: str) -> nn.Module:
    """Return a model of 256 x 128 images on the meta device; `kinds` are of OPTIONS."""
    opts = [option for kind in kinds for option in OPTIONS[kind]]
    cfg = cfg_with(
        *("MODEL.NAME", name, "MODEL.PRETRAIN_CHOICE", "none"),
        *("INPUT.SIZE_TRAIN", [256, 128], "INPUT.SIZE_TEST", [256, 128]),
        *opts,
    )
    with torch.device("meta"):
        return make_model(cfg, CLASSES, CAMERAS, 0)


def published_names(name: str, with_text: bool) -> set[str]:
    """Return the names of a published file without side information, from those of OpenAI's CLIP."""
    with torch.device("meta"):
        clip = open_clip.create_model(CLIPS[name], pretrained=None, device="meta")
    names = {f"{neck}.{part}" for neck in ("bottleneck", "bottleneck_proj") for part in NECK}
    names |= {"classifier.weight", "classifier_proj.weight"}
    for key in clip.state_dict():
        if key.startswith("visual."):
            names.add(key.replace("visual.", "image_encoder.", 1))
        elif with_text and key not in NOT_KEPT:
            names.add(f"text_encoder.{key}")
    return names | (
        {f"prompt_learner.{part}" for part in ("cls_ctx", "token_prefix", "token_suffix")} if with_text else set()
    )


@pytest.mark.parametrize(
    "name, kinds, count",
    [
        ("ViT-B-16", ("two stages",), 315),
        ("ViT-B-16", ("two stages", "side"), 316),
        ("ViT-B-16", ("baseline",), 164),
        ("ViT-B-16", ("baseline", "side"), 165),
        ("RN50", ("two stages",), 502),
        ("RN50", ("baseline",), 351),
    ],
)
def test_names_and_their_number_are_the_published_ones(name, kinds, count):
    names = set(make_outline(name, *kinds).state_dict())
    side = {"cv_embed"} if "side" in kinds else set()
    assert names == published_names(name, "two stages" in kinds) | side
    assert len(names) == count


@pytest.mark.parametrize(
    "name, own, projected, rows, kernel",
    [("ViT-B-16", 768, 512, 129, [768, 3, 16, 16]), ("RN50", 2048, 1024, 129, [32, 3, 3, 3])],
)
def test_shapes_are_the_published_ones(name, own, projected, rows, kernel):
    shapes = {key: list(value.shape) for key, value in make_outline(name, "two stages").state_dict().items()}
    table = (
        "image_encoder.positional_embedding" if name == "ViT-B-16" else "image_encoder.attnpool.positional_embedding"
    )
    for key, shape in {
        "classifier.weight": [CLASSES, own],
        "classifier_proj.weight": [CLASSES, projected],
        "bottleneck.running_var": [own],
        "bottleneck_proj.bias": [projected],
        "image_encoder.conv1.weight": kernel,
        table: [rows, own],
        "text_encoder.positional_embedding": [77, 512],
        "text_encoder.text_projection": [512, projected],
        "prompt_learner.cls_ctx": [CLASSES, 4, 512],
        "prompt_learner.token_prefix": [1, 5, 512],
        "prompt_learner.token_suffix": [1, 68, 512],
    }.items():
        assert shapes[key] == shape, key


def test_side_information_has_a_row_for_each_camera():
    assert make_outline("ViT-B-16", "baseline", "side").cv_embed.shape == (CAMERAS, 768)


@pytest.mark.parametrize("stride, size, rows", [(12, (256, 128), 211), (16, (256, 256), 257), (12, (256, 256), 442)])
def test_grids_of_the_published_sizes(stride, size, rows):
    cfg = cfg_with(
        *("MODEL.NAME", "ViT-B-16", "MODEL.PRETRAIN_CHOICE", "none", "SOLVER.STAGES", ["main"]),
        *("MODEL.STRIDE_SIZE", [stride, stride], "INPUT.SIZE_TRAIN", list(size), "INPUT.SIZE_TEST", list(size)),
    )
    with torch.device("meta"):
        model = make_model(cfg, CLASSES, 0, 0)
    assert len(model.image_encoder.positional_embedding) == rows
