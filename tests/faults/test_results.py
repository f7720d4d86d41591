"""A result counts only where it is provably of this run: not by a file's name, nor by its time."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import test as test_command
from processor.evaluation.outcome import check_unchanged
from tests.commands import args_for
from tests.fake_runner import FakeRunner, summary_of
from tests.faults.launched import NAME, epochs_in, experiment_of, run_of, test_of
from tools.study.results import checkpoint_problem, collect_results
from utils import digest
from utils.digest import remembered_sha256, sha256_of
from utils.errors import DataError
from utils.run_folder import RunFolder
from utils.run_record import read_record
from utils.test_folder import TestFolder, read_result


def raise_map(folder: TestFolder, value: float = 0.99) -> None:
    """Make a result better than any other, so that it would be the best on test."""
    content = json.loads(folder.summary.read_text())
    folder.summary.write_text(json.dumps(content | {"mAP": value}))


def delete_the_run(logs: Path, runner: FakeRunner) -> None:
    shutil.rmtree(run_of(logs).path)
    runner.generation += 1


def swap_the_run(logs: Path, runner: FakeRunner) -> None:
    delete_the_run(logs, runner)
    for folder in test_of(logs, 1).path.parent.iterdir():  # the newest of all files
        for path in folder.iterdir():
            os.utime(path, (4e9, 4e9))


def delete_the_run_and_the_origin_of_its_results(logs: Path, runner: FakeRunner) -> None:
    delete_the_run(logs, runner)
    for epoch in (1, 2, 3):
        content = json.loads(test_of(logs, epoch).summary.read_text())
        for name in ("weight_sha256", "run"):
            del content[name]
        test_of(logs, epoch).summary.write_text(json.dumps(content))


@pytest.mark.parametrize("fault", [delete_the_run, swap_the_run, delete_the_run_and_the_origin_of_its_results])
@pytest.mark.parametrize("opts", [(), ("SOLVER.GAMMA", "0.5")])
@pytest.mark.fault("damaged results: another run's")
def test_results_of_a_deleted_run_never_enter_the_summary_of_the_next(launch, runner, logs, capsys, fault, opts):
    assert launch() == 0
    raise_map(test_of(logs, 1))
    fault(logs, runner)
    runner.take()
    assert launch("--save-every", "3", *opts) == 0  # only the last epoch has a checkpoint now
    assert runner.take() == ["train 0", "test 0 3"]
    assert epochs_in(logs) == [3] and summary_of(logs)["seeds"]["0"]["best"]["mAP"] == 0.4
    out = capsys.readouterr().out
    assert out.count("left out: seed 0, epoch 1: ") == 1 and out.count("left out: seed 0, epoch 2: ") == 1


@pytest.mark.fault("damaged results: another run's")
def test_results_of_a_deleted_run_do_not_count_where_the_next_one_fails(launch, runner, logs):
    assert launch() == 0
    (logs / f"{NAME}_summary.json").unlink()
    (logs / f"{NAME}_report.html").unlink()
    delete_the_run(logs, runner)
    runner.train_code = 3
    assert launch() == 3
    assert f"{NAME}" in (logs / f"{NAME}_report.html").read_text()
    found = collect_results(experiment_of(logs), 0)
    assert found.epochs == {} and len(found.left_out) == 3


@pytest.mark.fault("damaged results: another run's")
def test_another_seeds_results_are_not_this_ones(launch, runner, logs):
    launch(seeds=("0", "1"))
    shutil.rmtree(test_of(logs, 2, 0).path)
    shutil.copytree(test_of(logs, 2, 1).path, test_of(logs, 2, 0).path)
    runner.take()
    launch(seeds=("0", "1"))
    assert runner.take() == ["test 0 2"]


@pytest.mark.fault("damaged results: another run's")
def test_checkpoints_that_were_copied_with_the_record_of_their_run_are_refused(launch, runner, logs, capsys):
    assert launch(seeds=("0", "1")) == 0
    other, run = (RunFolder(logs / f"{NAME}_seed{seed}_run", "transformer") for seed in (1, 0))
    for path in (other.record, *other.checkpoints().values()):
        shutil.copy2(path, run.path)
    runner.take()
    capsys.readouterr()
    assert launch(seeds=("0",)) == 2 and runner.take() == []
    assert f"'{run.path}' was trained with other settings: SOLVER.SEED 1 -> 0" in capsys.readouterr().err


@pytest.mark.fault("damaged results: another run's")
def test_another_epochs_result_is_not_this_ones_even_where_the_checkpoint_is_gone(launch, runner, logs):
    launch()
    shutil.rmtree(test_of(logs, 1).path)
    shutil.copytree(test_of(logs, 2).path, test_of(logs, 1).path)
    run_of(logs).checkpoint(1).unlink()
    runner.take()
    launch("--no-test")
    assert epochs_in(logs) == [2, 3]


def test_results_of_this_run_count_after_their_checkpoints_were_deleted(launch, runner, logs):
    launch()
    for epoch in (1, 2):
        run_of(logs).checkpoint(epoch).unlink()
    runner.take()
    assert launch() == 0 and runner.take() == [] and epochs_in(logs) == [1, 2, 3]


@pytest.mark.parametrize("lost", ["run.json", "config.yaml"])
@pytest.mark.fault("damaged results: another run's")
def test_without_checkpoint_and_record_nothing_proves_a_result(launch, runner, logs, lost):
    launch()
    run_of(logs).checkpoint(1).unlink()
    (run_of(logs).path / lost).unlink()
    runner.generation += 1
    launch("--no-test")
    assert 1 not in epochs_in(logs)


def keep_time(path: Path, content: bytes) -> None:
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def as_older(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.utime(path, (1, 1))


@pytest.mark.parametrize("replace", [keep_time, as_older, Path.write_bytes])
@pytest.mark.parametrize("same_size", [True, False])
@pytest.mark.fault("damaged results: another file, an older time")
def test_a_replaced_checkpoint_never_keeps_the_old_result_whatever_its_time(launch, runner, logs, replace, same_size):
    launch()
    path = run_of(logs).checkpoint(1)
    content = path.read_bytes()
    replace(path, content[::-1] if same_size else b"other weights")
    runner.take()
    launch()
    assert runner.take() == [] and epochs_in(logs) == [2, 3]  # neither the old result, nor one of an unknown file


@pytest.mark.fault("damaged results: another file, an older time")
def test_a_checkpoint_that_the_run_wrote_anew_is_tested_again_whatever_its_time(launch, runner, logs):
    launch()
    path = run_of(logs).checkpoint(3)
    path.unlink()
    shutil.copyfile(run_of(logs).checkpoint(2), run_of(logs).path / "elsewhere")
    run_of(logs).record.unlink()
    runner.generation += 1
    runner.take()
    launch("--save-every", "3")
    os.utime(path, (1, 1))
    assert runner.take() == ["train 0", "test 0 3"]


WRONG_CHECKPOINTS: dict[str, Callable[[Path], object]] = {
    "garbage": lambda path: path.write_bytes(os.urandom(500)),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "another epoch's": lambda path: shutil.copyfile(path.with_name("transformer_2.pth"), path),
    "another run's": lambda path: path.write_bytes(b"weights 0 3 of another run"),
}


def test_what_is_no_checkpoint_of_its_epoch_is_neither_trained_nor_tested(launch, runner, logs, capsys, tally):
    launch("--no-test")
    run, held = run_of(logs), []
    for name, damage in WRONG_CHECKPOINTS.items():
        for epoch in (1, 3):
            path = run.checkpoint(epoch)
            whole = path.read_bytes()
            damage(path)
            held.append(checkpoint_problem(run, epoch, read_record(run)) or print(name, epoch))
            path.write_bytes(whole)
    tally("damaged results: checkpoints", len(held), len([one for one in held if one]))
    assert set(held) == {"has another content than its run wrote"}
    last = run.checkpoint(3).read_bytes()
    for epoch in (1, 3):
        run.checkpoint(epoch).write_bytes(b"garbage")
    runner.take()
    assert launch("--save-every", "3") == 0  # the last one is written anew, as train.py does from its state
    assert runner.take() == ["train 0", "test 0 2", "test 0 3"] and run.checkpoint(3).read_bytes() == last
    assert capsys.readouterr().out.count(f"not tested: '{run.checkpoint(1)}' has another content") == 1


@pytest.mark.fault("damaged results: checkpoints")
def test_a_test_tells_the_epoch_and_the_run_of_its_checkpoint_not_those_of_its_name(trained_run, tmp_path):
    weight = tmp_path / "transformer_9.pth"
    shutil.copyfile(trained_run / "transformer_2.pth", weight)
    config = trained_run.parent / "tiny.yml"
    opts = ("TEST.WEIGHT", weight, "OUTPUT_DIR", tmp_path / "out", "TEST.REPORT", False)
    assert test_command.main(args_for(config, *opts)) == 0
    result = read_result(TestFolder(tmp_path / "out"))
    record = read_record(RunFolder(trained_run, "transformer"))
    assert (result["epoch"], result["run"]) == (2, record.run)
    assert result["weight_sha256"] == record.checkpoints["transformer_2.pth"]
    assert result["files"] == {"per_query.npz": sha256_of(tmp_path / "out" / "per_query.npz")}


@pytest.mark.fault("damaged results: checkpoints")
def test_a_checkpoint_that_is_replaced_while_it_is_read_gives_no_result(tmp_path):
    weight = tmp_path / "x.pth"
    weight.write_bytes(b"one")
    facts = {"weight_sha256": sha256_of(weight)}
    check_unchanged(weight, facts)
    keep_time(weight, b"two")
    with pytest.raises(DataError, match="was replaced while it was read"):
        check_unchanged(weight, facts)


def test_a_hash_is_remembered_only_while_the_file_stays_the_same(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"one")
    monkeypatch.setattr(digest, "SETTLED_NS", -1)  # as if it had changed long ago
    first = remembered_sha256(path)
    monkeypatch.setattr(digest, "sha256_of", lambda path: "read again")
    assert remembered_sha256(path) == first
    keep_time(path, b"two")  # same size, same time of modification
    assert remembered_sha256(path) == "read again"
