"""Any set of animals whose images the CSV of the wildlife-datasets project describes: image_id, identity, path, ...

Its parts are those of a column, or drawn anew: the same in every run, not those that the project's own code draws.
No cameras. Where test animals are trained on too, the training images are the gallery, as the project tests; where none
is, each test image searches all others.
Reference: Cermak et al., WildlifeDatasets: An Open-Source Toolkit for Animal Re-Identification, WACV 2024.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.archives.common import missing_files, quoted
from datasets.archives.table import fields_of_lines
from datasets.archives.wildlife_crops import Box, box_of, make_crops
from datasets.bases import ReIDDataset, Sample
from datasets.labels import is_no_label
from datasets.test_set import same_item
from utils.errors import DataError
from utils.paths import user_path
from utils.text_files import read_text

NAME, KEY = "wildlife", "DATASETS.WILDLIFE"
REQUIRED = ("identity", "path")  # image_id is missing in the metadata of WildlifeReID-10k
SPLIT_COLUMNS = ("split", "original_split")  # the first of them that is there counts
READ = (*REQUIRED, *SPLIT_COLUMNS, "image_id", "bbox", "date")
PARTS = {"train": "train", "test": "test", "query": "query", "database": "gallery", "gallery": "gallery", "val": "val"}
DATE = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?(?![\d-])", re.ASCII)  # how one begins that sorts as text
SEED = 2024  # of the draws
TRAIN_SHARE, TEST_ID_SHARE = 0.8, 0.2  # of an animal's images, of the animals


class Row(NamedTuple):
    """One line of the CSV whose animal is known."""

    where: str
    path: str  # without ./ and the like
    identity: str
    date: str
    split: str  # of PARTS' values, "" where the CSV has no such column
    box: Box | None


def load_wildlife(csv_path: str | Path, root_dir: str | Path, rule: str = "column") -> ReIDDataset:
    """Load the images of a CSV; paths are relative to its folder or to `root_dir`. Rows without an animal are left out.

    `rule`: column = split or original_split of the CSV; closed = 80 % of each animal's images to train on; time = the
    earlier half of each animal's dates; disjoint = 80 % of the animals. Boxes are cut out once, into a folder below
    `root_dir`. Raises DataError with file and line for what does not fit, images that do not exist, an image of two
    animals without boxes, and a rule that leaves a part empty.
    """
    root, file = user_path(root_dir, "DATASETS.ROOT_DIR", DataError), user_path(csv_path, KEY, DataError)
    columns, rows, unknown = read_rows(file)
    rows, repeated = _without_repeats(rows, rule)
    parts = split_rows(rows, rule, columns, file)
    paths = _paths(rows, file, root)
    pids = {name: pid for pid, name in enumerate(sorted({row.identity for row in rows}))}
    samples: dict[str, list[Sample]] = defaultdict(list)
    for row, path, part in zip(rows, paths, parts, strict=True):
        samples[part].append(Sample(path, pids[row.identity], int(part == "gallery"), 0))
    query, gallery, protocol = _sides(samples, file)
    notes = [f"{NAME}: {unknown:,} rows without a known animal are left out"] * bool(unknown)
    notes += [f"{NAME}: {repeated:,} repeated rows are left out"] * bool(repeated)
    notes += [f"{NAME}: {len(samples['val']):,} images of split val are left out"] * bool(samples["val"])
    if rule == "closed" and {"date", "video"} & {*columns}:
        notes.append(f"{NAME}: images of one day or video lie in both parts (split closed), so the scores are too high")
    return ReIDDataset(
        name=NAME,
        train=samples["train"],
        query=query,
        gallery=gallery,
        notes=(*notes, f"{NAME}: {protocol}"),
        junk=same_item if query is gallery else None,
        searches_itself=query is gallery,
        trains_on_gallery=gallery is samples["train"],
        has_cameras=False,
        no_train="" if samples["train"] else f"no row of '{file}' is to be trained on",
    )


def read_rows(file: Path) -> tuple[list[str], list[Row], int]:
    """Return the names of the columns, the rows of known animals, and how many others there are."""
    lines = fields_of_lines(file, read_text(file, KEY))
    where, names = next(lines, (f"{file}:1", []))
    columns = [name.casefold() for name in names]
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise DataError(f"{where}: column {', '.join(missing)} is missing, got '{','.join(names)[:100]}'; correct it")
    doubled = [name for name in READ if columns.count(name) > 1]
    if doubled:
        raise DataError(f"{where}: column {', '.join(doubled)} stands there twice; remove one")
    split_column = next((name for name in SPLIT_COLUMNS if name in columns), "")
    rows, ids, unknown = [], {}, 0
    for where, fields in lines:
        if len(fields) != len(columns):
            raise DataError(f"{where}: has not as many fields as the header; quote values that hold a comma")
        texts = dict(zip(columns, fields, strict=True))
        other = ids.setdefault(texts.get("image_id", where), where)
        if other != where:
            raise DataError(f"{where}: image_id '{texts['image_id']}' stands in {other} too; correct one of them")
        if is_no_label(texts["identity"]):
            unknown += 1
            continue
        part = texts.get(split_column, "").casefold()
        box = box_of(texts.get("bbox", ""), where)
        rows.append(
            Row(where, _checked_path(texts["path"], where), texts["identity"], texts.get("date", ""), part, box)
        )
    if not rows:
        raise DataError(f"'{file}' names no image of a known animal; correct it")
    return columns, rows, unknown


def _checked_path(path: str, where: str) -> str:
    """Return a path below the data set, normalised; DataError for one that leads elsewhere, or to no file."""
    plain = os.path.normpath(path)
    if not path or plain == os.curdir or os.path.isabs(plain) or plain.split(os.sep)[0] == os.pardir:
        raise DataError(f"{where}: path '{path[:60]}' is not that of an image below the data set's folder; correct it")
    return plain


def split_rows(rows: Sequence[Row], rule: str, columns: Sequence[str], file: Path) -> list[str]:
    """Return the part of each row: train, test, query, gallery or val."""
    if rule == "column":
        if not {*SPLIT_COLUMNS} & {*columns}:
            raise DataError(
                f"'{file}' has no column {' or '.join(SPLIT_COLUMNS)}; set DATASETS.WILDLIFE_SPLIT closed, time or "
                "disjoint"
            )
        wrong = next((row for row in rows if row.split not in PARTS), None)
        if wrong is not None:
            raise DataError(f"{wrong.where}: split '{wrong.split}' is unknown; use {', '.join(PARTS)}")
        return [PARTS[row.split] for row in rows]
    lacking = next((row for row in rows if not DATE.match(row.date)), None)
    if rule == "time" and lacking is not None:
        raise DataError(
            f"{lacking.where}: date '{lacking.date}' is not year-month-day, which DATASETS.WILDLIFE_SPLIT time needs; "
            "use another split"
        )
    places: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[row.identity].append(place)
    rng = np.random.default_rng(SEED)
    if rule == "disjoint":
        names = sorted(places)
        tested = {names[place] for place in rng.permutation(len(names))[: max(1, round(TEST_ID_SHARE * len(names)))]}
        return ["test" if row.identity in tested else "train" for row in rows]
    trained: set[int] = set()
    for name in sorted(places):
        trained.update(DRAWN[rule]([(place, rows[place].date) for place in places[name]], rng))
    return ["train" if place in trained else "test" for place in range(len(rows))]


def _closed(own: Sequence[tuple[int, str]], rng: np.random.Generator) -> list[int]:
    """Return the places of 80 % of an animal's images: at least one is left, but of a single one none."""
    count = min(max(1, round(TRAIN_SHARE * len(own))), max(1, len(own) - 1))
    return [own[place][0] for place in rng.permutation(len(own))[:count]]


def _earlier(own: Sequence[tuple[int, str]], _: np.random.Generator) -> list[int]:
    """Return the places of the images of the earlier half of an animal's dates; a single date is trained on."""
    days = sorted({date[:10] for _, date in own})
    early = {*days[: (len(days) + 1) // 2]}
    return [place for place, date in own if date[:10] in early]


DRAWN: Mapping[str, Callable[[Sequence[tuple[int, str]], np.random.Generator], list[int]]] = {
    "closed": _closed,
    "time": _earlier,
}


def _sides(samples: Mapping[str, list[Sample]], file: Path) -> tuple[list[Sample], list[Sample], str]:
    """Return query, gallery and the protocol in words."""
    train, test = samples["train"], samples["test"]
    if samples["query"] and samples["gallery"] and not test:
        return samples["query"], samples["gallery"], "split query searches split database"
    if not test or samples["query"] or samples["gallery"]:
        found = ", ".join(part for part in samples if samples[part])
        raise DataError(f"'{file}': its splits are {found}; a test needs test alone, or query and database")
    known = {sample.pid for sample in train} & {sample.pid for sample in test}
    if not known:
        return test, test, "no test animal is trained on, and each test image searches all others"
    return test, train, f"the training images are the gallery, {len(known):,} of the test animals are among them"


def _without_repeats(rows: Sequence[Row], rule: str) -> tuple[list[Row], int]:
    """Return the rows without those that say nothing new, and how many those are.

    Raises DataError where an image has two animals and no box, or two splits that count.
    """
    first: dict[tuple[str, Box | None], Row] = {}
    for row in rows:
        other = first.setdefault((row.path, row.box), row)
        if other.identity != row.identity:
            raise DataError(
                f"{row.where}: '{row.path}' shows '{row.identity}', but '{other.identity}' in {other.where}; several "
                "animals in an image need a bbox each"
            )
        if rule == "column" and other.split != row.split:
            raise DataError(
                f"{row.where}: '{row.path}' has split '{row.split}', but '{other.split}' in {other.where}; correct one "
                "of them"
            )
    return list(first.values()), len(rows) - len(first)


def _paths(rows: Sequence[Row], file: Path, root: Path) -> list[str]:
    """Return the path of each row's image, of a box that of its crop."""
    folder = next((place for place in (file.parent, root) if os.path.isfile(place / rows[0].path)), file.parent)
    paths = [os.path.join(folder, row.path) for row in rows]
    missing = missing_files(paths)
    if missing:
        raise DataError(
            f"'{file}': {len(missing):,} of {len(rows):,} images do not exist: {quoted(missing)}; paths are relative "
            "to its folder or to DATASETS.ROOT_DIR, with / between folders"
        )
    place = next((path for path in paths if os.path.isdir(path)), None)
    if place is not None:
        raise DataError(f"'{file}': '{place}' is a folder, expected an image; correct the path column")
    if all(row.box is None for row in rows):
        return paths
    return make_crops(root / f"{file.stem}_crops", [(path, row.box) for path, row in zip(paths, rows, strict=True)])
