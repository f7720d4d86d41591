"""What is refused and what is said about MODEL.CLIP_*, all of it only while MODEL.USE_CLIP is True."""

import re
from pathlib import Path

import pytest

from configs import find_notices, load_cfg
from utils.errors import ConfigError

BASELINE = Path(__file__).parents[2] / "configs" / "VeRi" / "deit_transreid_stride_baseline.yml"
ON = ("MODEL.USE_CLIP", True)
HF = (*ON, "MODEL.CLIP_IMPL", "hf")
CONCAT = (*ON, "MODEL.CLIP_FUSION", "concat", "MODEL.CLIP_FINETUNE", False)
FROZEN = (*ON, "MODEL.CLIP_FINETUNE", False)


def load(*opts):
    return load_cfg(BASELINE, opts)


def clip_notices(*opts):
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


def test_all_mistakes_are_named_together():
    with pytest.raises(ConfigError) as caught:
        load(*HF, "MODEL.CLIP_FUSION", "quickwin", "MODEL.CLIP_HF_ID", "", "INPUT.SIZE_TEST", [256, 128])
    assert all(key in str(caught.value) for key in ("CLIP_FUSION quickwin", "CLIP_HF_ID", "INPUT.SIZE_TEST"))


def test_rules_sleep_while_clip_is_off():
    odd = ("MODEL.CLIP_IMPL", "hf", "MODEL.CLIP_FUSION", "quickwin", "MODEL.CLIP_HF_ID", "", "MODEL.CLIP_LR_SCALE", 0.2)
    assert clip_notices(*odd, "MODEL.CLIP_USE_AFEM", False, "MODEL.CLIP_BACKBONE", "x") == []


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
