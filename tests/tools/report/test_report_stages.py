"""The reports of a run of two stages: what each trained, its curves, and what stage 1 reached against chance."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs import load_cfg
from tests.tools.report.report_files import Page, make_analysis, make_images, make_launch, make_summary, write_folder
from tools.report import figures, write_launch_report, write_test_report
from utils.run_folder import RunFolder
from utils.run_record import RunRecord, write_record
from utils.test_folder import TestFolder

TWO_STAGES, BASELINE = "configs/Synthetic/clip_reid.yml", "configs/Synthetic/clip_reid_base.yml"
OPTS = ["SOLVER.STAGE1.MAX_EPOCHS", "2", "SOLVER.STAGE2.MAX_EPOCHS", "3", "SOLVER.MAX_EPOCHS", "3"]
PROMPTS = {"parameters": "2,880 of 9,000 parameters", "parts": "prompt_learner 2,880"}
IMAGES = {"parameters": "5,000 of 9,000 parameters", "parts": "image_encoder 4,000, classifier 1,000"}
REACHED = (0.01, 0.25, 0.5)  # after the epochs 0, 1, 2 of stage 1
CHANCE = 0.0125


def stage_records(seed: int) -> list[dict[str, Any]]:
    """Return what a run of both stages records, in order, two steps an epoch; stage 1 rises by 0.1 with the seed."""
    first, second = {"stage": "stage1"}, {"stage": "stage2"}
    records = [{"kind": "trains", **first, "epoch": 0, **PROMPTS}]
    for epoch, share in enumerate(REACHED):
        if epoch:
            records.append({"kind": "phase", **first, "epoch": epoch, "phase": "static", "lr": 0.01 * epoch})
            for loss in (4.0 / epoch, 2.0 / epoch):
                terms = {"loss": loss, "i2t": 0.75 * loss, "t2i": 0.25 * loss}
                records.append({"kind": "train", **first, "epoch": epoch, **terms})
        reached = {"image-to-text accuracy": share + 0.1 * seed, "chance": CHANCE}
        records.append({"kind": "fit", **first, "epoch": epoch, **reached})
    records.append({"kind": "trains", **second, "epoch": 0, **IMAGES})
    for epoch in (1, 2, 3):
        records.append({"kind": "phase", **second, "epoch": epoch, "phase": "static", "lr": 0.001})
        for accuracy in (0.1 * epoch, 0.2 * epoch):
            terms = {"loss": 3.0 / epoch, "id": 1.0, "triplet": 0.5, "i2t": 0.25, "i2t_acc": accuracy}
            records.append({"kind": "train", **second, "epoch": epoch, **terms})
    return records


def write_records(run: RunFolder, records: Sequence[dict[str, Any]]) -> None:
    run.metrics.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, undrawn: None) -> dict[str, dict[str, tuple[list, list]]]:
    """The lines of every line chart, by its title: name -> (epochs, values)."""
    seen: dict[str, dict[str, tuple[list, list]]] = {}
    draw = figures.charts.line_chart

    def watch(series: dict[str, tuple[np.ndarray, np.ndarray]], title: str, *args: Any, **options: Any) -> Any:
        seen[title] = {name: (x.tolist(), y.tolist()) for name, (x, y) in series.items()}
        return draw(series, title, *args, **options)

    monkeypatch.setattr(figures.charts, "line_chart", watch)
    return seen


def page_of(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    page.check()
    assert "cannot be shown" not in page.text
    return page


def launch_page(folder: Path, configs: Sequence[str]) -> Page:
    """Return the report of a launch with the seeds 0 and 1, whose first experiment has two stages."""
    launch = make_launch(folder / "logs", configs, [0, 1], OPTS)
    for seed in (0, 1):
        write_records(launch[0][0].run_folder(seed), stage_records(seed))
    return page_of(write_launch_report(folder / "report.html", *launch, "python run_phased_loss.py"))


def test_every_stage_of_a_launch_has_its_own_curves(tmp_path, drawn):
    page = launch_page(tmp_path, [TWO_STAGES])
    of1, of2 = ", clip_reid, stage1", ", clip_reid, stage2"
    assert drawn[f"Training loss{of1}"] == {f"seed {seed}": ([1, 2], [3.0, 1.5]) for seed in (0, 1)}
    assert drawn[f"Terms of the loss, before their weights{of1}"] == {
        "I2T": ([1, 2], [2.25, 1.125]),
        "T2I": ([1, 2], [0.75, 0.375]),
    }
    assert drawn[f"Learning rate{of1}"] == {"learning rate": ([1, 2], [0.01, 0.02])}
    assert list(drawn[f"Terms of the loss, before their weights{of2}"]) == ["CE", "Triplet", "I2T"]
    accuracy = drawn[f"Image-to-text accuracy in training batches{of2}"]["seed 1"]
    assert accuracy[0] == [1, 2, 3] and accuracy[1] == pytest.approx([0.15, 0.3, 0.45])
    assert f"Image-to-text accuracy in training batches{of1}" not in drawn
    assert not [title for title in drawn if title.startswith("Accuracy of the first classifier")]
    words = page.text
    assert "Stage 1 of 2: stage1" in words and "Stage 2 of 2: stage2" in words
    assert "Trained are 2,880 of 9,000 parameters: prompt_learner 2,880." in words
    assert "Trained are 5,000 of 9,000 parameters: image_encoder 4,000, classifier 1,000." in words


def test_the_accuracy_of_stage_one_is_drawn_from_before_training_on_with_its_chance(tmp_path, drawn):
    page = launch_page(tmp_path, [TWO_STAGES])
    lines = drawn["Image-to-text accuracy over all training images, clip_reid, stage1"]
    assert list(lines) == ["seed 0", "seed 1", "chance"]
    assert lines["seed 0"] == ([0, 1, 2], [0.01, 0.25, 0.5]) and lines["chance"] == ([0, 1, 2], [CHANCE] * 3)
    said = "Seed 1: image-to-text accuracy 11.0 % before training, 60.0 % after epoch 2; chance: 1.2 %."
    assert page.text.count(said) == 1


def test_stages_stand_below_their_experiment_and_a_run_of_one_stage_has_none(tmp_path, drawn):
    page = launch_page(tmp_path, [TWO_STAGES, BASELINE])
    assert len(page.find("h4")) == 2 + 4, "both stages, and of both experiments the worst and the best queries"
    assert [title for title in drawn if title.startswith("Training loss")] == [
        *("Training loss, clip_reid, stage1", "Training loss, clip_reid, stage2"),
        *("Training loss over all stages, clip_reid", "Training loss, clip_reid_base"),
    ]
    assert "Accuracy of the first classifier in training batches, clip_reid_base" in drawn


def test_loss_and_learning_rate_are_also_drawn_over_stage_and_epoch(tmp_path, drawn):
    launch_page(tmp_path, [TWO_STAGES])
    loss, rate = (drawn[f"{name} over all stages, clip_reid"] for name in ("Training loss", "Learning rate"))
    assert loss == {f"seed {seed}": ([1, 2, 3, 4, 5], [3.0, 1.5, 3.0, 1.5, 1.0]) for seed in (0, 1)}
    assert rate == {"learning rate": ([1, 2, 3, 4, 5], [0.01, 0.02, 0.001, 0.001, 0.001])}
    joined, starts = figures.in_a_row({0: stage_records(0)}, ("stage1", "stage2"))
    assert starts == [(0.5, "stage1"), (2.5, "stage2")] and joined[0][-1]["epoch"] == 5
    only, starts = figures.in_a_row({0: stage_records(0)[:10]}, ("stage1", "stage2"))
    assert starts == [(0.5, "stage1")], "stage 2 has not begun"


def make_test(folder: Path, config: str, run: str) -> TestFolder:
    """Write a run's folder with its records, and a test of its last checkpoint that names the run `run`."""
    of_run, tested = RunFolder(folder / "run", "clip_reid"), TestFolder(folder / "test")
    of_run.path.mkdir()
    write_record(of_run, RunRecord("0f", {}, load_cfg(config, [*OPTS, "SOLVER.SEED", "7"]).dump()))
    write_records(of_run, stage_records(0))
    cfg = json.loads(json.dumps(load_cfg(config, OPTS)))
    summary = make_summary(cfg, config, weight=str(of_run.checkpoint(3)), run=run)
    write_folder(tested.path, summary, make_analysis(make_images(folder / "images", 20)))
    return tested


def test_the_report_of_a_test_shows_the_stages_that_led_to_the_checkpoint(tmp_path, drawn):
    page = page_of(write_test_report(make_test(tmp_path, TWO_STAGES, "0f")))
    assert [section["id"] for section in page.find("section")].count("training") == 1
    assert drawn["Training loss, stage1"] and drawn["Training loss, stage2"]
    assert "Seed 7: image-to-text accuracy 1.0 % before training, 50.0 % after epoch 2" in page.text


def test_the_title_of_a_test_names_the_stage_of_an_earlier_one(tmp_path, undrawn):
    folder = make_test(tmp_path, TWO_STAGES, "0f")
    summary = json.loads(folder.summary.read_text())
    folder.summary.write_text(json.dumps(summary | {"stage": "stage1"}))
    assert "Test of synthetic VeRi, stage1, epoch 30" in page_of(write_test_report(folder)).text


def test_records_of_another_run_are_not_shown_as_those_of_the_checkpoint(tmp_path, drawn):
    page = page_of(write_test_report(make_test(tmp_path, TWO_STAGES, "another")))
    assert "The records of the training do not lie beside the checkpoint." in page.text
    assert not [title for title in drawn if title.startswith("Training loss")]


def test_the_report_of_a_test_of_one_stage_has_no_curves_of_the_training(tmp_path, drawn):
    page = page_of(write_test_report(make_test(tmp_path, BASELINE, "0f")))
    assert "training" not in [section["id"] for section in page.find("section")]


def test_a_run_of_an_older_version_had_one_stage(tmp_path, drawn):
    folder = make_test(tmp_path, BASELINE, "0f")
    write_record(RunFolder(tmp_path / "run", "clip_reid"), RunRecord("0f", {}))
    page = page_of(write_test_report(folder))
    assert "training" not in [section["id"] for section in page.find("section")]
