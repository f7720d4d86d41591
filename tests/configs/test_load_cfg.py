"""load_cfg: inheritance, widening, and every mistake reported with its place."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from configs import find_notices, get_cfg_defaults, load_cfg
from configs.keys import KEYS
from utils.errors import ConfigError

RESNET = "MODEL:\n  NAME: resnet50\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def writer(text: str, name: str = "x.yml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return writer


def error_of(path: Path, opts: Sequence[str] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        load_cfg(path, opts)
    return str(caught.value)


def test_values_come_from_base_then_file_then_command_line(write):
    write(RESNET + "SOLVER:\n  MAX_EPOCHS: 7\n  BASE_LR: 0.1\n  SEED: 1\n", "base.yml")
    write("_BASE_: base.yml\nSOLVER:\n  BASE_LR: 0.2\n  SEED: 2\n", "middle.yml")
    path = write("_BASE_: middle.yml\nSOLVER:\n  SEED: 3\n")
    cfg = load_cfg(path, ["SOLVER.GAMMA", "0.5"])
    solver = cfg.SOLVER
    assert (solver.MAX_EPOCHS, solver.BASE_LR, solver.SEED, solver.GAMMA) == (7, 0.2, 3, 0.5)


def test_a_base_in_another_folder_is_relative_to_the_file(write, tmp_path):
    write(RESNET, "base.yml")
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "x.yml"
    path.write_text("_BASE_: ../base.yml\n")
    assert load_cfg(path).MODEL.NAME == "resnet50"


def test_the_result_is_frozen_and_defaults_stay_untouched(write):
    cfg = load_cfg(write(RESNET), ["SOLVER.SEED", "9"])
    with pytest.raises(AttributeError):
        cfg.SOLVER.SEED = 1
    assert get_cfg_defaults().SOLVER.SEED == 1234


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("SOLVER:\n  BIAS_LR_FACTOR: 2\n", "SOLVER.BIAS_LR_FACTOR", 2.0),
        ("SOLVER:\n  WEIGHT_DECAY: 1e-4\n", "SOLVER.WEIGHT_DECAY", 1e-4),
        ("SOLVER:\n  STEPS: (40, 70)\n", "SOLVER.STEPS", (40, 70)),
        ("SOLVER:\n  STEPS: [40, 70]\n", "SOLVER.STEPS", (40, 70)),
        ("SOLVER:\n  STEPS: 40\n", "SOLVER.STEPS", (40,)),
        ("DATASETS:\n  NAMES: ('veri')\n", "DATASETS.NAMES", ("veri",)),
        ("DATASETS:\n  NAMES: veri\n", "DATASETS.NAMES", ("veri",)),
        ("DATASETS:\n  NAMES: [veri, market1501]\n", "DATASETS.NAMES", ("veri", "market1501")),
        ("MODEL:\n  NAME: resnet50\n  DEVICE_ID: ('1')\n", "MODEL.DEVICE_ID", "1"),
        ("MODEL:\n  NAME: resnet50\n  DEVICE_ID: 1\n", "MODEL.DEVICE_ID", "1"),
        ("MODEL:\n  NAME: resnet50\n  IF_LABELSMOOTH: off\n", "MODEL.IF_LABELSMOOTH", "off"),
        ("MODEL:\n  NAME: resnet50\n  IF_LABELSMOOTH: 'off'\n", "MODEL.IF_LABELSMOOTH", "off"),
        ("TEST:\n  FEAT_NORM: no\n", "TEST.FEAT_NORM", "no"),
        ("TEST:\n  FEAT_NORM: 'no'\n", "TEST.FEAT_NORM", "no"),
        ("MODEL:\n  NAME: resnet50\n  STRIDE_SIZE: 12\n", "MODEL.STRIDE_SIZE", [12, 12]),
        ("TEST:\n  WEIGHT:\n", "TEST.WEIGHT", ""),
    ],
)
def test_unambiguous_spellings_are_accepted(write, text, key, expected):
    head = "" if text.startswith("MODEL") else RESNET
    node = load_cfg(write(head + text))
    for part in key.split("."):
        node = node[part]
    assert node == expected and type(node) is type(expected)


def test_unknown_key_names_file_line_and_the_nearest_key(write):
    path = write(RESNET + "SOLVER:\n  MAX_EPOCH: 3\n")
    assert error_of(path) == f"{path}:4: unknown key SOLVER.MAX_EPOCH; did you mean SOLVER.MAX_EPOCHS?"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("SOLVER.MAX_EPOCHS", "many", "expected a whole number"),
        ("SOLVER.MAX_EPOCHS", "3.5", "expected a whole number"),
        ("SOLVER.MAX_EPOCHS", "True", "expected a whole number"),
        ("SOLVER.BASE_LR", "fast", "expected a number"),
        ("MODEL.JPM", "1", "expected True or False"),
        ("INPUT.SIZE_TRAIN", "tall", "expected a list"),
        ("INPUT.SIZE_TRAIN", "[tall, wide]", "expected a list"),
        ("INPUT.SIZE_TRAIN", "['tall', 128]", "expected a list of numbers"),
        ("INPUT.SIZE_TRAIN", "[1, 2, 3]", "expected 2 numbers"),
        ("DATASETS.NAMES", "verri", "did you mean veri?"),
        ("MODEL.NECK", "bneck", "allowed: bnneck, no; did you mean bnneck?"),
        ("LOSS.BRANCHES.REDUCE", "max", "allowed: '', halves, sum, mean"),
        ("INPUT.RE_PROB", "1.5", "allowed: 0 to 1"),
        ("DATASETS.NAMES", "VeRi", "did you mean veri?"),
        ("SOLVER.COSINE_SCALE", "0", "allowed: 0.001 to 10000"),
        ("SOLVER.COSINE_MARGIN", "-1", "allowed: 0 to 100"),
        ("SOLVER.BASE_LR", "1e400", "allowed: 0 to 100 (beyond, every step diverges)"),
        ("MODEL", "3", "is a section"),
        ("_BASE", "3", "unknown key"),
    ],
)
def test_a_wrong_value_is_one_line_with_key_and_what_is_allowed(write, key, value, words):
    message = error_of(write(RESNET), [key, value])
    assert message.startswith(f"command line: {'unknown key ' if key == '_BASE' else ''}{key}")
    assert words in message and "\n" not in message


def test_all_problems_are_reported_together_each_with_its_place(write):
    path = write(RESNET + "SOLVER:\n  MAX_EPOCH: 3\n  BASE_LR: quick\nTEST:\n")
    message = error_of(path, ["MODEL.NECK", "none"])
    assert message.startswith("4 problems:")
    for part in (f"{path}:4: unknown key", f"{path}:5: SOLVER.BASE_LR", f"{path}:6: section TEST is empty", "command"):
        assert part in message


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["DATALOADER.SAMPLER", "softmax_triplet", "DATALOADER.NUM_INSTANCE", "5"], "not a multiple"),
        (["DATALOADER.SAMPLER", "softmax_triplet", "DATALOADER.NUM_INSTANCE", "1"], "without a positive"),
        (["MODEL.JPM", "True"], "needs MODEL.NAME transformer"),
        (["MODEL.NAME", "transformer"], "MODEL.TRANSFORMER_TYPE is not set, allowed"),
        (["MODEL.PRETRAIN_CHOICE", "self"], "needs the checkpoint's path"),
        (["MODEL.ID_LOSS_WEIGHT", "0"], "no loss is left"),
        (["DATASETS.NAMES", "('veri', 'veri')"], "different data sets"),
        (["DATASETS.NAMES", "table"], "DATASETS.TABLE"),
        (["SOLVER.SCHEDULER", "multistep", "SOLVER.STEPS", "(70, 40)"], "expected ascending epochs"),
        (["DATASETS.VEHICLEID_TEST_SIZE", "900"], "800, 1600, 2400"),
    ],
)
def test_rules_between_keys_hold(write, opts, words):
    assert words in error_of(write(RESNET), opts)


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["MODEL.STRIDE_SIZE", "[17, 16]"], "exceeds the patch size 16"),
        (["INPUT.SIZE_TEST", "[256, 128]"], "has one size"),
        (["MODEL.VIT.EMBED_DIM", "100", "MODEL.VIT.NUM_HEADS", "3"], "not a multiple"),
        (["INPUT.SIZE_TRAIN", "[8, 8]", "INPUT.SIZE_TEST", "[8, 8]"], "smaller than one patch"),
        (
            ["INPUT.SIZE_TRAIN", "[16, 32]", "INPUT.SIZE_TEST", "[16, 32]", "MODEL.JPM", "True"],
            "divides 2 patches (1 x 2)",
        ),
        (["MODEL.JPM", "True", "MODEL.SHIFT_NUM", "200"], "exceeds the 192 patches"),
        (
            ["MODEL.TRANSFORMER_TYPE", "deit_smal_patch16_224_TransReID"],
            "did you mean deit_small_patch16_224_TransReID",
        ),
    ],
)
def test_rules_of_the_transformer_hold(write, opts, words):
    text = "MODEL:\n  NAME: transformer\n  TRANSFORMER_TYPE: vit_base_patch16_224_TransReID\n"
    load_cfg(write(text))
    assert words in error_of(write(text), opts)


def test_a_yaml_without_base_and_model_is_refused_with_the_hint(write):
    assert "_BASE_" in error_of(write("SOLVER:\n  SEED: 3\n"))


def test_missing_config_suggests_the_nearest_path(write):
    path = write(RESNET, "vit_base.yml")
    assert f"did you mean '{path}'?" in error_of(str(path).replace("base", "bas"))


def test_odd_number_of_options_is_refused(write):
    assert "KEY VALUE pairs" in error_of(write(RESNET), ["SOLVER.SEED"])


def test_python_configs_are_refused(write):
    assert "never code" in error_of(write("MODEL = 3", "x.py"))


def test_broken_yaml_names_the_line(write):
    path = write("MODEL:\n  NAME: [resnet50\n")
    assert str(path) in error_of(path) and "not valid YAML" in error_of(path)


def test_a_file_that_is_not_text_is_named(tmp_path):
    path = tmp_path / "x.yml"
    path.write_bytes(b"MODEL:\n  NAME: \xff\xfe")
    assert f"{path}:2: not UTF-8 text" in error_of(path)


def test_merge_keys_of_yaml_work(write):
    path = write("MODEL: &m\n  NAME: resnet50\nSOLVER:\n  <<: {SEED: 5}\n  MAX_EPOCHS: 3\n")
    assert (load_cfg(path).SOLVER.SEED, load_cfg(path).SOLVER.MAX_EPOCHS) == (5, 3)


def test_a_key_given_twice_is_refused(write):
    assert "stands twice" in error_of(write(RESNET + RESNET))


def test_a_base_circle_is_refused(write):
    write("_BASE_: b.yml\n", "a.yml")
    assert "leads back" in error_of(write("_BASE_: a.yml\n", "b.yml"))


def test_legacy_keys_are_accepted_and_said_once(write):
    search = "LOSS:\n  SUPCON:\n    SEARCH:\n      W: [0.2]\n      T: [0.05, 0.1]\n"
    cfg = load_cfg(write(RESNET + "  COS_LAYER: True\nTEST:\n  EVAL: True\n  DIST_MAT: x.npy\n" + search))
    notices = [notice for notice in find_notices(cfg) if "not used here" in notice]
    of_stages = [name for name, key in KEYS.items() if key.instead and name.startswith("SOLVER.STAGE")]
    assert len(notices) == sum(bool(key.instead) for key in KEYS.values()) - len(of_stages) == 5
    assert not [notice for notice in find_notices(load_cfg(write(RESNET))) if "not used here" in notice]


def test_a_list_that_a_base_emptied_keeps_its_type(tmp_path):
    (tmp_path / "base.yml").write_text("MODEL: {NAME: transformer}\nLOSS: {PHASED: {BOUNDARIES: []}}\n")
    (tmp_path / "recipe.yml").write_text("_BASE_: base.yml\nLOSS: {PHASED: {BOUNDARIES: [10, 20]}}\n")
    opts = ("MODEL.TRANSFORMER_TYPE", "deit_base_patch16_224_TransReID")
    assert load_cfg(tmp_path / "base.yml", opts).LOSS.PHASED.BOUNDARIES == []
    assert load_cfg(tmp_path / "recipe.yml", opts).LOSS.PHASED.BOUNDARIES == [10, 20]


def test_a_lone_number_is_one_boundary_but_both_sides_of_a_size():
    path = Path(__file__).parents[2] / "configs" / "VeRi" / "deit_transreid_stride_baseline.yml"
    cfg = load_cfg(path, ["LOSS.PHASED.BOUNDARIES", 40, "INPUT.SIZE_TRAIN", 224, "INPUT.SIZE_TEST", 224])
    assert cfg.LOSS.PHASED.BOUNDARIES == [40] and cfg.INPUT.SIZE_TRAIN == [224, 224]


def test_a_problem_between_keys_is_placed_where_the_last_word_was_said(write):
    model = "MODEL: {NAME: transformer, TRANSFORMER_TYPE: vit_base_patch16_224_TransReID}\n"
    path = write(f"{model}INPUT:\n  SIZE_TRAIN: [64, 64]\n  SIZE_TEST: [64, 64]\n")
    assert error_of(path, ["INPUT.SIZE_TRAIN", "[32, 32]"]).startswith("command line: INPUT.SIZE_TEST [64, 64] differs")
    assert error_of(path, ["SOLVER.STAGES", "['x']"]).startswith("command line: SOLVER.STAGES got ('x',)")
