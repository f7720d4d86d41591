"""A launch on several devices: seeds run at once, and leave what a launch of one after the other leaves."""

import hashlib
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import run_phased_loss
from tests import fake_runner
from tests.fake_runner import PHASED, FakeRunner, summary_of, write_config
from tools.launch.launch import Launch
from tools.launch.queue import Ended, Progress

PATIENCE_S = 30


@pytest.fixture(autouse=True)
def four_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    return [write_config(tmp_path, name, more) for name, more in (("a", ""), ("b", PHASED))]


def hold(runner: FakeRunner, monkeypatch: pytest.MonkeyPatch, until: Callable[[str], threading.Event | None]) -> None:
    """Make trainings wait: until(folder name) -> the event that a training in that folder waits for, or None."""
    train = runner.train

    def held(config: str, opts: dict[str, str]) -> int:
        event = until(Path(opts["OUTPUT_DIR"]).name)
        assert event is None or event.wait(PATIENCE_S)
        return train(config, opts)

    monkeypatch.setattr(runner, "train", held)


def contents(logs: Path) -> dict[str, str]:
    """Return {relative path: text} of all files of a launch but its report, without times, commands and the root."""
    files = {path.relative_to(logs).as_posix(): path for path in logs.rglob("*") if path.is_file()}
    texts = {}
    for name, path in files.items():
        text = path.read_bytes().decode("latin-1").replace(str(logs), "ROOT")
        texts[name] = "" if name.endswith(".html") else re.sub(r'"timestamp": "[^"]*"', "", text)
    return texts


def test_devices_in_any_order_leave_the_files_of_a_serial_launch(launch, runner, two, tmp_path, logs, monkeypatch):
    words, seeds = ("--save-every", "0"), ("0", "1")
    assert launch(*words, seeds=seeds, configs=two) == 0
    expected = contents(logs)
    logs.rename(tmp_path / "serial")
    runner.take()
    # four at once, and each waits for the test of the next: the last unit ends first
    units = [f"veri776_{name}_seed{seed}" for name in "ab" for seed in seeds]
    ended = {unit: threading.Event() for unit in units}
    after = dict(zip(units, units[1:], strict=False))
    hold(runner, monkeypatch, lambda folder: ended.get(after.get(folder.removesuffix("_run"))))
    test = runner.test

    def told(config: str, opts: dict[str, str]) -> int:
        code = test(config, opts)
        ended[Path(opts["OUTPUT_DIR"]).parent.name.removesuffix("_test")].set()
        return code

    monkeypatch.setattr(runner, "test", told)
    assert launch(*words, "--gpus", "0,1", "2", "3", seeds=seeds, configs=two) == 0
    assert sorted(runner.trained()) == [f"{unit}_run" for unit in units]
    found = contents(logs)
    assert found.keys() == expected.keys()
    assert {name for name in expected if found[name] != expected[name]} == set()
    assert json.loads((logs / "phased_loss_best_summary.json").read_text())["name"] == "veri776_b"


def test_the_same_launch_again_runs_nothing_with_or_without_gpus(launch, runner, two, logs):
    assert launch("--gpus", "0,1", seeds=("0", "1"), configs=two) == 0
    assert len(runner.take()) == 4 * (1 + 3)
    assert launch("--gpus", "3", seeds=("0", "1"), configs=two) == 0
    assert launch(seeds=("0", "1"), configs=two) == 0
    assert runner.take() == []
    (logs / "veri776_b_seed1_test" / "epoch_2" / "summary.json").unlink()
    (logs / "veri776_a_seed0_run" / "transformer_3.pth").unlink()
    assert launch("--gpus", "0,1", seeds=("0", "1"), configs=two) == 0
    assert sorted(runner.take()) == ["test 1 2", "train 0"]


def test_one_device_takes_the_seeds_in_the_order_of_a_serial_launch(launch, runner, two, capsys):
    assert launch("--gpus", "2", "--save-every", "3", "--verbose", seeds=("0", "1"), configs=two) == 0
    assert runner.take() == ["train 0", "test 0 3", "train 1", "test 1 3"] * 2
    assert {(place.gpu, place.visible) for place in runner.places} == {(2, "2")}
    out = capsys.readouterr().out
    line = "[gpu 2 | veri776_b, seed 1] $ CUDA_VISIBLE_DEVICES=2 "
    assert line in out and out.index("experiment 1 of 2") < out.index("experiment 2 of 2") < out.index(line)
    assert "[gpu 2 | veri776_b, seed 1] seed 1, epoch 3: not tested yet\n" in out


def test_every_process_uses_the_one_device_that_it_sees(launch, runner, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    config = write_config(tmp_path, "x")
    Path(config).write_text(Path(config).read_text().replace("MODEL:\n", "MODEL:\n  DEVICE_ID: ('3')\n"))
    assert launch("--gpus", "1", configs=[config]) == 0
    assert {opts["MODEL.DEVICE_ID"] for _, opts in runner.commands} == {"0"}
    assert {place.visible for place in runner.places} == {"5"}


def test_after_a_failed_training_running_seeds_finish_and_waiting_ones_stay(launch, runner, two, logs, monkeypatch):
    runner.train_code, runner.fails_in = 3, "_a_seed0"
    other = threading.Event()

    def until(folder: str) -> threading.Event | None:
        if folder == "veri776_b_seed0_run":
            other.set()  # it takes the place of the failed one
        return other if folder == "veri776_a_seed1_run" else None

    hold(runner, monkeypatch, until)
    seeds = ("0", "1", "2")
    assert launch("--gpus", "0,1", "--save-every", "0", seeds=seeds, configs=two) == 3
    expected = ["a_seed0", "a_seed1", "b_seed0", "b_seed1", "b_seed2"]
    assert sorted(runner.trained()) == [f"veri776_{run}_run" for run in expected]
    assert summary_of(logs, "veri776_a")["num_seeds"]["last"] == 1
    assert summary_of(logs, "veri776_b")["num_seeds"]["last"] == 3
    assert [one["name"] for one in json.loads((logs / "ablation.json").read_text())] == ["veri776_a", "veri776_b"]
    runner.commands.clear()
    runner.train_code = 0
    assert launch("--gpus", "0,1", "--save-every", "0", seeds=seeds, configs=two) == 0
    assert sorted(runner.trained()) == ["veri776_a_seed0_run", "veri776_a_seed2_run"]


def test_the_table_grows_up_to_the_first_experiment_that_is_not_over(launch, runner, two, logs, monkeypatch):
    tables = []
    second = threading.Event()
    end = Launch.end

    def noting(self, progress: Progress, seed: int, ended: Ended) -> None:
        end(self, progress, seed, ended)
        tables.append((progress.experiment.name, (logs / "ablation.json").exists()))
        second.set()

    monkeypatch.setattr(Launch, "end", noting)
    hold(runner, monkeypatch, lambda folder: second if "_a_" in folder else None)
    assert launch("--gpus", "0,0", configs=two) == 0
    assert tables == [("veri776_b", False), ("veri776_a", True)]
    assert summary_of(logs, "veri776_b")["seeds"]["0"]["last"] and len(json.loads((logs / "ablation.json").read_text()))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--gpus", "4"), "there is no device 4"),
        (("--gpus", "0,1", "--opts", "MODEL.DIST_TRAIN", "True"), "MODEL.DIST_TRAIN True"),
        (("--gpus", "0,1", "--opts", "MODEL.DEVICE", "cpu"), "MODEL.DEVICE is cpu"),
        (("--gpus", "0,1", "--opts", "MODEL.DEVICE_ID", "1"), "MODEL.DEVICE_ID 1"),
    ],
)
def test_what_contradicts_gpus_is_one_line_before_anything_runs(launch, runner, two, logs, capsys, words, said):
    assert launch(*words, configs=two) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not runner.commands and not logs.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_seeds_says_where_and_keeps_what_was_done(tmp_path, logs, monkeypatch, capsys, number, code):
    # train.py of seed 0 ends at once, the others would sleep; real processes
    record = {"schema": 1, "run": "0f", "checkpoints": {"transformer_3.pth": hashlib.sha256().hexdigest()}}
    (tmp_path / "train.py").write_text(
        "import pathlib, sys, time\nopts = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n"
        "folder = pathlib.Path(opts['OUTPUT_DIR'])\nfolder.mkdir(parents=True)\nprint('training')\n"
        f"(folder / 'run.json').write_text({json.dumps(record)!r})\n"
        "(folder / 'started').touch()\n"
        "if opts['SOLVER.SEED'] == '0': (folder / 'transformer_3.pth').touch(); sys.exit()\ntime.sleep(60)\n"
    )
    monkeypatch.setattr(run_phased_loss, "ROOT", tmp_path)
    monkeypatch.setattr("tools.launch.launch.write_launch_report", fake_runner.write_fake_report)
    monkeypatch.setattr("tools.launch.children.CHILD_GRACE_S", 0.5)  # here the signal reaches the launcher alone
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background inherit it ignored

    def send() -> None:
        deadline = time.monotonic() + PATIENCE_S
        runs = [logs / f"veri776_mine_seed{seed}_run" / "started" for seed in (1, 2)]
        while time.monotonic() < deadline and not all(run.exists() for run in runs):
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()
    try:
        launched = fake_runner.make_launch(tmp_path)
        ended = launched("--gpus", "0,1", "--no-test", "--verbose", seeds=("0", "1", "2", "3"))
    except SystemExit as error:
        ended = error.code
    finally:
        signal.signal(signal.SIGINT, previous)
    out, err = capsys.readouterr()
    assert ended == code and "stopped: veri776_mine, seed 1; veri776_mine, seed 2; 1 of 4 seeds are done\n" in err
    assert "[gpu 1 | veri776_mine, seed 1] training\n" in out and "seed 3]" not in out and "killed" not in err
    assert summary_of(logs)["seeds"].keys() == {"0", "1", "2", "3"}
