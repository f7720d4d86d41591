"""The launcher trains, tests what has no valid result, and says what failed; train.py and test.py are fakes."""

import json
import signal
from pathlib import Path

import pytest

from tests.fake_runner import AVERAGED_GAIN, PHASED, ROUTED, summary_of, write_config
from tools.launch.children import Children

SELF_SUPERVISED = "DATALOADER: {SAMPLER: random}\nLOSS: {SUPCON: {ENABLE: True}}\n"


@pytest.fixture
def three(tmp_path: Path) -> list[str]:
    """Three configs: a, b (phased), c (routed)."""
    return [write_config(tmp_path, name, more) for name, more in (("a", ""), ("b", PHASED), ("c", ROUTED))]


def test_a_launch_trains_each_seed_and_tests_each_checkpoint(launch, runner, logs):
    assert launch(seeds=("0", "4")) == 0
    assert runner.take() == [f"{what} {seed}{epoch}" for seed in (0, 4) for what, epoch in
                             (("train", ""), ("test", " 1"), ("test", " 2"), ("test", " 3"))]  # fmt: skip
    assert (logs / "veri776_mine_seed4_run" / "transformer_3.pth").is_file()
    assert (logs / "veri776_mine_seed4_test" / "epoch_3" / "summary.json").is_file()


def test_several_configs_run_one_after_the_other_each_with_all_seeds(launch, runner, three, capsys):
    assert launch("--save-every", "3", seeds=("0", "1"), configs=three) == 0
    assert runner.trained() == [f"veri776_{name}_seed{seed}_run" for name in "abc" for seed in (0, 1)]
    assert runner.take() == ["train 0", "test 0 3", "train 1", "test 1 3"] * 3
    out = capsys.readouterr().out
    headings = [f"experiment {number} of 3: veri776_{name}\n" for number, name in enumerate("abc", start=1)]
    places = [out.index(heading) for heading in headings]
    assert places == sorted(places)
    assert launch("--save-every", "3", seeds=("0", "1"), configs=three) == 0
    assert runner.take() == []


def test_a_failed_training_ends_its_experiment_and_the_others_run(launch, runner, three, logs, capsys):
    runner.train_code, runner.fails_in = 3, "_b_seed"
    assert launch(seeds=("0", "1"), configs=three) == 3
    assert runner.trained() == [f"veri776_{run}_run" for run in ("a_seed0", "a_seed1", "b_seed0", "c_seed0", "c_seed1")]
    out = capsys.readouterr().out
    assert "failed: ID 2, veri776_b, exit code 3" in out and "(ID 1: 2, ID 2: 0, ID 3: 2)" in out
    assert [one["name"] for one in json.loads((logs / "ablation.json").read_text())] == [
        f"veri776_{name}" for name in "abc"
    ]
    assert not (logs / "veri776_b_summary.json").exists()
    runner.commands.clear()
    runner.train_code = 0
    assert launch(seeds=("0", "1"), configs=three) == 0  # the same command goes on where that one ended
    assert runner.trained() == ["veri776_b_seed0_run", "veri776_b_seed1_run"]


def test_the_first_failure_gives_the_exit_code(launch, runner, three):
    runner.test_codes = {2: 9}  # a failed test counts as 1
    runner.train_code, runner.fails_in = 3, "_b_seed"
    assert launch(configs=three) == 1
    runner.fails_in = "_a_seed1"
    assert launch(seeds=("1",), configs=three) == 3


@pytest.mark.parametrize("code", [130, -signal.SIGINT])
def test_ctrl_c_in_a_training_ends_all_experiments(launch, runner, three, logs, capsys, code):
    runner.train_code, runner.fails_in = code, "_b_seed"
    assert launch(configs=three) == 130
    assert runner.trained() == ["veri776_a_seed0_run", "veri776_b_seed0_run"]
    assert len(json.loads((logs / "ablation.json").read_text())) == 1  # what was done is kept
    assert "stopped: veri776_b, seed 0; 1 of 3 seeds are done\n" in capsys.readouterr().err


def test_a_self_supervised_config_is_launched_like_any_other(launch, runner, tmp_path, logs):
    config = write_config(tmp_path, "ssl", SELF_SUPERVISED)
    assert launch("--save-every", "0", "--opts", "MODEL.TRAINING_MODE", "self_supervised", configs=[config]) == 0
    assert runner.take() == ["train 0", "test 0 3"]
    assert summary_of(logs, "veri776_ssl")["losses"] == "SupCon"


def test_all_kinds_of_flags_work_together(launch, runner, three, logs):
    flags = ("--supcon", "--T", "0.1", "--epochs", "5", "--save-every", "2", "--tag", "t", "--train-only")
    assert launch(*flags, "SOLVER.IMS_PER_BATCH", "16", "--opts", "SOLVER.GAMMA", "0.5", configs=three[1:]) == 0
    given = {"LOSS.SUPCON.ENABLE": "True", "LOSS.SUPCON.T": "0.1", "SOLVER.MAX_EPOCHS": "5", "SOLVER.GAMMA": "0.5"}
    given |= {"SOLVER.CHECKPOINT_PERIOD": "2", "SOLVER.EVAL_PERIOD": "2", "SOLVER.IMS_PER_BATCH": "16"}
    assert [script for script, _ in runner.commands] == ["train.py"] * 2
    assert all(opts.items() >= given.items() for _, opts in runner.commands)
    saved = {path.name for path in (logs / "veri776_t_b_seed0_run").glob("*.pth")}
    assert saved == {f"transformer_{epoch}.pth" for epoch in (2, 4, 5)}
    assert summary_of(logs, "veri776_t_b")["pxk"] == "4x4 / 2x8"


def test_train_gets_seed_and_folder_and_tests_get_weight_and_folder(launch, runner, logs):
    launch(seeds=("7",))
    (_, train), (_, test) = runner.commands[0], runner.commands[1]
    run = logs / "veri776_mine_seed7_run"
    assert train == {"SOLVER.SEED": "7", "OUTPUT_DIR": str(run)}
    assert test == {
        "TEST.WEIGHT": str(run / "transformer_1.pth"),
        "OUTPUT_DIR": str(logs / "veri776_mine_seed7_test" / "epoch_1"),
    }


def test_save_every_0_keeps_and_tests_the_last_epoch_alone(launch, runner):
    assert launch("--save-every", "0") == 0
    assert runner.take() == ["train 0", "test 0 3"]


def test_averaged_weights_of_the_last_epoch_are_tested_beside_the_others(launch, runner, logs, capsys):
    opts = ("--opts", "SOLVER.EMA", "0.9")
    assert launch(*opts, seeds=("0", "1")) == 0
    places = [Path(opts["OUTPUT_DIR"]).relative_to(logs) for script, opts in runner.commands if script == "test.py"]
    own = [place for place in places if place.parts[0] == "veri776_mine_seed0_test"]
    assert [place.parts[1:] for place in own] == [("epoch_1",), ("epoch_2",), ("epoch_3",), ("ema", "epoch_3")]
    summary, averaged = summary_of(logs), summary_of(logs)["tests"]["ema"]
    assert averaged["num_seeds"] == 2 and averaged["dataset"] == "VeRi-776, averaged weights"
    assert averaged["mean"]["mAP"] == pytest.approx(summary["mean"]["last"]["mAP"] + AVERAGED_GAIN)
    assert "VeRi-776, averaged weights" in capsys.readouterr().out
    runner.take()
    assert launch(*opts, seeds=("0", "1")) == 0 and runner.take() == []
    (logs / "veri776_mine_seed1_test" / "ema" / "epoch_3" / "summary.json").unlink()
    assert launch(*opts, seeds=("0", "1")) == 0 and runner.take() == ["test 1 3"]


def test_other_files_among_the_checkpoints_are_not_tested(launch, runner, logs):
    folder = logs / "veri776_mine_seed0_run"
    folder.mkdir(parents=True)
    for name in ("state_last.pth", "transformer_9.pth", "transformer_2.pth.tmp", "resnet50_2.pth", "transformer_x.pth"):
        (folder / name).write_text("x")
    launch("--save-every", "3")
    assert runner.take() == ["train 0", "test 0 3"]


def test_a_failed_test_makes_the_exit_code_1_and_is_retried_at_the_next_launch(launch, runner, logs, capsys):
    runner.test_codes = {2: 2}
    assert launch() == 1
    assert runner.take() == ["train 0", "test 0 1", "test 0 2", "test 0 3"]  # the others still ran
    failed = summary_of(logs)["failed_tests"]
    assert [(test["seed"], test["epoch"], test["exit_code"]) for test in failed] == [(0, 2, 2)]
    assert "failed: seed 0, epoch 2, exit code 2" in capsys.readouterr().out
    runner.test_codes = {}
    assert launch() == 0
    assert runner.take() == ["test 0 2"] and summary_of(logs)["failed_tests"] == []


def test_a_test_that_ends_well_without_a_result_has_failed(launch, runner, monkeypatch, logs):
    monkeypatch.setattr(runner, "test", lambda config, opts: 0)
    assert launch() == 1
    assert [test["epoch"] for test in summary_of(logs)["failed_tests"]] == [1, 2, 3]


def test_a_failed_test_of_the_last_epoch_leaves_last_empty_rather_than_older(launch, runner, logs):
    runner.test_codes = {3: 1}
    launch()
    summary = summary_of(logs)
    assert summary["seeds"]["0"]["last"] is None and summary["seeds"]["0"]["best"]["epoch"] == 2
    assert summary["num_seeds"] == {"last": 0, "best": 1} and summary["mean"]["last"] == {}


@pytest.mark.parametrize("code", [1, 2, 130])
def test_a_failed_training_ends_the_launch_with_its_exit_code(launch, runner, code):
    runner.train_code = code
    assert launch(seeds=("0", "1")) == code
    assert runner.take() == ["train 0"]


def test_a_killed_training_is_said_and_gives_the_shells_code(launch, runner, capsys):
    runner.train_code = -9
    assert launch() == 137
    assert "killed by signal 9" in capsys.readouterr().err


def test_a_training_without_weights_at_the_end_is_an_error(launch, runner, monkeypatch, capsys):
    monkeypatch.setattr(runner, "train", lambda config, opts: 0)
    assert launch(seeds=("0", "1")) == 1
    error = capsys.readouterr().err
    assert "veri776_mine, seed 0: train.py ended without writing" in error and error.count("\n") == 1


def test_an_interrupted_test_ends_the_launch_with_130(launch, runner):
    runner.test_codes = {1: 130}
    assert launch() == 130
    assert runner.take() == ["train 0", "test 0 1"]


@pytest.mark.parametrize("flag", ["--no-test", "--train-only"])
def test_without_tests_only_training_runs(launch, runner, logs, flag):
    assert launch(flag) == 0
    assert runner.take() == ["train 0"]
    assert summary_of(logs)["seeds"]["0"]["best"] is None


def test_a_recipe_for_several_gpus_is_trained_by_torchrun(launch, monkeypatch):
    commands = []
    monkeypatch.setattr(Children, "run", lambda self, command, place, listener: commands.append(command) or 2)
    assert launch("--opts", "MODEL.DIST_TRAIN", "True") == 2
    assert commands[0][1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=auto", "train.py"]


@pytest.mark.parametrize(("configs", "start"), [(1, "veri776_one"), (2, "ablation")])
def test_a_launch_leaves_one_report_and_says_which_to_open(launch, tmp_path, logs, capsys, configs, start):
    files = [write_config(tmp_path, name) for name in ("one", "two")[:configs]]
    assert launch("--save-every", "0", configs=files) == 0
    (page,) = logs.glob("*.html")
    assert page == logs / f"{start}_report.html"
    report, out = page.read_text(), capsys.readouterr().out
    assert report.startswith("python run_phased_loss.py --config") and ("veri776_two" in report) == (configs == 2)
    assert out.count(".html") == 1 and f"open   {page}\n" in out


def test_the_terminal_has_a_screen_before_and_one_after(launch, capsys, tmp_path, logs):
    config = write_config(tmp_path, "recipe")
    text = "# What it trains.\n# Expected: 1 mAP.\n# Run: python x.py\n" + Path(config).read_text()
    Path(config).write_text(text)
    assert launch("--opts", "SOLVER.BASE_LR", "0.1", configs=[config]) == 0
    before, _, after = capsys.readouterr().out.partition("seed 0: trained to epoch 3 in 0:00:0")
    said = before.splitlines()
    assert said[:3] == ["veri776_recipe", "  What it trains.", "  Expected: 1 mAP."]
    assert any(line.startswith("  downloads published weights of vit_tiny") for line in said)
    assert f"  log of each training: {logs / 'veri776_recipe_seed0_run' / 'train_log.txt'}" in said
    assert "  SOLVER.BASE_LR 0.0003 -> 0.1" in said
    run = f"--run {logs}/veri776_recipe_seed0_run --out {logs}/veri776_recipe_ranks"
    last = after.splitlines()[-3:]
    assert [line[:7] for line in last] == ["open   ", "files  ", "next   "]
    assert last[-1].endswith(f"python -m tools.visualize ranks {run}") and "mAP 40.00" in after
    assert "seed 0, epoch 2: mAP 50.00, Rank-1 52.00" in after and "$ " not in before + after


@pytest.mark.parametrize("configs", [1, 3])
def test_the_error_of_a_failed_training_is_last_whole_and_once(launch, runner, three, capsys, configs):
    runner.train_code, runner.fails_in, runner.says = 2, "_b_seed", "UserWarning: x\nerror: no data\n  in a\n  in b"
    assert launch(configs=three[1 : 1 + configs] if configs == 1 else three) == 2
    out, err = capsys.readouterr()
    assert err == "error: no data\n  in a\n  in b\n" and "error: no data" not in out
    number = 1 if configs == 1 else 2
    assert out.splitlines()[-1] == f"failed: ID {number}, veri776_b, exit code 2; see its error"
    assert ("; its error follows at the end\n" in out) == (configs == 3)


def test_tests_that_failed_alike_have_their_error_once_and_last(launch, runner, capsys):
    runner.test_codes, runner.says = {1: 2, 3: 2}, "error: no such key"
    assert launch() == 1
    out, err = capsys.readouterr()
    assert err == "error: no such key\n" and out.count("; the same command tests it again") == 2


def test_a_traceback_is_shown_whole_and_one_without_words_names_the_log(launch, runner, capsys, logs):
    runner.train_code, runner.says = 1, "Traceback (most recent call last):\n  File x\nValueError: bug"
    assert launch() == 1
    assert capsys.readouterr().err == f"{runner.says}\n"
    runner.says = ""
    assert launch() == 1
    log = logs / "veri776_mine_seed0_run" / "train_log.txt"
    assert f"train.py ended with exit code 1 and no error, see '{log}'" in capsys.readouterr().err


def test_what_a_child_says_on_stderr_stands_in_its_log_too(launch, runner, logs):
    runner.train_code, runner.says = 1, "error: wrong"
    launch()
    assert (logs / "veri776_mine_seed0_run" / "train_log.txt").read_text() == "error: wrong\n"


def test_ctrl_c_shows_the_errors_of_before_and_how_to_continue(launch, runner, three, capsys, monkeypatch):
    train = runner.train

    def stopped_at_the_last(config: str, opts: dict[str, str]) -> int:
        return 130 if "_c_seed" in opts["OUTPUT_DIR"] else train(config, opts)

    runner.train_code, runner.fails_in, runner.says = 2, "_b_seed", "error: no data"
    monkeypatch.setattr(runner, "train", stopped_at_the_last)
    assert launch(configs=three) == 130
    error, stopped, way_on = capsys.readouterr().err.splitlines()
    assert error == "error: no data" and stopped.startswith("stopped: veri776_c, seed 0; 2 of 3 seeds are done")
    assert "the same command continues" in way_on


def test_verbose_shows_commands_and_both_tables(launch, capsys):
    assert launch("--verbose") == 0
    out = capsys.readouterr().out
    assert out.count("$ ") == 4 and "external tests, in percent" in out and "ID  recipe" in out
    assert "seed 0, epoch 1: not tested yet" in out


def test_a_report_that_cannot_be_written_costs_no_result(launch, logs, capsys, monkeypatch):
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tools.launch.launch.write_launch_report", full)
    assert launch("--save-every", "0") == 0
    assert "no report" in capsys.readouterr().out and summary_of(logs)["mean"]["last"]
