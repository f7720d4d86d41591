"""What is refused and what is said about MODEL.CLIP_*."""

import re
from pathlib import Path

import pytest
from yacs.config import CfgNode

from configs import find_notices, load_cfg
from configs.rules.clip_fusion import PATCH_IN_NAME
from utils.errors import ConfigError

BASELINE = Path(__file__).parents[3] / "configs" / "VeRi" / "deit_transreid_stride_baseline.yml"
ON = ("MODEL.USE_CLIP", True)
HF = (*ON, "MODEL.CLIP_IMPL", "hf")
CONCAT = (*ON, "MODEL.CLIP_FUSION", "concat", "MODEL.CLIP_FINETUNE", False)
FROZEN = (*ON, "MODEL.CLIP_FINETUNE", False)


def load(*opts: object) -> CfgNode:
    return load_cfg(BASELINE, opts)


def clip_notices(*opts: object) -> list[str]:
    return [notice for notice in find_notices(load(*opts)) if "CLIP" in notice]


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (
            (*ON, "MODEL.NAME", "resnet50", "MODEL.JPM", False, "MODEL.SIE_CAMERA", False, "MODEL.SIE_VIEW", False),
            "MODEL.USE_CLIP True needs MODEL.NAME transformer, got resnet50",
        ),
        (
            (*HF, "MODEL.CLIP_FUSION", "quickwin"),
            "MODEL.CLIP_FUSION quickwin exists for MODEL.CLIP_IMPL open_clip only",
        ),
        ((*ON, "MODEL.CLIP_BACKBONE", ""), "MODEL.CLIP_BACKBONE is empty"),
        ((*HF, "MODEL.CLIP_HF_ID", ""), "set MODEL.CLIP_HF_ID, or MODEL.CLIP_LOCAL_PATH to its folder"),
        ((*ON, "MODEL.CLIP_IMPL", "openclip"), "MODEL.CLIP_IMPL got 'openclip', allowed: open_clip, hf"),
        ((*ON, "MODEL.CLIP_FUSION", "cat"), "MODEL.CLIP_FUSION got 'cat', allowed: minimal, quickwin, concat"),
        ((*ON, "MODEL.CLIP_INPUT_SIZE", (0, 224)), "MODEL.CLIP_INPUT_SIZE got"),
    ],
)
def test_combinations_that_cannot_work_are_refused(opts, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        load(*opts)


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (
            (*ON, "MODEL.CLIP_BACKBONE", "ViT-B-16", "MODEL.CLIP_INPUT_SIZE", [256, 120]),
            "MODEL.CLIP_INPUT_SIZE [256, 120] is no multiple of the patches of ViT-B-16, 16 x 16 pixels; "
            "set [256, 112] or [256, 128]",
        ),
        (
            (*ON, "MODEL.CLIP_BACKBONE", "ViT-L-14-336", "MODEL.CLIP_INPUT_SIZE", [336, 8]),
            "ViT-L-14-336, 14 x 14 pixels; set [336, 14]",
        ),
        ((*HF, "MODEL.CLIP_HF_ID", "openai/clip-vit-base-patch16", "MODEL.CLIP_INPUT_SIZE", [225, 224]), "patch16, 16"),
        (
            (
                *HF,
                "MODEL.CLIP_HF_ID",
                "wkcn/TinyCLIP-ViT-61M-32-Text-29M-LAION400M",
                "MODEL.CLIP_INPUT_SIZE",
                [208, 96],
            ),
            "32 x 32 pixels; set [192, 96] or [224, 96]",
        ),
    ],
)
def test_size_that_the_patches_in_the_name_do_not_fill_is_refused_before_data_are_read(opts, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        load(*opts)


@pytest.mark.parametrize(
    "opts",
    [
        (*ON, "MODEL.CLIP_BACKBONE", "ViT-B-16", "MODEL.CLIP_INPUT_SIZE", [256, 128]),
        (*ON, "MODEL.CLIP_BACKBONE", "own/ViT-B-16.json", "MODEL.CLIP_INPUT_SIZE", [24, 24]),
        (*ON, "MODEL.CLIP_BACKBONE", "RN50x4", "MODEL.CLIP_INPUT_SIZE", [288, 288]),
        (*HF, "MODEL.CLIP_HF_ID", "a/vit-patch16", "MODEL.CLIP_LOCAL_PATH", "x", "MODEL.CLIP_INPUT_SIZE", [24, 24]),
        (*HF, "MODEL.CLIP_HF_ID", "a/b", "MODEL.CLIP_INPUT_SIZE", [24, 24]),
    ],
)
def test_size_of_a_tower_whose_patches_are_not_known_by_name_is_left_to_the_build(opts):
    load(*opts)


def test_patches_in_open_clips_names_are_those_of_its_models():
    import open_clip

    read = 0
    for name in open_clip.list_models():
        vision, found = open_clip.get_model_config(name)["vision_cfg"], PATCH_IN_NAME.search(name)
        if found and "timm_model_name" in vision:
            assert f"patch{found[1]}_" in vision["timm_model_name"]
        elif found:
            assert vision["patch_size"] == int(found[1])
        read += bool(found)
    assert read > 50


def test_all_mistakes_are_named_together():
    with pytest.raises(ConfigError) as caught:
        load(*HF, "MODEL.CLIP_FUSION", "quickwin", "MODEL.CLIP_HF_ID", "", "INPUT.SIZE_TEST", [256, 128])
    assert all(key in str(caught.value) for key in ("CLIP_FUSION quickwin", "CLIP_HF_ID", "INPUT.SIZE_TEST"))


def test_rules_sleep_while_clip_is_off():
    odd = ("MODEL.CLIP_IMPL", "hf", "MODEL.CLIP_FUSION", "quickwin", "MODEL.CLIP_HF_ID", "", "MODEL.CLIP_LR_SCALE", 0.2)
    keys = "MODEL.CLIP_IMPL, MODEL.CLIP_FUSION, MODEL.CLIP_HF_ID, MODEL.CLIP_LR_SCALE"
    assert clip_notices(*odd) == [f"{keys}: not used, MODEL.USE_CLIP is False"]
    assert clip_notices() == []


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        ((*ON, "MODEL.CLIP_USE_AFEM", False), "MODEL.CLIP_USE_AFEM False is not used: MODEL.CLIP_IMPL open_clip"),
        ((*ON, "MODEL.CLIP_USE_SEM_REFINE", False), "MODEL.CLIP_USE_SEM_REFINE False is not used"),
        ((*ON, "MODEL.CLIP_HF_ID", "a/b"), "MODEL.CLIP_HF_ID a/b is not used: MODEL.CLIP_IMPL open_clip takes"),
        ((*HF, "MODEL.CLIP_BACKBONE", "ViT-L-14"), "MODEL.CLIP_BACKBONE ViT-L-14 is not used: MODEL.CLIP_IMPL hf"),
        ((*HF, "MODEL.CLIP_PRETRAIN", ""), "MODEL.CLIP_PRETRAIN '' is not used: MODEL.CLIP_IMPL hf"),
        (
            (*HF, "MODEL.CLIP_HF_ID", "a/b", "MODEL.CLIP_LOCAL_PATH", "c"),
            "CLIP_HF_ID a/b is not used: MODEL.CLIP_LOCAL_PATH wins",
        ),
        ((*FROZEN, "MODEL.CLIP_LR_SCALE", 0.2), "CLIP_LR_SCALE 0.2 is not used: MODEL.CLIP_FINETUNE False freezes"),
        ((*FROZEN, "MODEL.CLIP_SEPARATE_LR", False), "CLIP_SEPARATE_LR False is not used: MODEL.CLIP_FINETUNE False"),
        (
            (*ON, "MODEL.CLIP_SEPARATE_LR", False, "MODEL.CLIP_LR_SCALE", 0.2),
            "CLIP_LR_SCALE 0.2 is not used: MODEL.CLIP_SEPARATE_LR is False",
        ),
        ((*ON, "MODEL.CLIP_CONCAT_WEIGHT", 0.5), "CLIP_CONCAT_WEIGHT 0.5 is not used: MODEL.CLIP_FUSION is minimal"),
        (
            (*ON, "MODEL.CLIP_FUSION", "concat"),
            "CLIP_FINETUNE True is not used: MODEL.CLIP_FUSION concat trains without",
        ),
        ((*CONCAT, "MODEL.CLIP_LR_SCALE", 0.2), "CLIP_LR_SCALE 0.2 is not used: MODEL.CLIP_FUSION concat does not"),
        (
            (*CONCAT, "MODEL.CLIP_IMPL", "hf", "MODEL.CLIP_USE_AFEM", False),
            "CLIP_USE_AFEM False is not used: MODEL.CLIP_F",
        ),
    ],
)
def test_a_setting_without_effect_is_said_once(opts, words):
    (notice,) = clip_notices(*opts)
    assert words in notice


@pytest.mark.parametrize(
    "opts",
    [
        ON,
        (*ON, "MODEL.CLIP_FUSION", "quickwin", "MODEL.CLIP_LR_SCALE", 0.2),
        (*ON, "MODEL.CLIP_BACKBONE", "ViT-L-14", "MODEL.CLIP_PRETRAIN", "openai", "MODEL.CLIP_LOCAL_PATH", "x.pt"),
        FROZEN,
        (*HF, "MODEL.CLIP_HF_ID", "a/b", "MODEL.CLIP_USE_AFEM", False, "MODEL.CLIP_LR_SCALE", 0.2),
        (*HF, "MODEL.CLIP_LOCAL_PATH", "x", "MODEL.CLIP_INPUT_SIZE", [320, 256]),
        (*CONCAT, "MODEL.CLIP_CONCAT_WEIGHT", 0.5),
    ],
)
def test_settings_that_act_need_no_word(opts):
    assert clip_notices(*opts) == []


def test_self_supervised_training_may_use_clip():
    ssl = ("MODEL.TRAINING_MODE", "self_supervised", "DATALOADER.SAMPLER", "random", "MODEL.JPM", False)
    assert load(*ON, *ssl, "LOSS.SUPCON.ENABLE", True).MODEL.USE_CLIP
