"""Two processes on one output: the second is told who has it, and nothing of the first is touched."""

import os
import resource

import pytest

import test as test_command
from tests.commands import args_for
from tests.faults.launched import NAME, epochs_in
from tests.faults.mistakes import refusal
from tools.launch.claims import Claim, claimed
from utils.file_lock import locked


@pytest.fixture(autouse=True)
def no_children_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.file_lock.CHILDREN_GRACE_S", 0.1)


@pytest.mark.fault("damaged results: two launches")
def test_a_second_launch_on_the_same_seeds_is_refused_before_it_runs_anything(launch, runner, logs, capsys):
    assert launch(seeds=("0", "1")) == 0
    runner.take()
    with locked(logs / ".locks" / f"{NAME}_seed0.lock", "it"):  # as the first launch does
        capsys.readouterr()
        assert launch("--epochs", "4", seeds=("1", "0")) == 2
        error = capsys.readouterr().err
        assert f"seed 0 of '{logs / NAME}' is in use by process {os.getpid()}" in error and error.count("\n") == 1
        assert runner.take() == [] and epochs_in(logs) == [1, 2, 3] * 2
        assert launch("--epochs", "4", seeds=("1",)) == 0  # another seed is free
    assert launch("--epochs", "4", seeds=("1", "0")) == 0


@pytest.mark.fault("damaged results: two launches")
def test_a_launch_may_hold_more_locks_than_files_are_open_at_first(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 64
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 40, limits[1]))
        with claimed([Claim(tmp_path, f"point{number}", "a point") for number in range(60)]):
            assert len(list((tmp_path / ".locks").glob("*.lock"))) == 60
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_second_test_in_the_same_folder_is_refused(tiny_config, tmp_path, capsys):
    (tmp_path / "x_1.pth").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").write_text("the first one's")
    with locked(tmp_path / "out" / "test.lock", "it"):
        words = args_for(tiny_config, "TEST.WEIGHT", tmp_path / "x_1.pth", "OUTPUT_DIR", tmp_path / "out")
        error = refusal(test_command.main, *words, capsys=capsys)
    assert f"OUTPUT_DIR '{tmp_path / 'out'}' is in use by process {os.getpid()}" in error
    assert (tmp_path / "out" / "summary.json").read_text() == "the first one's"
