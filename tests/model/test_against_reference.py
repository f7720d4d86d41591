"""A checkpoint with TransReID's names gives the embedding that the written-out model gives."""

import math
from pathlib import Path

import pytest
import torch

from model import make_model
from tests.model.builds import images, make_cfg, save
from tests.reference.slow_transreid import Shape, embed, make_state
from tests.tolerance import assert_rounded

CLASSES = 4
TINY = Shape(width=24, depth=3, heads=2, hidden=96, rows=4, columns=3, patch=8, stride=8)
JPM = ("MODEL.JPM", True)
TERMS = 1000  # numbers added up one after the other at the width of TINY: about 300 in each block

CASES = {
    "plain": (TINY, (), (0, 0), None),
    "after the neck": (TINY, ("TEST.NECK_FEAT", "after"), (0, 0), None),
    "overlapping patches": (TINY._replace(rows=7, columns=5, stride=4), ("MODEL.STRIDE_SIZE", [4, 4]), (0, 0), None),
    "cameras": (TINY._replace(side_rows=6), ("MODEL.SIE_CAMERA", True), (6, 1), [5, 0, 2]),
    "views": (
        TINY._replace(side_rows=8),
        ("MODEL.SIE_VIEW", True, "MODEL.SIE_COE", 1.5),
        (6, 8),
        [7, 1, 3],
    ),
    "cameras x views": (
        TINY._replace(side_rows=48),
        ("MODEL.SIE_CAMERA", True, "MODEL.SIE_VIEW", True),
        (6, 8),
        [5 * 8 + 7, 0 * 8 + 1, 2 * 8 + 3],
    ),
    "jigsaw": (TINY._replace(branches=4), JPM, (0, 0), None),
    "jigsaw after the necks": (TINY._replace(branches=4), (*JPM, "TEST.NECK_FEAT", "after"), (0, 0), None),
    "jigsaw in order": (TINY._replace(branches=4, rearrange=False), (*JPM, "MODEL.RE_ARRANGE", False), (0, 0), None),
    "jigsaw on an odd number of patches": (
        TINY._replace(rows=7, columns=5, stride=4, branches=4, shift=8),
        (*JPM, "MODEL.STRIDE_SIZE", [4, 4], "MODEL.SHIFT_NUM", 8),
        (0, 0),
        None,
    ),
    "jigsaw of three groups and five branches": (
        TINY._replace(rows=7, columns=5, stride=4, branches=5, groups=3),
        (*JPM, "MODEL.STRIDE_SIZE", [4, 4], "MODEL.SHUFFLE_GROUP", 3, "MODEL.DEVIDE_LENGTH", 5),
        (0, 0),
        None,
    ),
    "everything": (
        TINY._replace(rows=7, columns=5, stride=4, branches=4, side_rows=48),
        (*JPM, "MODEL.STRIDE_SIZE", [4, 4], "MODEL.SIE_CAMERA", True, "MODEL.SIE_VIEW", True),
        (6, 8),
        [5 * 8 + 7, 0 * 8 + 1, 2 * 8 + 3],
    ),
}
CAM, VIEW = torch.tensor([5, 0, 2]), torch.tensor([7, 1, 3])


def _size_opts(shape: Shape) -> tuple:
    return (
        *("MODEL.VIT.EMBED_DIM", shape.width, "MODEL.VIT.DEPTH", shape.depth, "MODEL.VIT.NUM_HEADS", shape.heads),
        *("MODEL.VIT.PATCH_SIZE", shape.patch, "MODEL.STRIDE_SIZE", [shape.stride, shape.stride]),
    )


def _image_size(shape: Shape) -> tuple[int, int]:
    return shape.patch + shape.stride * (shape.rows - 1), shape.patch + shape.stride * (shape.columns - 1)


def _check(
    shape: Shape,
    opts: tuple,
    counts: tuple[int, int],
    side_row: int | None,
    tmp_path: Path,
    kind: str = "vit_base_patch16_224_TransReID",
) -> None:
    opts = ("TEST.NECK_FEAT", "before", *_size_opts(shape), *opts)
    size = _image_size(shape)
    cfg = make_cfg("MODEL.TRANSFORMER_TYPE", kind, "INPUT.SIZE_TRAIN", list(size), *opts)
    model = make_model(cfg, CLASSES, *counts).eval()
    state = make_state(shape, CLASSES)
    report = model.load_param(save(state, tmp_path))
    assert set(report.matched) == set(state) and not report.missing
    batch = images(3, size)
    after_neck = cfg.TEST.NECK_FEAT == "after"
    expected = embed(state, shape, batch, side_row, cfg.MODEL.SIE_COE, after_neck)
    with torch.no_grad():
        single = model(batch, cam_label=CAM, view_label=VIEW)
        double = model.double()(batch.double(), cam_label=CAM, view_label=VIEW)
    assert_rounded(single, expected, terms=TERMS * shape.width // TINY.width)
    torch.testing.assert_close(double, expected, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_checkpoint_gives_the_reference_embedding(case, tmp_path):
    _check(*CASES[case], tmp_path)


@pytest.mark.parametrize("branches", [0, 4])
def test_vit_small_scales_attention_by_its_width(branches, tmp_path):
    shape = TINY._replace(hidden=72, qkv_bias=False, scale=24**-0.5, branches=branches)
    _check(shape, ("MODEL.JPM", branches > 0), (0, 0), None, tmp_path, "vit_small_patch16_224_TransReID")


def test_deit_small_keeps_its_width_with_the_jigsaw_module(tmp_path):
    shape = Shape(width=384, depth=2, heads=6, hidden=1536, rows=4, columns=2, stride=12, branches=4, side_rows=6)
    opts = (*JPM, "MODEL.SIE_CAMERA", True)
    _check(shape, opts, (6, 0), [5, 0, 2], tmp_path, "deit_small_patch16_224_TransReID")


def test_unfused_attention_gives_the_same_embedding(tmp_path):
    shape = TINY._replace(hidden=72, qkv_bias=False, scale=24**-0.5)
    cfg = make_cfg(
        *("MODEL.TRANSFORMER_TYPE", "vit_small_patch16_224_TransReID", "INPUT.SIZE_TRAIN", [32, 24]),
        *_size_opts(shape),
        *("TEST.NECK_FEAT", "before"),
    )
    model = make_model(cfg, CLASSES, 0, 0).eval()
    state = make_state(shape, CLASSES)
    model.load_param(save(state, tmp_path))
    for block in model.base.blocks:
        block.attn.fused_attn = False
    with torch.no_grad():
        embedding = model.double()(images().double())
    torch.testing.assert_close(embedding, embed(state, shape, images()), atol=1e-11, rtol=1e-11)


def test_reference_attention_reacts_to_its_scale():
    state = make_state(TINY, CLASSES)
    plain = embed(state, TINY, images(1))
    assert not torch.allclose(plain, embed(state, TINY._replace(scale=24**-0.5), images(1)))
    assert torch.allclose(plain, embed(state, TINY._replace(scale=1 / math.sqrt(12)), images(1)))
