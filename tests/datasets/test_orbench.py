"""ORBench from disk: what is read, what is noted, and what is refused with file, entry and way out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.multimodal import MultiModalDataset
from datasets.multimodal_checks import counts_of
from datasets.orbench import load_orbench, load_orbench_folder
from tests.datasets.modal import (
    TEST_FILE,
    TESTED,
    TRAINED,
    annotations,
    paths_of,
    queries_of,
    write_competition,
    write_json,
    write_orbench,
)
from tests.datasets.trees import EMOJI, needs_emoji
from tests.reference.slow_orbench import slow_queries, slow_records
from utils.errors import DataError


def plain(dataset: MultiModalDataset) -> list[tuple]:
    """Return the records as the slow reference has them."""
    return [
        (pid, vis, caption, {m: [*paths] for m, paths in others.items()})
        for pid, vis, caption, others, _ in dataset.train
    ]


def test_records_gallery_and_queries_are_those_of_the_files(tmp_path):
    folder = write_orbench(tmp_path)
    dataset = load_orbench(tmp_path)
    assert plain(dataset) == slow_records(folder, "train_annos.json") and len(dataset.train) == 12
    assert dataset.gallery == [(str(folder / path), pid) for pid in TESTED for path in paths_of(pid)["vis"]]
    found = {name: [(query.pid, query.items) for query in queries] for name, queries in dataset.queries.items()}
    assert found == slow_queries(folder) and not dataset.notes
    for name, queries in dataset.queries.items():
        assert all("+".join(query.items).upper() == name for query in queries)  # main modality first


def test_a_person_may_lack_a_modality_and_that_is_counted(tmp_path):
    folder = write_orbench(tmp_path, {40: "sk"})
    shutil.rmtree(folder / "cp" / "0007")
    dataset = load_orbench(tmp_path)
    assert plain(dataset) == slow_records(folder, "train_annos.json")
    assert dataset.notes == tuple(
        f"orbench: 1 of 4 persons to train on have no {modality} image" for modality in ("sk", "cp")
    )


def test_the_competition_numbers_annotations_so_folders_are_the_persons(tmp_path):
    root = write_competition(tmp_path)
    dataset = load_orbench(root)
    assert plain(dataset) == slow_records(root / "train", "text_annos.json")
    assert {record.pid for record in dataset.train} == {*TRAINED} and not dataset.gallery and not dataset.queries
    assert "DATASETS.VAL_IDS" in dataset.notes[0]


def test_ids_may_be_other_numbers_than_folders_where_they_are_one_to_one(tmp_path):
    folder = write_orbench(tmp_path)
    write_json(folder / "train_annos.json", annotations(number={3: 1, 7: 2, 40: 3, 12: 4}))
    assert {record.pid for record in load_orbench(tmp_path).train} == {*TRAINED}


def test_counts_are_told_by_split_and_in_the_folders(tmp_path):
    write_orbench(tmp_path)
    assert counts_of(load_orbench(tmp_path)) == {
        "train": {"ids": 4, "vis": 12, "nir": 8, "sk": 12, "cp": 8, "text": 12},
        "test": {"ids": 3, "vis": 9, "nir": 6, "sk": 9, "cp": 6, "text": 9},
        "on disk": {"ids": 7, "vis": 21, "nir": 14, "sk": 21, "cp": 14},
    }


def test_what_is_left_out_is_noted(tmp_path):
    folder = write_orbench(tmp_path)
    entries = annotations()
    entries[0]["caption"] = " "
    entries[1]["split"] = "val"
    write_json(folder / "train_annos.json", entries[:-1])
    content = queries_of((*TESTED, 7))
    content |= {"SK+TEXT": [], "TEXT+SK": [[21, " ", paths_of(21)["sk"][0]]]}
    write_json(folder / TEST_FILE, content)
    dataset = load_orbench(tmp_path)
    assert [note.removeprefix("orbench: ") for note in dataset.notes] == [
        "1 images of other splits than train are not trained on",
        "1 of the 4 persons that are tested are trained on too, e.g. folder 0007, so the scores say little about new "
        "persons",
        "sets without any query: SK+TEXT",
        "1 empty captions are left out of their queries",
        "1 of 10 RGB images to train on have an empty caption, and count without one",
        "2 RGB images of persons to train on stand in no entry and are not trained on",
    ]
    assert dataset.queries["TEXT+SK"][0].items == {"sk": str(folder / paths_of(21)["sk"][0])}
    (folder / TEST_FILE).unlink()
    assert "DATASETS.VAL_IDS" in " ".join(load_orbench(tmp_path).notes)


def test_other_names_of_modalities_and_further_sets_are_read(tmp_path):
    folder = write_orbench(tmp_path)
    content = queries_of(sets=["NIR"])
    content |= {
        "IR + Txt": [[21, paths_of(21)["nir"][0], "a"]],
        "rgb+sketch": [[21, paths_of(21)["vis"][0], paths_of(21)["sk"][0]]],
    }
    write_json(folder / TEST_FILE, content)
    assert [*load_orbench(tmp_path).queries] == ["NIR", "NIR+TEXT", "VIS+SK"]


def edit_entry(**changes: object) -> Callable[[Path], None]:
    """Return what changes the second entry of the annotation; None takes a key out."""

    def edit(folder: Path) -> None:
        entries = annotations()
        entries[1] = {key: value for key, value in (entries[1] | changes).items() if value is not None}
        write_json(folder / "train_annos.json", entries)

    return edit


def edit_queries(**changes: object) -> Callable[[Path], None]:
    """Return what changes sets of the test file; None takes one out."""

    def edit(folder: Path) -> None:
        content = queries_of() | changes
        write_json(folder / TEST_FILE, {key: value for key, value in content.items() if value is not None})

    return edit


def rename(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: (folder / old).rename(folder / new) and None


SECOND = r"train_annos\.json: entry 1 \('vis/0003/0003_cam4_vis\.jpg'\)"
IMAGE = paths_of(21)["nir"][0]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            edit_entry(file_path="vis/../../secret.jpg"),
            r"entry 1: file_path 'vis/\.\./\.\./secret\.jpg' leaves the data",
        ),
        (edit_entry(file_path="/etc/a.jpg"), "leaves the data set's folder; expected vis/<number of the person>"),
        (edit_entry(file_path="nir/0003/a.jpg"), "file_path is 'nir/0003/a.jpg', expected vis/<number of the person>"),
        (edit_entry(file_path="vis/three/a.jpg"), "'vis/three/a.jpg': the person folder 'three' is not a whole number"),
        (
            edit_entry(file_path="vis/0003/absent.jpg"),
            r"entry 1.*: 1 of 12 images do not exist: '.*absent\.jpg'; unpack",
        ),
        (edit_entry(caption=None), "entry 1 has no caption; e.g."),
        (edit_entry(caption=["a"]), f"{SECOND}: caption is a list, expected a text"),
        (edit_entry(id=None), "entry 1 has no id; e.g."),
        (edit_entry(id="3"), f'{SECOND}: id is the text "3", expected a whole number'),
        (
            edit_entry(id=7),
            r"entry 3.*: id 7 has folder 0007 here and 0003 in .*entry 1|folder 0003 has id 7 here and 3",
        ),
        (edit_queries(RGB_GALLERY=None), f"{TEST_FILE}: has no RGB_GALLERY, so nothing can be searched"),
        (edit_queries(**{"NIR+FOO": []}), r"key 'NIR\+FOO': 'FOO' is no modality; there are vis"),
        (edit_queries(**{"NIR+IR": []}), r"key 'NIR\+IR': the set 'NIR\+IR' names a modality twice"),
        (edit_queries(**{"IR": []}), "'IR' stands there twice, in two spellings"),
        (edit_queries(**{"NIR+SK": [[21, IMAGE]]}), r"NIR\+SK, entry 0: got 1 items, expected an id and 2: nir, sk"),
        (edit_queries(SK=[[21, IMAGE]]), f"SK, entry 0: sk is '{IMAGE}', expected sk/<number of the person>"),
        (edit_queries(NIR=[[21, "../a.jpg"]]), r"NIR, entry 0: nir '\.\./a\.jpg' leaves the data set's folder"),
        (edit_queries(NIR=[[21, "nir/0021/no.jpg"]]), r"NIR, entry 0: 1 of \d+ images do not exist: '.*no\.jpg'"),
        (edit_queries(NIR=[[5, IMAGE]]), r"NIR, entry 0: id 5 has folder 0021 here and 0005 in .*RGB_GALLERY, entry 3"),
        (edit_queries(NIR=[["21", IMAGE]]), 'NIR, entry 0: id is the text "21"'),
        (edit_queries(NIR="all"), 'NIR is the text "all", expected a list of'),
        (edit_queries(TEXT=[[21, " "]]), "TEXT, entry 0: its caption is empty, so nothing is left to search with"),
        (
            lambda folder: write_json(folder / TEST_FILE, {"RGB_GALLERY": queries_of()["RGB_GALLERY"]}) and None,
            "has no list of queries but RGB_GALLERY",
        ),
        (lambda folder: (folder / TEST_FILE).write_text("{") and None, r"json:1: is no JSON"),
        (lambda folder: write_json(folder / "train_annos.json", []) and None, r"holds the empty \[\], expected a list"),
        (rename("sk/0007", "sk/seven"), r"sk': the person folder 'seven' is not a whole number from 0"),
        (rename("sk/0007", "sk/12"), r"sk' has two folders of person 12; join them in '0012'"),
        (rename("train_annos.json", "annos.json"), r"ORBench' has no train_annos\.json"),
        (rename("vis", "Vis"), r"rename Vis in .* to vis"),
    ],
)
def test_what_does_not_fit_is_one_line_with_file_entry_and_way_out(tmp_path, edit, words):
    edit(write_orbench(tmp_path))
    with pytest.raises(DataError, match=words) as raised:
        load_orbench(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_the_data_set_itself_is_told(tmp_path):
    folder = write_orbench(tmp_path)
    with pytest.raises(DataError, match="is the data set itself: set DATASETS.ROOT_DIR to its parent"):
        load_orbench(folder)
    assert load_orbench_folder(folder).published == {} and load_orbench(tmp_path).published


def test_what_computers_leave_beside_images_does_not_count(tmp_path):
    folder = write_orbench(tmp_path)
    before = load_orbench(tmp_path)
    (folder / "nir" / "0003" / "._0003_cam3_nir.jpg").write_bytes(b"x")
    (folder / "nir" / "Thumbs.db").write_bytes(b"x")
    (folder / "nir" / "__MACOSX").mkdir()
    assert load_orbench(tmp_path) == before


@needs_emoji
def test_the_real_competition_layout_is_read_as_a_loop_reads_it():
    root = EMOJI / "PRCV2025" / "data"
    dataset = load_orbench(root)
    assert plain(dataset) == slow_records(root / "train", "text_annos.json")
    assert counts_of(dataset)["train"]["ids"] == 260 and len(dataset.train) == len(
        json.loads((root / "train" / "text_annos.json").read_text())
    )
