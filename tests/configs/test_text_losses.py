"""LOSS.TEXT.NAMES and the weights of IRRA's losses: how they are written, and what they are at an epoch."""

from pathlib import Path

import pytest
from yacs.config import CfgNode

from configs import load_cfg
from configs.keys.irra import LOSSES
from configs.loss_weights import WEIGHTS
from configs.phase_words import describe_losses
from configs.phases import TITLES, PhasePlan
from configs.rules.problems import find_problems
from configs.rules.training import find_loss_problems
from tests.cfgs import cfg_with
from tools.study.ablation import describe_plan
from utils.errors import ConfigError

NAMES = "LOSS.TEXT.NAMES"


def irra_with(*opts: object) -> CfgNode:
    return cfg_with("MODEL.NAME", "irra", "SOLVER.MAX_EPOCHS", 10, *opts)


def names_in(folder: Path, text: str, *opts: object) -> list[str]:
    """LOSS.TEXT.NAMES of a YAML of any model with this value, and of words of a command line."""
    path = folder / "a.yml"
    path.write_text("MODEL: {NAME: resnet50}\n" + (f"LOSS: {{TEXT: {{NAMES: {text}}}}}\n" if text else ""))
    return list(load_cfg(path, opts).LOSS.TEXT.NAMES)


@pytest.mark.parametrize(
    "text", ["sdm+mlm+id", "'sdm+mlm+id'", "sdm + mlm + id", "[sdm, mlm, id]", "['sdm', 'mlm', 'id']", "[sdm+mlm, id]"]
)
def test_names_are_a_list_or_joined_by_plus_in_a_yaml(tmp_path, text):
    assert names_in(tmp_path, text) == ["sdm", "mlm", "id"]


@pytest.mark.parametrize("word", ["sdm+id", "['sdm', 'id']", "('sdm', 'id')", ["sdm", "id"], "'sdm+id'"])
def test_names_are_a_list_or_joined_by_plus_on_the_command_line(tmp_path, word):
    assert names_in(tmp_path, "", NAMES, word) == ["sdm", "id"]


def test_one_name_alone_is_a_list_of_one_and_the_default_has_three(tmp_path):
    assert names_in(tmp_path, "itc") == ["itc"]
    assert names_in(tmp_path, "") == ["sdm", "id", "mlm"]


def test_a_kept_configuration_has_the_list_again(tmp_path):
    path = tmp_path / "a.yml"
    path.write_text("MODEL: {NAME: resnet50}\n")
    cfg = load_cfg(path, [NAMES, "cmpm+id"])
    path.write_text(cfg.dump())
    assert list(load_cfg(path).LOSS.TEXT.NAMES) == ["cmpm", "id"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sdm+mml", "LOSS.TEXT.NAMES got 'mml', allowed: sdm, itc, cmpm, id, mlm; did you mean mlm?"),
        ("SDM", "LOSS.TEXT.NAMES got 'SDM', allowed: sdm, itc, cmpm, id, mlm; did you mean sdm?"),
        ("sdm++id", "LOSS.TEXT.NAMES got '', allowed: sdm, itc, cmpm, id, mlm"),
        ("7", "LOSS.TEXT.NAMES got '7', expected a list"),
    ],
)
def test_an_unknown_name_is_one_error_that_names_it_and_those_that_there_are(tmp_path, word, message):
    with pytest.raises(ConfigError) as caught:
        names_in(tmp_path, "", NAMES, word)
    assert str(caught.value) == f"command line: {message}"


def test_other_lists_of_words_are_not_split_at_a_plus(tmp_path):
    with pytest.raises(ConfigError, match=r"DATASETS.NAMES got 'veri\+market1501', allowed"):
        names_in(tmp_path, "", "DATASETS.NAMES", "veri+market1501")


def test_the_weights_are_those_of_the_names_in_one_order_and_two_have_keys():
    opts = ("LOSS.TEXT.ID_W", 0.5, "LOSS.TEXT.MLM_W", 0.25)
    weights = {"sdm": 1.0, "itc": 1.0, "cmpm": 1.0, "id": 0.5, "mlm": 0.25}
    for names in (["mlm", "id", "sdm"], ["itc"], list(LOSSES)):
        plan = PhasePlan(irra_with(NAMES, names, *opts))
        expected = {name: weights[name] for name in LOSSES if name in names}
        for epoch in (1, 10):
            assert plan.at(epoch).weights == expected and list(plan.at(epoch).weights) == list(expected)
            assert not plan.at(epoch).routed


def test_every_loss_has_a_title_of_its_own():
    titles = [TITLES[name] for name in LOSSES]
    assert titles == ["SDM", "ITC", "CMPM", "CE", "MLM"]
    assert WEIGHTS["irra"](irra_with(NAMES, list(LOSSES)), 1, "main").keys() == set(LOSSES)


def test_phases_switch_the_losses_and_log_and_ablation_table_name_them():
    phased = ("LOSS.PHASED.ENABLE", True, "LOSS.PHASED.BOUNDARIES", [5])
    plan = PhasePlan(irra_with(*phased, "LOSS.PHASED.W_TERMS", ["mlm=linear:1.0->0.0|const:0", "id=const:0.5"]))
    assert [plan.at(epoch).weights["mlm"] for epoch in (1, 4, 5, 10)] == pytest.approx([0.8, 0.2, 0, 0])
    assert plan.at(3).weights["id"] == 0.5 and plan.at(3).weights["sdm"] == 1.0
    assert describe_losses(plan.at(1)) == "SDM 1, CE 0.5, MLM 0.8"
    assert describe_plan(plan, 5)["losses"] == "A: CE+SDM+MLM, B: CE+SDM"


def test_the_ablation_table_names_the_losses_without_phases():
    assert describe_plan(PhasePlan(irra_with(NAMES, ["itc"])), 5)["losses"] == "ITC"
    assert describe_plan(PhasePlan(irra_with()), 5)["losses"] == "CE+SDM+MLM"


def test_a_phase_weighs_only_losses_that_the_model_is_built_for():
    cfg = irra_with(NAMES, ["sdm", "id"], "LOSS.PHASED.ENABLE", True, "LOSS.PHASED.W_TERMS", ["mlm=const:1"])
    with pytest.raises(ConfigError, match="LOSS.PHASED.W_TERMS got the term 'mlm', allowed: sdm, id$"):
        PhasePlan(cfg)


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        ((NAMES, []), "epoch 1, 2, 3, ...: LOSS.TEXT.NAMES [], "),
        ((NAMES, ["id"], "LOSS.TEXT.ID_W", 0.0), "LOSS.TEXT.NAMES ['id'], LOSS.TEXT.ID_W 0.0, "),
        (
            (NAMES, ["sdm"], "LOSS.PHASED.ENABLE", True, "LOSS.PHASED.BOUNDARIES", [10])
            + ("LOSS.PHASED.W_TERMS", ["sdm=const:1|const:0"]),
            "epoch 10: LOSS.TEXT.NAMES ['sdm'], ",
        ),
    ],
)
def test_an_epoch_without_any_loss_is_refused_with_the_keys_that_decide(opts, words):
    ((keys, text),) = find_loss_problems(irra_with(*opts))
    assert text.startswith("no loss is left in ") and words in text
    assert keys == (NAMES, "LOSS.TEXT.ID_W", "LOSS.TEXT.MLM_W", "LOSS.PHASED.W_TERMS")


def test_a_sound_choice_is_no_problem_of_losses():
    for names in (["sdm"], ["mlm"], list(LOSSES)):
        cfg = irra_with(NAMES, names)
        assert list(find_loss_problems(cfg)) == []
        assert not [text for keys, text in find_problems(cfg) if NAMES in keys]
