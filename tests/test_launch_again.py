"""The same launch again: what is trained and tested anew, what is left as it is, what is refused."""

import json
import os
import shutil

import pytest

from tests.fake_runner import summary_of
from tools.launch.claims import LOCKS
from utils.digest import sha256_of
from utils.file_lock import locked
from utils.run_folder import RunFolder
from utils.run_record import read_record, write_record


def test_the_same_launch_again_runs_nothing(launch, runner):
    launch()
    runner.take()
    assert launch() == 0
    assert runner.take() == []


def test_enlarging_the_epochs_continues_the_training(launch, runner):
    launch()
    runner.take()
    assert launch("--epochs", "5") == 0
    assert runner.take() == ["train 0", "test 0 4", "test 0 5"]


def test_a_deleted_epoch_folder_is_tested_again(launch, runner, logs):
    launch()
    runner.take()
    folder = logs / "veri776_mine_seed0_test" / "epoch_2"
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert launch() == 0
    assert runner.take() == ["test 0 2"] and (folder / "summary.json").is_file()


@pytest.mark.parametrize("lost", ["folder", "summary.json"])
def test_a_lost_result_on_a_further_test_set_is_tested_again(launch, runner, logs, capsys, lost):
    tests = ("--save-every", "0", "--opts", "DATASETS.TESTS", "('veri', 'market1501')")
    launch(*tests)
    runner.take()
    further = logs / "veri776_mine_seed0_test" / "epoch_3" / "market1501"
    if lost == "folder":
        shutil.rmtree(further)
    else:
        (further / lost).unlink()
    capsys.readouterr()
    assert launch(*tests) == 0
    assert runner.take() == ["test 0 3"] and "no whole result on market1501" in capsys.readouterr().out
    assert summary_of(logs)["tests"]["market1501"]["interval"]
    assert launch(*tests) == 0 and runner.take() == []


def test_a_checkpoint_that_appears_later_is_tested(launch, runner, logs):
    launch("--save-every", "3")
    assert runner.take() == ["train 0", "test 0 3"]
    run = RunFolder(logs / "veri776_mine_seed0_run", "transformer")
    run.checkpoint(2).write_text("weights")
    launch("--save-every", "3")
    assert runner.take() == []  # nothing says that this run wrote it
    record = read_record(run)
    write_record(
        run, record._replace(checkpoints=record.checkpoints | {"transformer_2.pth": sha256_of(run.checkpoint(2))})
    )
    launch("--save-every", "3")
    assert runner.take() == ["test 0 2"]


@pytest.mark.parametrize("content", ['{"mAP": 0.5, "Rank', "", "[]", '{"mAP": 0.5}', '{"mAP": NaN}'])
def test_a_half_written_summary_counts_as_untested(launch, runner, logs, content):
    launch()
    runner.take()
    path = logs / "veri776_mine_seed0_test" / "epoch_1" / "summary.json"
    path.write_text(content)
    assert launch() == 0
    assert runner.take() == ["test 0 1"] and json.loads(path.read_text())["epoch"] == 1


def test_other_test_settings_test_again_and_other_workers_do_not(launch, runner, capsys):
    launch()
    runner.take()
    launch("--opts", "DATALOADER.NUM_WORKERS", "0", "TEST.IMS_PER_BATCH", "7")
    assert runner.take() == []
    capsys.readouterr()
    launch("--opts", "TEST.NECK_FEAT", "before")
    assert runner.take() == ["test 0 1", "test 0 2", "test 0 3"]
    assert "TEST.NECK_FEAT after -> before" in capsys.readouterr().out


def test_another_data_folder_tests_again(launch, runner):
    launch()
    runner.take()
    launch("--opts", "DATASETS.ROOT_DIR", "/elsewhere")
    assert runner.take() == ["test 0 1", "test 0 2", "test 0 3"]


def test_results_of_other_test_settings_stay_out_of_the_summary(launch, runner, logs):
    launch()
    runner.take()
    launch("--no-test", "--opts", "TEST.NECK_FEAT", "before")
    assert summary_of(logs)["seeds"]["0"]["last"] is None


def test_a_touched_checkpoint_is_not_tested_again(launch, runner, logs):
    launch()
    runner.take()
    for epoch in (1, 2):
        os.utime(logs / "veri776_mine_seed0_run" / f"transformer_{epoch}.pth", (4e9, 4e9))
    launch()
    assert runner.take() == []


def test_a_finished_run_of_other_settings_is_refused(launch, runner, capsys):
    launch()
    runner.take()
    assert launch("--opts", "SOLVER.BASE_LR", "0.5") == 2
    error = capsys.readouterr().err
    assert "SOLVER.BASE_LR 0.0003 -> 0.5" in error and error.count("\n") == 1 and runner.take() == []


def test_seeds_that_ran_apart_are_summed_up_as_one_launch_would(launch, runner, logs, capsys):
    launch(seeds=("0", "1"))
    together = summary_of(logs)
    for seed in "01":
        launch(seeds=(seed,))  # the tasks of an array; the last one wrote the summary
    runner.take()
    capsys.readouterr()
    assert launch("--summarise", seeds=("0", "1")) == 0 and runner.take() == []
    assert summary_of(logs) | {"timestamp": 0} == together | {"timestamp": 0}
    said = capsys.readouterr().out
    assert "veri776_mine_report.html" in said and "no result" not in said


def test_summing_up_says_which_seeds_have_no_result(launch, runner, logs, capsys):
    launch(seeds=("1",))
    runner.take()
    assert launch("--summarise", seeds=("0", "1", "2")) == 0 and runner.take() == []
    assert "veri776_mine: no result at epoch 3 yet: seed 0, 2\n" in capsys.readouterr().out
    assert summary_of(logs)["num_seeds"]["last"] == 1


def test_summing_up_goes_on_beside_a_launch_that_runs(launch, runner, logs):
    launch()
    with locked(logs / LOCKS / "veri776_mine_seed0.lock", "seed 0"):
        assert launch("--summarise") == 0
        assert launch() == 2  # another launch has it


def test_nothing_to_sum_up_is_one_error_and_leaves_the_summary(launch, runner, logs, capsys):
    launch()
    before = (logs / "veri776_mine_summary.json").read_bytes()
    capsys.readouterr()
    assert launch("--summarise", seeds=("3", "4")) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: --summarise: none of the seeds 3 4 has a result in ") and "\n" not in error
    assert (logs / "veri776_mine_summary.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "named"),
    [(["--gpus", "0"], "--gpus"), (["--train-only"], "--no-test"), (["--grid", "SOLVER.SEED", "1"], "--grid")]
    + [(["--search", "2"], "--search"), (["--range", "SOLVER.BASE_LR", "1", "2"], "--range")],
)
def test_what_trains_or_tests_is_refused_beside_it(launch, runner, capsys, words, named):
    with pytest.raises(SystemExit) as ended:
        launch("--summarise", *words)
    assert ended.value.code == 2 and runner.take() == []
    assert f"--summarise trains and tests nothing, {named} is about what does" in capsys.readouterr().err
