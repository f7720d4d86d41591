"""A training by one process, and the same by two: what they record, learn and find."""

import os
from pathlib import Path

import pytest
import torch

import train
from tests.clip_reid_runs import records, weights_of, words
from tests.ranks import free_port, run_on_ranks
from tests.tolerance import bounds, rounding

TERMS = 8000  # numbers added up one after the other: in 8 steps some hundred each

Folders = tuple[Path, Path]  # of the run by one process, and of that by two


def train_runs(commands: list[list[str]], ports: list[int]) -> None:
    """Train one after the other, each by its own port."""
    for command, port in zip(commands, ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        train.main(command)


def train_both(config: Path, work: Path, *opts: object) -> Folders:
    """Train into <work>/one and <work>/two."""
    train.main(words(config, work / "one", *opts))
    run_on_ranks(train_runs, [words(config, work / "two", *opts, "MODEL.DIST_TRAIN", True)], [free_port()])
    return work / "one", work / "two"


def assert_same_losses(folders: Folders) -> list[dict]:
    """Assert that each step of two has the losses of one, and return the records of one."""
    one, two = (records(folder, "train") for folder in folders)
    assert len(one) == len(two)
    for expected, got in zip(one, two, strict=True):
        numbers = {name: value for name, value in expected.items() if not isinstance(value, str)}
        assert {name: got[name] for name in numbers} == pytest.approx(numbers, rel=rounding(TERMS), abs=rounding(TERMS))
        assert got.keys() == expected.keys()
    return one


def assert_same_weights(one: Path, two: Path) -> dict[str, torch.Tensor]:
    """Assert that two checkpoints are equal but for rounding, and return the weights of the first."""
    expected, got = weights_of(one), weights_of(two)
    assert expected.keys() == got.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(got[name], weight, **bounds(TERMS), msg=lambda text, name=name: f"{name}: {text}")
    return expected


def assert_same_figures(folders: Folders) -> dict[str, float]:
    """Assert that the figures of both epochs agree, and return those of the last: no two images are near-ties."""
    one, two = (records(folder, "eval") for folder in folders)
    assert [record["epoch"] for record in one] == [1, 2] and len(two) == 2
    numbers = {}
    for expected, got in zip(one, two, strict=True):
        numbers = {name: value for name, value in expected.items() if isinstance(value, float)}
        assert {name: got[name] for name in numbers} == pytest.approx(numbers)
    return numbers
