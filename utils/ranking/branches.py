"""The table of the branches of an embedding: what each of them finds alone, and what is found without it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from utils.typed_csv import read_rows, write_rows


class BranchScore(NamedTuple):
    """One branch of an embedding; figures are fractions in 0..1, NaN where there is nothing to search with."""

    branch: str
    width: int  # values of the embedding
    mAP_alone: float
    R1_alone: float
    mAP_without: float  # of the embedding without this branch
    R1_without: float


def write_branches(path: Path, scores: Sequence[BranchScore]) -> None:
    """Write a CSV of the fields of `BranchScore`; fractions have 6 decimals, NaN is an empty cell; never half there."""
    write_rows(path, BranchScore, scores)


def read_branches(path: Path) -> list[BranchScore]:
    """Return what `write_branches` wrote; DataError naming the file (and line) that is not such a table."""
    return read_rows(path, BranchScore, "branches")
