"""A user's own images with captions: the CSV of `datasets.archives.table` with one more column, caption."""

import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from datasets.archives.annotation import Entry
from datasets.archives.table import (
    CAPTION,
    Row,
    check_identities,
    identities_of,
    left_out,
    read_rows,
    resolve_paths,
    shared_identity_notes,
    table_junk_notes,
)
from datasets.captions import CaptionDataset, caption_test, training_pairs
from utils.errors import DataError
from utils.paths import user_path

SPLITS = ("train", "val", "test", "query", "gallery")
SEARCHED, ASKED = ("test", "gallery"), ("test", "query")  # whose images are searched, by whose captions
UNCAPTIONED = ("gallery",)  # rows of these splits need no caption, and have none that anybody reads


def load_caption_table(csv_path: str | Path, root_dir: str | Path) -> CaptionDataset:
    """Load the images and captions that a CSV file with a header line lists: one row for each caption of an image.

    path and pid as in `load_table`; camid and viewid are checked and not used. split: train; val; test, where the
    images are the gallery and the captions the queries; or query, whose captions alone are queries, and gallery, whose
    images alone are searched. caption: any text, needed but in the gallery. Raises DataError with file and line for a
    row that does not fit, or that contradicts an earlier one, and for images that do not exist.
    """
    csv_path = user_path(csv_path, "DATASETS.TABLE", DataError)
    _, rows, junk = read_rows(csv_path, SPLITS, (CAPTION,))
    _check_captions(rows)
    present = {row.split for row in rows}
    for kind, splits in (("images", SEARCHED), ("captions", ASKED)):
        if not present.intersection(splits):
            raise DataError(
                f"{csv_path}: no row has split {' or '.join(splits)}, so there are no {kind} to test on"
                f"{left_out(junk)}; a table needs rows with test, or with query and gallery, for training also train"
            )
    paths = resolve_paths(rows, (csv_path.parent, user_path(root_dir, "DATASETS.ROOT_DIR", DataError)))
    check_identities(rows, paths)
    pids = identities_of(rows)
    labelled = [(row, path, pids[row.pid]) for row, path in zip(rows, paths, strict=True)]
    train, val = _entries(labelled, ("train",)), _entries(labelled, ("val",))
    return CaptionDataset(
        name="table",
        train=training_pairs(train),
        val=caption_test(val, val) if val else None,
        test=caption_test(_entries(labelled, SEARCHED), _entries(labelled, ASKED)),
        notes=tuple(_notes(csv_path, labelled, junk)),
        no_train="" if train else f"no row of '{csv_path}' has split train{left_out(junk)}",
    )


def _check_captions(rows: Iterable[Row]) -> None:
    """Raise DataError for the first row without the caption that its split needs."""
    empty = next((row for row in rows if not row.caption and row.split not in UNCAPTIONED), None)
    if empty:
        raise DataError(
            f"{empty.where}: caption of '{empty.path}' is empty; fill it in, remove the row, or make its split "
            f"{' or '.join(UNCAPTIONED)}"
        )


def _entries(labelled: Iterable[tuple[Row, str, int]], splits: Container[str]) -> list[Entry]:
    """Return the images in rows of `splits`, each once, in the order of their first rows, with all captions there."""
    entries: dict[str, Entry] = {}
    for row, path, pid in labelled:
        if row.split in splits:
            entry = entries.setdefault(os.path.abspath(path), Entry(path, pid, [], row.split))
            if row.split not in UNCAPTIONED:
                entry.captions.append(row.caption)
    return list(entries.values())


def _notes(csv_path: Path, labelled: list[tuple[Row, str, int]], junk: Counter[tuple[str, str]]) -> Iterator[str]:
    yield from table_junk_notes(SPLITS, junk)
    trained = {pid for row, _, pid in labelled if row.split == "train"}
    tested = {pid for row, _, pid in labelled if row.split in (*SEARCHED, *ASKED)}
    yield from shared_identity_notes(csv_path, trained, tested)
