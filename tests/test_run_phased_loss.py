"""The launcher trains, tests what has no valid result, and says what failed; train.py and test.py are fakes."""

import json
import signal
from pathlib import Path

import pytest

from tests.fake_runner import PHASED, ROUTED, summary_of, write_config
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
    monkeypatch.setattr(Children, "run", lambda self, command, place, prefix: commands.append(command) or 2)
    assert launch("--opts", "MODEL.DIST_TRAIN", "True") == 2
    assert commands[0][1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=auto", "train.py"]


@pytest.mark.parametrize(("configs", "start"), [(1, "veri776_one"), (2, "ablation")])
def test_a_launch_leaves_its_report_and_a_copy_under_the_shared_name(launch, tmp_path, logs, capsys, configs, start):
    files = [write_config(tmp_path, name) for name in ("one", "two")[:configs]]
    assert launch("--save-every", "0", configs=files) == 0
    report = (logs / f"{start}_report.html").read_text()
    assert report == (logs / "report.html").read_text()
    assert report.startswith("python run_phased_loss.py --config") and ("veri776_two" in report) == (configs == 2)
    out = capsys.readouterr().out
    assert f"written: {logs / start}_report.html" in out and f"written: {logs / 'report.html'}" in out


def test_a_report_that_cannot_be_written_costs_no_result(launch, logs, capsys, monkeypatch):
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tools.launch.launch.write_launch_report", full)
    assert launch("--save-every", "0") == 0
    assert "no report" in capsys.readouterr().out and summary_of(logs)["mean"]["last"]
