"""Flags, KEY VALUE pairs and names, seen in what the launcher starts; train.py and test.py are fakes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import run_phased_loss
from tests.fake_runner import YAML, write_config
from tests.faults.mistakes import refusal
from tools.launch.arguments import parse_args

ROOT = Path(run_phased_loss.__file__).parent


def test_the_users_pairs_reach_training_and_tests_with_and_without_opts(launch, runner):
    launch("--opts", "SOLVER.GAMMA", "0.5", "--save-every", "2", "TEST.NECK_FEAT", "before")
    assert runner.commands[0][0] == "train.py" and runner.commands[-1][0] == "test.py"
    for _, opts in (runner.commands[0], runner.commands[-1]):
        assert opts["SOLVER.GAMMA"] == "0.5" and opts["TEST.NECK_FEAT"] == "before"
        assert opts["SOLVER.CHECKPOINT_PERIOD"] == opts["SOLVER.EVAL_PERIOD"] == "2"


def test_pairs_directly_after_the_seeds_are_not_seeds(launch, runner):
    assert launch("SOLVER.GAMMA", "0.5", seeds=("0,", "1")) == 0
    assert runner.commands[0][1]["SOLVER.GAMMA"] == "0.5"
    assert [word for word in runner.take() if "train" in word] == ["train 0", "train 1"]


@pytest.mark.parametrize("words", [("0,1",), ("0", "1"), ("0,", "1")])
def test_gpus_are_given_like_seeds_and_pairs_may_follow(words):
    args = parse_args(["--config", "x.yml", "--gpus", *words, "SOLVER.GAMMA", "0.5"])
    assert args.gpus == [0, 1] and args.opts == ["SOLVER.GAMMA", "0.5"]
    assert parse_args(["--config", "x.yml"]).gpus is None


def test_the_users_pair_wins_over_the_flag(launch, runner, capsys):
    launch("--epochs", "2", "--opts", "SOLVER.MAX_EPOCHS", "1")
    assert runner.commands[0][1]["SOLVER.MAX_EPOCHS"] == "1"
    assert "SOLVER.MAX_EPOCHS 3 -> 1" in capsys.readouterr().out


def test_flags_that_are_not_given_override_nothing(launch, runner):
    launch()
    given = {key for _, opts in runner.commands for key in opts}
    assert given == {"SOLVER.SEED", "OUTPUT_DIR", "TEST.WEIGHT"}


def test_every_override_is_printed_with_old_and_new_value(launch, capsys):
    launch("--epochs", "2", "--opts", "SOLVER.GAMMA", "0.5")
    out = capsys.readouterr().out
    assert "SOLVER.MAX_EPOCHS 3 -> 2\n" in out and "SOLVER.GAMMA 0.1 -> 0.5\n" in out


@pytest.mark.parametrize(("own", "expected"), [((), "from_env"), (("--opts", "DATASETS.ROOT_DIR", "/mine"), "/mine")])
def test_datasets_root_counts_unless_the_user_gives_the_key(launch, runner, monkeypatch, tmp_path, own, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATASETS_ROOT", "from_env")
    launch(*own)
    wanted = expected if expected.startswith("/") else str(tmp_path / expected)
    assert {opts["DATASETS.ROOT_DIR"] for _, opts in runner.commands} == {wanted}


@pytest.mark.parametrize(
    ("words", "stamp", "expected"),
    [
        ((), None, "veri776_mine"),
        (("--tag", "my-run_1.2"), None, "veri776_my-run_1.2"),
        ((), "20250102-0304", "veri776_20250102-0304_mine"),
        (("--tag", "t"), "s", "veri776_s_t"),
        (("--ds-prefix", "cars"), None, "cars_mine"),
        (("--opts", "DATASETS.NAMES", "VehicleID"), None, "vehicleid_mine"),
    ],
)
def test_folders_and_files_share_one_name(launch, monkeypatch, logs, words, stamp, expected):
    if stamp:
        monkeypatch.setenv("RUN_TAG_TS", stamp)
    launch(*words)
    assert sorted(path.name for path in logs.glob("[!.]*")) == sorted(
        [f"{expected}_seed0_run", f"{expected}_seed0_test", f"{expected}_report.html"]
        + ["phased_loss_best_summary.json"]
        + [f"{expected}_summary.{ending}" for ending in ("csv", "json", "md")]
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "veri776_mine"),
        (("--W", "0.3", "--T", "0.07", "--tripletx", "--supcon"), "veri776_mine_sup_tx_T0p07_W0p3"),
        (("--no-tripletx", "--no-supcon", "--baseline"), "veri776_mine_baseline_nosup_notx"),
        (("--supcon", "--W", "1"), "veri776_mine_sup_W1"),
        (("--supcon", "--tag", "t"), "veri776_t"),
    ],
)
def test_the_given_switches_are_words_of_the_name_in_a_fixed_order(launch, runner, words, expected):
    assert launch(*words) == 0
    assert runner.trained() == [f"{expected}_seed0_run"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), ["veri776_a", "veri776_b"]),
        (("--no-tripletx",), ["veri776_a_notx", "veri776_b_notx"]),
        (("--tag", "t", "--no-tripletx"), ["veri776_t_a", "veri776_t_b"]),
        (("--ds-prefix", "p"), ["p_a", "p_b"]),
    ],
)
def test_several_configs_have_a_name_each(launch, runner, tmp_path, words, expected):
    assert launch(*words, configs=[write_config(tmp_path, name) for name in "ab"]) == 0
    assert runner.trained() == [f"{name}_seed0_run" for name in expected]


def test_configs_may_stand_after_one_flag_or_after_several_and_before_pairs(runner, tmp_path):
    a, b, c = (write_config(tmp_path, name) for name in "abc")
    argv = ["--output-root", str(tmp_path), "--no-test", "--seeds", "3", "--config", a, b, "SOLVER.GAMMA", "0.5"]
    assert run_phased_loss.main([*argv, "--config", c]) == 0
    assert runner.trained() == [f"veri776_{name}_seed3_run" for name in "abc"]
    assert {opts["SOLVER.GAMMA"] for _, opts in runner.commands} == {"0.5"}


def test_the_name_of_a_yaml_that_cannot_be_a_folder_asks_for_a_tag(launch, runner, tmp_path, capsys):
    odd = write_config(tmp_path, "a b")
    assert launch(configs=[odd]) == 2
    assert "--tag" in capsys.readouterr().err
    assert launch("--tag", "t", configs=[odd]) == 0


@pytest.mark.parametrize("words", [("--tag", "a/b"), ("--tag", ""), ("--tag", "a b"), ("--ds-prefix", "../x")])
def test_a_name_that_leaves_the_output_root_is_refused(launch, runner, logs, capsys, words):
    assert launch(*words) == 2
    assert words[0] in capsys.readouterr().err and not logs.exists() and not runner.commands


def test_a_stamp_that_is_no_name_is_refused(launch, monkeypatch, capsys):
    monkeypatch.setenv("RUN_TAG_TS", "$(x)")
    assert launch() == 2
    assert "RUN_TAG_TS" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--epoch", "3"), "--epoch"),
        (("--opts", "SOLVER.GAMMA"), "KEY VALUE"),
        (("SOLVER.GAMMA", "0.5", "SOLVER.SEED"), "KEY VALUE"),
        (("--no-test", "7"), "'7'"),
        (("SOLVER.GAMMA", "--fast", "1"), "--fast"),
        (("--opts", "SOLVER.SEED", "3"), "--seeds"),
        (("--opts", "OUTPUT_DIR", "x"), "--output-root"),
        (("--epochs", "many"), "--epochs"),
        (("--seeds", "0", "1", "0"), "twice"),
        (("--seeds", "one"), "'one'"),
        (("--seeds", "0", "x"), "--seeds got 'x'"),
        (("--gpus", "first"), "--gpus got 'first'"),
        (("--gpus", "0", "-1"), "'-1'"),
        (("--gpus", ","), "--gpus got ','"),
        (("--gpus",), "--gpus"),
        (("--baseline", "--phased"), "--phased"),
        *((("--supcon", "--W", value), f"--W: got '{value}'") for value in ("0", "-0.3", "nan", "inf", "much")),
        (("--supcon", "--T", "0"), "--T: got '0'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(launch, runner, capsys, words, said):
    with pytest.raises(SystemExit) as caught:
        launch(*words)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and said in error and error.count("\n") == 1 and not runner.commands


@pytest.mark.parametrize("words", [("--opts", "SOLVER.GAMA", "0.5"), ("--epochs", "0"), ("--config", "no/such.yml")])
def test_a_wrong_config_starts_nothing(launch, runner, capsys, words):
    assert launch(*words) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not runner.commands


def test_a_config_that_only_the_pairs_complete_is_launched(runner, tmp_path, capsys):
    config = tmp_path / "x.yml"
    config.write_text(YAML.replace("veri", "table"))
    argv = ["--config", str(config), "--output-root", str(tmp_path), "--seeds", "0", "DATASETS.TABLE", "t.csv"]
    assert run_phased_loss.main(argv) == 0
    assert "DATASETS.TABLE ? -> t.csv" in capsys.readouterr().out


def test_a_relative_config_and_output_root_start_where_the_user_is(runner, tmp_path, monkeypatch):
    (tmp_path / "x.yml").write_text(YAML)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUTPUT_ROOT", "out")
    assert run_phased_loss.main(["--config", "x.yml", "--seeds", "0"]) == 0
    assert (tmp_path / "out" / "veri776_x_seed0_run").is_dir()


def test_seeds_0_1_2_are_the_default(runner, tmp_path):
    argv = ["--config", write_config(tmp_path, "x"), "--output-root", str(tmp_path), "--no-test"]
    assert run_phased_loss.main(argv) == 0
    assert runner.take() == ["train 0", "train 1", "train 2"]


@pytest.mark.parametrize("words", [("--seeds", "0"), ("--no-test", "SOLVER.GAMMA", "0.5")])
def test_no_recipe_is_taken_for_granted(runner, capsys, words):
    assert "--config" in refusal(run_phased_loss.main, *words, capsys=capsys) and not runner.commands


def test_help_names_every_flag_without_loading_torch():
    code = "import run_phased_loss as r, sys\ntry: r.main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    named = set(re.findall(r"--[\w-]+", result.stdout))
    assert named >= {"--config", "--seeds", "--epochs", "--save-every", "--output-root", "--tag", "--no-test", "--opts"}
    assert named >= {"--train-only", "--baseline", "--phased", "--supcon", "--no-supcon", "--tripletx", "--no-tripletx"}
    assert named >= {"--T", "--W", "--gpus"}
