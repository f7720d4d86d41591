"""What goes while a command runs, its folder, a worker, or whoever reads its output, ends it with one line."""

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.utils.data import Dataset

from datasets.loader import Loader
from tests.faults.storm import ROOT
from utils.atomic import replacing, write_text_atomic
from utils.checkpoint import save_atomic
from utils.errors import ConfigError, DataError, RunError, run_command
from utils.logger import HANDLER_MARK, setup_logger

pytestmark = pytest.mark.fault("surroundings that go")

SCRIPT = """
import os, sys
from utils.interrupts import take_over
take_over()
from utils.errors import run_command
def main(argv):
    {body}
sys.exit(run_command(main))
"""


class Numbers(Dataset):
    """Rows 0 to 63; `at` is called with each."""

    def __init__(self, at: Callable[[int], object] = lambda row: None) -> None:
        self.at = at

    def __len__(self) -> int:
        return 64

    def __getitem__(self, row: int) -> int:
        self.at(row)
        return row


def kill_at_9(row: int) -> None:
    if row == 9:
        os.kill(os.getpid(), signal.SIGKILL)


def refuse_9(row: int) -> None:
    if row == 9:
        raise DataError("image 9 does not decode")


@pytest.mark.parametrize("keep", [False, True])
def test_a_worker_that_is_killed_while_it_reads_is_one_line(capsys, keep):
    loader = Loader(Numbers(kill_at_9), 4, num_workers=2, persistent_workers=keep)
    assert run_command(lambda _: len(list(loader))) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "killed" in error and "lower DATALOADER.NUM_WORKERS" in error


@pytest.mark.parametrize("reads_before", [1, 5])
def test_workers_that_are_killed_between_batches_are_one_line(capsys, reads_before):
    loader = Loader(Numbers(), 4, num_workers=2, persistent_workers=True)

    def main(_: object) -> None:
        for number, _batch in enumerate(loader, start=1):
            if number == reads_before:
                for worker in loader._iterator._workers:
                    os.kill(worker.pid, signal.SIGKILL)

    assert run_command(main) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error and "DATALOADER.NUM_WORKERS" in error


def test_an_error_of_the_data_in_a_worker_stays_one(capsys):
    assert run_command(lambda _: len(list(Loader(Numbers(refuse_9), 4, num_workers=2)))) == 2
    assert capsys.readouterr().err == "error: image 9 does not decode\n"


@pytest.mark.parametrize("write", [lambda path: write_text_atomic(path, "x"), lambda path: save_atomic({"x": 1}, path)])
def test_a_folder_that_was_removed_is_said_and_not_made_again(tmp_path, write):
    folder = tmp_path / "run"
    folder.mkdir()
    write(folder / "file")
    shutil.rmtree(folder)
    with pytest.raises(RunError, match="its folder is not there, or was removed meanwhile; start again$"):
        write(folder / "file")
    assert not folder.exists()


def test_a_file_that_goes_while_its_folder_is_emptied_is_said_too(tmp_path):
    with pytest.raises(RunError, match="was removed meanwhile"), replacing(tmp_path / "file") as temporary:
        temporary.touch()
        temporary.unlink()


def start(body: str, close: int | None = None) -> subprocess.Popen:
    """Start a command of these lines, with a standard stream closed."""
    code = SCRIPT.format(body=body.replace("\n", "\n    "))
    closing = (lambda: os.close(close)) if close is not None else None
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=closing,
    )


@pytest.mark.parametrize("flush", [True, False])
def test_output_that_nobody_reads_ends_the_command_with_one_line(flush):
    process = start(f"for i in range(10**6): print('line', i, flush={flush})")
    process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read()
    assert process.wait(60) == 1
    assert error.startswith("error: what reads the output has ended") and error.count("\n") == 1


@pytest.mark.parametrize(("number", "way_out"), [(errno.EPIPE, ""), (errno.EIO, ""), (errno.ENOSPC, "; make room")])
def test_a_log_that_nobody_reads_is_told_once_and_asks_for_no_room(capsys, monkeypatch, number, way_out):
    setup_logger(None)
    handler = next(one for one in logging.getLogger().handlers if one.name == HANDLER_MARK)

    def refuse(*_: str) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(handler, "stream", SimpleNamespace(write=refuse, flush=lambda: None, fileno=refuse))
    for _ in range(2):
        handler.handle(logging.makeLogRecord({"msg": "a line", "levelno": 20, "levelname": "INFO"}))
    assert capsys.readouterr().err.endswith(f"lines of the log are lost (refused){way_out}\n")


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_closed_standard_stream_takes_no_file_in_its_place(tmp_path: Path, closed: int):
    path = tmp_path / "file"
    body = (
        f"stream = open({str(path)!r}, 'w')\nfor one in (sys.stdout, sys.stderr): one.isatty(); print('x', file=one)\n"
        "os.write(1, b'y'); os.write(2, b'y'); stream.write('whole'); stream.close(); return 0"
    )
    process = start(body, closed)
    process.communicate(timeout=60)
    assert process.returncode == 0 and path.read_text() == "whole"


@pytest.mark.parametrize("write", [lambda path: write_text_atomic(path, "x"), lambda path: save_atomic({"x": 1}, path)])
def test_a_device_a_pipe_or_a_link_in_their_folder_is_never_replaced_by_a_file(tmp_path, write, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(os.devnull)
    devices = tmp_path / "dev"
    devices.mkdir()
    (devices / "stdout").symlink_to(tmp_path / "file")
    monkeypatch.setattr("utils.atomic.DEVICES", devices)
    for path, kind in (("pipe", "a pipe"), ("link", "a device"), ("dev/stdout", "a device")):
        with pytest.raises(ConfigError, match=f"{path}', which is {kind}; choose another place$"):
            write(tmp_path / path)
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink() and (devices / "stdout").is_symlink()
    assert not list(tmp_path.rglob("*.tmp"))
