"""Two processes train several modalities as one does: the losses of each step, the weights, the figures of all sets."""

import os
from pathlib import Path

import pytest
import torch

import train
from tests.clip_reid_runs import records, weights_of, words
from tests.multimodal_trainings import CALM, write_multimodal_yaml
from tests.ranks import free_port, run_on_ranks
from tests.tolerance import bounds, rounding

TERMS = 8000  # numbers added up one after the other
# plain SGD: Adam would blow the rounding noise of vanishing gradients up to whole steps
OPTS = (*CALM, "SOLVER.OPTIMIZER_NAME", "SGD", "SOLVER.BASE_LR", 0.01)


def train_run(command: list[str], port: int) -> None:
    os.environ["MASTER_PORT"] = str(port)
    train.main(command)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The run folders of a training by one process, and by two."""
    work = tmp_path_factory.mktemp("multimodal_ranks")
    config = write_multimodal_yaml(work)
    train.main(words(config, work / "one", *OPTS))
    run_on_ranks(train_run, words(config, work / "two", *OPTS, "MODEL.DIST_TRAIN", True), free_port())
    return work / "one", work / "two"


def test_each_step_of_two_processes_has_the_losses_of_one(folders):
    one, two = (records(folder, "train") for folder in folders)
    assert len(one) == len(two) >= 4
    for expected, got in zip(one, two, strict=True):
        numbers = {name: value for name, value in expected.items() if not isinstance(value, str)}
        assert {name: got[name] for name in numbers} == pytest.approx(numbers, rel=rounding(TERMS), abs=rounding(TERMS))
    assert {"id", "norm", "acc", "query_acc"} <= one[0].keys() and "align" not in one[0]  # it starts in epoch 2
    assert one[-1]["align"] > 0


def test_two_processes_learn_the_weights_of_one(folders):
    one, two = (weights_of(folder / "multimodal_2.pth") for folder in folders)
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, **bounds(TERMS), msg=lambda text, name=name: f"{name}: {text}")
    first = weights_of(folders[0] / "multimodal_1.pth")
    moved = [name for name, weight in one.items() if not torch.equal(weight, first[name])]
    assert any("lora_b" in name for name in moved) and "bottleneck.running_mean" in moved


def test_two_processes_evaluate_as_one(folders):
    one, two = (records(folder, "eval") for folder in folders)
    assert [record["epoch"] for record in one] == [1, 2] and len(two) == 2
    for expected, got in zip(one, two, strict=True):  # figures are equal: no two images are near-ties
        numbers = {name: value for name, value in expected.items() if isinstance(value, float)}
        assert {"mAP", "Rank-1"} <= numbers.keys()
        assert {name: got[name] for name in numbers} == pytest.approx(numbers)
