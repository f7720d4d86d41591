"""A user's own data of several modalities: the CSV of `datasets.archives.table` with columns modality and caption."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from configs.modalities import IMAGES, TEXT, VIS, modality_of
from datasets.archives.table import (
    MODALITY,
    Row,
    check_identities,
    identities_of,
    left_out,
    read_rows,
    resolve_paths,
    shared_identity_notes,
    table_junk_notes,
)
from datasets.multimodal import Item, MultiModalDataset, Record
from utils.errors import DataError
from utils.paths import user_path

SPLITS = ("train", "test", "query", "gallery")
SEARCHED, ASKED = ("test", "gallery"), ("test", "query")  # whose RGB images are searched, with whose other items


def load_modality_table(csv_path: str | Path, root_dir: str | Path) -> MultiModalDataset:
    """Load the images and captions that a CSV file with a header line lists.

    path, pid and split as in `load_table`, splits are train; test, where RGB images are searched with all else; or
    query, whose items are searched with alone, and gallery, whose RGB images are searched. modality: vis, nir, sk, cp,
    or another name of theirs; text is a caption by itself, without a path, to search with. caption: that of an RGB
    image, or of a row of text. Queries are drawn from the items of a person. viewid is checked and not used. Raises
    DataError with file and line for a row that does not fit, or contradicts an earlier one, and for absent images.
    """
    csv_path = user_path(csv_path, "DATASETS.TABLE", DataError)
    _, rows, junk = read_rows(csv_path, SPLITS, (MODALITY,))
    named = [row._replace(modality=_check(row)) for row in rows]
    images = [row for row in named if row.modality != TEXT]
    folders = (csv_path.parent, user_path(root_dir, "DATASETS.ROOT_DIR", DataError))
    paths = resolve_paths(images, folders)
    check_identities(images, paths)
    _check_modalities(images, paths)
    path_of = dict(zip((row.where for row in images), paths, strict=True))
    pids = identities_of(named)
    train = _records([row for row in named if row.split == "train"], path_of, pids)
    gallery = [(path_of[row.where], pids[row.pid]) for row in named if row.split in SEARCHED and row.modality == VIS]
    pool = [item for row in named if row.split in ASKED for item in _items(row, path_of, pids)]
    if bool(gallery) != bool(pool) or not (train or gallery):
        lacks = "RGB images to search (vis in test or gallery)" if pool else "anything to search with (test or query)"
        raise DataError(f"{csv_path}: no row is {lacks}{left_out(junk)}; add some, or leave tests out altogether")
    return MultiModalDataset(
        name="table",
        train=train,
        gallery=gallery,
        pool=pool,
        notes=tuple(_notes(csv_path, named, pids, junk)),
        no_train="" if train else f"no row of '{csv_path}' has split train and modality {VIS}{left_out(junk)}",
    )


def _check(row: Row) -> str:
    """Return the modality of a row; DataError where that, its path and its caption do not go together."""
    try:
        modality = modality_of(row.modality)
    except ValueError as error:
        raise DataError(f"{row.where}: modality: {error}") from error
    if modality == TEXT and (row.path or not row.caption):
        raise DataError(
            f"{row.where}: a row of {TEXT} has a caption and no path; the caption of an RGB image stands in that "
            "image's row"
        )
    if modality == TEXT and row.split == "train":
        raise DataError(
            f"{row.where}: a row of {TEXT} cannot be trained on, for no image belongs to it; write the caption in the "
            f"row of its RGB image, modality {VIS}"
        )
    if modality != TEXT and not row.path:
        raise DataError(f"{row.where}: path is empty; fill it in or remove the row")
    if modality not in (VIS, TEXT) and row.caption:
        raise DataError(f"{row.where}: a caption stands at an image of {modality}; write it in the row of an RGB image")
    if modality != VIS and row.split == "gallery":
        raise DataError(
            f"{row.where}: a row of split gallery is an RGB image, this one is {modality}; make it query or test"
        )
    return modality


def _check_modalities(rows: Sequence[Row], paths: Sequence[str]) -> None:
    """Raise DataError where an image is listed under two modalities, or twice without another caption."""
    first: dict[str, Row] = {}
    seen: dict[tuple[str, str, str], Row] = {}
    for row, path in zip(rows, paths, strict=True):
        other = first.setdefault(path, row)
        if other.modality != row.modality:
            raise DataError(
                f"{row.where}: image '{row.path}' is {row.modality}, but {other.modality} in {other.where}; correct one"
            )
        other = seen.setdefault((path, row.split, row.caption), row)
        if other is not row:
            raise DataError(
                f"{row.where}: image '{row.path}' stands in split {row.split} twice, see {other.where}; remove one of "
                "the rows"
            )


def _records(rows: Sequence[Row], path_of: Mapping[str, str], pids: Mapping[str, int]) -> list[Record]:
    others: dict[str, dict[str, dict[str, None]]] = {}
    for row in rows:
        of_person = others.setdefault(row.pid, {name: {} for name in IMAGES if name != VIS})
        if row.modality != VIS:
            of_person[row.modality][path_of[row.where]] = None
    tuples = {pid: {name: tuple(paths) for name, paths in own.items()} for pid, own in others.items()}
    return [
        Record(pids[row.pid], path_of[row.where], row.caption, tuples[row.pid], row.camid)
        for row in rows
        if row.modality == VIS
    ]


def _items(row: Row, path_of: Mapping[str, str], pids: Mapping[str, int]) -> Iterator[Item]:
    """Yield what a row of a test is searched with: its image where that is not RGB, and its caption."""
    if row.modality not in (VIS, TEXT):
        yield Item(row.modality, path_of[row.where], pids[row.pid])
    if row.caption:
        yield Item(TEXT, row.caption, pids[row.pid])


def _notes(
    csv_path: Path, rows: Iterable[Row], pids: Mapping[str, int], junk: Counter[tuple[str, str]]
) -> Iterator[str]:
    yield from table_junk_notes(SPLITS, junk)
    trained, tested = (
        {pids[row.pid] for row in rows if (row.split == "train") is is_trained} for is_trained in (True, False)
    )
    yield from shared_identity_notes(csv_path, trained, tested)
    mute = [row for row in rows if row.split == "query" and row.modality == VIS and not row.caption]
    if mute:
        yield (
            f"table '{csv_path}': {len(mute):,} RGB images of split query have no caption, so nothing is searched with "
            f"them, e.g. '{mute[0].path}'; RGB images are searched in split test or gallery"
        )
    shown = {row.pid for row in rows if row.split == "train" and row.modality == VIS}
    unseen = {row.pid for row in rows if row.split == "train"} - shown
    if unseen:
        yield (
            f"table '{csv_path}': {len(unseen):,} persons of split train have no RGB image and are not trained on, "
            f"e.g. '{min(unseen)}'"
        )
