"""The test file of ORBench: a gallery of RGB images and lists of queries, one for each set of modalities."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from configs.modalities import TEXT, VIS, parse_set, set_name
from datasets.archives.annotation import check_pid, is_text, kind_of, read_json
from datasets.archives.common import missing_files, quoted
from datasets.labels import MAX_PID, whole_number
from datasets.multimodal import Query
from utils.errors import DataError

GALLERY = "RGB_GALLERY"
SHOWN = 60  # characters of a value that an error quotes


class Searched(NamedTuple):
    """What a test file says."""

    gallery: list[tuple[str, int]]  # (path, pid)
    queries: dict[str, list[Query]]  # by name of the set
    folders: set[int]  # of the persons
    notes: tuple[str, ...]


class Persons:
    """Which person has which folder: one to one, or the file is refused."""

    def __init__(self, what: str) -> None:
        self.what = what  # opens errors
        self._folder_of: dict[int, tuple[int, str]] = {}  # id -> folder and where that stands
        self._id_of: dict[int, tuple[int, str]] = {}

    @property
    def folders(self) -> set[int]:
        """The folders of all persons."""
        return {*self._id_of}

    def add(self, pid: Any, folder: int, where: str) -> None:
        """Take that the person `pid` has this folder; DataError where `pid` is no number, or another entry differs."""
        check_pid(pid, where)
        known, place = self._folder_of.setdefault(pid, (folder, where))
        if known != folder:
            raise DataError(f"{where}: id {pid} has folder {folder:04d} here and {known:04d} in {place}; correct one")
        known, place = self._id_of.setdefault(folder, (pid, where))
        if known != pid:
            raise DataError(f"{where}: folder {folder:04d} has id {pid} here and {known} in {place}; correct one")


def place_of(path: Any, modality: str, where: str) -> int:
    """Return the person folder of an image's path `<modality>/<digits>/<file>`; DataError for any other path."""
    expected = f"expected {modality}/<number of the person>/<image> below the data set's folder"
    if not is_text(path) or not path or "\0" in path:
        raise DataError(f"{where} is {kind_of(path)}, {expected}")
    parts = path.split("/")
    if path.startswith("/") or ".." in parts:
        raise DataError(f"{where} '{path[:SHOWN]}' leaves the data set's folder; {expected}")
    if len(parts) != 3 or parts[0] != modality or not parts[2]:
        raise DataError(f"{where} is '{path[:SHOWN]}', {expected}")
    return whole_number(parts[1], MAX_PID, f"{where} '{path[:SHOWN]}': the person folder")


def read_queries(file: Path, folder: Path) -> Searched:
    """Return what the test file of the data set in `folder` says.

    A caption that is empty is left out of its query. Raises DataError, naming the file, the set and the entry (from 0),
    for a file without gallery or queries, sets of unknown modalities, entries with another number of items than their
    set, queries of which nothing is left, paths that leave the folder, absent images, and ids and folders that are not
    one to one.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise DataError(f"{file}: holds {kind_of(content)}, expected an object with {GALLERY} and lists of queries")
    if not content.get(GALLERY):
        raise DataError(f"{file}: has no {GALLERY}, so nothing can be searched; get the file again")
    reader = _Reader(Path(folder), Persons(str(file)))
    gallery = [
        (query.items[VIS], query.pid) for query in reader.read_set(content[GALLERY], (VIS,), f"{file}: {GALLERY}")
    ]
    queries: dict[str, list[Query]] = {}
    empty = []
    for key in content:
        if key == GALLERY:
            continue
        modalities = _modalities(key, file)
        name = set_name(modalities)
        if name in queries:
            raise DataError(f"{file}: '{key}' stands there twice, in two spellings; join the lists")
        found = reader.read_set(content[key], modalities, f"{file}: {key}")
        if found:
            queries[name] = found
        else:
            empty.append(key)
    if not queries:
        raise DataError(f"{file}: has no list of queries but {GALLERY}, e.g. NIR or NIR+TEXT; get the file again")
    reader.check_files()
    notes = [f"sets without any query: {', '.join(empty)}"] * bool(empty) + reader.notes()
    return Searched(gallery, queries, reader.persons.folders, tuple(notes))


def _modalities(key: str, file: Path) -> tuple[str, ...]:
    try:
        return parse_set(key)
    except ValueError as error:
        raise DataError(f"{file}: key '{key[:SHOWN]}': {error}; name a set of modalities, e.g. NIR+TEXT") from error


class _Reader:
    """Reads the lists of one file, and remembers the images that they name."""

    def __init__(self, folder: Path, persons: Persons) -> None:
        self.folder = folder
        self.persons = persons
        self._images: dict[tuple[str, str], tuple[int, str, str]] = {}  # by modality and path: folder, full path, where
        self._empty = 0

    def read_set(self, entries: Any, modalities: tuple[str, ...], where: str) -> list[Query]:
        """Return the queries of one list of [pid, item, ...], one item of each modality in their order."""
        if not isinstance(entries, list):
            raise DataError(f"{where} is {kind_of(entries)}, expected a list of [id, item, ...]")
        return [self._query(entry, modalities, f"{where}, entry {row}") for row, entry in enumerate(entries)]

    def _query(self, entry: Any, modalities: tuple[str, ...], where: str) -> Query:
        if not isinstance(entry, list) or len(entry) != 1 + len(modalities):
            got = f"{len(entry) - 1} items" if isinstance(entry, list) and entry else kind_of(entry)
            raise DataError(f"{where}: got {got}, expected an id and {len(modalities)}: {', '.join(modalities)}")
        pid, *values = entry
        check_pid(pid, where)
        items = {}
        for modality, value in zip(modalities, values, strict=True):
            if modality != TEXT:
                items[modality] = self._image(pid, modality, value, where)
            elif not is_text(value):
                raise DataError(f"{where}: the caption is {kind_of(value)}, expected a text")
            elif value.strip():
                items[TEXT] = value
            else:
                self._empty += 1
        if not items:
            raise DataError(f"{where}: its caption is empty, so nothing is left to search with; take the entry out")
        return Query(pid, items)

    def _image(self, pid: int, modality: str, value: Any, where: str) -> str:
        """Return the full path of an image of a person."""
        known = self._images.get((modality, value)) if isinstance(value, str) else None
        if known is None:
            folder = place_of(value, modality, f"{where}: {modality}")
            known = self._images[modality, value] = (folder, os.path.join(self.folder, value), where)
        self.persons.add(pid, known[0], where)
        return known[1]

    def check_files(self) -> None:
        """Raise DataError where images that the lists name are absent."""
        where = {path: place for _, path, place in self._images.values()}
        missing = missing_files(where)
        if missing:
            raise DataError(
                f"{where[missing[0]]}: {len(missing):,} of {len(where):,} images do not exist: {quoted(missing)}; "
                "unpack the images again, or take their entries out"
            )

    def notes(self) -> list[str]:
        """Return how many captions are empty."""
        return [f"{self._empty:,} empty captions are left out of their queries"] * (self._empty > 0)
