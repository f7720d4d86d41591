"""The run folder: permission, lock, records."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils.atomic import replacing, write_text_atomic
from utils.errors import ConfigError, RunError
from utils.run_folder import (
    Position,
    Recorder,
    RunFolder,
    epoch_of,
    locked,
    make_folder,
    open_run,
    read_environment,
    read_metrics,
)

START = Position(0, 0, 0)
HOLD = "import sys, time; from pathlib import Path; from utils.run_folder import RunFolder, locked\n"
HOLD += "with locked(RunFolder(Path(sys.argv[1]), 'transformer')): print('held', flush=True); time.sleep(60)"


def start_holder(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_with_the_first_ones_pid(tmp_path):
    holder = start_holder(tmp_path)
    try:
        with (
            pytest.raises(ConfigError, match=f"^OUTPUT_DIR '{tmp_path}' is in use by process {holder.pid}"),
            locked(RunFolder(tmp_path, "transformer")),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()


def test_the_lock_of_a_killed_process_is_taken_over_and_named(tmp_path):
    holder = start_holder(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(RunFolder(tmp_path, "transformer")) as stale_pid:
        assert stale_pid == holder.pid
    with locked(RunFolder(tmp_path, "transformer")) as stale_pid:
        assert stale_pid is None


def test_an_empty_path_and_a_file_in_the_way_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="OUTPUT_DIR is empty"):
        make_folder("", "OUTPUT_DIR")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write there"):
        make_folder(str(tmp_path / "file" / "run"), "OUTPUT_DIR")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot write there"):
        make_folder(str(tmp_path / "run"), "OUTPUT_DIR")


@pytest.mark.parametrize(
    ("error", "seen"), [(OSError(28, "No space left on device"), RunError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, error, seen):
    path = tmp_path / "x.txt"
    write_text_atomic(path, "old")
    with pytest.raises(seen), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_records_of_an_unfinished_epoch_are_dropped_at_the_next_start(tmp_path):
    recorder = Recorder(RunFolder(tmp_path, "transformer"), START)
    recorder.write("reference", 0, 0, {"name": "raw_pixels", "mAP": 0.1})
    recorder.write("train", 1, 5, {"loss": 2.0})
    recorder.write("eval", 1, 5, {"mAP": 0.5})
    recorder.write("train", 2, 9, {"loss": 1.0})
    recorder.close()
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write(
            '[1, 2]\n3\n{"kind": "train"}\n{"kind": "train", "epo'
        )  # no records, and one that a kill cut short
    assert [record["epoch"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1, 1, 2]
    Recorder(RunFolder(tmp_path, "transformer"), Position(epoch=1, evaluated=0, iteration=5)).close()
    assert [json.loads(line)["epoch"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [0, 1]
    Recorder(RunFolder(tmp_path, "transformer"), START).close()
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_scalars_reach_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recorder = Recorder(RunFolder(tmp_path, "transformer"), START)
    recorder.write("train", 1, 5, {"loss": 2.0, "name": "x"})
    recorder.close()
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == [(5, 2.0)]
    assert board.Tags()["scalars"] == ["train/loss"]
    assert time.time() - board.Scalars("train/loss")[0].wall_time < 60


def test_a_position_in_a_stage_keeps_all_of_the_earlier_ones_and_nothing_of_the_later(tmp_path):
    stages = ("first", "second", "third")
    folder = RunFolder(tmp_path, "net")
    for number, stage in enumerate(stages):
        recorder = Recorder(folder, Position(0, 0, 10 * number, stage, stages))
        for epoch in (1, 2):
            recorder.write("train", epoch, 10 * number + epoch, {"loss": 1.0})
            recorder.write("eval", epoch, 10 * number + epoch, {"mAP": 0.5})
        recorder.close()
    Recorder(folder, Position(epoch=2, evaluated=1, iteration=12, stage="second", stages=stages)).close()
    kept = [(record["stage"], record["kind"], record["epoch"]) for record in read_metrics(folder.metrics)]
    first = [("first", kind, epoch) for epoch in (1, 2) for kind in ("train", "eval")]
    assert kept == [*first, ("second", "train", 1), ("second", "eval", 1), ("second", "train", 2)]


def test_records_without_a_stage_are_those_of_a_run_of_one(tmp_path):
    recorder = Recorder(RunFolder(tmp_path, "net"), START)
    recorder.write("train", 1, 5, {"loss": 2.0})
    recorder.close()
    assert "stage" not in read_metrics(tmp_path / "metrics.jsonl")[0]


def test_checkpoints_of_a_stage_are_told_from_those_of_the_last_one(tmp_path):
    run = RunFolder(tmp_path, "vit_small")
    for path in (run.checkpoint(3), run.checkpoint(12), run.checkpoint(12, "warm"), run.state):
        path.touch()
    (tmp_path / "other_4.pth").touch()
    (tmp_path / "vit_small_x.pth").touch()
    assert run.checkpoint(12, "warm").name == "vit_small_warm_12.pth"
    assert list(run.checkpoints().items()) == [(3, run.checkpoint(3)), (12, run.checkpoint(12))]
    assert run.checkpoints("warm") == {12: run.checkpoint(12, "warm")}
    assert epoch_of(run.checkpoint(12, "warm")) == 12 and epoch_of(Path("published.pth")) is None


@pytest.mark.parametrize(
    ("config", "prefix"), [("MODEL: {NAME: vit}", "vit"), ("MODEL: {", "vit"), ("- 1", "vit"), (None, "vit")]
)
def test_a_run_folder_tells_its_prefix_by_its_configuration_or_else_by_its_checkpoints(tmp_path, config, prefix):
    for name in ("vit_2.pth", "vit_warm_9.pth"):
        (tmp_path / name).touch()
    if config is not None:
        (tmp_path / "config.yaml").write_text(config)
    run = open_run(tmp_path)
    assert run.prefix == prefix and list(run.checkpoints()) == [2]


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "null", "[" * 100_000, b"\xff"])
def test_an_environment_that_is_absent_or_damaged_says_nothing(tmp_path, text):
    file = RunFolder(tmp_path, "transformer").environment
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert read_environment(file) == {}


def test_an_environment_is_read_as_it_was_written(tmp_path):
    file = RunFolder(tmp_path, "transformer").environment
    file.write_text('{"python": "3.11", "command": ["train.py"]}')
    assert read_environment(file) == {"python": "3.11", "command": ["train.py"]}
