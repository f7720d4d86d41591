"""Searches: points come from Optuna, a stand-in or, where it is installed, itself; train.py and test.py are fakes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fake_runner import FakeRunner, write_config
from tests.optuna_stub import install_optuna
from utils.commands import is_installed

LR, EPOCHS, NAME = "SOLVER.BASE_LR", "SOLVER.WARMUP_EPOCHS", "SOLVER.OPTIMIZER_NAME"
SPACE = ("--range", LR, "1e-5", "1e-2", "log", "--range", EPOCHS, "0", "5", "--grid", NAME, "SGD", "AdamW")
HELD_OUT = ("--opts", "DATASETS.VAL_IDS", "0.1")
FILES = "veri776_mine_search_OPTIMIZER_NAME_BASE_LR_WARMUP_EPOCHS"


@pytest.fixture(params=["stub", "real"])
def search(
    request: pytest.FixtureRequest, launch: Callable[..., int], runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """search(N, *words) launches a search for N points; what a point reaches depends on its number alone."""
    if request.param == "stub":
        install_optuna(monkeypatch)
    elif not is_installed("optuna"):
        pytest.skip("optuna is not installed: pip install -r requirements-search.txt")
    runner.held_out = {3: 0.2}
    runner.held_out_gains = {f"veri776_mine_point{n:03d}": gain for n, gain in enumerate((0.01, 0.03, 0.02), start=1)}
    return lambda count, *words, seeds=("0",): launch("--search", str(count), *SPACE, *HELD_OUT, *words, seeds=seeds)


def points_of(logs: Path, name: str = FILES) -> list[dict[str, str]]:
    return [point["values"] for point in json.loads((logs / f"{name}.json").read_text())["points"]]


def trained(runner: FakeRunner) -> list[tuple[str, str, str]]:
    return [(opts[LR], opts[EPOCHS], opts[NAME]) for script, opts in runner.commands if script == "train.py"]


def test_points_lie_within_the_ranges_and_the_best_on_held_out_identities_is_tested(search, runner, logs, capsys):
    assert search(4, seeds=("0", "1")) == 0
    assert runner.trained() == [f"veri776_mine_point{n:03d}_seed{seed}_run" for n in range(1, 5) for seed in (0, 1)]
    points = points_of(logs)
    assert all(1e-5 <= float(point[LR]) <= 1e-2 for point in points) and len({point[LR] for point in points}) == 4
    assert {point[EPOCHS] for point in points} <= {*"012345"} and {point[NAME] for point in points} <= {"SGD", "AdamW"}
    assert [script for script, _ in runner.commands].count("test.py") == 2
    assert json.loads((logs / f"{FILES}.json").read_text())["chosen"] == "veri776_mine_point002"
    assert "point 4 of 4" in capsys.readouterr().out


@pytest.mark.parametrize("stops_in", [0, 2])
def test_a_search_that_was_stopped_tries_the_points_of_the_unbroken_one(search, runner, logs, tmp_path, stops_in):
    assert search(4, "--output-root", str(tmp_path / "unbroken")) == 0
    unbroken = points_of(tmp_path / "unbroken")
    runner.commands.clear()
    runner.train_code, runner.fails_in = 130, f"point{stops_in + 1:03d}_seed"
    assert search(4) == 130
    runner.train_code = 0
    assert search(4) == 0
    assert points_of(logs) == unbroken
    ran = [(point[LR], point[EPOCHS], point[NAME]) for point in unbroken]
    assert trained(runner) == [*ran[: stops_in + 1], *ran[stops_in:]]  # the point that was open, once more


def test_the_same_command_again_runs_nothing_and_a_larger_number_adds_points(search, runner, logs):
    search(2)
    first = points_of(logs)
    runner.take()
    assert search(2) == 0 and runner.take() == []
    assert search(3) == 0 and runner.take() == ["train 0"]
    assert points_of(logs)[:2] == first and len(points_of(logs)) == 3


def test_a_point_that_fails_counts_as_tried(search, runner, logs):
    runner.train_code, runner.fails_in = 1, "point002_seed"
    assert search(3) == 1
    assert len(trained(runner)) == 3
    assert json.loads((logs / f"{FILES}.json").read_text())["chosen"] == "veri776_mine_point003"


def test_a_mistake_of_the_users_ends_the_search_and_leaves_its_point_open(search, runner, logs):
    runner.train_code, runner.fails_in, runner.says = 2, "point002_seed", "error: no data"
    assert search(3) == 2
    assert len(trained(runner)) == 2 and "test.py" not in [script for script, _ in runner.commands]
    runner.train_code = 0
    runner.commands.clear()
    assert search(3) == 0 and len(trained(runner)) == 2


@pytest.mark.parametrize("words", [("--range", "SOLVER.MARGIN", "0.1", "1")])
def test_each_space_has_files_of_its_own(search, runner, logs, words):
    search(1)
    assert search(1, *words, "--tag", "t") == 0
    assert {path.name for path in logs.glob("*_report.html")} >= {
        f"{FILES}_report.html",
        "veri776_t_search_OPTIMIZER_NAME_BASE_LR_WARMUP_EPOCHS_MARGIN_report.html",
    }


def test_other_seeds_of_the_same_keys_are_another_search(search, launch, capsys):
    search(1)
    assert search(1, seeds=("0", "1")) == 2
    error = capsys.readouterr().err
    assert "holds a search of another space" in error and "--tag" in error and error.count("\n") == 1


def test_no_point_is_trained_twice(search, launch, runner, logs, capsys):
    few = ("--grid", NAME, "SGD", "AdamW", "--range", EPOCHS, "0", "2", *HELD_OUT)
    for count in (4, 6):
        launch("--search", str(count), *few)
        points = points_of(logs, "veri776_mine_search_OPTIMIZER_NAME_WARMUP_EPOCHS")
        out = capsys.readouterr().out
        assert len(points) == count or f"draws: the search ends with {len(points)} points" in out
        assert len({tuple(point.values()) for point in points}) == len(points) == len(runner.trained())


def test_several_recipes_are_a_choice_of_the_search(search, launch, runner, tmp_path, logs):
    configs = [write_config(tmp_path, name) for name in "ab"]
    runner.held_out_gains = {}
    assert launch("--search", "6", "--range", LR, "0.1", "1", *HELD_OUT, configs=configs) == 0
    recipes = {one["recipe"] for one in json.loads((logs / "search_BASE_LR.json").read_text())["points"]}
    assert recipes == {"a", "b"}


def test_a_damaged_storage_is_one_line(launch, runner, logs, capsys):
    if not is_installed("optuna"):
        pytest.skip("optuna is not installed: pip install -r requirements-search.txt")
    logs.mkdir()
    (logs / "veri776_mine_search_BASE_LR.db").write_bytes(b"no database" * 999)
    assert launch("--search", "1", "--range", LR, "0.1", "1", *HELD_OUT) == 2
    error = capsys.readouterr().err
    assert "is no storage of a search" in error and error.count("\n") == 1 and not runner.commands


def test_without_optuna_one_line_says_what_to_install(launch, runner, capsys, monkeypatch):
    monkeypatch.setattr("tools.launch.search.is_installed", lambda name: False)
    assert launch("--search", "2", "--range", LR, "0.1", "1", *HELD_OUT) == 2
    assert capsys.readouterr().err == "error: --search 2 needs optuna: pip install optuna\n" and not runner.commands
