from pathlib import Path

import pytest

from datasets.archives.table import load_table
from datasets.archives.table_captions import load_caption_table
from tests.datasets.trees import write_images, write_text
from utils.errors import DataError

HEADER = "path,pid,split,caption"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    return tmp_path / "images"


def table(root: Path, *rows: str, header: str = HEADER) -> Path:
    return write_text(root / "table.csv", header, *rows)


def refused(path: Path) -> str:
    with pytest.raises(DataError) as error:
        load_caption_table(path, path.parent)
    return str(error.value)


def test_an_image_may_have_several_rows_one_for_each_caption(root):
    rows = ('a.jpg,x,train,"red, tall"', "b.jpg,w,train,blue", "a.jpg,x,train,a red one", "c.jpg,x,test,one")
    data = load_caption_table(table(root, *rows, "d.jpg,w,val,two"), "unused")
    assert data.train == [
        (f"{root}/a.jpg", 1, 0, "red, tall"),
        (f"{root}/a.jpg", 1, 0, "a red one"),
        (f"{root}/b.jpg", 0, 1, "blue"),
    ]
    assert (data.test.paths, data.test.captions, data.test.caption_images.tolist()) == ([f"{root}/c.jpg"], ["one"], [0])
    assert (data.test.pids.tolist(), data.test.caption_pids.tolist()) == ([1], [1])
    assert (data.val.paths, data.val.captions) == ([f"{root}/d.jpg"], ["two"])
    assert (data.name, data.no_train) == ("table", "")


def test_rows_of_query_ask_with_their_captions_and_rows_of_gallery_are_searched(root):
    rows = ("a.jpg,1,query,first", "b.jpg,1,gallery,", "a.jpg,1,query,second", "c.jpg,2,gallery,unread")
    test = load_caption_table(table(root, *rows, "c.jpg,2,query,own", "d.jpg,3,test,both"), root).test
    assert test.paths == [f"{root}/{name}.jpg" for name in "bcd"]
    assert test.pids.tolist() == [1, 2, 3]
    assert test.captions == ["first", "second", "own", "both"]
    assert test.caption_pids.tolist() == [1, 1, 2, 3]
    assert test.caption_images.tolist() == [-1, -1, 1, 2]


def test_the_same_table_without_repeated_images_serves_other_systems(root):
    path = table(root, "a.jpg,1,train,x", "b.jpg,2,query,y", "c.jpg,2,gallery,z")
    assert [sample.pid for sample in load_table(path, root).train] == [1]
    assert [pair.pid for pair in load_caption_table(path, root).train] == [0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("a.jpg,1,test,x",), "split 'test' is unknown; use train, query, gallery"),
        (
            ("a.jpg,1,train,x", "a.jpg,1,train,y", "b.jpg,2,query,z", "c.jpg,2,gallery,z"),
            "twice, see {}:2; remove one of the rows",
        ),
    ],
)
def test_other_systems_tell_which_one_reads_the_captions_of_a_table_that_they_refuse(root, rows, message):
    path = table(root, *rows)
    with pytest.raises(DataError) as caught:
        load_table(path, root)
    assert str(caught.value).endswith(f"{message.format(path)}, or read its captions with MODEL.NAME irra")


def test_without_training_rows_it_serves_tests_alone_and_shared_identities_are_told(root):
    data = load_caption_table(table(root, "a.jpg,1,test,x", "b.jpg,nan,train,y"), root)
    assert data.train == [] and data.no_train.endswith("has split train (1 rows have no identity)")
    assert data.notes == ("table train: 1 junk images (pid nan) are ignored",)
    (note,) = load_caption_table(table(root, "a.jpg,1,test,x", "b.jpg,1,train,y"), root).notes
    assert "1 of the 1 identities in query and gallery are trained on too" in note


def test_a_table_without_the_column_is_refused(root):
    path = table(root, "a.jpg,1,test", header="path,pid,split")
    assert refused(path).startswith(f"{path}:1: column caption is missing; the first line must name path,pid,split[")


def test_a_table_that_is_not_there_is_one_line_that_names_the_column_of_captions(tmp_path):
    words = f"DATASETS.TABLE: no file '{tmp_path / 'own.csv'}'; give the path of a CSV with the columns path,pid,split"
    assert refused(tmp_path / "own.csv") == f"{words}[,camid][,viewid],caption"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("b.jpg,1,train,", ":3: caption of 'b.jpg' is empty; fill it in, remove the row, or make its split gallery"),
        ("b.jpg,1,dev,x", ":3: split 'dev' is unknown; use train, val, test, query, gallery"),
        ("b.jpg,1,train,red, tall", ":3: has not as many fields as the header; quote values that hold a comma"),
        ("a.jpg,2,train,x", ":3: image 'a.jpg' has pid '2', but '1' in "),
        ("x.jpg,2,train,x", ":3: image 'x.jpg' does not exist (1 of 2 rows)"),
    ],
)
def test_a_bad_row_is_named_with_its_line(root, row, message):
    path = table(root, "a.jpg,1,test,first", row)
    assert refused(path).startswith(f"{path}{message}")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train", "no row has split test or gallery, so there are no images to test on"),
        ("query", "no row has split test or gallery, so there are no images to test on"),
        ("gallery", "no row has split test or query, so there are no captions to test on"),
    ],
)
def test_a_table_with_nothing_to_test_on_is_refused(root, split, message):
    assert message in refused(table(root, f"a.jpg,1,{split},x"))
