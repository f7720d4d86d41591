"""Each switch sets what it says and nothing else, and says so when it cannot work; train.py and test.py are fakes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs import load_cfg
from configs.values import value_of
from tests.fake_runner import PHASED, ROUTED, FakeRunner, summary_of, write_config
from tools.launch.switched import load_with_switches
from tools.launch.switches import Switches

PHASED_KEY, SUPCON, TRIPLETX = "LOSS.PHASED.ENABLE", "LOSS.SUPCON.ENABLE", "LOSS.TRIPLETX.ENABLE"
METRIC_SEQ, BRIGHTNESS = "LOSS.PHASED.METRIC_SEQ", "LOSS.BRIGHTNESS.ENABLE"
ALL_OFF = {PHASED_KEY: False, SUPCON: False, TRIPLETX: False, BRIGHTNESS: False}
OWN_PLAN = "LOSS: {PHASED: {METRIC_SEQ: [tripletx, triplet, triplet]}}\n"  # there, and not switched on


@pytest.fixture
def result_of(launch: Callable[..., int], runner: FakeRunner, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """result_of(more, *words): the keys that train.py gets on a config with these sections, with their values."""

    def result(more: str, *words: str) -> dict[str, Any]:
        config = write_config(tmp_path, "x", more)
        assert launch(*words, configs=[config]) == 0
        given = dict(runner.commands[0][1])
        cfg = load_cfg(config, [word for pair in given.items() for word in pair])
        del given["SOLVER.SEED"], given["OUTPUT_DIR"]
        for _, opts in runner.commands[1:]:
            assert opts.items() >= given.items()  # the tests build the same model
        return {key: value_of(cfg, key) for key in given}

    return result


@pytest.mark.parametrize(
    ("more", "words", "expected"),
    [
        (PHASED, (), {}),
        ("", ("--supcon",), {SUPCON: True}),
        (PHASED, ("--no-supcon",), {SUPCON: False}),
        ("", ("--tripletx",), {TRIPLETX: True}),
        (ROUTED, ("--no-tripletx",), {TRIPLETX: False}),
        (OWN_PLAN, ("--phased", "--tripletx"), {PHASED_KEY: True, TRIPLETX: True}),
        (ROUTED, ("--T", "0.1", "--W", "0.25"), {"LOSS.SUPCON.T": 0.1, "LOSS.SUPCON.W": 0.25}),
        (PHASED, ("--baseline",), ALL_OFF),
        (ROUTED, ("--baseline",), ALL_OFF),
        (ROUTED, ("--baseline", "--supcon"), ALL_OFF | {SUPCON: True}),
        (PHASED, ("--baseline", "--tripletx"), ALL_OFF | {TRIPLETX: True}),
        (ROUTED, ("--baseline", "--opts", BRIGHTNESS, "True"), ALL_OFF | {BRIGHTNESS: True}),
        (PHASED, ("--baseline", "--supcon", "--W", "0.4"), ALL_OFF | {SUPCON: True, "LOSS.SUPCON.W": 0.4}),
    ],
)
def test_a_switch_sets_its_keys_and_leaves_the_rest_to_the_yaml(result_of, more, words, expected):
    assert result_of(more, *words) == expected


def test_no_tripletx_puts_triplet_into_the_plan(result_of, capsys):
    expected = {TRIPLETX: False, METRIC_SEQ: ["triplet", "triplet", "triplet"]}
    assert result_of(PHASED, "--no-tripletx") == expected
    out = capsys.readouterr().out
    assert f"{METRIC_SEQ} ['triplet', 'tripletx', 'triplet'] -> ['triplet', 'triplet', 'triplet']\n" in out
    assert f"{TRIPLETX} True -> False\n" in out


def test_no_tripletx_leaves_the_other_entries_of_the_plan(result_of):
    more = PHASED.replace("[triplet, tripletx, triplet]", "[tripletx, none, triplet]")
    assert result_of(more, "--no-tripletx")[METRIC_SEQ] == ["triplet", "none", "triplet"]


def test_the_users_own_sequence_wins_over_what_no_tripletx_implies(result_of):
    result = result_of(PHASED, "--no-tripletx", "--opts", METRIC_SEQ, "['none', 'triplet']")
    assert result[METRIC_SEQ] == ["none", "triplet"]


def test_a_pair_that_repeats_a_switch_is_no_contradiction(result_of):
    pairs = ("LOSS.SUPCON.T", "0.10", SUPCON, "True")
    assert result_of("", "--supcon", "--T", "0.1", *pairs) == {SUPCON: True, "LOSS.SUPCON.T": 0.1}


@pytest.mark.parametrize(
    ("more", "words", "said"),
    [
        (PHASED, ("--W", "0.3"), "LOSS.PHASED.W_SUP_SPEC"),
        (PHASED, ("--W", "0.3", "--opts", "LOSS.PHASED.W_SUP_SPEC", "[]"), "LOSS.SUPCON.W0"),
        ("", ("--T", "0.1"), SUPCON),
        ("", ("--W", "0.1"), SUPCON),
        (ROUTED, ("--no-supcon", "--T", "0.1"), SUPCON),
        (ROUTED, ("--baseline", "--W", "0.1"), SUPCON),
        ("", ("--phased",), "LOSS.PHASED."),
        (ROUTED, ("--phased", "--opts", "LOSS.PHASED.TRIPLETX_END", "5"), "LOSS.PHASED."),
        ("", ("--supcon", SUPCON, "False"), f"--supcon contradicts {SUPCON} False"),
        (PHASED, ("--no-tripletx", TRIPLETX, "True"), "--no-tripletx contradicts"),
        (ROUTED, ("--T", "0.1", "LOSS.SUPCON.T", "0.2"), "--T 0.1 contradicts LOSS.SUPCON.T 0.2"),
        (PHASED, ("--baseline", PHASED_KEY, "True"), f"--baseline contradicts {PHASED_KEY} True"),
        (PHASED, ("--no-tripletx", METRIC_SEQ, "['tripletx']"), METRIC_SEQ),
        (OWN_PLAN, ("--phased",), TRIPLETX),
        ("", ("--supcon", SUPCON, "perhaps"), "perhaps"),
    ],
)
def test_a_switch_that_cannot_work_is_one_line_that_names_the_key(launch, runner, tmp_path, capsys, more, words, said):
    assert launch(*words, configs=[write_config(tmp_path, "x", more)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not runner.commands and not (tmp_path / "logs").exists()


def test_a_plan_may_come_from_the_users_pairs(result_of):
    result = result_of("", "--phased", "--opts", "LOSS.PHASED.BOUNDARIES", "[2]")
    assert result == {PHASED_KEY: True, "LOSS.PHASED.BOUNDARIES": [2]}


def test_a_plan_of_tripletx_alone_is_a_plan_although_no_tripletx_takes_it_away(result_of):
    result = result_of(OWN_PLAN, "--phased", "--no-tripletx")
    assert result[PHASED_KEY] is True and result[METRIC_SEQ] == ["triplet"] * 3


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (PHASED.replace("TRIPLETX: {ENABLE: True}", "TRIPLETX: {ENABLE: False}"), ("--tripletx",)),
        # 8 images per identity do not divide 12, but without TripletX and SupCon nothing asks for 8
        (PHASED, ("--no-tripletx", "--no-supcon", "--opts", "SOLVER.IMS_PER_BATCH", "12")),
    ],
)
def test_what_only_the_switches_make_sound_is_launched(result_of, more, words):
    assert TRIPLETX in result_of(more, *words)


def test_without_a_switch_the_configuration_and_its_errors_are_load_cfgs(tmp_path):
    config = write_config(tmp_path, "x", PHASED)
    cfg, words = load_with_switches(config, Switches(), ["SOLVER.GAMMA", "0.5"])
    assert cfg == load_cfg(config, ["SOLVER.GAMMA", "0.5"]) and words == ["SOLVER.GAMMA", "0.5"]
    bad = ["MODEL.NECK", "x", "LOSS.PHASED.W_SUP_SPEC", "const"]
    for loading in (lambda: load_cfg(config, bad), lambda: load_with_switches(config, Switches(), bad)):
        with pytest.raises(ValueError) as caught:
            loading()
        assert "MODEL.NECK" in str(caught.value)


def test_the_summary_holds_the_switches_as_given(launch, logs):
    launch("--supcon", "--no-tripletx", "--T", "0.1")
    summary = summary_of(logs, "veri776_mine_sup_notx_T0p1")
    assert summary["switches"] == {"mode": None, "supcon": True, "tripletx": False, "T": 0.1, "W": None}
    assert summary["opts"] == [SUPCON, "True", TRIPLETX, "False", "LOSS.SUPCON.T", "0.1"]
    launch("--baseline")
    assert summary_of(logs, "veri776_mine_baseline")["switches"]["mode"] == "baseline"
