"""The run folder: permission, lock, records."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from utils.errors import ConfigError
from utils.run_folder import LOCK_NAME, Recorder, locked, make_folder, read_metrics, replacing, write_text_atomic

HOLD = "import sys, time; from pathlib import Path; from utils.run_folder import locked\n"
HOLD += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def start_holder(folder):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_with_the_first_ones_pid(tmp_path):
    holder = start_holder(tmp_path)
    try:
        with pytest.raises(ConfigError, match=f"in use by process {holder.pid}"), locked(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()


def test_the_lock_of_a_killed_process_is_taken_over_and_named(tmp_path):
    holder = start_holder(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path) as stale_pid:
        assert stale_pid == holder.pid
        assert (tmp_path / LOCK_NAME).read_text() == str(os.getpid())
    with locked(tmp_path) as stale_pid:
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


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, error):
    path = tmp_path / "x.txt"
    write_text_atomic(path, "old")
    with pytest.raises(type(error)), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_records_of_an_unfinished_epoch_are_dropped_at_the_next_start(tmp_path):
    recorder = Recorder(tmp_path, 0, 0, 0)
    recorder.write("reference", 0, 0, {"name": "raw_pixels", "mAP": 0.1})
    recorder.write("train", 1, 5, {"loss": 2.0})
    recorder.write("eval", 1, 5, {"mAP": 0.5})
    recorder.write("train", 2, 9, {"loss": 1.0})
    recorder.close()
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write(
            '[1, 2]\n3\n{"kind": "train"}\n{"kind": "train", "epo'
        )  # no records, and one that a kill cut short
    assert [record["epoch"] for record in read_metrics(tmp_path)] == [0, 1, 1, 2]
    Recorder(tmp_path, 1, 5, 0).close()
    assert [json.loads(line)["epoch"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [0, 1]
    Recorder(tmp_path, 0, 0, 0).close()
    assert read_metrics(tmp_path) == []


def test_scalars_reach_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recorder = Recorder(tmp_path, 0, 0, 0)
    recorder.write("train", 1, 5, {"loss": 2.0, "name": "x"})
    recorder.close()
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == [(5, 2.0)]
    assert board.Tags()["scalars"] == ["train/loss"]
    assert time.time() - board.Scalars("train/loss")[0].wall_time < 60
