"""A launch that fails leaves what an earlier one wrote, unless its own files are at least as whole."""

import shutil
from pathlib import Path

import pytest

from tests.fake_runner import FakeRunner, summary_of, write_config
from tests.faults.launched import run_of


def delete_the_run(logs: Path, runner: FakeRunner) -> None:
    shutil.rmtree(run_of(logs).path)
    runner.generation += 1


def files_of(logs: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(logs.glob("[!.]*.*"))}


@pytest.mark.parametrize("words", [(), ("--tag", "other")])
@pytest.mark.fault("damaged results: a failed launch")
def test_a_failed_launch_replaces_nothing_that_an_earlier_one_left(launch, runner, logs, capsys, words):
    launch()
    before = files_of(logs)
    delete_the_run(logs, runner)
    runner.train_code = 3
    capsys.readouterr()
    assert launch(*words) == 3
    assert before.items() <= files_of(logs).items() and ("kept: '" in capsys.readouterr().out) == (not words)


@pytest.mark.fault("damaged results: a failed launch")
def test_a_launch_whose_tests_failed_replaces_nothing_that_is_more_whole(launch, runner, logs):
    launch()
    before = files_of(logs)
    runner.test_codes = {3: 2}
    assert launch("--opts", "TEST.NECK_FEAT", "before") == 1
    assert files_of(logs) == before
    runner.test_codes = {}
    assert launch("--opts", "TEST.NECK_FEAT", "before") == 0  # a whole one does
    after = files_of(logs)
    page = "veri776_mine_report.html"
    assert after[page] != before[page] and summary_of(logs)["seeds"]["0"]["last"]


@pytest.mark.fault("damaged results: a failed launch")
def test_an_ablation_that_fails_half_way_leaves_the_whole_table(launch, runner, logs, tmp_path):
    configs = [write_config(tmp_path, name) for name in "ab"]
    launch(configs=configs)
    before = files_of(logs)
    runner.train_code, runner.fails_in = 3, "_b_seed"
    assert launch("--epochs", "4", configs=configs) == 3
    after = files_of(logs)
    assert all(after[name] == before[name] for name in before if name.startswith(("ablation", "veri776_b")))
