"""What is refused and what is said about IRRA's configurations."""

from pathlib import Path

import pytest
from yacs.config import CfgNode

from configs import find_notices, load_cfg
from utils.errors import ConfigError

MARKET = Path(__file__).parents[3] / "configs/Market/vit_base.yml"
RECIPE = """
MODEL: {NAME: irra, CLIP_BACKBONE: ViT-B-16-quickgelu, CLIP_PRETRAIN: openai, STRIDE_SIZE: [16, 16]}
INPUT:
  PIXEL_MEAN: [0.48145466, 0.4578275, 0.40821073]
  PIXEL_STD: [0.26862954, 0.26130258, 0.27577711]
DATASETS: {NAMES: [CUHK-PEDES]}
SOLVER: {BASE_LR: 1.0e-5, IMS_PER_BATCH: 64}
"""
PHASED = ("LOSS.PHASED.ENABLE", True, "LOSS.PHASED.BOUNDARIES", [10])
EVERY_EPOCH = ("SOLVER.EVAL_PERIOD", 1, "SOLVER.CHECKPOINT_PERIOD", 1)
ALIEN = "not of MODEL.NAME irra; "


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The published recipe's keys, as far as they differ from the defaults here."""
    path = tmp_path / "irra.yml"
    path.write_text(RECIPE)
    return path


def refusal_of(path: Path, *opts: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_cfg(path, opts)
    return str(caught.value)


def notices_of(path: Path, *opts: object) -> list[str]:
    return find_notices(load_cfg(path, opts))


def test_the_recipe_has_nothing_to_hear(recipe):
    cfg = load_cfg(recipe)
    assert isinstance(cfg, CfgNode) and find_notices(cfg) == []


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("MODEL.SIE_CAMERA", True), "MODEL.SIE_CAMERA True needs MODEL.NAME transformer, got irra"),
        (("MODEL.SIE_VIEW", True), "MODEL.SIE_VIEW True needs MODEL.NAME transformer, got irra"),
        (("MODEL.JPM", True), "MODEL.JPM True needs MODEL.NAME transformer, got irra"),
        (("MODEL.SIE_COE", 2.0), f"MODEL.SIE_COE 2.0: {ALIEN}there are no side information"),
        (("MODEL.SHIFT_NUM", 3), f"MODEL.SHIFT_NUM 3: {ALIEN}there are no side information"),
        (("MODEL.LORA.RANK", 4), "MODEL.LORA.RANK 4 needs the blocks of MODEL.NAME transformer"),
        (("MODEL.FREEZE_BLOCKS", 2), "MODEL.FREEZE_BLOCKS 2 needs the blocks of MODEL.NAME transformer"),
        (("SOLVER.LAYER_DECAY", 0.7), "SOLVER.LAYER_DECAY 0.7 needs the blocks of MODEL.NAME transformer"),
        (("MODEL.USE_CLIP", True), "MODEL.USE_CLIP True needs MODEL.NAME transformer, got irra"),
        (("LOSS.TRIPLETX.ENABLE", True), f"LOSS.TRIPLETX.ENABLE True: {ALIEN}its losses are those of LOSS.TEXT.NAMES"),
        (("LOSS.TRIPLETX.K", 3), f"LOSS.TRIPLETX.K 3: {ALIEN}"),
        (("LOSS.SUPCON.ENABLE", True), f"LOSS.SUPCON.ENABLE True: {ALIEN}"),
        (("MODEL.TRIPLET_LOSS_WEIGHT", 0.5), f"MODEL.TRIPLET_LOSS_WEIGHT 0.5: {ALIEN}"),
        (("LOSS.BRIGHTNESS.ENABLE", True), f"LOSS.BRIGHTNESS.ENABLE True: {ALIEN}"),
        (("MODEL.IF_WITH_CENTER", "yes"), "the centre loss (MODEL.IF_WITH_CENTER yes, MODEL.METRIC_LOSS_TYPE triplet)"),
        (
            ("MODEL.METRIC_LOSS_TYPE", "center"),
            "the centre loss (MODEL.IF_WITH_CENTER no, MODEL.METRIC_LOSS_TYPE center)",
        ),
        (("MODEL.ID_LOSS_WEIGHT", 0.5), f"MODEL.ID_LOSS_WEIGHT 0.5: {ALIEN}LOSS.TEXT.ID_W is the weight"),
        (("MODEL.ID_LOSS_TYPE", "arcface"), f"MODEL.ID_LOSS_TYPE arcface: {ALIEN}its identity loss is softmax"),
        (("DATALOADER.PHASED.ENABLE", True), f"DATALOADER.PHASED.ENABLE True: {ALIEN}DATALOADER.NUM_INSTANCE"),
        ((*PHASED, "LOSS.PHASED.W_METRIC_SEQ", [1.0, 0.5]), f"{ALIEN}LOSS.PHASED.W_TERMS gives"),
        ((*PHASED, "LOSS.PHASED.METRIC_SEQ", ["none"]), f"{ALIEN}LOSS.PHASED.W_TERMS gives"),
        ((*PHASED, "LOSS.PHASED.W_SUP_SPEC", ["const:1.0"]), f"{ALIEN}LOSS.PHASED.W_TERMS gives"),
        (("MODEL.TRAINING_MODE", "self_supervised"), "MODEL.TRAINING_MODE self_supervised knows no identities"),
        (("MODEL.COMPILE", True), "MODEL.COMPILE True: MODEL.NAME irra has other captions in each step"),
        (("MODEL.CLIP_IMPL", "hf"), "MODEL.CLIP_IMPL hf: MODEL.NAME irra is made of open_clip's modules"),
        (("MODEL.CLIP_BACKBONE", ""), "MODEL.CLIP_BACKBONE is empty"),
        (("MODEL.CLIP_BACKBONE", "RN50"), "MODEL.CLIP_BACKBONE RN50 is a ResNet, MODEL.NAME irra needs a ViT"),
        (("INPUT.SIZE_TEST", [256, 128]), "INPUT.SIZE_TEST [256, 128] differs from INPUT.SIZE_TRAIN [384, 128]"),
        (("SOLVER.STAGES", ["stage1"]), "SOLVER.STAGES got ('stage1',), allowed for MODEL.NAME irra: main"),
        (
            ("LOSS.TEXT.NAMES", ["sdm", "sdm"]),
            "LOSS.TEXT.NAMES got ['sdm', 'sdm'], expected different ones of sdm, itc",
        ),
        (("LOSS.TEXT.NAMES", []), "no loss is left in epoch 1, 2, 3, ...: LOSS.TEXT.NAMES []"),
        (("LOSS.TEXT.NAMES", ["id"], "LOSS.TEXT.ID_W", 0), "LOSS.TEXT.NAMES ['id'], LOSS.TEXT.ID_W 0.0"),
        (
            ("INPUT.TEXT.MASK_SHARE", 0.95),
            "INPUT.TEXT.MASK_SHARE 0.95 and KEEP_SHARE 0.1 are shares of the same tokens",
        ),
        (("INPUT.TEXT.LENGTH", 2), "INPUT.TEXT.LENGTH got 2"),
        (("MODEL.CMT_DEPTH", 0), "MODEL.CMT_DEPTH got 0"),
        (("DATASETS.NAMES", ["veri"]), "DATASETS.NAMES: veri has no captions, from which MODEL.NAME irra learns"),
        (("DATASETS.TESTS", ["RSTPReid", "veri"]), "DATASETS.TESTS: veri has no captions"),
        (("DATASETS.NAMES", ["table"]), "the CSV's path in DATASETS.TABLE (columns path,pid,split,caption)"),
    ],
)
def test_a_mistake_is_one_clear_line(recipe, opts, words):
    assert words in refusal_of(recipe, *opts)


@pytest.mark.parametrize("name", ["CUHK-PEDES", "ICFG-PEDES", "RSTPReid", "synthetic_text"])
@pytest.mark.parametrize("key", ["DATASETS.NAMES", "DATASETS.TESTS"])
def test_captioned_sets_are_for_irra_alone(recipe, key, name):
    words = f"{key}: {name} has captions in place of cameras and queries, which MODEL.NAME irra reads, not transformer"
    assert words in refusal_of(MARKET, key, [name])
    assert name in load_cfg(recipe, (key, [name])).DATASETS[key.split(".")[1]]


def test_a_table_may_have_captions(recipe):
    opts = ("DATASETS.NAMES", ["table"], "DATASETS.TABLE", "mine.csv")
    assert load_cfg(recipe, opts).DATASETS.NAMES == ("table",)
    assert load_cfg(MARKET, opts).DATASETS.NAMES == ("table",)


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("SOLVER.IMS_PER_BATCH", 512), "SOLVER.IMS_PER_BATCH 512 at SOLVER.BASE_LR 1e-05: the published figures have"),
        (("MODEL.DROP_PATH", 0.2), "MODEL.DROP_PATH: not used by MODEL.NAME irra"),
        (("MODEL.PROMPT", "A {}."), "MODEL.PROMPT: not used by MODEL.NAME irra"),
        (("LOSS.I2T.NORMALISE", True), "LOSS.I2T.NORMALISE: not used by MODEL.NAME irra"),
        (("SOLVER.STAGE2.BASE_LR", 1e-5), "SOLVER.STAGE2.BASE_LR: not used by MODEL.NAME irra"),
        (
            ("LOSS.TEXT.NAMES", ["sdm", "id"], "INPUT.TEXT.MASK_CAPTION", True),
            "INPUT.TEXT.MASK_CAPTION: not used, LOSS.TEXT.NAMES sdm+id has no mlm",
        ),
        (
            ("LOSS.TEXT.NAMES", ["cmpm"], "LOSS.TEXT.TEMPERATURE", 0.1),
            "LOSS.TEXT.TEMPERATURE: not used, LOSS.TEXT.NAMES cmpm has no sdm or itc",
        ),
        (("LOSS.TEXT.CMPM_TARGET", "l2"), "LOSS.TEXT.CMPM_TARGET: not used, LOSS.TEXT.NAMES sdm+id+mlm has no cmpm"),
        (("INPUT.PIXEL_MEAN", [0.5, 0.5, 0.5]), "images are normalised by mean [0.5, 0.5, 0.5]"),
        (
            ("DATASETS.EVAL_SPLIT", "val", "DATASETS.VAL_IDS", 0.1, *EVERY_EPOCH),
            "DATASETS.EVAL_SPLIT val is not used: training looks at the identities that DATASETS.VAL_IDS 0.1 holds out",
        ),
        (
            ("DATASETS.EVAL_SPLIT", "val", "SOLVER.EVAL_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", 4),
            "DATASETS.EVAL_SPLIT val picks among epochs that are both evaluated (SOLVER.EVAL_PERIOD 2) and kept",
        ),
        (
            ("DATASETS.EVAL_SPLIT", "val", "SOLVER.EVAL_PERIOD", 0),
            "DATASETS.EVAL_SPLIT val is not used: SOLVER.EVAL_PERIOD 0 evaluates no epoch",
        ),
    ],
)
def test_what_a_user_may_miss_is_one_line(recipe, opts, words):
    (notice,) = notices_of(recipe, *opts)
    assert notice.startswith(words)


def test_another_rate_goes_with_any_batch(recipe):
    assert notices_of(recipe, "SOLVER.IMS_PER_BATCH", 512, "SOLVER.BASE_LR", 8e-5) == []


@pytest.mark.parametrize("opts", [("DATASETS.EVAL_SPLIT", "val", *EVERY_EPOCH), ("SOLVER.CHECKPOINT_PERIOD", 3)])
def test_equal_periods_or_another_split_need_no_word(recipe, opts):
    assert notices_of(recipe, *opts) == []


def test_keys_of_irra_are_told_to_be_idle_elsewhere():
    keys = {"MODEL.CMT_DEPTH": 6, "INPUT.TEXT.LENGTH": 64, "DATASETS.EVAL_SPLIT": "val", "TEST.I2T": True}
    notices = notices_of(MARKET, *(word for pair in keys.items() for word in pair))
    assert f"{', '.join(keys)}: not used by MODEL.NAME transformer" in notices
