"""LOGGER: each epoch is in the record of its run once, whatever kills the run; packages are imported when asked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import test as test_script
import train
from configs import load_cfg, restore_cfg
from processor.tracking.rows import epoch_rows
from tests.faults.mistakes import refusal
from tests.tracking_stubs import FakeMlflow, FakeWandb, Killed, install_mlflow, install_wandb
from utils.commands import is_installed
from utils.errors import ConfigError
from utils.run_folder import RunFolder, read_metrics
from utils.run_record import read_record

BOTH = ("LOGGER", "['wandb', 'mlflow']")
ROOT = Path(train.__file__).parent


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    return install_wandb(monkeypatch)


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMlflow:
    return install_mlflow(monkeypatch)


def run_train(config: Path, *opts: str) -> int:
    return train.main(["--config_file", str(config), *opts])


def rows_of(run_dir: Path, epochs: int = 3) -> list[tuple[int, dict[str, float]]]:
    """The rows that the records of a finished run give."""
    return [tuple(row) for row in epoch_rows(read_metrics(run_dir / "metrics.jsonl"), {"main": epochs})]


def metrics_of(mlflow: FakeMlflow) -> dict[tuple[str, int], list[float]]:
    """All values of the only run by (name, step)."""
    (run,) = mlflow.runs.values()
    found: dict[tuple[str, int], list[float]] = {}
    for one in run.metrics:
        found.setdefault((one.key, one.step), []).append(one.value)
    return found


def test_rows_are_means_of_an_epochs_training_and_the_last_of_all_else():
    records = [
        {"kind": "reference", "epoch": 0, "iteration": 0, "name": "untrained", "mAP": 0.1},
        {"kind": "phase", "epoch": 1, "iteration": 1, "phase": "static", "lr": 0.5, "routed": 0},
        {"kind": "train", "epoch": 1, "iteration": 2, "loss": 3.0},
        {"kind": "train", "epoch": 1, "iteration": 4, "loss": 1.0, "speed": 7.0},
        {"kind": "val", "epoch": 1, "iteration": 4, "mAP": 0.25},
        {"kind": "train", "epoch": 2, "iteration": 6, "loss": 0.5},
    ]
    assert epoch_rows(records, {"main": 2}) == [
        (0, {"reference/untrained/mAP": 0.1}),
        (1, {"phase/lr": 0.5, "phase/routed": 0, "train/loss": 2.0, "train/speed": 7.0, "val/mAP": 0.25}),
        (2, {"train/loss": 0.5}),
    ]


def test_stages_count_on_and_earlier_ones_stand_in_the_names():
    records = [
        {"kind": "train", "stage": "stage1", "epoch": 2, "iteration": 1, "loss": 1.0},
        {"kind": "fit", "stage": "stage2", "epoch": 0, "iteration": 1, "x": 1.0},
        {"kind": "train", "stage": "stage2", "epoch": 1, "iteration": 2, "loss": 2.0},
    ]
    rows = epoch_rows(records, {"stage1": 2, "stage2": 1})
    assert rows == [(2, {"stage1/train/loss": 1.0}), (3, {"train/loss": 2.0})]


def test_a_run_is_in_both_records_epoch_by_epoch_under_its_names(
    tiny_config, run_dir, wandb, mlflow, monkeypatch, capsys
):
    monkeypatch.setenv("REID_LAUNCH", "my_sweep")
    folder = run_dir.parent / "veri776_x_seed1234_run"
    run_train(tiny_config, *BOTH, "OUTPUT_DIR", str(folder))
    identity = read_record(RunFolder(folder, "transformer")).run
    (kept,) = wandb.runs.items()
    assert kept[0] == identity and kept[1].rows == rows_of(folder)
    begun = kept[1].begun
    assert (begun["name"], begun["group"], begun["project"]) == ("veri776_x_seed1234", "veri776_x", "reid")
    assert begun["tags"] == ["launch:my_sweep", "experiment:veri776_x", "seed:1234", "stages:main"]
    assert begun["config"]["SOLVER.BASE_LR"] == 0.002 and wandb.open == 0 and kept[1].codes == [0]
    (run,) = mlflow.runs.values()
    assert run.tags["reid.run"] == identity and run.tags["launch"] == "my_sweep" and run.status == "FINISHED"
    assert run.params["SOLVER.BASE_LR"] == "0.002" and "BASE_LR: 0.002" in run.artifacts["config.yaml"]
    expected = {(name, step): [value] for step, row in rows_of(folder) for name, value in row.items()}
    assert metrics_of(mlflow) == expected | {("epoch", step): [step] for step, _ in rows_of(folder)}
    assert not list(folder.glob("events.*"))  # tensorboard was not asked for


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("moment", ["before_log", "after_log"])
def test_a_killed_run_goes_on_in_the_same_record_and_sends_nothing_twice(tiny_config, run_dir, wandb, offline, moment):
    wandb.offline = offline

    def kill(step: int) -> None:
        if step == 2:
            wandb.dead = True
            raise Killed

    setattr(wandb, moment, kill)
    with pytest.raises(Killed):
        run_train(tiny_config, "LOGGER", "wandb")
    setattr(wandb, moment, lambda step: None)
    wandb.dead = False
    run_train(tiny_config, "LOGGER", "wandb")
    assert len(wandb.runs) == 1 and wandb.synced() == rows_of(run_dir)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_half_a_row_is_completed_and_not_doubled(tiny_config, run_dir, mlflow, after):
    seen = []

    def kill(name: str, step: int) -> None:
        seen.extend([name] if step == 2 else [])
        if len(seen) > after:
            raise Killed

    mlflow.before_metric = kill
    with pytest.raises(Killed):
        run_train(tiny_config, "LOGGER", "mlflow")
    mlflow.before_metric = lambda name, step: None
    run_train(tiny_config, "LOGGER", "mlflow")
    expected = {(name, step): [value] for step, row in rows_of(run_dir) for name, value in row.items()}
    assert metrics_of(mlflow) == expected | {("epoch", step): [step] for step in (1, 2, 3)}


def test_a_longer_training_goes_on_in_its_record_and_a_finished_one_adds_nothing(tiny_config, run_dir, wandb, mlflow):
    run_train(tiny_config, *BOTH)
    before = len(next(iter(mlflow.runs.values())).metrics)
    run_train(tiny_config, *BOTH)
    assert len(next(iter(mlflow.runs.values())).metrics) == before
    run_train(tiny_config, *BOTH, "SOLVER.MAX_EPOCHS", "4")
    (kept,) = wandb.runs.values()
    assert (
        [step for step, _ in kept.rows]
        == [1, 2, 3, 4]
        == sorted(step for name, step in metrics_of(mlflow) if name == "epoch")
    )


def test_a_logger_that_comes_later_gets_the_epochs_before(tiny_config, run_dir, wandb):
    run_train(tiny_config, "SOLVER.MAX_EPOCHS", "2")
    run_train(tiny_config, "LOGGER", "wandb")
    (kept,) = wandb.runs.values()
    assert kept.rows == rows_of(run_dir)


def test_what_a_place_refuses_is_told_once_and_sent_at_the_end(tiny_config, run_dir, wandb, capsys):
    refused = []

    def refuse(step: int) -> None:
        if len(refused) < 1:
            refused.append(step)
            raise OSError("no network")

    wandb.before_log = refuse
    run_train(tiny_config, "LOGGER", "wandb")
    (kept,) = wandb.runs.values()
    assert [step for step, _ in kept.rows] == [1, 2, 3]
    assert "LOGGER wandb refuses figures (no network)" in capsys.readouterr().out


def test_half_a_row_that_a_server_took_is_completed_at_the_end(tiny_config, run_dir, mlflow):
    refused = []

    def refuse(name: str, step: int) -> None:
        if step == 2 and name == "train/loss" and not refused:
            refused.append(step)
            raise OSError("no server")

    mlflow.before_metric = refuse
    run_train(tiny_config, "LOGGER", "mlflow")
    expected = {(name, step): [value] for step, row in rows_of(run_dir) for name, value in row.items()}
    assert refused and metrics_of(mlflow) == expected | {("epoch", step): [step] for step in (1, 2, 3)}


@pytest.mark.parametrize(("name", "way_out"), [("wandb", "WANDB_MODE=offline"), ("mlflow", "MLFLOW_TRACKING_URI")])
def test_a_record_that_cannot_be_opened_is_one_line(tiny_config, wandb, mlflow, capsys, name, way_out):
    {"wandb": wandb, "mlflow": mlflow}[name].refuses = "api_key not configured\nmore"
    error = refusal(train.main, "--config_file", str(tiny_config), "LOGGER", name, capsys=capsys)
    assert error.startswith(f"error: LOGGER {name}: no record can be opened (api_key not configured); ")
    assert way_out in error


def test_a_test_adds_its_figures_and_its_report_to_the_record_of_its_run(tiny_config, run_dir, wandb, mlflow, tmp_path):
    run_train(tiny_config, *BOTH)
    for epoch in (2, 3, 3):
        weight, out = run_dir / f"transformer_{epoch}.pth", tmp_path / f"test_{epoch}"
        words = ["TEST.WEIGHT", str(weight), "OUTPUT_DIR", str(out), *BOTH]
        assert test_script.main(["--config_file", str(tiny_config), *words]) == 0
    result = json.loads((tmp_path / "test_3" / "summary.json").read_text())
    (kept,) = wandb.runs.values()
    assert kept.summary["test/mAP"] == result["mAP"] and "test_epoch_2/mAP" in kept.summary
    assert kept.artifacts[f"report-{next(iter(wandb.runs))}-3"] == [str(tmp_path / "test_3" / "report.html")]
    assert metrics_of(mlflow)["test/mAP", 3] == [result["mAP"]] and len(metrics_of(mlflow)["test/mAP", 2]) == 1
    (run,) = mlflow.runs.values()
    assert {"test/epoch_2/report.html", "test/epoch_3/report.html"} <= run.artifacts.keys()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_an_absent_package_is_one_line_that_says_what_to_install(tiny_config, monkeypatch, tmp_path, capsys, name):
    monkeypatch.setattr("configs.rules.loggers.is_installed", lambda name: False)
    error = refusal(train.main, "--config_file", str(tiny_config), "LOGGER", name, capsys=capsys)
    assert error == f"error: command line: LOGGER {name} is not installed: pip install {name}"
    kept = load_cfg(tiny_config).dump().replace("LOGGER:\n- tensorboard", f"LOGGER:\n- {name}")
    assert list(restore_cfg(kept, "a run").LOGGER) == [name]  # of a run from another machine


def test_a_folder_of_a_packages_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "no_such_logger").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not is_installed("no_such_logger") and is_installed("yaml")


def test_a_misspelt_logger_names_the_choices(tiny_config):
    with pytest.raises(
        ConfigError, match="LOGGER got 'wandbb', allowed: tensorboard, wandb, mlflow; did you mean wandb"
    ):
        load_cfg(tiny_config, ["LOGGER", "wandbb"])


def test_nothing_is_imported_that_was_not_asked_for():
    names = "{'wandb', 'mlflow', 'optuna', 'sqlalchemy'}"
    code = f"import processor, tools.launch.made, tools.launch.search, sys; assert not {names} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
