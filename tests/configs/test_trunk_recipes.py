"""The recipes on foundation trunks against a table written by hand; each fits its trunk and builds with JPM and SIE."""

import re

import pytest
import timm
import torch

from configs import find_notices
from model import make_model
from tests.configs.recipes import (
    RECIPE_FILES,
    header,
    load,
    name_of,
    on_timm_trunk,
    resolve_recipe,
    transreid_defaults,
)
from tests.configs.test_recipes import CONSTANTS

# recipe, trunk and weights by timm's name, patch = stride, size, mean/std (IN, .5, CLIP), tokens before the patches
TABLE = """
VeRi/deit3_transreid      deit3_base_patch16_224.fb_in22k_ft_in1k     16  256x256  IN    1
VeRi/dinov2_transreid     vit_base_patch14_reg4_dinov2.lvd142m        14  252x252  IN    5
VeRi/dinov3_transreid     vit_base_patch16_dinov3.lvd1689m            16  256x256  IN    5
VeRi/dinov3_lora          vit_base_patch16_dinov3.lvd1689m            16  256x256  IN    5
VeRi/dinov3_frozen        vit_base_patch16_dinov3.lvd1689m            16  256x256  IN    5
VeRi/eva02_transreid      eva02_base_patch14_224.mim_in22k            14  252x252  CLIP  1
VeRi/eva02_clip_transreid eva02_base_patch16_clip_224.merged2b        16  256x256  CLIP  1
VeRi/siglip_transreid     vit_base_patch16_siglip_256.v2_webli        16  256x256  .5    0
VeRi/clip_transreid       vit_base_patch16_clip_quickgelu_224.openai  16  256x256  CLIP  1
Market/dinov2_transreid   vit_base_patch14_reg4_dinov2.lvd142m        14  252x126  IN    5
Market/dinov3_transreid   vit_base_patch16_dinov3.lvd1689m            16  256x128  IN    5
Market/clip_transreid     vit_base_patch16_clip_quickgelu_224.openai  16  256x128  CLIP  1
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]
NAMES = [row[0] for row in ROWS]
PIXELS = {
    "IN": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ".5": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    "CLIP": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
}
FOUNDATION = CONSTANTS | {
    "MODEL.JPM": True,
    "MODEL.SIE_CAMERA": True,
    "SOLVER.OPTIMIZER_NAME": "AdamW",
    "SOLVER.MAX_EPOCHS": 60,
    "SOLVER.BASE_LR": 3e-4,
    "SOLVER.LAYER_DECAY": 0.75,
    "SOLVER.BIAS_LR_FACTOR": 1.0,
    "SOLVER.WEIGHT_DECAY": 0.05,
    "SOLVER.WEIGHT_DECAY_BIAS": 0.0,
    "SOLVER.CHECKPOINT_PERIOD": 60,
    "SOLVER.EVAL_PERIOD": 60,
}
OF_VERI = {"DATASETS.NAMES": ("veri",), "MODEL.SHIFT_NUM": 8, "MODEL.SIE_VIEW": True}
OF_RECIPE = {
    "VeRi/dinov3_lora": {"MODEL.LORA.RANK": 16, "SOLVER.LAYER_DECAY": 1.0},
    "VeRi/dinov3_frozen": {"MODEL.FREEZE_BLOCKS": 6},
}
CLASSES, CAMERAS, VIEWS, WIDTH, DEPTH, BRANCHES = 13, 4, 3, 768, 12, 5


def sides(size: str) -> list[int]:
    return [int(side) for side in size.split("x")]


def expected_values(row: list[str]) -> dict:
    name, trunk, patch, size, pixels, _ = row
    mean, std = PIXELS[pixels]
    values = {
        "MODEL.TRANSFORMER_TYPE": f"timm/{trunk}",
        "MODEL.STRIDE_SIZE": [int(patch)] * 2,
        "INPUT.SIZE_TRAIN": sides(size),
        "INPUT.SIZE_TEST": sides(size),
        "INPUT.PIXEL_MEAN": mean,
        "INPUT.PIXEL_STD": std,
        "OUTPUT_DIR": "logs/" + name.lower().replace("/", "_"),
    }
    return FOUNDATION | values | (OF_VERI if name.startswith("VeRi/") else {}) | OF_RECIPE.get(name, {})


def build(name: str) -> torch.nn.Module:
    """Return the recipe's model without memory for its weights."""
    with torch.device("meta"):
        return make_model(load(name), CLASSES, CAMERAS, VIEWS, pretrained=False)


def test_every_recipe_on_a_timm_trunk_is_in_the_table_once():
    assert sorted(NAMES) == sorted(filter(on_timm_trunk, map(name_of, RECIPE_FILES)))


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_recipe_resolves_to_the_table_and_to_the_defaults_elsewhere(row):
    assert resolve_recipe(row[0]) == transreid_defaults() | expected_values(row)


@pytest.mark.parametrize("name", NAMES)
def test_pixel_statistics_are_those_that_the_weights_were_trained_with(name):
    cfg = load(name)
    published = timm.get_pretrained_cfg(cfg.MODEL.TRANSFORMER_TYPE.removeprefix("timm/"), allow_unregistered=False)
    assert (tuple(cfg.INPUT.PIXEL_MEAN), tuple(cfg.INPUT.PIXEL_STD)) == (published.mean, published.std)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_recipe_builds_with_all_branches_and_side_information(row):
    name, _, patch, size, _, prefix = row
    model = build(name).eval()
    rows, columns = (side // int(patch) for side in sides(size))
    assert model.base.grid == (rows, columns)
    images = torch.zeros(2, 3, *sides(size), device="meta")
    labels = torch.zeros(2, dtype=torch.int64, device="meta")
    assert model.base.forward_tokens(images, labels, labels).shape == (2, int(prefix) + rows * columns, WIDTH)
    assert model(images, labels, labels).shape == (2, BRANCHES * WIDTH)
    assert model.base.sie_embed.shape == (CAMERAS * (VIEWS if name.startswith("VeRi/") else 1), 1, WIDTH)


def test_adapters_alone_learn_in_the_trunk_of_the_lora_recipe():
    model = build("VeRi/dinov3_lora")
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    of_trunk = [name for name in names if name.startswith(("base.", "b1.", "b2.")) and name != "base.sie_embed"]
    assert of_trunk and all(".lora_" in name for name in of_trunk)
    adapted = {name.split(".")[2] for name in of_trunk if name.startswith("base.blocks.")}
    assert adapted == {str(block) for block in range(DEPTH - 1)}  # the last block acts through its copies b1 and b2
    shapes = {tuple(model.get_parameter(name).shape) for name in of_trunk if "lora_a" in name.lower()}
    assert {shape[0] for shape in shapes} == {16}


def test_the_first_half_of_the_blocks_does_not_learn_in_the_frozen_recipe():
    model = build("VeRi/dinov3_frozen")
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    learning = {int(name.split(".")[2]) for name in names if name.startswith("base.blocks.")}
    assert learning == set(range(6, DEPTH - 1))  # the last block acts through its copies b1 and b2
    assert [name for name in names if name.startswith("base.") and not name.startswith("base.blocks.")] == [
        "base.sie_embed"
    ]


@pytest.mark.parametrize("name", NAMES)
def test_header_claims_no_figure_and_nothing_in_the_recipe_is_idle(name):
    (path,) = (path for path in RECIPE_FILES if name_of(path) == name)
    assert re.search(r"^# Expected: no figure known to us; not run here\.$", header(path), re.MULTILINE)
    assert re.search(r"^# Hardware: not measured\.$", header(path), re.MULTILINE)
    assert find_notices(load(name)) == []
