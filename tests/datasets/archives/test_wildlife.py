"""Animals of a CSV: its columns, its parts, boxes, and scores against the protocol walked through."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.archives.wildlife import load_wildlife
from datasets.bases import match_findings
from tests.datasets.scored import result_of
from tests.datasets.trees import write_images, write_text
from tests.reference.slow_animals import csv_scores, rows_of
from tools.check import main as check
from utils.errors import DataError
from utils.test_folder import METRICS

HEADER = ",image_id,identity,path,date,split"
YAML = "MODEL: {{NAME: resnet50}}\nDATASETS: {{NAMES: wildlife, ROOT_DIR: {root}, WILDLIFE: {file}}}"


def write_csv(folder: Path, counts: Mapping[str, Sequence[str]], unknown: int = 1) -> Path:
    """Write metadata.csv and empty images: of each animal one for each part that it is in, and so many of none."""
    lines, names = [HEADER], []
    for animal, parts in [*counts.items(), ("unknown", ["test"] * unknown)]:
        for number, part in enumerate(parts):
            name = f"images/{animal}_{number}.jpg"
            names.append(name)
            lines.append(f"{len(lines)},{len(lines):016x},{animal},{name},2020-01-{1 + number:02d},{part}")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return write_text(folder / "metadata.csv", *lines)


CLOSED = {"bo": ["train", "train", "test"], "Abu": ["train", "test", "test"], "new": ["test", "test"]}
DISJOINT = {"bo": ["train", "train"], "abu": ["train"], "cat": ["test"] * 3, "dog": ["test"] * 4, "one": ["test"]}


@pytest.mark.parametrize("counts", [CLOSED, DISJOINT])
@pytest.mark.parametrize("seed", [0, 1])
def test_scores_are_those_of_the_protocol(tmp_path, counts, seed):
    file = write_csv(tmp_path, counts)
    result, distance = result_of(load_wildlife(file, tmp_path), seed)
    expected = csv_scores(
        rows_of(file), lambda one, other: distance(f"{tmp_path}/{one}", f"{tmp_path}/{other}"), counts is CLOSED
    )
    assert result.num_valid_query == expected["num_valid"]
    for metric in METRICS:
        assert result.metrics[metric] == pytest.approx(expected[metric], abs=1e-12), metric


def test_a_closed_set_searches_what_it_trains_on_and_the_doctor_takes_that_for_right(tmp_path, capsys):
    counts = {"bo": ["train", "train", "test"], "abu": ["train", "train", "test"]}
    file = write_csv(tmp_path, counts, unknown=2)
    write_images(tmp_path / "images", [path.name for path in sorted((tmp_path / "images").iterdir())])
    data = load_wildlife(file, tmp_path)
    assert data.gallery is data.train and match_findings(data) == [] and data.notes[0].startswith("wildlife: 2 rows")
    config = write_text(tmp_path / "c.yml", YAML.format(root=tmp_path, file=file))
    assert check(["--config_file", str(config)]) == 0
    assert "nothing found" in capsys.readouterr().out


def test_a_disjoint_set_searches_itself_without_the_query(tmp_path):
    data = load_wildlife(write_csv(tmp_path, DISJOINT), tmp_path)
    assert len(data.tested) == len(data.query) == 8
    (line,) = match_findings(data)
    assert "1 of 8 queries have no match in the gallery" in line and "one_0.jpg" in line


def test_the_names_of_columns_may_be_written_in_any_case(tmp_path):
    file = write_csv(tmp_path, CLOSED)
    data = load_wildlife(file, tmp_path)
    write_text(file, file.read_text().replace(HEADER, HEADER.title()))
    assert load_wildlife(file, tmp_path).query == data.query


def test_query_and_database_are_sides_of_their_own(tmp_path):
    counts = {"bo": ["train", "query", "database"], "abu": ["database", "query", "val"]}
    data = load_wildlife(write_csv(tmp_path, counts), tmp_path)
    sizes = len(data.train), len(data.query), len(data.gallery)
    assert sizes == (1, 2, 2) and "wildlife: 1 images of split val are left out" in data.notes


def test_closed_draws_four_fifths_of_each_animal_and_leaves_one_to_test(tmp_path):
    file = write_csv(tmp_path, {"many": [""] * 10, "two": [""] * 2, "one": [""]})
    data = load_wildlife(file, tmp_path, "closed")
    animals = {sample.path.rsplit("/", 1)[1].split("_")[0]: sample.pid for sample in data.train}
    trained = {animal: sum(sample.pid == pid for sample in data.train) for animal, pid in animals.items()}
    assert trained == {"many": 8, "two": 1, "one": 1} and len(data.query) == 3
    assert load_wildlife(file, tmp_path, "closed").train == data.train
    assert any("one day or video" in note for note in data.notes)


def test_time_trains_on_the_earlier_half_of_the_dates(tmp_path):
    data = load_wildlife(write_csv(tmp_path, {"five": [""] * 5, "one": [""]}), tmp_path, "time")
    assert sorted(Path(sample.path).stem for sample in data.train) == ["five_0", "five_1", "five_2", "one_0"]
    assert sorted(Path(sample.path).stem for sample in data.query) == ["five_3", "five_4"]


def test_disjoint_tests_a_fifth_of_the_animals(tmp_path):
    data = load_wildlife(write_csv(tmp_path, {f"a{row}": ["", ""] for row in range(10)}), tmp_path, "disjoint")
    trained, tested = ({sample.pid for sample in part} for part in (data.train, data.query))
    assert len(trained) == 8 and len(tested) == 2 and not trained & tested


def test_boxes_are_cut_out_once(tmp_path):
    pixels = np.zeros((10, 20, 3), dtype=np.uint8)
    pixels[2:6, 3:8], pixels[:, 12:] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "herd.png")
    lines = [
        "image_id,identity,path,bbox,split,species",
        '1,a,herd.png,"[3.2, 2, 5, 4]",train,zebra',
        '2,b,herd.png,"[12, -1, 20, 11]",test,zebra',
        '3,b,herd.png,"[12, 0, 4, 10]",train,zebra',
    ]
    file = write_text(tmp_path / "herd.csv", *lines)
    data = load_wildlife(file, tmp_path)
    red, blue, left = (np.asarray(Image.open(sample.path)) for sample in (data.train[0], data.query[0], data.train[1]))
    assert red.shape == (4, 5, 3) and (red == (255, 0, 0)).all()
    assert blue.shape == (10, 8, 3) and (blue == (0, 0, 255)).all() and left.shape == (10, 4, 3)
    before = Path(data.train[0].path).stat().st_mtime_ns
    assert Path(load_wildlife(file, tmp_path).train[0].path).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("lines", "rule", "message"),
    [
        (["identity,image", "a,x.jpg"], "column", "column path is missing"),
        (["identity,path", "a,x.jpg"], "column", "has no column split or original_split"),
        (["identity,path,split", "a,x.jpg,both"], "column", r"w.csv:2: split 'both' is unknown"),
        (["identity,path,split", "a,y.jpg,train"], "column", "1 of 1 images do not exist"),
        (["identity,path,split", "a,x.jpg,train"], "column", "its splits are train; a test needs"),
        (["identity,path,split", "a,x.jpg,test", "b,x.jpg,test"], "column", "shows 'b', but 'a' in .*need a bbox each"),
        (["image_id,identity,path", "1,a,x.jpg", "1,b,x.jpg"], "closed", "image_id '1' stands in .*w.csv:2 too"),
        (["identity,path,date", "a,x.jpg,12/3/2020"], "time", "date '12/3/2020' is not year-month-day"),
        (["identity,path,bbox", 'a,x.jpg,"[1, 2, 0, 4]"'], "closed", "holds no pixel"),
        (["identity,path,bbox", 'a,x.jpg,"[1, 2, nan]"'], "closed", r"is not \[x, y, width, height\]"),
        (["identity,path,split", "unknown,x.jpg,test"], "column", "names no image of a known animal"),
        (["identity,path,bbox", f'a,x.jpg,"[1{"0" * 400}, 2, 3, 4]"'], "closed", r"is not \[x, y, width, height\]"),
        (["identity,path,bbox", 'a,x.jpg,"""1234"""'], "closed", r"is not \[x, y, width, height\]"),
        (["identity,path,Path", "a,x.jpg,y.jpg"], "closed", "column path stands there twice"),
        (["identity,path", "a,/etc/x.jpg"], "closed", "w.csv:2: path '/etc/x.jpg' is not that of an image below"),
        (["identity,path", "a,b/../../x.jpg"], "closed", "is not that of an image below"),
        (["identity,path", "a,"], "closed", "w.csv:2: path '' is not that of an image below"),
        (["identity,path", "a,sub"], "closed", "sub' is a folder, expected an image"),
        (["identity,path", f"a,{'x' * 300}"], "closed", "1 of 1 images do not exist"),
        (["identity,path,split", "a,x.jpg,train", "a,./x.jpg,test"], "column", "split 'test', but 'train' in"),
    ],
)
def test_a_csv_that_does_not_fit_is_one_error(tmp_path, lines, rule, message):
    (tmp_path / "x.jpg").touch()
    (tmp_path / "sub").mkdir()
    with pytest.raises(DataError, match=message):
        load_wildlife(write_text(tmp_path / "w.csv", *lines), tmp_path, rule)
