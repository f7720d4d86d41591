"""Each key stands once and is sound in itself, and what it affects is what resume, index, tests and reports go by."""

import json
import subprocess
import sys

import pytest

from configs import get_cfg_defaults
from configs.compare import find_differences, flatten, result_settings
from configs.keys import KEYS, SECTIONS, TABLES, affects
from configs.keys.key import EFFECTS
from configs.rules.problems import find_problems
from configs.values import parse_value, value_of

LEGACY = {name for name, key in KEYS.items() if key.instead}
FREE = (  # where things lie, how often something is written, how it is tested: none of it changes the weights
    *("OUTPUT_DIR", "LOGGER", "MODEL.DEVICE", "MODEL.DEVICE_ID", "MODEL.CLIP_LOCAL_PATH", "MODEL.COMPILE"),
    *("MODEL.ATTENTION", "MODEL.PATCHES"),
    *("DATASETS.ROOT_DIR", "DATASETS.TABLE", "DATASETS.VIEW_FILES", "DATASETS.TESTS", "DATASETS.VEHICLEID_TEST_SIZE"),
    *("DATASETS.WILDLIFE", "DATALOADER.NUM_WORKERS", "DATALOADER.CACHE", "INPUT.BROKEN_IMAGES"),
    *("SOLVER.CHECKPOINT_PERIOD", "SOLVER.EVAL_PERIOD", "SOLVER.LOG_PERIOD", "SOLVER.PEAK_TFLOPS"),
    *("SOLVER.STAGE1.CHECKPOINT_PERIOD", "SOLVER.STAGE1.LOG_PERIOD"),
    *(f"SOLVER.STAGE2.{name}" for name in ("CHECKPOINT_PERIOD", "EVAL_PERIOD", "LOG_PERIOD")),
)
NO_RESULT = tuple(  # keys of TEST without effect on it
    f"TEST.{name}" for name in ("WEIGHT", "IMS_PER_BATCH", "REFERENCE", "REPORT", "BRANCHES", "LINEAR")
)
NO_EMBEDDING = tuple(  # of MODEL: where and how the weights were trained, which a checkpoint brings
    f"MODEL.{name}"
    for name in (
        *("DEVICE", "DEVICE_ID", "DIST_TRAIN", "SYNC_BN", "COMPILE", "TRAINING_MODE", "PRETRAIN_PATH"),
        *("ATTENTION", "PATCHES"),
        *("PRETRAIN_CHOICE", "IF_WITH_CENTER", "ID_LOSS_TYPE", "ID_LOSS_WEIGHT", "TRIPLET_LOSS_WEIGHT"),
        *("METRIC_LOSS_TYPE", "NO_MARGIN", "IF_LABELSMOOTH", "COS_LAYER", "DROP_PATH", "DROP_OUT", "ATT_DROP_RATE"),
        *("PROMPT", "PROMPT_TOKENS", "I2T_LOSS_WEIGHT", "CMT_DEPTH", "CMT_MASK_PADDING"),
        *("PCB.DROPOUT", "PCB.GLOBAL_ERASE", "PCB.PART_ERASE"),
        *(f"MULTIMODAL.{key}" for key in ("DROPOUT", "HEAD_DROPOUT", "MODALITY_DROPOUT")),
        *(f"MULTIMODAL.{key}" for key in ("FREEZE_TEXT", "FREEZE_SHARED")),
        *("FREEZE_BLOCKS", "LORA.RANK", "LORA.ALPHA", "LORA.TARGETS", "CLIP_SEPARATE_LR", "CLIP_LR_SCALE"),
    )
)
EMBEDDING = (  # keys outside MODEL
    *("INPUT.SIZE_TEST", "INPUT.FILTER_TEST", "INPUT.DECODER", "INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD"),
    *("INPUT.TEXT.LENGTH", "TEST.FLIP", "TEST.NECK_FEAT", "TEST.AMP", "TEST.PART_WEIGHTS"),
)
PLACES = ("DATASETS.ROOT_DIR", "OUTPUT_DIR", "TEST.WEIGHT")


def in_section(*sections: str) -> set[str]:
    return {name for name in KEYS if name.split(".")[0] in sections}


def affecting(effect: str) -> set[str]:
    return {name for name in KEYS if affects(name, effect)}


def test_no_key_stands_in_two_files():
    assert sum(map(len, TABLES)) == len(KEYS)


def test_the_tree_holds_the_default_of_every_key():
    cfg = get_cfg_defaults()
    assert list(flatten(cfg)) and set(flatten(cfg)) == set(KEYS)
    for name, key in KEYS.items():
        assert value_of(cfg, name) == key.default and type(value_of(cfg, name)) is type(key.default)


def test_what_is_changed_in_one_tree_stays_there():
    cfg = get_cfg_defaults()
    cfg.INPUT.SIZE_TRAIN[0] = 1
    cfg.SOLVER.SEED = 2
    assert get_cfg_defaults().INPUT.SIZE_TRAIN == [384, 128] and get_cfg_defaults().SOLVER.SEED == 1234


@pytest.mark.parametrize("name", KEYS)
def test_a_key_is_sound_in_itself(name):
    key = KEYS[name]
    assert bool(key.words) != bool(key.instead), "words, or for a legacy key what replaces it"
    assert set(key.affects) <= set(EFFECTS) and len(set(key.affects)) == len(key.affects)
    assert not (key.choices and (key.low is not None or key.high is not None or key.length))
    assert key.high is None or key.low is not None
    assert not key.why or key.low is not None
    assert parse_value(str(key.default), key.default) == key.default


def test_the_defaults_keep_to_what_each_key_allows():
    assert not [keys for keys, _ in find_problems(get_cfg_defaults()) if len(keys) == 1]


def test_every_section_is_described_and_holds_a_key():
    assert set(SECTIONS) == {name.rpartition(".")[0] for name in set(KEYS) - LEGACY}


def test_a_run_goes_on_under_other_places_periods_and_tests_alone():
    assert affecting("training") == set(KEYS) - set(FREE) - in_section("TEST")


def test_an_index_of_embeddings_depends_on_model_and_pixels():
    assert affecting("embedding") == (in_section("MODEL") - set(NO_EMBEDDING)) | set(EMBEDDING)


def test_a_result_depends_on_the_keys_of_test_and_data_sets():
    assert affecting("ranking") == in_section("TEST", "DATASETS") - set(NO_RESULT)
    recorded = [name for section in ("TEST", "DATASETS") for name in KEYS if name.startswith(f"{section}.")]
    assert [name for name in recorded if name not in NO_RESULT] == list(result_settings(get_cfg_defaults()))


def test_places_are_the_data_the_run_folder_and_the_checkpoint():
    assert affecting("place") == set(PLACES)


def test_a_key_that_only_an_old_record_has_counts_and_is_no_place():
    assert [affects("SOLVER.GONE", effect) for effect in EFFECTS] == [True, True, True, False]
    saved = json.loads(json.dumps(get_cfg_defaults()))
    saved["SOLVER"]["GONE"] = 1
    assert find_differences(saved, get_cfg_defaults()) == ["SOLVER.GONE 1 -> None"]


def test_reading_a_configuration_needs_no_torch():
    code = "import sys, configs; configs.load_cfg('configs/VeRi/vit_transreid.yml'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
