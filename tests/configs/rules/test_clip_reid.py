"""What is refused and what is said about CLIP-ReID's configurations."""

import json
import re
from pathlib import Path

import pytest
import torch
from yacs.config import CfgNode

from configs import find_notices, load_cfg
from model import make_model
from utils.errors import ConfigError

CONFIGS = Path(__file__).parents[3] / "configs"
SYNTHETIC, BASELINE = CONFIGS / "Synthetic/clip_reid.yml", CONFIGS / "Synthetic/clip_reid_base.yml"
VIT, RN50, VEHICLEID = (
    CONFIGS / f"CLIP-ReID/{name}.yml"
    for name in ("person_vit_clipreid", "person_cnn_clipreid", "VehicleID_vit_clipreid")
)


@pytest.mark.parametrize(
    ("path", "opts", "words"),
    [
        (SYNTHETIC, ("SOLVER.STAGES", ["stage3"]), "SOLVER.STAGES got ('stage3',), allowed for MODEL.NAME clip_reid"),
        (SYNTHETIC, ("SOLVER.STAGES", ["stage2", "stage1"]), "each once and in this order, or main alone"),
        (SYNTHETIC, ("SOLVER.STAGES", ["stage1", "stage1"]), "each once and in this order, or main alone"),
        (
            SYNTHETIC,
            ("SOLVER.STAGES", ["main", "stage2"]),
            "each once and in this order, or main alone",
        ),
        (RN50, ("MODEL.STRIDE_SIZE", [12, 12]), "MODEL.STRIDE_SIZE [12, 12]: RN50-quickgelu is a ResNet"),
        (RN50, ("MODEL.SIE_CAMERA", True), "MODEL.SIE_CAMERA True: RN50-quickgelu is a ResNet"),
        (RN50, ("MODEL.SIE_VIEW", True), "MODEL.SIE_VIEW True: RN50-quickgelu is a ResNet"),
        (RN50, ("SOLVER.LAYER_DECAY", 0.5), "SOLVER.LAYER_DECAY 0.5 needs the blocks of a ViT"),
        (
            RN50,
            ("INPUT.SIZE_TRAIN", [250, 128], "INPUT.SIZE_TEST", [250, 128]),
            "INPUT.SIZE_TRAIN [250, 128]: the sides of an image for RN50-quickgelu are multiples of 16",
        ),
        (VEHICLEID, ("MODEL.SIE_CAMERA", True), "MODEL.SIE_CAMERA True: VehicleID has no camera ids; set it False"),
        (VEHICLEID, ("MODEL.SIE_VIEW", True), "MODEL.SIE_VIEW True: VehicleID has one view alone; set it False"),
        (VIT, ("MODEL.PROMPT", "A photo of a person."), "expected a sentence with {} once"),
        (VIT, ("MODEL.PROMPT", "A {} photo of a {}."), "expected a sentence with {} once"),
        (VIT, ("MODEL.PROMPT", "A photo of a {x} person."), "expected a sentence with {} once"),
        (VIT, ("MODEL.PROMPT", "A photo of a {} person}."), "expected a sentence with {} once"),
        (VIT, ("INPUT.SIZE_TEST", [384, 128]), "INPUT.SIZE_TEST [384, 128] differs from INPUT.SIZE_TRAIN [256, 128]"),
        (
            VIT,
            ("MODEL.TRAINING_MODE", "self_supervised", "DATALOADER.SAMPLER", "random", "LOSS.SUPCON.ENABLE", True),
            "MODEL.TRAINING_MODE self_supervised knows no identities",
        ),
        (VIT, ("MODEL.CLIP_IMPL", "hf"), "MODEL.CLIP_IMPL hf: MODEL.NAME ViT-B-16 is made of open_clip's modules"),
        (SYNTHETIC, ("MODEL.CLIP_BACKBONE", ""), "MODEL.CLIP_BACKBONE is empty"),
        (VIT, ("MODEL.JPM", True), "MODEL.JPM"),
        (VIT, ("MODEL.LORA.RANK", 4), "MODEL.LORA.RANK"),
        (VIT, ("LOSS.BRANCHES.REDUCE", "product"), "LOSS.BRANCHES.REDUCE got 'product', allowed: "),
        (VIT, ("SOLVER.STAGE2.STEPS", [50, 30]), "SOLVER.STAGE2.STEPS got (50, 30), expected ascending epochs"),
    ],
)
def test_a_mistake_is_one_clear_line(path, opts, words):
    assert words in refusal_of(path, *opts)


def test_a_transreid_has_one_stage_alone():
    text = refusal_of(CONFIGS / "Market/vit_base.yml", "SOLVER.STAGES", ["stage1", "stage2"])
    assert "SOLVER.STAGES got ('stage1', 'stage2'), allowed for MODEL.NAME transformer: main" in text


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("MODEL.PROMPT", "{} " + 80 * "photo "), "the text tower reads at most 77; shorten it"),
        (("MODEL.PROMPT_TOKENS", 64, "MODEL.PROMPT", "{} " + 12 * "photo "), "with 64 learnt tokens has 78 tokens"),
        (("MODEL.STRIDE_SIZE", [9, 9]), "MODEL.STRIDE_SIZE"),
        (("MODEL.CLIP_BACKBONE", "no-such-clip"), "no-such-clip"),
    ],
)
def test_what_the_clip_at_hand_does_not_do_is_said_when_it_is_built(opts, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        build(load_cfg(SYNTHETIC, opts))


def test_the_longest_sentence_that_fits_is_taken():
    opts = ("MODEL.PROMPT_TOKENS", 64, "MODEL.PROMPT", "{} " + 11 * "photo ")
    assert build(load_cfg(SYNTHETIC, opts)).prompt_learner.cls_ctx.shape == (5, 64, 64)


def test_a_description_without_a_text_tower_serves_the_baseline_alone(tmp_path):
    described = json.loads((CONFIGS / "Synthetic/tiny_clip_text.json").read_text())
    del described["text_cfg"]
    (tmp_path / "image.json").write_text(json.dumps(described))
    opts = ("MODEL.CLIP_BACKBONE", str(tmp_path / "image.json"))
    with pytest.raises(ConfigError, match=r"text_cfg.*set SOLVER.STAGES \['main'\]"):
        build(load_cfg(SYNTHETIC, opts))
    assert not build(load_cfg(BASELINE, opts)).has_text


@pytest.mark.parametrize(
    ("path", "opts", "words"),
    [
        (VIT, ("SOLVER.STAGES", ["stage2"]), "the prompts are random"),
        (VIT, (), "images are normalised by mean [0.5, 0.5, 0.5] and sd [0.5, 0.5, 0.5]"),
        (VIT, ("MODEL.DROP_PATH", 0.2), "MODEL.DROP_PATH: not used by MODEL.NAME ViT-B-16"),
        (VIT, ("MODEL.CLIP_BACKBONE", "ViT-L-14"), "MODEL.CLIP_BACKBONE: not used, MODEL.NAME ViT-B-16 is open_clip's"),
        (
            VIT,
            ("SOLVER.BASE_LR", 0.1),
            "SOLVER.BASE_LR 0.1 is not used: SOLVER.STAGE1.BASE_LR and",
        ),
        (VIT, ("LOSS.GLOBAL_WEIGHT", 0.3), "LOSS.GLOBAL_WEIGHT 0.3 is not used: LOSS.BRANCHES.REDUCE sum"),
        (VIT, ("MODEL.PRETRAIN_PATH", "a.pth"), "MODEL.PRETRAIN_PATH is not used with PRETRAIN_CHOICE imagenet"),
        (BASELINE, ("MODEL.PROMPT", "A {}."), "MODEL.PROMPT: not used, SOLVER.STAGES ['main'] trains without text"),
        (VIT, ("SOLVER.STAGE1.WARMUP_FACTOR", 0.1), "SOLVER.STAGE1.WARMUP_FACTOR is not used here"),
        (VIT, ("SOLVER.STAGE2.LR_MIN", 0.1), "SOLVER.STAGE2.LR_MIN is not used here"),
    ],
)
def test_what_a_user_may_miss_is_said(path, opts, words):
    said = [notice for notice in find_notices(load_cfg(path, opts)) if words in notice]
    assert len(said) == 1


def test_nothing_is_said_of_prompts_that_come_from_a_file_or_of_the_pixels_of_clip():
    pixels = (
        "INPUT.PIXEL_MEAN",
        [0.48145466, 0.4578275, 0.40821073],
        "INPUT.PIXEL_STD",
        [0.26862954, 0.26130258, 0.27577711],
    )
    prompts = ("SOLVER.STAGES", ["stage2"], "MODEL.PRETRAIN_CHOICE", "finetune", "MODEL.PRETRAIN_PATH", "a.pth")
    assert find_notices(load_cfg(VIT, [*pixels, *prompts])) == []


def refusal_of(path: Path, *opts: object) -> str:
    """Return the error of loading a recipe, which is one line."""
    with pytest.raises(ConfigError) as error:
        load_cfg(path, opts)
    assert "\n" not in str(error.value)
    return str(error.value)


def build(cfg: CfgNode) -> torch.nn.Module:
    """Return the model of a configuration for 5 identities, 3 cameras and 2 views, without any memory."""
    with torch.device("meta"):
        return make_model(cfg, 5, 3, 2, pretrained=False)
