"""The index of a large gallery on disk: parts that are written once and never changed, mapped, and read in part.

index.json         what belongs to the index, sealed; replaced last: what it does not name is no part of it
00001.feat.npy     float16 [n, D]: embeddings, L2-normalised before they were rounded
00001.name.npy     uint8: the images' paths below the gallery, as the system's bytes, one after the other
00001.edge.npy     int64 [n + 1]: where each path begins and the last one ends
00001.stamp.npy    int64 [n, 2]: bytes and time of the last change (ns) of each file
00002.gone.npy     int64, rising: rows of images that are not there any more, or have changed
00003.faiss        lists of FAISS that propose candidates, see `tools.search.lists`
"""

import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.atomic import replacing, write_text_atomic
from utils.checksum import sealed, unsealed
from utils.errors import DataError
from utils.progress import over

KIND = "index of a large gallery"
SCHEMA = 2
MANIFEST = "index.json"
SHARDS_SUFFIX = ".shards"  # of the folder
OWN_FILE = re.compile(r"(\d{5,})\.(feat\.npy|name\.npy|edge\.npy|stamp\.npy|gone\.npy|faiss)(\.\d+\.tmp)?")
READ_BYTES = 16 * 2**20  # of float16 embeddings that are read at once


class Gone(NamedTuple):
    """The file of the rows that no search may find."""

    number: int  # in its name
    rows: int
    check: int  # CRC-32


class Part(NamedTuple):
    """The rows of an index that were written at once."""

    number: int  # in the names of its files
    rows: int
    name_bytes: int
    checks: dict[str, int]  # CRC-32 of the arrays by kind: feat, name, edge, stamp

    def layout(self, width: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return type and shape of each of its arrays."""
        return {
            "feat": ("float16", (self.rows, width)),
            "name": ("uint8", (self.name_bytes,)),
            "edge": ("int64", (self.rows + 1,)),
            "stamp": ("int64", (self.rows, 2)),
        }


class Shards:
    """An index as its manifest has it. Rows count from 0 over all parts, in the order of these."""

    def __init__(self, folder: Path, meta: dict[str, Any]) -> None:
        self.folder, self.meta = folder, meta
        self.width: int = meta["width"]
        self.parts = [Part(*part) for part in meta["parts"]]
        self.starts = np.cumsum([0, *(part.rows for part in self.parts)])

    def __len__(self) -> int:
        """The number of rows, gone ones too."""
        return int(self.starts[-1])

    @property
    def precision(self) -> str:
        """The type in which the model made the embeddings."""
        return self.meta["precision"]

    @cached_property
    def gone(self) -> np.ndarray:
        """The rows that no search may find, int64, rising."""
        if self.meta["gone"] is None:
            return np.empty(0, np.int64)
        entry = Gone(*self.meta["gone"])
        file = file_of(self.folder, entry.number, "gone.npy")
        rows = self._load(file)
        if (rows.dtype.name, rows.shape) != ("int64", (entry.rows,)) or not _rises(rows, len(self)):
            raise self.damaged(file.name)
        return rows

    def array(self, part: Part, kind: str) -> np.ndarray:
        """Return an array of a part, mapped; DataError where the file is not what the manifest says."""
        file = file_of(self.folder, part.number, f"{kind}.npy")
        array = self._load(file)
        if (array.dtype.name, array.shape) != part.layout(self.width)[kind]:
            raise self.damaged(file.name)
        return array

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the embeddings of `rows` [n], float16 [n, D]; only their pages are read. DataError if not finite."""
        feat = np.empty((len(rows), self.width), dtype=np.float16)
        for part, own, places in self._by_part(rows):
            feat[own] = self.array(part, "feat")[places]
        return self._finite(feat)

    def names(self, rows: np.ndarray) -> list[str]:
        """Return the paths of `rows` [n] below the gallery."""
        found = [""] * len(rows)
        for part, own, places in self._by_part(rows):
            text, edges = self.array(part, "name"), self.array(part, "edge")
            for number, place in zip(own.tolist(), places.tolist(), strict=True):
                found[number] = os.fsdecode(text[edges[place] : edges[place + 1]].tobytes())
        return found

    def all_names(self) -> Iterator[str]:
        """Yield the paths of all rows, gone ones too."""
        for part in self.parts:
            text, edges = self.array(part, "name").tobytes(), self.array(part, "edge").tolist()
            for begin, end in zip(edges[:-1], edges[1:], strict=True):
                yield os.fsdecode(text[begin:end])

    def stamps(self) -> np.ndarray:
        """Return the stamps of all rows, int64 [N, 2]."""
        return np.concatenate([np.empty((0, 2), np.int64), *(self.array(part, "stamp") for part in self.parts)])

    def blocks(self, what: str) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row, float32 [n, D]) over all rows; `what` names the work beside a progress bar.

        DataError if not finite.
        """
        step = max(1, READ_BYTES // (2 * self.width))
        for part, start in over([*zip(self.parts, self.starts[:-1].tolist(), strict=True)], what, "part"):
            for first in range(0, part.rows, step):
                feat = self.array(part, "feat")[first : first + step]  # mapped anew: pages are freed
                yield start + first, self._finite(feat.astype(np.float32))

    def broken_parts(self) -> list[Part]:
        """Return the parts whose files are missing, or do not hold what was written."""
        return [part for part in over(self.parts, "check the index", "part") if not self._is_whole(part)]

    def has_whole_gone(self) -> bool:
        """Return whether the file of the rows that are gone holds what was written."""
        try:
            return self.meta["gone"] is None or _crc(self.gone) == Gone(*self.meta["gone"]).check
        except DataError:
            return False

    def damaged(self, what: str) -> DataError:
        """Return the error of a file that cannot be used: damaged, or gone since another process wrote the index."""
        with suppress(ValueError):
            if read_meta(self.folder) != json.loads(json.dumps(self.meta)):
                return DataError(f"index '{self.folder}' was changed by another process meanwhile; search again")
        return DataError(f"index '{self.folder}' is damaged ({what}); search with --update, which makes it again")

    def _finite(self, feat: np.ndarray) -> np.ndarray:
        if not np.isfinite(feat).all():
            raise self.damaged("an embedding")
        return feat

    def _is_whole(self, part: Part) -> bool:
        try:
            return all(_crc(self.array(part, kind)) == check for kind, check in part.checks.items())
        except DataError:
            return False

    def _load(self, file: Path) -> np.ndarray:
        try:
            return np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise self.damaged(file.name) from error

    def _by_part(self, rows: np.ndarray) -> Iterator[tuple[Part, np.ndarray, np.ndarray]]:
        """Yield (part, which of `rows` are in it, their places there, rising)."""
        rows = np.asarray(rows)
        order = rows.argsort(kind="stable")
        edges = rows[order].searchsorted(self.starts)
        for part, start, begin, end in zip(self.parts, self.starts[:-1], edges[:-1], edges[1:], strict=True):
            if begin < end:
                own = order[begin:end]
                yield part, own, rows[own] - start


def new_meta(fingerprint: str, gallery: Path, precision: str, width: int) -> dict[str, Any]:
    """Return the manifest of an index without rows."""
    about = {"kind": KIND, "schema": SCHEMA, "fingerprint": fingerprint, "gallery": os.path.realpath(gallery)}
    about |= {"precision": precision, "width": width}
    return {**about, "whole": False, "parts": [], "gone": None, "lists": None, "folders": {}}


def read_meta(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of the index in a folder, None where there is none; ValueError where it is damaged."""
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(error.strerror) from error
    return unsealed(text)


def write_meta(folder: Path, meta: dict[str, Any]) -> Shards:
    """Replace the manifest and return the index that it names; RunError when the disk refuses."""
    write_text_atomic(folder / MANIFEST, sealed(meta))
    return Shards(folder, meta)


def file_of(folder: Path, number: int, ending: str) -> Path:
    """Return a file of an index."""
    return folder / f"{number:05d}.{ending}"


def next_number(folder: Path) -> int:
    """Return a number that no file of the folder has: nothing that an index names is ever written again."""
    return 1 + max(_numbers(folder).values(), default=0)


def write_part(folder: Path, names: Iterable[str], stamps: np.ndarray, feat: np.ndarray) -> Part:
    """Write rows as a part, which no manifest names yet: paths, stamps int64 [n, 2], embeddings [n, D]."""
    words = [os.fsencode(name) for name in names]
    edges = np.cumsum([0, *map(len, words)], dtype=np.int64)
    text = np.frombuffer(b"".join(words), dtype=np.uint8)
    arrays = {"feat": np.ascontiguousarray(feat, np.float16), "name": text, "edge": edges}
    arrays["stamp"] = np.ascontiguousarray(stamps, np.int64)
    number = next_number(folder)
    for kind, array in arrays.items():
        write_array(file_of(folder, number, f"{kind}.npy"), array)
    return Part(number, len(words), len(text), {kind: _crc(array) for kind, array in arrays.items()})


def write_gone(folder: Path, rows: np.ndarray) -> Gone:
    """Write which rows, int64 and rising, no search may find; no manifest names the file yet."""
    number = next_number(folder)
    write_array(file_of(folder, number, "gone.npy"), rows)
    return Gone(number, len(rows), _crc(rows))


def write_array(file: Path, array: np.ndarray) -> None:
    """Write an array as npy; RunError when the disk refuses, nothing half-written stays."""
    with replacing(file) as temporary, open(temporary, "wb") as stream:
        np.save(stream, array, allow_pickle=False)


def remove_unnamed(index: Shards) -> None:
    """Remove the files in the folder of an index that are of an index, but not of this one."""
    gone, lists = index.meta["gone"], index.meta["lists"]
    numbers = {part.number for part in index.parts}
    numbers |= {gone and Gone(*gone).number, lists and lists["number"]}
    for name, number in _numbers(index.folder).items():
        if number not in numbers:
            with suppress(OSError):
                (index.folder / name).unlink()


def _numbers(folder: Path) -> dict[str, int]:
    """Return the number of each file of a folder that is of an index."""
    found = (OWN_FILE.fullmatch(name) for name in os.listdir(folder))
    return {match[0]: int(match[1]) for match in found if match}


def _rises(rows: np.ndarray, end: int) -> bool:
    """Return whether rows rise, within 0, ..., end - 1."""
    return not len(rows) or bool(rows[0] >= 0 and rows[-1] < end and (np.diff(rows) > 0).all())


def _crc(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data) if array.size else 0
