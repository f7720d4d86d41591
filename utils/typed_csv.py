"""Tables of small records as CSV files: written whole, and read back or refused in one line."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_type_hints

import numpy as np

from utils.atomic import write_text_atomic
from utils.errors import DataError

DECIMALS = 6
MOST = 4096  # rows that are read: no test makes as many

Row = TypeVar("Row", bound=NamedTuple)


def write_rows(path: Path, kind: type[Row], rows: Sequence[Row]) -> None:
    """Write a CSV of the fields (str, int, float) of a NamedTuple; floats have 6 decimals, NaN is an empty cell."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(kind._fields)
    writer.writerows([_cell(value) for value in row] for row in rows)
    write_text_atomic(path, stream.getvalue())


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return "" if np.isnan(value) else f"{value:.{DECIMALS}f}"


def read_rows(path: Path, kind: type[Row], what: str) -> list[Row]:
    """Return what `write_rows` wrote; `what` are the rows.

    Raises DataError naming the file (and line) that is not such a table, OSError where it cannot be read.
    """
    with open(path, encoding="utf-8", newline="") as stream:
        header, *lines = csv.reader(stream) if path.stat().st_size else [[]]
    if tuple(header) != kind._fields or len(lines) > MOST:
        fields = ",".join(kind._fields)
        raise DataError(f"'{path}' is no table of {what}: no {fields} in its first line, or too long; test again")
    types = [*get_type_hints(kind).values()]
    rows = []
    for number, cells in enumerate(lines, start=2):
        try:
            rows.append(kind(*(_value(cell, of_type) for cell, of_type in zip(cells, types, strict=True))))
        except ValueError as error:
            said = f"'{path}' line {number} is no row of {what}: {','.join(cells)}"
            raise DataError(f"{said}; test again") from error
    return rows


def _value(cell: str, of_type: type) -> Any:
    return float("nan") if of_type is float and not cell else of_type(cell)
