"""Sweeps: every point is trained, one is chosen on held-out identities and tested; train.py and test.py are fakes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_runner import FakeRunner, write_config
from tests.faults.mistakes import refusal
from tools.study.response import PointResult, choose
from utils.test_folder import METRICS

LR, MARGIN = "SOLVER.BASE_LR", "SOLVER.MARGIN"
GRID = ("--grid", LR, "1e-3", "1e-2", "--grid", MARGIN, "0.3", "0.5")
HELD_OUT = ("--opts", "DATASETS.VAL_IDS", "0.1")
POINTS = [f"veri776_mine_BASE_LR{rate}_MARGIN{margin}" for rate in ("0p001", "0p01") for margin in ("0p3", "0p5")]
FILES = "veri776_mine_grid_BASE_LR_MARGIN"


@pytest.fixture
def sweep(launch: Callable[..., int], runner: FakeRunner) -> Callable[..., int]:
    """sweep(*words, seeds) launches the grid of two keys, of which the third point is the best on held-out ones."""
    runner.held_out = {3: 0.2}
    runner.held_out_gains = {POINTS[0]: 0.01, POINTS[2]: 0.05}
    return lambda *words, seeds=("0", "1"): launch(*GRID, *HELD_OUT, *words, seeds=seeds)


def content_of(logs: Path, name: str = FILES) -> dict:
    return json.loads((logs / f"{name}.json").read_text())


def test_every_point_is_trained_and_the_chosen_one_alone_is_tested_at_its_last_epoch(sweep, runner, logs, capsys):
    assert sweep() == 0
    assert runner.trained() == [f"{name}_seed{seed}_run" for name in POINTS for seed in (0, 1)]
    tested = [opts["OUTPUT_DIR"] for script, opts in runner.commands if script == "test.py"]
    assert tested == [str(logs / f"{POINTS[2]}_seed{seed}_test" / "epoch_3") for seed in (0, 1)]
    content = content_of(logs)
    assert content["chosen"] == POINTS[2] and [point["name"] for point in content["points"]] == POINTS
    assert content["points"][2]["mean"]["mAP"] == pytest.approx(0.25) and content["also_tested"] == []
    assert content["test"]["mean"]["last"]["mAP"] == pytest.approx((0.4 + 0.5) / 2)
    out = capsys.readouterr().out
    assert "chosen on held-out identities: BASE_LR 0.01, MARGIN 0.3, 25.0 mAP" in out
    assert f"open   {logs / FILES}_report.html" in out and "point 3 of 4: BASE_LR 0.01, MARGIN 0.3" in out


def test_the_points_differ_in_what_is_swept_and_share_the_rest(sweep, runner):
    sweep("SOLVER.GAMMA", "0.5", seeds=("0",))
    given = [opts for script, opts in runner.commands if script == "train.py"]
    assert [(opts[LR], opts[MARGIN]) for opts in given] == [
        (rate, margin) for rate in ("0.001", "0.01") for margin in ("0.3", "0.5")
    ]
    assert {opts["SOLVER.GAMMA"] for opts in given} == {"0.5"}


def test_the_same_command_again_runs_nothing_and_more_values_run_the_new_ones(sweep, launch, runner, logs):
    sweep(seeds=("0",))
    runner.take()
    assert sweep(seeds=("0",)) == 0 and runner.take() == []
    more = ("--grid", LR, "1e-3", "1e-2", "1e-1", "--grid", MARGIN, "0.3", "0.5")
    runner.held_out_gains["veri776_mine_BASE_LR0p1_MARGIN0p5"] = 0.1
    assert launch(*more, *HELD_OUT) == 0
    assert runner.take() == ["train 0", "train 0", "test 0 3"]
    assert content_of(logs)["also_tested"] == [POINTS[2]]  # an earlier choice has seen the test set


@pytest.mark.parametrize("stops_in", range(4))
def test_a_sweep_that_was_stopped_ends_where_the_unbroken_one_does(sweep, runner, logs, tmp_path, capsys, stops_in):
    runner.train_code, runner.fails_in = 130, POINTS[stops_in]
    assert sweep() == 130
    assert f"stopped: {POINTS[stops_in]}, seed 0; {2 * stops_in} of 8 seeds are trained" in capsys.readouterr().err
    assert [script for script, _ in runner.commands if script == "test.py"] == []
    first = runner.trained()
    runner.train_code = 0
    runner.commands.clear()
    assert sweep() == 0
    assert first[:-1] + runner.trained() == [f"{name}_seed{seed}_run" for name in POINTS for seed in (0, 1)]
    assert content_of(logs)["chosen"] == POINTS[2]


def test_a_point_that_fails_is_left_out_of_the_choice_and_tried_again(sweep, runner, logs, capsys):
    runner.train_code, runner.fails_in, runner.says = 1, POINTS[2], "error: loss is NaN"
    assert sweep() == 1
    content, shown = content_of(logs), capsys.readouterr()
    assert content["chosen"] == POINTS[0] and content["points"][2]["why_not"].startswith("seed 0 failed")
    assert shown.err == "error: loss is NaN\n" and "1 more are not whole" in shown.out
    runner.train_code = 0
    assert sweep() == 0 and content_of(logs)["chosen"] == POINTS[2]


def test_without_a_whole_point_nothing_is_chosen_and_nothing_tested(sweep, runner, logs, capsys):
    runner.held_out = {}
    assert sweep() == 1
    out = capsys.readouterr().out
    assert content_of(logs)["chosen"] is None and "no point is whole" in out
    assert "BASE_LR 0.01, MARGIN 0.5: seed 0, 1 without a figure on held-out identities" in out
    assert "test.py" not in [script for script, _ in runner.commands]


def test_no_test_chooses_and_leaves_the_test_set_unseen(sweep, runner, logs, capsys):
    assert sweep("--no-test") == 0
    assert {script for script, _ in runner.commands} == {"train.py"}
    assert content_of(logs)["chosen"] == POINTS[2] and content_of(logs)["test"] is None
    assert "not tested (--no-test)" in capsys.readouterr().out


@pytest.mark.parametrize("gains", [{}, {POINTS[0]: 0.4}, {POINTS[1]: 0.3, POINTS[2]: -0.2}, {POINTS[2]: 0.3}])
def test_results_on_the_test_set_never_change_the_choice(sweep, launch, runner, logs, gains):
    runner.gains = gains
    for name in POINTS:  # every point has been tested before
        rate, margin = (word.replace("p", ".") for word in name.removeprefix("veri776_mine_BASE_LR").split("_MARGIN"))
        launch("--tag", name.removeprefix("veri776_"), LR, rate, MARGIN, margin, *HELD_OUT)
    assert len(list(logs.glob("*_seed0_test"))) == 4
    assert sweep(seeds=("0",)) == 0
    assert content_of(logs)["chosen"] == POINTS[2] and sorted(content_of(logs)["also_tested"]) == sorted(
        {*POINTS} - {POINTS[2]}
    )


def point(figures: list[tuple[float, float]], why_not: str = "") -> PointResult:
    held_out = {
        seed: dict.fromkeys(METRICS, 0.0) | {"mAP": first, "Rank-1": second}
        for seed, (first, second) in enumerate(figures)
    }
    return PointResult("x", "", {}, 3, held_out, {}, why_not)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.booleans()), max_size=6))
def test_the_choice_is_the_highest_mean_then_the_second_metric_then_the_first_place(rows):
    points = [point([(a / 4, b / 4)] * 2, "" if whole else "failed") for a, b, whole in rows]
    ranked = sorted((-a, -b, place) for place, (a, b, whole) in enumerate(rows) if whole)
    assert choose(points, ("mAP", "Rank-1")) == (ranked[0][2] if ranked else None)


def test_the_choice_is_by_the_mean_over_the_seeds():
    assert choose([point([(0.9, 0), (0.1, 0)]), point([(0.6, 0), (0.6, 0)])], ("mAP", "Rank-1")) == 1


def test_several_recipes_combine_with_the_grid_and_share_one_table(launch, runner, tmp_path, logs):
    runner.held_out = {3: 0.2}
    configs = [write_config(tmp_path, name) for name in "ab"]
    assert launch("--grid", LR, "1", "2", *HELD_OUT, configs=configs) == 0
    assert runner.trained() == [f"veri776_{name}_BASE_LR{rate}p0_seed0_run" for name in "ab" for rate in (1, 2)]
    assert [(one["recipe"], one["values"][LR]) for one in content_of(logs, "grid_BASE_LR")["points"]] == [
        (name, rate) for name in "ab" for rate in ("1.0", "2.0")
    ]
    assert launch("--grid", LR, "1", "2", "--tag", "t", *HELD_OUT, configs=configs) == 0
    assert (logs / "t_grid_BASE_LR_report.html").is_file()


def test_an_interval_is_that_of_the_mean_over_the_seeds_on_held_out_identities(sweep, logs):
    sweep()
    low, high = content_of(logs)["points"][2]["interval"]["mAP"]
    assert low < 0.25 < high


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--grid", LR, "1", "2"),
            "veri776_mine_BASE_LR1p0: a sweep is chosen on identities held out of training, but",
        ),
        (("--grid", "SOLVER.BASE_LRR", "1", *HELD_OUT), "did you mean SOLVER.BASE_LR?"),
        (("--grid", LR, "slow", *HELD_OUT), "--grid SOLVER.BASE_LR got 'slow', expected a number"),
        (("--grid", LR, "1", "1e9", *HELD_OUT), "point BASE_LR 1000000000.0: command line: SOLVER.BASE_LR got 1"),
        (("--grid", LR, "1", "2", *HELD_OUT, LR, "3"), "SOLVER.BASE_LR 3 contradicts the sweep over SOLVER.BASE_LR"),
        (("--grid", "SOLVER.MAX_EPOCHS", "1", "2", "--epochs", "3", *HELD_OUT), "--epochs 3 contradicts the sweep"),
        (("--grid", "LOSS.SUPCON.T", "1", "2", "--supcon", "--T", "3", *HELD_OUT), "--T 3.0 contradicts the sweep"),
        (("--grid", "DATASETS.VAL_IDS", "0.1", "0.2"), "DATASETS.VAL_IDS says on what points are compared"),
        (("--grid", "TEST.AP", "standard", "trapezoid", *HELD_OUT), "TEST.AP says on what points are compared"),
        (("--search", "2", "--range", "DATASETS.VAL_IDS", "0.1", "0.2"), "DATASETS.VAL_IDS says on what points are"),
        (("--search", "2", "--grid", "TEST.AP", "standard", "trapezoid", *HELD_OUT), "TEST.AP says on what points"),
        (("--search", "5", "--range", "SOLVER.WARMUP_EPOCHS", "0", "3", *HELD_OUT), "only 4 points; --grid"),
        (("--grid", LR, *map(str, range(1, 1002)), "--yes", *HELD_OUT), "1,001 points, at most 1,000"),
        (("--grid", LR, *map(str, range(1, 52)), *HELD_OUT), "51 runs (51 points x 1 seeds), more than 50; add --yes"),
        (("--grid", "SOLVER.SEED", "1", "2", *HELD_OUT), "SOLVER.SEED is set by the launcher itself, so it cannot be"),
        (("--range", LR, "1", "2", *HELD_OUT), "give --search N"),
        (("--search", "3", *HELD_OUT), "names nothing to search"),
        (("--search", "51", "--range", LR, "1", "2", *HELD_OUT), "51 runs"),
    ],
)
def test_a_sweep_that_cannot_work_is_one_line_and_starts_nothing(launch, runner, logs, capsys, words, said):
    assert launch(*words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not runner.commands and not logs.exists()


@pytest.mark.parametrize("words", [("--search", "0"), ("--search", "x"), ("--grid",), ("--grid", LR, "1", "--gird")])
def test_flags_of_sweeps_are_checked_as_others_are(runner, tmp_path, capsys, words):
    import run_phased_loss

    config = write_config(tmp_path, "x")
    assert words[-1] in refusal(run_phased_loss.main, "--config", config, *words, capsys=capsys)


def test_more_runs_than_a_sweep_starts_by_itself_start_with_yes(launch, runner, monkeypatch):
    monkeypatch.setattr("tools.launch.plan.MOST_RUNS", 2)
    runner.held_out = {3: 0.2}
    assert launch("--grid", LR, "1", "2", "3", *HELD_OUT) == 2 and runner.trained() == []
    assert launch("--grid", LR, "1", "2", "3", "--yes", *HELD_OUT) == 0 and len(runner.trained()) == 3


def test_recipes_of_other_images_are_refused(launch, runner, tmp_path, capsys):
    configs = [write_config(tmp_path, "a"), write_config(tmp_path, "b", "TEST: {AP: trapezoid}\n")]
    assert launch("--grid", LR, "1", "2", *HELD_OUT, configs=configs) == 2 and not runner.commands
    assert "cannot be chosen among on the same held-out identities: TEST.AP standard / trapezoid" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), ""),
        (("SOLVER.GAMMA", "0.5"), "was trained with other settings: SOLVER.GAMMA 0.1 -> 0.5"),
        (("TEST.NECK_FEAT", "before"), "was evaluated with other settings: TEST.NECK_FEAT after -> before"),
        (("TEST.FLIP", "True"), "was evaluated with other settings: TEST.FLIP False -> True"),
        (("DATASETS.ROOT_DIR", "elsewhere", "DATASETS.TESTS", "['veri', 'market1501']"), ""),
        (("--epochs", "4"), ""),  # all points go on
    ],
)
def test_points_that_are_done_are_compared_with_new_ones_of_the_same_settings_alone(
    launch, runner, capsys, words, said
):
    runner.held_out = {3: 0.2, 4: 0.2}
    assert launch("--grid", LR, "1", *HELD_OUT) == 0
    assert launch("--grid", LR, "1", "2", *HELD_OUT, *words) == (2 if said else 0)
    assert said in capsys.readouterr().err


def test_points_that_saw_other_held_out_images_are_not_compared(launch, runner, logs):
    runner.held_out = {3: 0.2}
    runner.held_out_gains = {"veri776_mine_BASE_LR2p0": 0.1}
    launch("--grid", LR, "1", "2", *HELD_OUT)
    table = logs / "veri776_mine_BASE_LR2p0_seed0_run" / "held_out_3.npz"
    content = dict(np.load(table))
    for path, chosen in ((np.char.add("/moved", content["path"]), "2p0"), (content["path"][::-1], "1p0")):
        np.savez(table, **(content | {"path": path}))
        assert launch("--grid", LR, "1", "2", *HELD_OUT) == 0
        assert content_of(logs, "veri776_mine_grid_BASE_LR")["chosen"] == f"veri776_mine_BASE_LR{chosen}"


def test_a_key_that_changes_nothing_and_points_alike_are_said(launch, runner, capsys):
    runner.held_out = {3: 0.2}
    runner.held_out_gains = {f"veri776_mine_BASE_LR2p0_GAMMA{value}": 0.1 for value in ("0p1", "0p2")}
    launch("--grid", LR, "1", "2", "--grid", "SOLVER.GAMMA", "0.1", "0.2", *HELD_OUT)
    out = capsys.readouterr().out
    assert "SOLVER.GAMMA changed no figure" in out and "SOLVER.BASE_LR changed no figure" not in out
    assert "equalled by 1 of 3 others" in out


def test_a_second_sweep_at_the_same_time_is_refused(sweep, runner, capsys, monkeypatch):
    monkeypatch.setattr("utils.file_lock.CHILDREN_GRACE_S", 0.1)
    inner = []
    train = runner.train

    def train_beside(config: str, opts: dict[str, str]) -> int:
        if not inner:
            inner.append(sweep(seeds=("0",)))
        return train(config, opts)

    monkeypatch.setattr(runner, "train", train_beside)
    assert sweep(seeds=("0",)) == 0 and inner == [2]
    assert "is in use by process" in capsys.readouterr().err
