"""A run of two stages for real: its files, its plan, killing and continuing in either stage, launcher and report."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import run_phased_loss
import train
from configs import keys, load_cfg, loss_weights, phases, stages
from configs.rules.branches import LAYOUTS
from model import make_model
from model.make_model import FAMILIES
from processor import make_stage
from processor.systems import SYSTEMS
from tests.commands import KILLED_AT_A_STEP
from tests.two_stages import system
from utils.checkpoint import load_file
from utils.errors import ConfigError
from utils.run_folder import read_metrics
from utils.test_folder import TestFolder, read_result

ROOT = Path(__file__).parents[1]
YAML = ROOT / "tests" / "two_stages" / "two_stages.yml"
ENTERED = "from tests.two_stages.system import enter; enter()"
WARM_STEPS, MAIN_STEPS = 6, 3  # of an epoch: 48 images in batches of 8 features or 16 images


@pytest.fixture(autouse=True)
def two_stages() -> Iterator[None]:
    """The system is known in this process until the test ends."""
    tables = (keys.KEYS, stages.STAGES, loss_weights.WEIGHTS, LAYOUTS, FAMILIES, SYSTEMS)
    kept = [dict(table) for table in tables]
    system.enter()
    yield
    for table, before in zip(tables, kept, strict=True):
        table.clear()
        table.update(before)


def words(root: Path, output: Path, *opts: object) -> list[str]:
    pairs = ("DATASETS.ROOT_DIR", root, "OUTPUT_DIR", output, *opts)
    return ["--config_file", str(YAML), *map(str, pairs)]


def split(command: list[str]) -> tuple[str, list[str]]:
    return command[1], command[2:]


@pytest.fixture(scope="module")
def unbroken(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a training that nothing stopped."""
    folder = tmp_path_factory.mktemp("two_stages") / "run"
    command = [sys.executable, "tests/two_stages/train.py", *words(tiny_root, folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def without_times(folder: Path) -> list[dict]:
    timed = ("time", "images_per_s", "data_share", "max_memory", "mfu")
    return [
        {name: value for name, value in record.items() if not any(word in name for word in timed)}
        for record in read_metrics(folder / "metrics.jsonl")
    ]


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path, "test")


def assert_equal_weights(one: Path, two: Path) -> None:
    first, second = weights_of(one), weights_of(two)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_only_the_files_of_an_earlier_stage_carry_its_name(unbroken):
    names = {path.name for path in unbroken.glob("*.pth")}
    assert names == {
        *("two_stages_warm_1.pth", "two_stages_warm_2.pth", "two_stages_1.pth", "two_stages_2.pth", "state_last.pth")
    }
    state = load_file(unbroken / "state_last.pth", "test")
    assert (state["stage"], state["epoch"], state["iteration"]) == ("main", 2, 2 * WARM_STEPS + 2 * MAIN_STEPS)


def test_warm_trains_the_head_alone_and_main_goes_on_with_it(unbroken):
    first, last = (weights_of(unbroken / f"two_stages_warm_{epoch}.pth") for epoch in (1, 2))
    changed = {name.split(".")[0] for name in first if not torch.equal(first[name], last[name])}
    assert changed == {"bottleneck", "classifier"}
    final = weights_of(unbroken / "two_stages_2.pth")
    assert any(not torch.equal(last[name], final[name]) for name in last if name.startswith("base.blocks"))


def test_records_name_their_stage_and_count_iterations_over_both(unbroken):
    records = read_metrics(unbroken / "metrics.jsonl")
    phases_seen = [(record["stage"], record["epoch"]) for record in records if record["kind"] == "phase"]
    assert phases_seen == [("warm", 1), ("warm", 2), ("main", 1), ("main", 2)]
    steps = [record["iteration"] for record in records if record["kind"] == "train"]
    assert steps == sorted(set(steps)) and steps[-1] == 2 * WARM_STEPS + 2 * MAIN_STEPS
    assert {record["stage"] for record in records if record["kind"] == "eval"} == {"main"}
    assert all(set(record) >= {"id", "acc"} for record in records if record["kind"] == "train")
    assert [(record["stage"], record["epoch"]) for record in records if record["kind"] == "trains"] == [
        *(("warm", 0), ("main", 0))
    ]
    warm = [record for record in records if record["stage"] == "warm" and record["kind"] == "train"]
    assert all("triplet" not in record for record in warm) and warm[-1]["loss"] < warm[0]["loss"]


@pytest.mark.parametrize(
    ("step", "stage", "epoch"),
    [
        (WARM_STEPS - 1, None, 0),  # before the first state
        (WARM_STEPS + 2, "warm", 1),
        (2 * WARM_STEPS + 1, "warm", 2),  # between the stages
        (2 * WARM_STEPS + MAIN_STEPS + 1, "main", 1),
    ],
)
def test_a_run_killed_in_either_stage_ends_where_the_unbroken_one_did(
    unbroken, tiny_root, tmp_path, step, stage, epoch
):
    folder = tmp_path / "run"
    command = [sys.executable, "-c", KILLED_AT_A_STEP.format(before=ENTERED), str(step), *words(tiny_root, folder)]
    killed = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    if stage is not None:
        state = load_file(folder / "state_last.pth", "test")
        assert (state["stage"], state["epoch"]) == (stage, epoch)
    assert train.main(words(tiny_root, folder)) == 0
    for name in ("two_stages_warm_2.pth", "two_stages_1.pth", "two_stages_2.pth"):
        assert_equal_weights(folder / name, unbroken / name)
    assert without_times(folder) == without_times(unbroken)


def test_a_finished_run_does_nothing_more_and_a_longer_last_stage_goes_on(unbroken, tiny_root, tmp_path, caplog):
    folder = tmp_path / "run"
    shutil.copytree(unbroken, folder)
    before = (folder / "two_stages_2.pth").stat().st_mtime_ns
    train.main(words(tiny_root, folder))
    assert "already trained to epoch 2" in caplog.text and (folder / "two_stages_2.pth").stat().st_mtime_ns == before
    train.main(words(tiny_root, folder, "SOLVER.MAX_EPOCHS", 3))
    assert (folder / "two_stages_3.pth").is_file()
    with pytest.raises(ConfigError, match=r"SOLVER.WARM.MAX_EPOCHS 2 -> 3"):
        train.main(words(tiny_root, folder, "SOLVER.WARM.MAX_EPOCHS", 3))


def test_the_preview_shows_the_plan_of_each_stage(tiny_root, tmp_path, capsys):
    train.main([*words(tiny_root, tmp_path), "--show-schedule"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["stage", "epochs"]
    rows = [line.split() for line in lines if line.startswith(("warm", "main"))]
    assert [row[0] for row in rows] == ["warm", "main"]
    assert rows[0][1:3] == ["1-2", "static"] and "Triplet" not in rows[0] and "Triplet" in rows[1]


def test_a_stage_without_data_works_on_batches_of_the_caller(tiny_root, tmp_path):
    cfg = load_cfg(*split(words(tiny_root, tmp_path)))
    model = make_model(cfg, 8, 3, 2)
    stage = make_stage(cfg, "warm", model)
    assert (stage.name, stage.loader, stage.test, stage.max_epochs) == ("warm", None, None, 2)
    batch = {"features": torch.randn(6, model.feat_dim), "pids": torch.arange(6)}
    total, parts = stage.criterion(stage.forward_batch(stage.trained, batch), batch, stage.plan.at(1))
    assert parts.keys() == {"id"} and total.requires_grad
    stage.scheduler.step(1)
    assert stage.optimizer.param_groups[0]["lr"] == stage.scheduler.lr_at(1)[0]
    with pytest.raises(ConfigError, match="has no stage 'wram'; its stages are warm, main"):
        make_stage(cfg, "wram", model)


def test_stages_that_the_system_does_not_have_are_refused(tiny_root, tmp_path):
    with pytest.raises(ConfigError, match="SOLVER.STAGES got .*'cold'.*allowed for MODEL.NAME two_stages: warm, main"):
        load_cfg(*split(words(tiny_root, tmp_path, "SOLVER.STAGES", "['cold']")))


def test_one_stage_alone_is_trained_where_stages_say_so(tiny_root, tmp_path):
    folder = tmp_path / "run"
    train.main(words(tiny_root, folder, "SOLVER.STAGES", "['main']", "SOLVER.MAX_EPOCHS", 1))
    assert {path.name for path in folder.glob("*.pth")} == {"two_stages_1.pth", "state_last.pth"}


def test_the_first_stage_alone_is_the_last_one(tiny_root, tmp_path):
    cfg = load_cfg(*split(words(tiny_root, tmp_path, "SOLVER.STAGES", "['warm']")))
    plan = phases.PhasePlan(cfg)
    assert plan.max_epochs == 2 and plan.at(1).weights == phases.PhasePlan(cfg, "warm").at(1).weights == {"id": 1.0}


def test_checkpoints_of_an_earlier_stage_without_their_state_are_not_mixed_with_a_new_run(tiny_root, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "two_stages_warm_1.pth").touch()
    with pytest.raises(ConfigError, match="holds 1 checkpoints .two_stages_warm_1.pth, .* but no state_last.pth"):
        train.main(words(tiny_root, tmp_path / "run"))


def test_a_rule_between_solver_keys_looks_at_each_stage(tiny_root, tmp_path):
    with pytest.raises(ConfigError, match="SOLVER.WARM.BASE_LR is 0, so nothing would be learnt"):
        load_cfg(*split(words(tiny_root, tmp_path, "SOLVER.WARM.BASE_LR", 0)))


@pytest.mark.slow
def test_the_launcher_trains_tests_and_reports_both_stages(tiny_root, tmp_path, capfd):
    scripts = {name: f"tests/two_stages/{name}.py" for name in ("train", "test")}
    flags = ["--seeds", "0", "--epochs", "1", "--save-every", "1", "--output-root", str(tmp_path), "--tag", "two"]
    pairs = ["DATASETS.ROOT_DIR", str(tiny_root)]
    assert run_phased_loss.main(["--config", str(YAML), *flags, "--opts", *pairs], scripts) == 0
    folder = tmp_path / "veri776_two_seed0_run"
    assert {path.name for path in folder.glob("two_stages*")} == {
        *("two_stages_warm_1.pth", "two_stages_warm_2.pth", "two_stages_1.pth")
    }
    result = read_result(TestFolder(tmp_path / "veri776_two_seed0_test" / "epoch_1"))
    assert result is not None and result["epoch"] == 1
    page = (tmp_path / "veri776_two_report.html").read_text()
    assert "Stage 1 of 2: warm" in page and "Stage 2 of 2: main" in page
    capfd.readouterr()
    assert run_phased_loss.main(["--config", str(YAML), *flags, "--opts", *pairs], scripts) == 0
    assert "already trained to epoch 1" in capfd.readouterr().out
