"""A CSV of images of several modalities with captions: what is read, and which rows are refused."""

from pathlib import Path

import pytest

from datasets import make_dataloader
from datasets.archives.table_modalities import load_modality_table
from datasets.multimodal import Item, Record
from tests.datasets.modal import modal_cfg
from tests.datasets.trees import write_images, write_text
from utils.errors import DataError

HEADER = "path,pid,modality,caption,split"
NAMES = ["a.jpg", "b.jpg", "c.jpg", "n.jpg", "m.jpg", "s.jpg", "t.jpg", "v.jpg"]
ROWS = (
    'a.jpg,1,vis,"a man, in red",train',
    "b.jpg,1,RGB,,train",
    "n.jpg,1,ir,,train",
    "m.jpg,1,nir,,train",
    "c.jpg,2,vis,a woman,test",
    "s.jpg,2,sketch,,test",
    "t.jpg,2,infrared,,query",
    ",2,text,in a coat,query",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", NAMES)
    return tmp_path / "images"


def table(root: Path, *rows: str, header: str = HEADER) -> Path:
    return write_text(root / "table.csv", header, *rows)


def test_rows_become_records_a_gallery_and_items_to_search_with(root):
    dataset = load_modality_table(table(root, *ROWS), "unused")
    others = {"nir": (f"{root}/n.jpg", f"{root}/m.jpg"), "sk": (), "cp": ()}
    assert dataset.train == [
        Record(1, f"{root}/a.jpg", "a man, in red", others),
        Record(1, f"{root}/b.jpg", "", others),
    ]
    assert dataset.gallery == [(f"{root}/c.jpg", 2)] and (dataset.name, dataset.notes, dataset.no_train) == (
        "table",
        (),
        "",
    )
    assert dataset.pool == [
        Item("text", "a woman", 2),
        Item("sk", f"{root}/s.jpg", 2),
        Item("nir", f"{root}/t.jpg", 2),
        Item("text", "in a coat", 2),
    ]


def test_a_table_trains_and_is_tested_on_all_sets_that_its_items_allow(root):
    path = table(root, *ROWS, "other.jpg,3,vis,,train", "c.jpg,2,vis,a girl,test")
    write_images(root, ["other.jpg"])
    opts = ("DATASETS.NAMES", ("table",), "DATASETS.TABLE", str(path), "DATALOADER.NUM_INSTANCE", 2)
    few = ("MODEL.MULTIMODAL.MODALITIES", ("vis", "nir", "text"))
    data = make_dataloader(modal_cfg(root, *opts, *few), num_instance=2)
    assert [trial.set for trial in data.test.trials] == ["NIR", "TEXT", "NIR+TEXT"] and data.num_classes == 2
    assert [len(trial.query) for trial in data.test.trials] == [1, 3, 1]
    assert [len(trial.gallery) for trial in data.test.trials] == [1, 1, 1]  # one image, although two rows name it


def test_a_table_may_train_alone_or_test_alone(root):
    trained = load_modality_table(table(root, *ROWS[:4]), root)
    assert len(trained.train) == 2 and not trained.gallery and not trained.pool
    tested = load_modality_table(table(root, *ROWS[4:]), root)
    assert not tested.train and "has split train and modality vis" in tested.no_train


def test_what_a_reader_should_know_is_noted(root):
    more = ("s.jpg,9,sk,,train", "t.jpg,?,nir,,train", "m.jpg,1,nir,,test", "v.jpg,1,vis,,query")
    notes = load_modality_table(table(root, *ROWS[:3], ROWS[4], *more), root).notes
    words = ("1 junk images", "1 of the 2 identities in query and gallery are trained on too")
    words += ("1 RGB images of split query have no caption, so nothing is searched with them, e.g. 'v.jpg'",)
    for word, note in zip((*words, "have no RGB image"), notes, strict=True):
        assert word in note


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("c.jpg,2,xray,,test", r"csv:2: modality: 'xray' is no modality; there are vis, nir, sk, cp, text"),
        ("c.jpg,2,,,test", "csv:2: modality: '' is no modality"),
        (",2,vis,,test", "csv:2: path is empty; fill it in or remove the row"),
        ("c.jpg,2,text,words,test", "csv:2: a row of text has a caption and no path"),
        (",2,text,,test", "csv:2: a row of text has a caption and no path"),
        (",2,text,words,train", "csv:2: a row of text cannot be trained on, for no image belongs to it"),
        ("c.jpg,2,nir,words,test", "csv:2: a caption stands at an image of nir; write it in the row of an RGB image"),
        ("c.jpg,2,nir,,gallery", "csv:2: a row of split gallery is an RGB image, this one is nir"),
        ("c.jpg,2,vis,,val", "csv:2: split 'val' is unknown; use train, test, query, gallery"),
        ("no.jpg,2,vis,,test", r"csv:2: image 'no\.jpg' does not exist"),
        ("a.jpg,1,sk,,train", r"csv:3: image 'a\.jpg' is vis, but sk in .*csv:2; correct one"),
        ("a.jpg,3,vis,,train", r"csv:3: image 'a\.jpg' has pid '1', but '3' in .*csv:2"),
        ('a.jpg,1,vis,"a man, in red",train', r"csv:3: image 'a\.jpg' stands in split train twice, see .*csv:2"),
    ],
)
def test_a_row_that_does_not_fit_is_one_line_with_its_place(root, row, words):
    with pytest.raises(DataError, match=words):
        load_modality_table(table(root, row, *ROWS), root)


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        (ROWS[:5], HEADER, r"no row is anything to search with \(test or query\)"),
        (("c.jpg,2,vis,,test",), HEADER, r"no row is anything to search with"),
        (ROWS[5:], HEADER, r"no row is RGB images to search \(vis in test or gallery\)"),
        (("a.jpg,1,train",), "path,pid,split", "column modality is missing; the first line must name path,pid,split"),
    ],
)
def test_a_table_that_lacks_a_side_of_the_search_is_refused(root, rows, header, words):
    rows = [row.replace("a woman", "") for row in rows]
    with pytest.raises(DataError, match=words):
        load_modality_table(table(root, *rows, header=header), root)
