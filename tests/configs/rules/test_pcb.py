"""What is refused and what is said about PCB's configurations."""

from pathlib import Path

import pytest
import torch

from configs import find_notices, load_cfg
from configs.rules.pcb import map_rows
from model import make_model
from tests.cfgs import cfg_with
from utils.errors import ConfigError

MARKET = Path(__file__).parents[3] / "configs/Market/vit_base.yml"
RECIPE = """
MODEL: {NAME: pcb, METRIC_LOSS_TYPE: none}
INPUT: {SIZE_TRAIN: [384, 128], SIZE_TEST: [384, 128]}
DATASETS: {NAMES: [market1501]}
"""
NO_PARTS, NO_GLOBAL = ("MODEL.PCB.PARTS", 0), ("MODEL.PCB.GLOBAL_DIM", 0)
TINY = ("MODEL.PCB.TRUNK", "tiny", "MODEL.PRETRAIN_CHOICE", "none")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The published sizes: 384 x 128 pixels, so a map of 24 rows, 6 stripes and a global branch."""
    path = tmp_path / "pcb.yml"
    path.write_text(RECIPE)
    return path


def refusal_of(path: Path, *opts: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_cfg(path, opts)
    return str(caught.value)


def test_the_recipe_has_nothing_to_hear(recipe):
    assert find_notices(load_cfg(recipe)) == []


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("MODEL.PCB.PARTS", 5), "has 24 rows, which MODEL.PCB.PARTS 5 does not divide; set the height to 320 or 400"),
        (("INPUT.SIZE_TEST", [256, 128]), "INPUT.SIZE_TEST [256, 128]: the map of resnet50 with MODEL.LAST_STRIDE 1"),
        (("INPUT.SIZE_TRAIN", [256, 128]), "16 rows, which MODEL.PCB.PARTS 6 does not divide; set the height to 192"),
        (("INPUT.SIZE_TRAIN", [64, 32]), "set the height to 96, or another number of stripes"),
        (("MODEL.PCB.PARTS", 24, "MODEL.LAST_STRIDE", 2), "has 12 rows, which MODEL.PCB.PARTS 24"),
        (
            (*TINY, "INPUT.SIZE_TRAIN", [64, 32]),
            "8 rows, which MODEL.PCB.PARTS 6 does not divide; set the height to 48",
        ),
        ((*NO_PARTS, *NO_GLOBAL), "MODEL.PCB.PARTS 0 and GLOBAL_DIM 0 leave no branch"),
        ((*NO_GLOBAL, "MODEL.PCB.OWN_STAGE4", True), "PARTS is 6 and GLOBAL_DIM 0; set it False, or have both"),
        ((*NO_PARTS, "MODEL.PCB.OWN_STAGE4", True), "PARTS is 0 and GLOBAL_DIM 256; set it False, or have both"),
        ((*NO_GLOBAL, "MODEL.PCB.GATE", True), "MODEL.PCB.GATE True acts on the global branch"),
        ((*NO_GLOBAL, "MODEL.PCB.GLOBAL_ERASE", 0.3), "MODEL.PCB.GLOBAL_ERASE 0.3 erases nothing"),
        ((*NO_PARTS, "MODEL.PCB.PART_ERASE", 0.3), "MODEL.PCB.PART_ERASE 0.3 erases nothing"),
        (("MODEL.PCB.PART_ERASE", 0.2), "0.2 of 4 rows is less than one row, so nothing would be erased"),
        (
            ("INPUT.SIZE_TRAIN", [288, 128], "MODEL.PCB.PART_ERASE", 0.333),
            "less than one row, so nothing would be erased; set it to 0, or to 0.334",
        ),
        (("MODEL.PCB.PART_ERASE", 1.2), "MODEL.PCB.PART_ERASE got 1.2, allowed: 0 to 1"),
        (("MODEL.PCB.PARTS", -1), "MODEL.PCB.PARTS got -1, allowed: 0 to 64"),
        (("MODEL.PCB.TRUNK", "resnet51"), "did you mean resnet50?"),
        ((*TINY, "MODEL.PRETRAIN_CHOICE", "imagenet"), "MODEL.PCB.TRUNK tiny has no published weights"),
        ((*TINY, "MODEL.RESNET_STEM", "transreid"), "MODEL.RESNET_STEM transreid is of a ResNet"),
        (("MODEL.SIE_CAMERA", True), "MODEL.SIE_CAMERA True needs MODEL.NAME transformer, got pcb"),
        (("MODEL.JPM", True), "MODEL.JPM True needs MODEL.NAME transformer, got pcb"),
        (("MODEL.LORA.RANK", 4), "MODEL.LORA.RANK 4 needs the blocks of MODEL.NAME transformer"),
        (("MODEL.USE_CLIP", True), "MODEL.USE_CLIP True needs MODEL.NAME transformer, got pcb"),
        (("MODEL.TRAINING_MODE", "self_supervised"), "self_supervised trains a projection head"),
        (("LOSS.SPECTRAL.W", 1.0, "MODEL.PCB.GATE", True), "set FEAT embedding, or GATE False"),
    ],
)
def test_a_mistake_is_refused_with_a_way_out(recipe, opts, words):
    assert words in refusal_of(recipe, *opts)


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("MODEL.NECK", "no", "MODEL.SHIFT_NUM", 3), "MODEL.NECK, MODEL.SHIFT_NUM: not used by MODEL.NAME pcb"),
        (("TEST.NECK_FEAT", "before"), "TEST.NECK_FEAT: not used by MODEL.NAME pcb"),
        (("MODEL.VIT.DEPTH", 3), "MODEL.VIT.DEPTH: not used by MODEL.NAME pcb"),
        ((*NO_PARTS, "MODEL.PCB.PART_POOL", "avg"), "MODEL.PCB.PART_POOL: not used, MODEL.PCB.PARTS is 0"),
        ((*NO_GLOBAL, "MODEL.PCB.GLOBAL_POOL", "gem"), "MODEL.PCB.GLOBAL_POOL: not used, MODEL.PCB.GLOBAL_DIM is 0"),
    ],
)
def test_a_key_without_effect_is_told(recipe, opts, words):
    assert words in "\n".join(find_notices(load_cfg(recipe, opts)))


def test_its_keys_are_not_used_by_other_models():
    notices = find_notices(load_cfg(MARKET, ["MODEL.PCB.PARTS", 3, "MODEL.PCB.GATE", True]))
    assert "MODEL.PCB.PARTS, MODEL.PCB.GATE: not used by MODEL.NAME transformer" in notices


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("trunk", "stem"), [("tiny", "standard"), ("resnet18", "standard"), ("resnet18", "transreid")])
def test_rows_of_the_map_are_those_of_the_trunk(trunk, stem, stride):
    opts = ("MODEL.NAME", "pcb", "MODEL.PCB.PARTS", 1, "MODEL.PRETRAIN_CHOICE", "none", "MODEL.LAST_STRIDE", stride)
    cfg = cfg_with(*opts, "MODEL.PCB.TRUNK", trunk, "MODEL.RESNET_STEM", stem)
    with torch.device("meta"):
        base = make_model(cfg, 5, 0, 0).base.eval()
        heights = (30, 45, 128, 255)
        rows = [base.forward_map(torch.empty(1, 3, height, 32)).shape[2] for height in heights]
    assert [map_rows(cfg, height) for height in heights] == rows
