"""The report of a launch: its tables, curves and last epochs, for one experiment and for several."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from configs import load_cfg
from solver.preview import schedule_table
from tests.tools.report.report_files import Page, make_launch
from tools.report import figures, write_launch_report
from tools.study.ablation import table_rows

FOLDER = Path("configs/Synthetic")
BASELINE, PHASED = str(FOLDER / "baseline.yml"), str(FOLDER / "phased.yml")
OPTS = ["SOLVER.MAX_EPOCHS", "10", "LOSS.PHASED.BOUNDARIES", "[4, 7]"]
COMMAND = "python run_phased_loss.py --config 'a b.yml' --seeds 0 1"


def report(launch: tuple, path: Path) -> Page:
    page = Page(write_launch_report(path, *launch, COMMAND).read_text(encoding="utf-8"))
    page.check()
    return page


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A launch of two experiments with two seeds each, all of it there."""
    return make_launch(tmp_path_factory.mktemp("launch"), [BASELINE, PHASED], [0, 1], OPTS)


@pytest.fixture(scope="module")
def page(launch: tuple, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return report(launch, tmp_path_factory.mktemp("page") / "ablation_report.html")


@pytest.fixture
def single(tmp_path: Path) -> tuple:
    """A launch of one experiment whose files a test may damage."""
    return make_launch(tmp_path / "logs", [BASELINE], [0, 1], OPTS)


def test_a_launch_of_two_has_every_section_and_no_part_that_failed(page):
    anchors = [section["id"] for section in page.find("section")]
    assert anchors == [
        *("result", "settings", "schedule", "training", "progress", "cmc", "last-1", "last-2", "data", "reproduce")
    ]
    assert "cannot be shown" not in page.text and COMMAND in page.text


def test_the_ablation_table_is_that_of_the_launcher(page, launch):
    for row in table_rows(launch[1]):
        assert "".join(row) in page.text


def test_settings_name_what_differs_from_the_base_and_between_experiments(page):
    assert "key1 baseline2 phased" in page.text.replace("\n", "")
    assert "LOSS.TRIPLETX.ENABLEFalseTrue" in page.text
    assert "DATASETS.NAMES['market1501']['synthetic']" in page.text  # baseline.yml against _tiny.yml


def test_the_schedule_is_that_of_the_preview(page):
    for config in (BASELINE, PHASED):
        assert schedule_table(load_cfg(config, OPTS)) in page.text


def test_charts_stand_for_every_experiment(page):
    titles = [drawing["aria-label"] for drawing in page.find("svg")]
    for name in ("baseline", "phased"):
        for title in (
            "Training loss",
            "Learning rate",
            "mAP over epochs",
            "mAP per camera pair",
            "ROC of query-gallery",
        ):
            assert sum(one.startswith(title) and one.endswith(f", {name}") for one in titles) == 1
    assert "CMC at the last epoch, mean over the seeds" in titles


def test_two_experiments_with_equal_results_share_no_id(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 50


def test_means_of_an_epoch_are_those_of_its_records():
    records = [{"epoch": epoch, "loss": loss} for epoch, loss in ((2, 1.0), (1, 4.0), (2, 2.0), (2, 6.0))]
    records.append({"epoch": 3, "acc": 1.0})
    epochs, means = figures.epoch_means(records, "loss")
    assert epochs.tolist() == [1, 2] and means.tolist() == [4.0, 3.0]


def test_the_speed_of_a_seed_is_the_median_of_its_windows():
    windows = [
        {"kind": "train", "epoch": epoch, "loss": 1.0, "images_per_s": rate, "data_share": share, "max_memory": memory}
        for epoch, rate, share, memory in (
            (1, 40.0, 0.9, 7000.0),
            (2, 1310.0, 0.021, 7475.2),
            (3, 1290.0, 0.02, 7400.0),
        )
    ]
    assert figures.speed(windows) == "1,290 images/s, data 2 % of a step, at most 7.3 GiB of memory"
    measured = [window | {"mfu": mfu} for window, mfu in zip(windows, (0.01, 0.414, 0.41), strict=True)]
    assert "data 2 % of a step, MFU 41 %, at most" in figures.speed(measured)
    phase = {"kind": "phase", "epoch": 1, "phase": "static", "lr": 0.1}
    old = [{"kind": "train", "epoch": 1, "loss": 1.0, "images_per_s": 50.0}]
    markup = figures.training({3: [phase, *windows], 4: [phase, *old]})
    assert markup.count("images/s") == 1 and "Seed 3: 1,290 images/s, data 2 % of a step" in markup


def test_phases_begin_half_an_epoch_before_their_first():
    tags = {1: "A", 2: "A", 3: "B", 4: "C"}
    records = [{"kind": "phase", "epoch": epoch, "phase": tag} for epoch, tag in tags.items()]
    records.append({"kind": "train", "epoch": 1, "loss": 1.0})
    assert figures.phase_starts(records[::-1]) == [(0.5, "phase A"), (2.5, "phase B"), (3.5, "phase C")]
    assert figures.phase_starts(records[:2]) == []


def test_map_over_epochs_is_that_of_the_tests_and_of_held_out_identities(launch):
    one = launch[2][0][0]._replace(held_out={1: {"mAP": 0.5}})
    lines = figures.progress(one, [])
    assert {name: (x.tolist(), y.tolist()) for name, (x, y) in lines.items()} == {
        "seed 0": ([1, 10], [pytest.approx(0.11), pytest.approx(0.2)]),
        "seed 0, held-out ids": ([1], [0.5]),
    }
    untested = one._replace(epochs={}, held_out={})
    record = {"kind": "eval", "epoch": 5, "mAP": 0.25}
    assert figures.progress(untested, [record])["seed 0"][1].tolist() == [0.25]


def test_the_cmc_of_an_experiment_is_the_mean_over_its_seeds(single, tmp_path, undrawn, monkeypatch):
    experiments, _, _ = single
    for seed, first in ((0, 0.2), (1, 0.5)):
        path = experiments[0].test_folder(seed, 10).summary
        path.write_text(json.dumps(json.loads(path.read_text()) | {"cmc": [first, 0.9][: 2 - seed]}))
    drawn = {}
    draw = figures.charts.cmc_chart
    monkeypatch.setattr(figures.charts, "cmc_chart", lambda curves, title: drawn.update(curves) or draw(curves, title))
    report(single, tmp_path / "report.html")
    np.testing.assert_allclose(drawn["baseline"], [0.35])  # as far as both reach


def test_runs_and_tests_that_are_gone_are_lines_on_the_page(single, tmp_path, undrawn):
    experiments, summaries, results = single
    for seed in (0, 1):
        shutil.rmtree(experiments[0].run_folder(seed).path)
        experiments[0].test_folder(seed, 10).analysis.unlink()
        experiments[0].test_folder(seed, 10).slices.unlink()
    words = report(single, tmp_path / "report.html").text
    assert "No training was recorded" in words and "Environment of the training: not recorded." in words
    assert "This test left no analysis.json" in words and "This test left no slices.csv" in words
    untested = [[one._replace(epochs={}) for one in results[0]]]
    words = report((experiments, summaries, untested), tmp_path / "report.html").text
    assert "Epoch 10 has no result yet." in words and "No last epoch was tested." in words


def test_a_recipe_that_is_gone_costs_its_sections_alone(single, tmp_path, undrawn):
    experiment = single[0][0]._replace(config=str(tmp_path / "gone.yml"))
    words = report(([experiment], *single[1:]), tmp_path / "report.html").text
    assert words.count("gone.yml") >= 2 and "seed 0, last" in words


def test_a_failed_test_is_named(single, tmp_path, undrawn):
    single[1][0]["failed_tests"].append({"seed": 1, "epoch": 5, "exit_code": 3, "folder": "logs/<x>"})
    words = report(single, tmp_path / "report.html").text
    assert "A test of baseline failed: seed 1, epoch 5, exit code 3, see logs/<x>." in words


def test_a_launch_that_goes_on_shows_the_experiments_so_far(launch, tmp_path, undrawn):
    experiments, summaries, results = launch
    page = report((experiments, summaries[:1], results[:1]), tmp_path / "report.html")
    assert not re.search(r"\bphased\b", page.text.split("Reproduce")[-2])


def test_equal_files_give_equal_bytes(single, tmp_path, undrawn):
    one = write_launch_report(tmp_path / "one.html", *single, COMMAND).read_bytes()
    assert write_launch_report(tmp_path / "two.html", *single, COMMAND).read_bytes() == one


def test_a_loss_that_rested_for_some_epochs_leaves_a_gap():
    epochs, values = figures.with_gaps((np.array([1, 4]), np.array([0.5, 0.25])), np.array([1, 2, 3, 4]))
    np.testing.assert_array_equal(epochs, [1, 2, 3, 4])
    np.testing.assert_array_equal(values, [0.5, np.nan, np.nan, 0.25])


def test_where_each_run_was_tested_once_a_line_stands_for_charts_of_one_point(tmp_path):
    page = report(make_launch(tmp_path / "logs", [BASELINE], [0], ["SOLVER.MAX_EPOCHS", "1"]), tmp_path / "page.html")
    assert "Each run was tested at one epoch" in page.text
    assert not any(drawing["aria-label"].startswith("mAP over epochs") for drawing in page.find("svg"))
