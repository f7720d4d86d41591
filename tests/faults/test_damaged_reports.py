"""What a report or a search reads back is whole, or is said to be damaged and made anew."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.tools.report.report_files import make_analysis, make_slices, make_summary
from tools.report.files import read_tested
from tools.search.index import KIND, SCHEMA, Index, read_index, save_index
from utils.digest import sha256_of
from utils.errors import ConfigError
from utils.ranking.slices import write_slices
from utils.test_folder import TestFolder

FINGERPRINT = "f" * 64
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "cut at a line": lambda content: (
        content[: content.index(b"\n", len(content) // 3) + 1] if b"\n" in content else b""
    ),
    "a digit": lambda content: content.replace(b"1", b"2", 1),
    "garbage": lambda content: bytes(range(256)) * 4,
    "nested": lambda content: b"[" * 100_000,
    "a number": lambda content: b"3\n",
}


UNTOLD = ("cut at a line", "a digit")  # in the files of an older version, which had no checksums


def write_test(folder: Path, with_sums: bool) -> TestFolder:
    test = TestFolder(folder)
    folder.mkdir()
    write_slices(test.slices, make_slices(3))
    test.analysis.write_text(json.dumps(make_analysis(["a.jpg"] * 12)) + "\n")
    sums = {path.name: sha256_of(path) for path in (test.slices, test.analysis)} if with_sums else {}
    test.summary.write_text(json.dumps(make_summary({}, "x.yml", files=sums)))
    return test


@pytest.mark.parametrize("with_sums", [True, False])
def test_damaged_tables_of_a_test_are_left_out_and_named(tmp_path, tally, with_sums):
    test, held = write_test(tmp_path / "x", with_sums), []
    assert read_tested(test).absent == {}
    for path in (test.slices, test.analysis):
        whole = path.read_bytes()
        for name, damage in DAMAGES.items():
            if damage(whole) == whole or (not with_sums and name in UNTOLD):
                continue
            path.write_bytes(damage(whole))
            absent = read_tested(test).absent
            held.append(
                (list(absent) == [path.name] and "A new test writes it afresh" in absent[path.name]) or print(name)
            )
        path.write_bytes(whole)
    tally("damaged results: reports", len(held), sum(map(bool, held)))
    assert all(held)


class FakeExtractor:
    fingerprint, feat_dim, precision = FINGERPRINT, 4, "float32"

    def adopt_precision(self, name: str) -> bool:
        return name == self.precision


def npz(
    names: object = ("a.jpg", "b.jpg"), stamps: object = ((1, 1), (2, 2)), feat: object = None, **meta: object
) -> Callable[[Path], object]:
    """Return a writer of an index whose parts may be of any kind."""
    parts = {"name": np.array(names), "stamp": np.array(stamps)}
    parts["feat"] = np.eye(2, 4, dtype=np.float32) if feat is None else feat
    about = {"kind": KIND, "schema": SCHEMA, "fingerprint": FINGERPRINT, "gallery": "?", "precision": "float32", **meta}
    return lambda file: np.savez(file, **parts, meta=np.array(json.dumps(about)))


INDEXES: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-80]),
    "a bit flipped": lambda file: file.write_bytes(file.read_bytes()[:200] + b"\x7f" + file.read_bytes()[201:]),
    "garbage": lambda file: file.write_bytes(bytes(range(256)) * 9),
    "one array": lambda file: np.save(open(file, "wb"), np.zeros(3)),  # noqa: SIM115
    "a pickle": lambda file: np.savez(file, meta=np.array([{}], dtype=object)),
    "names of numbers": npz(names=(1, 2)),
    "times of words": npz(stamps=(("a", "b"), ("c", "d"))),
    "NaN": npz(feat=np.full((2, 4), np.nan, dtype=np.float32)),
    "too few embeddings": npz(feat=np.zeros((1, 4), dtype=np.float32)),
    "float64": npz(feat=np.eye(2, 4)),
    "of another model": npz(fingerprint="e" * 64),
    "of a later version": npz(schema=99),
    "of another precision": npz(precision=["float32"]),
}


def test_a_damaged_index_is_not_used_and_said(tmp_path, caplog, tally):
    file, held = tmp_path / "i.npz", []
    index = Index(np.array(["a.jpg", "b.jpg"]), np.array([[1, 1], [2, 2]]), np.eye(2, 4, dtype=np.float32), "float32")
    for name, damage in INDEXES.items():
        save_index(index, file, tmp_path, FINGERPRINT)
        assert read_index(file, tmp_path, FakeExtractor()) is not None
        damage(file)
        caplog.clear()
        held.append(
            (read_index(file, tmp_path, FakeExtractor()) is None and "made again" in caplog.text) or print(name)
        )
    tally("damaged results: index files", len(held), sum(map(bool, held)))
    assert all(held)


@pytest.mark.fault("damaged results: index files")
def test_another_file_than_an_index_is_never_overwritten(tmp_path):
    np.savez(tmp_path / "mine.npz", x=np.zeros(3))
    with pytest.raises(ConfigError, match="another file than an index"):
        read_index(tmp_path / "mine.npz", tmp_path, FakeExtractor())
