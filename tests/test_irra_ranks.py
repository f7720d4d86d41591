"""Two processes train IRRA as one does: the same losses in every step, the same weights, the same figures."""

import os
from pathlib import Path

import pytest
import torch

import train
from tests.clip_reid_runs import CALM, records, weights_of, words
from tests.irra_trainings import STEPS, write_irra_yaml
from tests.ranks import free_port, run_on_ranks
from tests.tolerance import bounds, rounding

TERMS = 8000  # numbers added up one after the other: in 8 steps some hundred each
# plain SGD: Adam would blow the rounding noise of vanishing gradients up to whole steps. In the second epoch nobody
# asks for masked words, and the processes wait for the gradients of what guesses them all the same
OPTS = (
    *CALM,
    *("SOLVER.OPTIMIZER_NAME", "SGD", "SOLVER.BASE_LR", 0.01, "LOSS.TEXT.NAMES", "sdm+itc+cmpm+id+mlm"),
    *("LOSS.PHASED.ENABLE", True, "LOSS.PHASED.BOUNDARIES", [2], "LOSS.PHASED.W_TERMS", ["mlm=const:1|const:0"]),
)
FIGURES = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10")


def train_run(command: list[str], port: int) -> None:
    os.environ["MASTER_PORT"] = str(port)
    train.main(command)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The run folders of a training by one process, and by two."""
    work = tmp_path_factory.mktemp("irra_ranks")
    config = write_irra_yaml(work)
    train.main(words(config, work / "one", *OPTS))
    run_on_ranks(train_run, words(config, work / "two", *OPTS, "MODEL.DIST_TRAIN", True), free_port())
    return work / "one", work / "two"


def test_each_step_of_two_processes_has_the_losses_of_one(folders):
    one, two = (records(folder, "train") for folder in folders)
    assert len(one) == len(two) == 2 * STEPS
    for expected, got in zip(one, two, strict=True):
        numbers = {name: value for name, value in expected.items() if not isinstance(value, str)}
        assert {name: got[name] for name in numbers} == pytest.approx(numbers, rel=rounding(TERMS), abs=rounding(TERMS))
        assert got.keys() == expected.keys()
    of_terms = {"sdm", "itc", "cmpm", "id", "acc", "text_acc"}
    assert of_terms | {"mlm", "mlm_acc"} <= one[0].keys()
    assert of_terms <= one[-1].keys() and "mlm" not in one[-1]


def test_two_processes_learn_the_weights_of_one(folders):
    one, two = (weights_of(folder / "irra_2.pth") for folder in folders)
    first = weights_of(folders[0] / "irra_1.pth")
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, **bounds(TERMS), msg=lambda text, name=name: f"{name}: {text}")
    least = 100 * rounding(TERMS) * 0.02
    assert (one["base_model.visual.proj"] - first["base_model.visual.proj"]).abs().max() > least


def test_two_processes_evaluate_as_one(folders):
    one, two = (records(folder, "eval") for folder in folders)
    assert [record["epoch"] for record in one] == [1, 2] and len(two) == 2
    for expected, got in zip(one, two, strict=True):  # figures are equal: no two images are near-ties
        assert {name: got[name] for name in FIGURES} == pytest.approx({name: expected[name] for name in FIGURES})
