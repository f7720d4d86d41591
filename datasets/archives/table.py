"""A user's own images, described by a CSV file with the columns path, pid, split and, if known, camid and viewid."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple

from configs.keys.irra import NAME as IRRA
from datasets.bases import SPLITS, ReIDDataset, Sample
from datasets.labels import MAX_LABEL, UNKNOWN_VIEW, is_no_label, junk_notes, number_identities, whole_number
from utils.errors import DataError
from utils.paths import user_path, what_is_at
from utils.text_files import read_text

REQUIRED = ("path", "pid", "split")
OPTIONAL = ("camid", "viewid")
CAPTION = "caption"  # a column that captioned systems alone need
MODALITY = "modality"  # a column that systems of several modalities alone need
FOR_CAPTIONS = f", or read its captions with MODEL.NAME {IRRA}"
HEADER = f"{','.join(REQUIRED)}[,{'][,'.join(OPTIONAL)}]"
NEARLY = {"cam": "camid", "view": "viewid"}  # how a column starts that was meant to be the other


class Row(NamedTuple):
    """One line of the table, checked; the identity is still text, the path as written."""

    where: str
    path: str
    pid: str
    camid: int
    viewid: int
    split: str
    caption: str  # '' where the table has none
    modality: str = ""  # as written


def load_table(csv_path: str | Path, root_dir: str | Path) -> ReIDDataset:
    """Load the images that a CSV file with a header line lists.

    path: absolute, or relative to the CSV's folder or to `root_dir`. pid: whole numbers stay as they are; as soon as
    one is text, all are numbered 0, 1, ... in sorted order, the same over all splits; rows without an identity (-1,
    nan, None, empty, ...) are junk and left out. camid: whole number from 0; without the column query is camera 0 and
    gallery camera 1, so that no match is removed. viewid: whole number from 0, empty or -1 = unknown, without the
    column 0. split: train, query or gallery; without train rows the table serves tests alone.
    Raises DataError with file and line for a row that does not fit, or that contradicts an earlier one, and for images
    that do not exist.
    """
    csv_path = user_path(csv_path, "DATASETS.TABLE", DataError)
    columns, rows, junk = read_rows(csv_path, SPLITS)
    absent = [split for split in SPLITS[1:] if all(row.split != split for row in rows)]
    if absent:
        raise DataError(
            f"{csv_path}: no row has split {' or '.join(absent)}{left_out(junk)}; a table needs rows with "
            f"{', '.join(SPLITS[1:])}, for training also {SPLITS[0]}"
        )
    pids = identities_of(rows)
    paths = resolve_paths(rows, (csv_path.parent, user_path(root_dir, "DATASETS.ROOT_DIR", DataError)))
    has_cameras = "camid" in columns
    check_identities(rows, paths)
    _check_repeats(rows, paths)
    samples = {split: [] for split in SPLITS}
    for path, row in zip(paths, rows, strict=True):
        samples[row.split].append(Sample(path, pids[row.pid], row.camid, row.viewid))
    return ReIDDataset(
        name="table",
        **{split: sorted(samples[split]) for split in SPLITS},
        notes=tuple(_notes(csv_path, samples, junk, has_cameras)),
        has_cameras=has_cameras,
        no_train="" if samples["train"] else f"no row of '{csv_path}' has split train{left_out(junk)}",
    )


def left_out(junk: Counter[tuple[str, str]]) -> str:
    """Return, for an error about rows that are missing, how many rows were junk; '' for none."""
    return f" ({junk.total():,} rows have no identity)" if junk else ""


def _notes(
    csv_path: Path, samples: Mapping[str, Sequence[Sample]], junk: Mapping[tuple[str, str], int], has_cameras: bool
) -> Iterator[str]:
    """Yield what a reader of the results has to know."""
    yield from table_junk_notes(SPLITS, junk)
    if not has_cameras:
        yield f"table '{csv_path}': no camid column, so the camera filter is off: every match in the gallery counts"
    cameras = {sample.path: sample.camid for sample in samples["gallery"]}
    both = [sample.path for sample in samples["query"] if cameras.get(sample.path, sample.camid) != sample.camid]
    if both:
        yield (
            f"table '{csv_path}': {len(both):,} query images stand in the gallery too under another camera, e.g. "
            f"'{both[0]}', so each finds itself and the scores are too high; take them out of the gallery"
        )
    trained, tested = ({s.pid for split in part for s in samples[split]} for part in (SPLITS[:1], SPLITS[1:]))
    yield from shared_identity_notes(csv_path, trained, tested)


def table_junk_notes(splits: Sequence[str], junk: Mapping[tuple[str, str], int]) -> Iterator[str]:
    """Yield a note on the rows without an identity of each split that has some."""
    for split in splits:
        counts = {pid: count for (of_split, pid), count in junk.items() if of_split == split}
        yield from junk_notes(f"table {split}", Counter(counts))


def shared_identity_notes(csv_path: Path, trained: Set[int], tested: Set[int]) -> Iterator[str]:
    """Yield a note where identities are both trained and tested on."""
    if trained & tested:
        yield (
            f"table '{csv_path}': {len(trained & tested):,} of the {len(tested):,} identities in query and gallery are "
            "trained on too, so the scores say little about new identities"
        )


def read_rows(
    csv_path: Path, splits: Sequence[str], more: Sequence[str] = ()
) -> tuple[list[str], list[Row], Counter[tuple[str, str]]]:
    """Return the column names, the checked rows, and the rows without an identity by split and what stood there.

    Besides the usual columns the table needs those of `more`; a row's split is one of `splits`.
    """
    if not csv_path.exists():
        columns = ",".join((HEADER, *more))
        raise DataError(f"DATASETS.TABLE: no file '{csv_path}'; give the path of a CSV with the columns {columns}")
    lines = fields_of_lines(csv_path, read_text(csv_path, "DATASETS.TABLE"))
    where, names = next(lines, (f"{csv_path}:1", []))
    columns = _check_header(where, names, more)
    rows: list[Row] = []
    junk: Counter[tuple[str, str]] = Counter()
    for where, fields in lines:
        if len(fields) != len(columns):
            raise DataError(f"{where}: has not as many fields as the header; quote values that hold a comma")
        texts = dict(zip(columns, fields, strict=True))
        split = texts["split"].casefold()
        if split not in splits:
            unread = CAPTION in columns and CAPTION not in more
            raise DataError(
                f"{where}: split '{texts['split']}' is unknown; use {', '.join(splits)}{FOR_CAPTIONS * unread}"
            )
        if is_no_label(texts["pid"]):
            junk[split, texts["pid"]] += 1
        else:
            rows.append(_check_row(texts, split, where, texts[MODALITY] if MODALITY in more else ""))
    return columns, rows, junk


def fields_of_lines(csv_path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield ("file:line", fields without outer spaces) of every line that is not blank."""
    reader = csv.reader(io.StringIO(f"{text}\n", newline=""), skipinitialspace=True)
    start = 1
    try:
        for fields in reader:
            where, start = f"{csv_path}:{start}", reader.line_num + 1
            if any("\n" in field or "\r" in field for field in fields):
                raise DataError(f"{where}: a quoted value holds a line break, or its quote is never closed; correct it")
            if len(fields) > 1 or any(field.strip() for field in fields):
                yield where, [field.strip() for field in fields]
    except csv.Error as error:
        raise DataError(f"{csv_path}:{start}: is no line of a CSV ({error}); is a quote never closed?") from error


def _check_header(where: str, names: Sequence[str], more: Sequence[str]) -> list[str]:
    """Return the names of the columns in lower case; DataError where one is missing, doubled or nearly known."""
    columns = [name.casefold() for name in names]
    missing = [column for column in (*REQUIRED, *more) if column not in columns]
    if missing:
        raise DataError(
            f"{where}: column {', '.join(missing)} is missing; the first line must name {','.join((HEADER, *more))}, "
            f"separated by commas, got '{','.join(names)}'"
        )
    doubled = [column for column in (*REQUIRED, *OPTIONAL, *more) if columns.count(column) > 1]
    if doubled:
        raise DataError(f"{where}: column {', '.join(doubled)} stands there twice; remove one")
    for column in columns:
        for start, meant in NEARLY.items():
            if column.startswith(start) and column != meant and meant not in columns:
                raise DataError(f"{where}: column '{column}' is unknown; call it {meant} to use it, or remove it")
    return columns


def _check_row(texts: Mapping[str, str], split: str, where: str, modality: str) -> Row:
    if not texts["path"] and not modality:  # a caption by itself has none
        raise DataError(f"{where}: path is empty; fill it in or remove the row")
    if os.path.basename(texts["path"]).startswith("._"):
        raise DataError(f"{where}: '{texts['path']}' is what macOS leaves beside an image; remove the row")
    camid = int(split == "gallery")
    if "camid" in texts:
        camid = whole_number(texts["camid"], MAX_LABEL, f"{where}: camid")
    if "viewid" not in texts:
        viewid = 0
    elif is_no_label(texts["viewid"]):
        viewid = UNKNOWN_VIEW
    else:
        viewid = whole_number(texts["viewid"], MAX_LABEL, f"{where}: viewid")
    return Row(where, texts["path"], texts["pid"], camid, viewid, split, texts.get(CAPTION, ""), modality)


def identities_of(rows: Sequence[Row]) -> dict[str, int]:
    """Return {identity as text: pid}; errors as `number_identities`."""
    first: dict[str, str] = {}
    for row in rows:
        first.setdefault(row.pid, row.where)
    return number_identities(first)


def check_identities(rows: Sequence[Row], paths: Sequence[str]) -> None:
    """Raise DataError where an image is listed under two identities."""
    first: dict[str, Row] = {}
    for row, path in zip(rows, paths, strict=True):
        other = first.setdefault(os.path.abspath(path), row)
        if row.pid != other.pid:
            raise DataError(
                f"{row.where}: image '{row.path}' has pid '{row.pid}', but '{other.pid}' in {other.where}; correct one "
                "of them"
            )


def _check_repeats(rows: Sequence[Row], paths: Sequence[str]) -> None:
    """Raise DataError where an image is listed twice in a split."""
    first: dict[tuple[str, str], Row] = {}
    for row, path in zip(rows, paths, strict=True):
        other = first.setdefault((os.path.abspath(path), row.split), row)
        if other is not row:
            raise DataError(
                f"{row.where}: image '{row.path}' stands in split {row.split} twice, see {other.where}; remove one of "
                f"the rows{FOR_CAPTIONS * bool(row.caption)}"
            )


def resolve_paths(rows: Sequence[Row], folders: Sequence[Path]) -> list[str]:
    """Return the path of each row in the first folder that has it; one DataError counts those that none has."""
    found: dict[str, str] = {}  # an image of several rows is looked for once
    for row in rows:
        if row.path not in found:
            found[row.path] = next((path for path in _candidates(row, folders) if os.path.isfile(path)), "")
    missing = [row for row in rows if not found[row.path]]
    if missing:
        first = missing[0]
        kinds = [what_is_at(Path(path)) for path in _candidates(first, folders) if os.path.exists(path)]
        if kinds:
            raise DataError(f"{first.where}: '{first.path}' is {kinds[0]}, expected an image; correct the path column")
        places = " and ".join(f"'{os.path.abspath(folder)}'" for folder in folders)
        raise DataError(
            f"{first.where}: image '{first.path}' does not exist ({len(missing):,} of {len(rows):,} rows), searched "
            f"{places}; correct the path column"
        )
    return [found[row.path] for row in rows]


def _candidates(row: Row, folders: Sequence[Path]) -> list[str]:
    return [os.path.join(folder, row.path) for folder in folders]
