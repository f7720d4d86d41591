"""A user's own images, described by a CSV file with the columns path, pid, split and, if known, camid and viewid."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.bases import SPLITS, ReIDDataset, Sample
from utils.errors import DataError

REQUIRED = ("path", "pid", "split")
OPTIONAL = ("camid", "viewid")
UNKNOWN_VIEW = -1
MAX_LABEL = 9999  # of camid and viewid: each up to the largest gets an embedding


class Row(NamedTuple):
    """One line of the table, checked; the identity is still text, the path as written."""

    where: str
    path: str
    pid: str
    camid: int
    viewid: int
    split: str


def load_table(csv_path: str | Path, root_dir: str | Path) -> ReIDDataset:
    """Load the images that a CSV file with a header line lists.

    path: absolute, or relative to the CSV's folder or to `root_dir`. pid: whole numbers stay as they are; as soon as
    one is text, all are numbered 0, 1, ... in sorted order, the same over all splits. camid: whole number from 0;
    without the column query is camera 0 and gallery camera 1, so that no match is removed. viewid: whole number from
    0, empty or -1 = unknown, without the column 0. split: train, query or gallery.
    Raises DataError with file and line for a row that does not fit, and for images that do not exist.
    """
    csv_path = Path(csv_path).expanduser()
    columns, rows = _read_rows(csv_path)
    absent = [split for split in SPLITS if all(row.split != split for row in rows)]
    if absent:
        raise DataError(
            f"{csv_path}: no row has split {' or '.join(absent)}; a table needs rows with {', '.join(SPLITS)}"
        )
    pids = number_identities({row.pid for row in rows})
    paths = _resolve_paths(rows, (csv_path.parent, Path(root_dir).expanduser()))
    samples = {split: [] for split in SPLITS}
    for path, row in zip(paths, rows, strict=True):
        samples[row.split].append(Sample(path, pids[row.pid], row.camid, row.viewid))
    has_cameras = "camid" in columns
    no_cameras = f"table '{csv_path}': no camid column, so the camera filter is off: every match in the gallery counts"
    return ReIDDataset(
        name="table",
        **{split: sorted(samples[split]) for split in SPLITS},
        notes=() if has_cameras else (no_cameras,),
        has_cameras=has_cameras,
    )


def number_identities(names: set[str]) -> dict[str, int]:
    """Return {identity as text: pid}: its own number when all are whole numbers, else its place in sorted order."""
    if all(name.isdecimal() for name in names):
        return {name: int(name) for name in names}
    return {name: place for place, name in enumerate(sorted(names))}


def _read_rows(csv_path: Path) -> tuple[list[str], list[Row]]:
    """Return the column names and the checked rows."""
    header = f"{','.join(REQUIRED)}[,{'][,'.join(OPTIONAL)}]"
    if not csv_path.is_file():
        raise DataError(f"DATASETS.TABLE: no file '{csv_path}'; give the path of a CSV with the columns {header}")
    try:
        with csv_path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [column.strip() for column in reader.fieldnames or ()]
            missing = [column for column in REQUIRED if column not in columns]
            if missing:
                raise DataError(
                    f"{csv_path}:1: column {', '.join(missing)} is missing; the first line must name {header}, "
                    f"separated by commas, got '{','.join(columns)}'"
                )
            reader.fieldnames = columns
            return columns, [_check_row(fields, f"{csv_path}:{reader.line_num}") for fields in reader]
    except UnicodeDecodeError as error:
        raise DataError(f"{csv_path}: not UTF-8 text ({error.reason}); save the table as UTF-8") from error


def _check_row(fields: dict[str | None, str | None], where: str) -> Row:
    if None in fields or None in fields.values():
        raise DataError(f"{where}: has not as many fields as the header; quote values that hold a comma")
    texts = {column: text.strip() for column, text in fields.items()}
    for column in ("path", "pid"):
        if not texts[column]:
            raise DataError(f"{where}: {column} is empty; fill it in or remove the row")
    split = texts["split"]
    if split not in SPLITS:
        raise DataError(f"{where}: split '{split}' is unknown; use {', '.join(SPLITS)}")
    camid = _whole_number(texts, "camid", where) if "camid" in texts else int(split == "gallery")
    if "viewid" not in texts:
        viewid = 0
    elif texts["viewid"] in ("", str(UNKNOWN_VIEW)):
        viewid = UNKNOWN_VIEW
    else:
        viewid = _whole_number(texts, "viewid", where)
    return Row(where, texts["path"], texts["pid"], camid, viewid, split)


def _whole_number(texts: dict[str, str], column: str, where: str) -> int:
    if not texts[column].isdecimal():
        raise DataError(f"{where}: {column} '{texts[column]}' is not a whole number from 0; correct it")
    if int(texts[column]) > MAX_LABEL:
        raise DataError(
            f"{where}: {column} {texts[column]} exceeds {MAX_LABEL}; number cameras and viewpoints from 0 without gaps"
        )
    return int(texts[column])


def _resolve_paths(rows: Sequence[Row], folders: Sequence[Path]) -> list[str]:
    """Return the path of each row in the first folder that has it; one DataError counts those that none has."""
    paths = []
    missing = []
    for row in rows:
        candidates = [os.path.join(folder, row.path) for folder in folders]
        hit = next((path for path in candidates if os.path.isfile(path)), "")
        paths.append(hit)
        if not hit:
            missing.append(row)
    if missing:
        first = missing[0]
        places = " and ".join(f"'{os.path.abspath(folder)}'" for folder in folders)
        raise DataError(
            f"{first.where}: image '{first.path}' does not exist ({len(missing):,} of {len(rows):,} rows), searched "
            f"{places}; correct the path column"
        )
    return paths
