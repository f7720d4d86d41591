"""A user's mistake is one line and exit code 2."""

import os
import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from configs import get_cfg_defaults
from utils.commands import parse_config_args
from utils.device import resolve_amp, resolve_device
from utils.errors import MAX_LINE, ConfigError, DataError, RunError, killed_worker, one_line, run_command, shown


class Broken(Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, row: int) -> None:
        raise DataError("image 'x: Error: y.jpg' does not decode")


@pytest.mark.parametrize("error", [ConfigError, DataError])
def test_user_errors_end_with_code_2_and_one_line(capsys, error):
    def main(argv: list[str]) -> None:
        raise error("say what to do")

    assert run_command(main) == 2
    assert capsys.readouterr().err == "error: say what to do\n"


def test_failed_runs_end_with_code_1_and_interrupts_with_130(capsys):
    def fail(argv: list[str]) -> None:
        raise RunError("loss is not finite")

    def interrupt(argv: list[str]) -> None:
        raise KeyboardInterrupt

    assert run_command(fail) == 1 and run_command(interrupt) == 130
    assert capsys.readouterr().err.startswith(
        "error: loss is not finite\ninterrupted; the same command continues with what was kept"
    )


def test_a_full_disk_and_a_killed_worker_are_one_line_and_code_1(capsys):
    def full(argv: list[str]) -> None:
        raise OSError(28, "No space left on device", "run/metrics.jsonl")

    def killed(argv: list[str]) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    def exited(argv: list[str]) -> None:
        raise RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly")

    assert run_command(full) == run_command(killed) == run_command(exited) == 1
    disk, worker, other = capsys.readouterr().err.splitlines()
    assert worker == other
    assert disk == "error: run/metrics.jsonl: No space left on device; make room"
    assert worker == f"error: {killed_worker(7)}" and "lower DATALOADER.NUM_WORKERS" in worker


def test_a_programming_error_keeps_its_traceback():
    def main(argv: list[str]) -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        run_command(main)


def test_a_missing_package_is_one_line_and_a_missing_module_of_ours_keeps_its_traceback(capsys):
    def main(argv: list[str]) -> None:
        raise ModuleNotFoundError(name=argv[0])

    assert run_command(main, ["yacs.config"]) == 2
    said = capsys.readouterr().err
    assert said == "error: no package 'yacs' here; activate the environment, or pip install -r requirements.txt\n"
    with pytest.raises(ModuleNotFoundError):
        run_command(main, ["utils.gone"])


@pytest.mark.parametrize("workers", [0, 1])
def test_the_message_survives_a_loader_worker(workers):
    with pytest.raises(DataError) as caught:
        next(iter(DataLoader(Broken(), num_workers=workers)))
    assert one_line(caught.value) == "image 'x: Error: y.jpg' does not decode"


def test_misspelt_arguments_are_one_line_and_code_2(capsys):
    for argv in (["--confg_file", "x"], [], ["--config_file", "x", "--fast"]):
        with pytest.raises(SystemExit) as caught:
            parse_config_args(argv, "train.py", "d")
        assert caught.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_options_keep_their_order_and_negative_numbers():
    args = parse_config_args(["--config_file", "x.yml", "A.B", "-1", "C.D", "(1, 2)"], "train.py", "d")
    assert (args.config_file, args.opts) == ("x.yml", ["A.B", "-1", "C.D", "(1, 2)"])


def test_an_absent_device_is_an_error_and_auto_finds_one():
    cfg = get_cfg_defaults()
    assert resolve_device(cfg.MODEL.DEVICE, cfg.MODEL.DEVICE_ID).type in ("cuda", "mps", "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="MODEL.DEVICE cuda is not available here; use cpu or auto"):
            resolve_device("cuda", "0")


def test_precision_follows_mode_and_device():
    cpu = torch.device("cpu")
    assert resolve_amp("off", cpu) is None and resolve_amp("bf16", cpu) == torch.bfloat16
    with pytest.raises(ConfigError, match="fp16 needs a CUDA device"):
        resolve_amp("fp16", cpu)


def test_a_message_stays_readable_whatever_it_quotes():
    assert shown("2 problems:\n  KEY got 'x'\n  say what") == "2 problems:\n  KEY got 'x'\n  say what"
    assert shown("KEY got 'new\nerror: all is well'; correct it") == "KEY got 'new\\nerror: all is well'; correct it"
    long = shown(f"KEY got '{'v' * 5000}', allowed: 1")
    assert "more characters" in long and long.endswith("allowed: 1") and len(long) < 300
    assert len(shown("word " * 5000)) < MAX_LINE + 50
    assert shown("a\x1b[31m\x00b") == "a\\x1b[31m\\x00b"


def test_a_name_outside_the_code_page_does_not_end_a_command(tmp_path):
    code = "import sys; from utils.errors import *\ndef main(argv): print('数据'); raise ConfigError('没有 数据')\n"
    code += "sys.exit(run_command(main))"
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "\\u6570" in done.stdout and done.stderr.startswith("error: \\u6ca1")
