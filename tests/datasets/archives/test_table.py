from pathlib import Path

import pytest

from datasets.archives.table import load_table
from datasets.bases import match_findings
from tests.datasets.trees import write_images, write_text
from utils.errors import DataError

NAMES = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", NAMES)
    return tmp_path / "images"


def table(root: Path, header: str, *rows: str, name: str = "table.csv") -> Path:
    return write_text(root / name, header, *rows)


def test_all_columns_are_read(root):
    path = table(
        root,
        "pid,path,split,viewid,camid",
        "7,b.jpg,train,2,3",
        "7,a.jpg,train,,0",
        "9,c.jpg,query,-1,1",
        "9,d.jpg,gallery,0,4",
    )
    data = load_table(path, "unused")
    assert data.train == [(f"{root}/a.jpg", 7, 0, -1), (f"{root}/b.jpg", 7, 3, 2)]
    assert data.query == [(f"{root}/c.jpg", 9, 1, -1)]
    assert data.gallery == [(f"{root}/d.jpg", 9, 4, 0)]
    assert (data.name, data.notes, data.has_cameras) == ("table", (), True)


def test_without_a_camera_column_no_match_is_removed_and_it_is_said(root):
    path = table(root, "path,pid,split", "a.jpg,x,train", "b.jpg,y,query", "c.jpg,y,gallery")
    data = load_table(path, root)
    assert [data.train[0].camid, data.query[0].camid, data.gallery[0].camid] == [0, 0, 1]
    assert {sample.viewid for sample in data.train + data.query + data.gallery} == {0}
    assert not data.has_cameras
    assert "no camid column, so the camera filter is off" in data.notes[0]
    assert match_findings(data) == []


def test_text_identities_are_numbered_in_sorted_order_over_all_splits(root):
    rows = ["a.jpg,zoe,train", "b.jpg,10,query", "c.jpg,10,gallery", "d.jpg,adam,gallery"]
    first, second = (load_table(table(root, "path,pid,split", *order), root) for order in (rows, rows[::-1]))
    assert first == second
    assert [sample.pid for sample in first.train + first.query + first.gallery] == [2, 0, 0, 1]


def test_a_path_is_searched_beside_the_table_then_in_the_root_then_taken_as_absolute(tmp_path, root):
    write_images(tmp_path / "lists", ["a.jpg"])
    rows = ("a.jpg,1,train", "b.jpg,2,query", f"{root}/c.jpg,2,gallery")
    data = load_table(table(tmp_path / "lists", "path,pid,split", *rows), root)
    paths = [part[0].path for part in (data.train, data.query, data.gallery)]
    assert paths == [f"{tmp_path}/lists/a.jpg", f"{root}/b.jpg", f"{root}/c.jpg"]


def test_a_byte_order_mark_spaces_and_quotes_are_accepted(root):
    write_images(root, ["x, y.jpg"])
    rows = ('"x, y.jpg", 1, train', "b.jpg, 2, query", "c.jpg, 2 , gallery")
    data = load_table(table(root, "\ufeffpath, pid, split", *rows), root)
    assert (data.train[0].path, data.gallery[0].pid) == (f"{root}/x, y.jpg", 2)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("b.jpg,1,0,0,test", "split 'test' is unknown; use train, query, gallery"),
        ("b.jpg,1,0,0,", "split '' is unknown"),
        ("b.jpg,1,c1,0,train", "camid 'c1' is not a whole number from 0"),
        ("b.jpg,1,-1,0,train", "camid '-1' is not a whole number from 0"),
        ("b.jpg,1,,0,train", "camid '' is not"),
        ("b.jpg,1,0,1.5,train", "viewid '1.5' is not"),
        (",1,0,0,train", "path is empty"),
        ("b.jpg,1,0,train", "not as many fields"),
        ("b.jpg,1,0,0,train,more", "not as many fields"),
    ],
)
def test_a_bad_row_is_named_with_its_line(root, row, message):
    path = table(root, "path,pid,camid,viewid,split", "a.jpg,1,0,0,train", row)
    with pytest.raises(DataError) as error:
        load_table(path, root)
    assert str(error.value).startswith(f"{path}:3: ") and message in str(error.value)


def test_missing_images_are_counted_with_the_first_line_and_the_searched_folders(tmp_path, root):
    path = table(root, "path,pid,split", "a.jpg,1,train", "x.jpg,2,query", "y.jpg,2,gallery")
    with pytest.raises(DataError) as error:
        load_table(path, tmp_path)
    assert str(error.value) == (
        f"{path}:3: image 'x.jpg' does not exist (2 of 3 rows), searched '{root}' and '{tmp_path}'; "
        "correct the path column"
    )


@pytest.mark.parametrize("header", ["path,pid", "path;pid;split", "file,id,split", ""])
def test_a_header_without_the_needed_columns_is_refused(root, header):
    with pytest.raises(
        DataError, match=r"table.csv:[12]: column .* missing; the first line must name path,pid,split\["
    ):
        load_table(table(root, header, "a.jpg,1,train"), root)


@pytest.mark.parametrize(("splits", "absent"), [(["train"] * 3, "query or gallery"), (["train", "query"], "gallery")])
def test_an_absent_split_is_named(root, splits, absent):
    rows = [f"{name},1,{split}" for name, split in zip(NAMES, splits, strict=False)]
    with pytest.raises(DataError, match=f"no row has split {absent};"):
        load_table(table(root, "path,pid,split", *rows), root)


def test_a_missing_table_and_a_table_in_another_encoding_are_named(root):
    with pytest.raises(DataError, match="DATASETS.TABLE: no file '.*absent.csv'"):
        load_table(root / "absent.csv", root)
    (root / "latin.csv").write_bytes("path,pid,split\nä.jpg,1,train\n".encode("latin-1"))
    with pytest.raises(DataError, match="latin.csv:2: not UTF-8"):
        load_table(root / "latin.csv", root)
