"""The table of the branches of an embedding: what each of them finds alone, and what is found without it."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.atomic import write_text_atomic
from utils.errors import DataError

DECIMALS = 6
MOST = 4096  # rows that are read: no embedding has as many branches


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
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(BranchScore._fields)
    for one in scores:
        writer.writerow([*one[:2], *("" if np.isnan(value) else f"{value:.{DECIMALS}f}" for value in one[2:])])
    write_text_atomic(path, stream.getvalue())


def read_branches(path: Path) -> list[BranchScore]:
    """Return what `write_branches` wrote; DataError naming the file (and line) that is not such a table."""
    with open(path, encoding="utf-8", newline="") as stream:
        header, *lines = csv.reader(stream) if path.stat().st_size else [[]]
    if tuple(header) != BranchScore._fields or len(lines) > MOST:
        fields = ",".join(BranchScore._fields)
        raise DataError(f"'{path}' is no table of branches: no {fields} in its first line, or too long; test again")
    return [_parse(cells, path, number) for number, cells in enumerate(lines, start=2)]


def _parse(cells: list[str], path: Path, number: int) -> BranchScore:
    try:
        branch, width, *values = cells
        return BranchScore(branch, int(width), *(float(value) if value else float("nan") for value in values))
    except (TypeError, ValueError) as error:
        raise DataError(f"'{path}' line {number} is no branch: {','.join(cells)}; test again") from error
