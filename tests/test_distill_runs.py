"""Trainings with a teacher from the command line: what they leave, how they go on, and mistakes."""

from pathlib import Path

import pytest
import torch

import train
from processor.trained import load_trained
from solver.update import Updater
from tests.commands import args_for, run
from tests.tools.irra_runs import write_irra_run
from utils.checkpoint import load_file
from utils.run_folder import read_metrics

STEPS = 3  # of an epoch: 48 images in batches of 16
SMALLER = ("MODEL.JPM", False, "MODEL.VIT.EMBED_DIM", 16, "MODEL.VIT.DEPTH", 1, "SOLVER.MAX_EPOCHS", 2)
LESSON = ("DISTILL.W_FEAT", 1.0, "DISTILL.W_RELATION", 1.0, "SOLVER.LOG_PERIOD", 1)


class Killed(Exception):
    """The end of a process, as far as a test in the same process can play it."""


@pytest.fixture
def student(tiny_config: Path, trained_run: Path) -> list[str]:
    """The command line of a smaller student of the trained run, but for its OUTPUT_DIR."""
    return args_for(tiny_config, *SMALLER, *LESSON, "DISTILL.TEACHER_RUN", trained_run)


def test_a_run_that_was_killed_goes_on_as_the_unbroken_one_does(student, tmp_path, monkeypatch):
    unbroken, broken = ([*student, "OUTPUT_DIR", str(tmp_path / name)] for name in ("unbroken", "broken"))
    assert train.main(unbroken) == 0
    step, taken = Updater.step, []

    def killing_step(self: Updater) -> None:
        taken.append(1)
        if len(taken) == STEPS + 2:
            raise Killed
        step(self)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Updater, "step", killing_step)
        train.main(broken)
    state = load_file(tmp_path / "broken" / "state_last.pth", "test")
    assert state["epoch"] == 1 and list(state["criterion"]) == ["distill.projection.weight"]
    assert train.main(broken) == 0
    states = [load_file(tmp_path / name / "state_last.pth", "test") for name in ("unbroken", "broken")]
    for part in ("model", "criterion"):
        assert all(torch.equal(value, states[1][part][name]) for name, value in states[0][part].items())
    records = [record for record in read_metrics(tmp_path / "broken" / "metrics.jsonl") if record["kind"] == "train"]
    assert len(records) == 2 * STEPS and all({"distill", "teacher_acc", "acc"} <= record.keys() for record in records)
    first, later = (load_file(tmp_path / "broken" / f"transformer_{epoch}.pth", "test") for epoch in (1, 2))
    assert first.keys() == later.keys() and not any("distill" in name or "projection" in name for name in later)


def test_a_run_does_not_go_on_with_another_lesson_and_its_model_needs_no_teacher(student, tmp_path, capsys):
    command = [*student, "OUTPUT_DIR", str(tmp_path / "run"), "SOLVER.MAX_EPOCHS", "1"]
    assert train.main(command) == 0
    assert run(train.main, *command, "DISTILL.T", 2.0) == 2
    assert "trained with other settings: DISTILL.T 4.0 -> 2.0" in capsys.readouterr().err
    alone = load_trained(tmp_path / "run" / "transformer_1.pth", opts=("DISTILL.TEACHER_RUN", "gone"))
    assert alone.cfg.DISTILL.W_FEAT == 1.0 and sum(alone.model.branches.values()) == 16


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("DISTILL.TEACHER_RUN", "nowhere"), "DISTILL.TEACHER_RUN: run folder 'nowhere': no such folder"),
        (
            ("SOLVER.EVAL_PERIOD", 1, "DATASETS.VAL_IDS", 0.25, "SOLVER.IMS_PER_BATCH", 12),
            "the classes are others. Teach with the same DATASETS.NAMES and VAL_IDS",
        ),
        (("DISTILL.TEACHER_RUN", "irra"), "is of MODEL.NAME irra, a teacher is a model of images alone"),
    ],
)
def test_a_mistake_with_a_teacher_is_one_line(student, tmp_path, monkeypatch, capsys, opts, words):
    monkeypatch.chdir(tmp_path)
    if opts[1] == "irra":
        write_irra_run(tmp_path / "irra")
    assert run(train.main, *student, *opts, "SOLVER.MAX_EPOCHS", 1) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and words in error
