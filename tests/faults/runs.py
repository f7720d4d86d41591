"""A tiny training and its test as commands, and what two of them must have in common to the last bit."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from processor.step.clock import READINGS
from tests.commands import args_for
from utils.checkpoint import load_file
from utils.run_folder import read_metrics

EPOCHS = 2
OPTS = ("SOLVER.MAX_EPOCHS", EPOCHS, "SOLVER.EVAL_PERIOD", 1)
# where and when it ran
OF_ONE_TEST = ("environment", "command", "config", "weight", "run", "time", "config_file", "crc32")


class Places(NamedTuple):
    """The folders of an experiment."""

    config: Path
    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def test(self) -> Path:
        return self.folder / "test"

    @property
    def training(self) -> list[str]:
        """The arguments of train.py, which keeps the decoded images in a cache."""
        return args_for(self.config, *OPTS, "OUTPUT_DIR", self.run, "DATALOADER.CACHE", self.folder / "cache")

    def testing(self, weight: Path) -> list[str]:
        """The arguments of test.py."""
        return args_for(self.config, "TEST.WEIGHT", weight, "OUTPUT_DIR", self.test, "TEST.REPORT", "False")


def same_training(
    one: Path, two: Path, prefix: str = "transformer", epochs: Sequence[int] = range(1, EPOCHS + 1)
) -> bool:
    """Return whether two run folders hold the same weights, optimizer, random states and records, and nothing half.

    `prefix` begins the names of the checkpoints, which are those of `epochs`.
    """
    for epoch in epochs:
        if not equal(*(load_file(folder / f"{prefix}_{epoch}.pth", "") for folder in (one, two))):
            return False
    states = [load_file(folder / "state_last.pth", "") for folder in (one, two)]
    for state in states:
        del state["config"], state["run"]  # name the folder, and the run itself
    records = [_timeless(read_metrics(folder / "metrics.jsonl")) for folder in (one, two)]
    return equal(*states) and records[0] == records[1] and not left_over(two)


def same_test(one: Path, two: Path) -> bool:
    """Return whether two test folders hold the same figures and the same table of queries, and nothing half."""
    figures = [json.loads((folder / "summary.json").read_text()) for folder in (one, two)]
    for content in figures:
        for key in [key for key in content if key in OF_ONE_TEST or key.endswith("sha256")]:
            del content[key]
    tables = [dict(np.load(folder / "per_query.npz", allow_pickle=False)) for folder in (one, two)]
    same = tables[0].keys() == tables[1].keys()
    same = same and all(np.array_equal(tables[0][name], tables[1][name], equal_nan=False) for name in tables[0])
    return same and figures[0] == figures[1] and not left_over(two)


def left_over(folder: Path) -> list[str]:
    """Return the temporary files below a folder."""
    return [str(path) for path in folder.rglob("*") if ".tmp" in path.name or path.name.startswith(".write_test")]


def _timeless(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key not in READINGS} for record in records]


def equal(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(equal, one, two))
    return one == two
