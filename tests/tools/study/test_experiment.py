"""A launch of several configs checks all of them before anything runs."""

import pytest

from tests.fake_runner import PHASED, write_config

BAD = {
    "an unknown key": "LOSS: {SUPCON: {TAU: 0.1}}\n",
    "a plan outside the grammar": PHASED.replace("const:0.0", "constant"),
    "K that does not divide the batch": "DATALOADER: {SAMPLER: softmax_triplet, NUM_INSTANCE: 5}\n",
}


@pytest.mark.parametrize("more", BAD.values(), ids=BAD)
def test_a_mistake_in_the_last_config_stops_the_launch_before_the_first_runs(
    launch, runner, logs, tmp_path, capsys, more
):
    configs = [write_config(tmp_path, "good"), write_config(tmp_path, "bad", more)]
    assert launch(configs=configs) == 2
    error = capsys.readouterr().err
    assert error.count(configs[1]) == 1 and error.count("\n") == 1 and not runner.commands and not logs.exists()


def test_a_switch_that_one_config_cannot_take_names_that_config(launch, runner, tmp_path, capsys):
    configs = [write_config(tmp_path, "a", "LOSS: {SUPCON: {ENABLE: True}}\n"), write_config(tmp_path, "b")]
    assert launch("--T", "0.1", configs=configs) == 2
    error = capsys.readouterr().err
    assert f"{configs[1]}: --T 0.1" in error and configs[0] not in error and not runner.commands


def test_a_config_named_twice_is_refused(launch, runner, tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path, "a")
    monkeypatch.chdir(tmp_path)
    assert launch(configs=[config, "a.yml"]) == 2
    assert f"'{config}' twice" in capsys.readouterr().err and not runner.commands


def test_two_configs_that_would_share_their_folders_are_refused(launch, runner, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    configs = [write_config(tmp_path, "a"), write_config(tmp_path / "other", "a")]
    assert launch(configs=configs) == 2
    error = capsys.readouterr().err
    assert all(f"'{config}'" in error for config in configs) and "'veri776_a_*'" in error and not runner.commands


def test_finished_runs_of_other_settings_are_refused_before_anything_runs(launch, runner, tmp_path, capsys):
    first, second = write_config(tmp_path, "a"), write_config(tmp_path, "b")
    launch("--tag", "t", "SOLVER.GAMMA", "0.5", configs=[second, write_config(tmp_path, "c")])
    runner.take()
    assert launch("--tag", "t", configs=[first, second]) == 2
    assert "veri776_t_b_seed0_run" in capsys.readouterr().err and not runner.commands


@pytest.mark.parametrize("epochs", [3, 5])
def test_older_results_never_stand_under_new_settings(launch, runner, logs, tmp_path, capsys, epochs):
    configs = [write_config(tmp_path, "a"), write_config(tmp_path, "b")]
    launch("--epochs", "3", configs=configs)
    runner.take()
    before = {path.name: path.read_text() for path in logs.glob("ablation.*")}
    assert launch("--epochs", str(epochs), "SOLVER.GAMMA", "0.5", configs=configs) == 2
    error = capsys.readouterr().err
    assert "veri776_a_seed0_run" in error and "SOLVER.GAMMA 0.1 -> 0.5" in error and not runner.commands
    assert before and {path.name: path.read_text() for path in logs.glob("ablation.*")} == before
