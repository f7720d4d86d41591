"""From data sets of several modalities to records and test sets: numbers, joins, query sets, what is held out."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from datasets import ReIDData, make_dataloader
from datasets.decode import read_image
from datasets.multimodal import Item, MultiModalDataset, Query, Record, SearchTest
from datasets.orbench import load_orbench
from datasets.read import Counts, Told
from datasets.read_multimodal import (
    arrange_multimodal,
    check_modalities,
    hold_out_records,
    join_records,
    records_fingerprint,
)
from datasets.search_tests import (
    arrange_search,
    choose_sets,
    draw_queries,
    labels_of_items,
    make_search_test,
    pool_of,
    search_fingerprint,
)
from datasets.test_set import TestSet, Trial
from datasets.tokens import tokenize
from tests.datasets.modal import (
    LENGTH,
    SETS,
    SIZE,
    TEST_FILE,
    TESTED,
    TRAINED,
    annotations,
    modal_cfg,
    queries_of,
    write_competition,
    write_json,
    write_orbench,
)
from tests.reference.slow_orbench import slow_queries, slow_sets
from utils.errors import DataError

ALL = ("vis", "nir", "sk", "cp", "text")
FEW = ("MODEL.MULTIMODAL.MODALITIES", ("vis", "text"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_orbench(tmp_path)
    return tmp_path


def asked(test: TestSet | SearchTest) -> dict[str, list[tuple[int, dict[str, str]]]]:
    """Return (pid, {modality: path or caption}) of the queries by set, as the slow reference has them."""
    labels = test.labels if isinstance(test, TestSet) else labels_of_items(test.items)
    return {
        trial.set: [
            (
                int(labels.pids[rows[rows >= 0][0]]),
                {str(labels.more["modality"][row]): labels.names[row] for row in rows if row >= 0},
            )
            for rows in trial.query
        ]
        for trial in test.trials
    }


def searched(test: TestSet, number: int = 0) -> list[tuple[str, int]]:
    """Return (path, pid) of the gallery of a trial."""
    rows = test.trials[number].gallery
    assert rows.shape == (len(rows), 1)
    return [(test.labels.names[row], int(test.labels.pids[row])) for row in rows[:, 0]]


def pool_by_hand(persons: tuple[int, ...], folder: Path) -> dict[int, dict[str, list[str]]]:
    """Return the items of persons by modality, as the test file's lists of single modalities have them."""
    content = json.loads((folder / TEST_FILE).read_text())
    pool: dict[int, dict[str, list[str]]] = {pid: {} for pid in persons}
    for name in ("NIR", "SK", "CP", "TEXT"):
        for pid, item in content[name]:
            values = pool[pid].setdefault(name.lower(), [])
            values.append(item if name == "TEXT" else str(folder / item))
    return pool


def test_the_official_sets_are_searched_in_all_rgb_images(root):
    data = make_dataloader(modal_cfg(root), num_instance=2)
    test = data.test
    assert asked(test) == slow_queries(root / "ORBench") and [trial.set for trial in test.trials] == [*SETS]
    assert len({id(trial.gallery) for trial in test.trials}) == 1 and test.junk is None and not test.distinct
    content = json.loads((root / "ORBench" / TEST_FILE).read_text())
    gallery = [(str(root / "ORBench" / path), pid) for pid, path in content["RGB_GALLERY"]]
    assert sorted(searched(test)) == sorted(gallery)
    assert test.groups == {"MM-1": SETS[:4], "MM-2": SETS[4:7], "MM-3": SETS[7:8], "MM-4": SETS[8:]}
    assert (test.name, test.title) == ("orbench", "ORBench")
    assert (data.num_classes, data.camera_num, data.view_num) == (4, 1, 1) and data.held_out is None


def test_rows_are_the_items_each_once_by_modality_and_loaders_follow(root):
    cfg = modal_cfg(root)
    test = make_dataloader(cfg).test
    kinds = test.labels.more["modality"].tolist()
    assert kinds == sorted(kinds, key=ALL.index)
    assert (
        len({*zip(kinds, test.labels.names, test.labels.pids.tolist(), strict=True)}) == len(kinds) == 9 + 6 + 9 + 6 + 9
    )
    row = 0
    for modality, loader in zip(ALL, test.loaders, strict=True):
        for batch in loader:
            ((found, values),) = batch["modalities"].items()
            assert found == modality and len(values) <= 5 and "images" not in batch
            for value in values:
                name, kind = test.labels.names[row], kinds[row]
                expected = (
                    tokenize(name, LENGTH)
                    if kind == "text"
                    else read_image(name, SIZE, "bilinear", "pillow", grey=kind in ("nir", "sk"))
                )
                assert kind == modality and (value == expected).all()
                row += 1
    assert row == len(kinds) and [len(loader.dataset) for loader in test.loaders] == [9, 6, 9, 6, 9]


def test_drawings_tell_their_viewpoint_by_their_names(root):
    labels = make_dataloader(modal_cfg(root)).test.labels
    for name, kind, view in zip(labels.names, labels.more["modality"], labels.more["view"], strict=True):
        word = ["front", "back", "side"][view] if view >= 0 else ""
        assert (f"_{word}_" in os.path.basename(name)) if kind in ("sk", "cp") else view == -1
    assert labels.more["view"].dtype == np.int8 and (labels.viewids == -1).all() and not labels.camids.any()


def test_a_model_of_fewer_modalities_is_tested_on_the_sets_that_it_can_read(root):
    test = make_dataloader(modal_cfg(root, *FEW)).test
    assert [trial.set for trial in test.trials] == ["TEXT"] and test.groups == {"MM-1": ("TEXT",)}
    assert [len(loader.dataset) for loader in test.loaders] == [9, 9]
    write_json(root / "ORBench" / TEST_FILE, queries_of(sets=["NIR", "SK"]))
    with pytest.raises(DataError, match=r"orbench: there is no query of text .*; it has those of NIR, SK"):
        make_dataloader(modal_cfg(root, *FEW))


def test_all_sets_are_the_official_ones_where_there_are_any_and_drawn_ones_else(root):
    folder = root / "ORBench"
    official, found = slow_queries(folder), asked(make_dataloader(modal_cfg(root, "TEST.QUERY_SETS", ("all",))).test)
    drawn = slow_sets(pool_by_hand(TESTED, folder))
    assert [*found] == [*drawn] and len(found) == 15
    same = {"NIR+SK+CP": "NIR+CP+SK", "NIR+SK+CP+TEXT": "NIR+CP+SK+TEXT"}  # the main modality comes first, no other
    for name, queries in found.items():
        assert queries == official.get(same.get(name, name), drawn[name])
    named = asked(make_dataloader(modal_cfg(root, "TEST.QUERY_SETS", ("text+ir", "SK+TEXT"))).test)
    assert named == {"TEXT+NIR": official["TEXT+NIR"], "SK+TEXT": drawn["SK+TEXT"]}


def test_a_set_that_nobody_has_is_left_out_unless_it_is_asked_for_by_name():
    pool = {1: {"vis": ["a"], "nir": ["b"], "text": ["x"]}, 2: {"vis": ["c"], "sk": ["d"]}}
    assert [*choose_sets(("official",), {}, pool, ALL)] == ["NIR", "SK", "TEXT", "NIR+TEXT"]
    with pytest.raises(DataError, match=r"TEST.QUERY_SETS NIR\+SK: no person that is tested has all of nir, sk"):
        choose_sets(("NIR+SK",), {}, pool, ALL)


def test_drawn_queries_are_one_for_each_item_and_the_same_whoever_else_is_there():
    pool = {pid: {"sk": [f"s{pid}{n}" for n in range(40)], "cp": [f"c{pid}{n}" for n in range(4)]} for pid in (9, 4)}
    queries = draw_queries(pool, ("sk", "cp"))
    assert [query.pid for query in queries] == [4] * 40 + [9] * 40
    assert [query.items["sk"] for query in queries] == pool[4]["sk"] + pool[9]["sk"]
    assert draw_queries({9: pool[9]}, ("sk", "cp")) == queries[40:]
    assert {query.items["cp"] for query in queries[40:]} == {*pool[9]["cp"]}
    assert [query.items["cp"][2:] for query in queries[:40]] != [query.items["cp"][2:] for query in queries[40:]]
    assert not draw_queries({1: {"sk": ["a"], "cp": []}}, ("sk", "cp"))


def test_another_gallery_has_an_entry_for_each_of_its_items_and_finding_oneself_is_junk(root):
    test = make_dataloader(modal_cfg(root, "TEST.GALLERY_SET", ("nir",), "TEST.QUERY_SETS", ("SK", "NIR"))).test
    assert len(searched(test)) == 6 and all(f"{os.sep}nir{os.sep}" in path for path, _ in searched(test))
    own = test.trials[1]
    junk = test.junk(test.labels, own.query[:, 0], own.gallery[:, 0])
    assert junk.sum() == 6 and (own.gallery[:, 0][junk.argmax(1)] == own.query[:, 0]).all()
    every = make_dataloader(modal_cfg(root, "TEST.GALLERY_SET", ("nir",), "TEST.QUERY_SETS", ("all",))).test
    names = ["VIS", "SK", "CP", "TEXT", "SK+CP", "SK+TEXT", "CP+TEXT", "SK+CP+TEXT"]
    assert [trial.set for trial in every.trials] == names and every.junk is None
    both = make_dataloader(modal_cfg(root, "TEST.GALLERY_SET", ("vis", "sk"), "TEST.QUERY_SETS", ("NIR",))).test
    rows = both.trials[0].gallery
    assert rows.shape == (9, 2) and (both.labels.pids[rows[:, 0]] == both.labels.pids[rows[:, 1]]).all()
    assert {*both.labels.more["modality"][rows[:, 1]]} == {"sk"}


def test_a_caption_that_a_query_lacks_is_no_row(root):
    content = queries_of(sets=["NIR", "NIR+TEXT"])
    content["NIR+TEXT"][0][2] = ""
    write_json(root / "ORBench" / TEST_FILE, content)
    _, both = make_dataloader(modal_cfg(root)).test.trials
    assert (both.query[0] >= 0).tolist() == [True, False] and (both.query[1:] >= 0).all()


def test_persons_held_out_are_searched_with_all_sets_and_never_trained_on(tmp_path, caplog):
    caplog.set_level("INFO")
    root = write_competition(tmp_path)
    cfg = modal_cfg(root, "DATASETS.VAL_IDS", 0.5)
    data = make_dataloader(cfg, num_instance=2)
    assert data.num_classes == 2 and {path for batch in data.train_loader for path in batch["paths"]}.isdisjoint(
        path for path, _ in searched(data.held_out)
    )
    assert (data.held_out.title, data.test.title) == ("held-out identities", "ORBench, held-out identities")
    assert asked(data.test) == asked(data.held_out) == asked(make_dataloader(cfg).test)
    assert "by which its epoch may be picked too" in data.test.notes[-1]
    assert (
        "held out to pick the epoch by: 2 of the 4 training identities, 6 vis, 4 nir, 6 sk, 4 cp, 6 text" in caplog.text
    )
    numbers = {person: place for place, person in enumerate(sorted(TRAINED))}
    held = {int(path.split(os.sep)[-2]) for path, _ in searched(data.held_out)}
    by_hand: dict[int, dict[str, list[str]]] = {}
    for person in sorted(held):
        own = by_hand.setdefault(numbers[person], {})
        for modality in ("nir", "sk", "cp"):
            own[modality] = sorted(map(str, (root / "train" / modality / f"{person:04d}").iterdir()))
        own["text"] = [one["caption"] for one in annotations((person,))]
    assert asked(data.held_out) == slow_sets(by_hand)
    lacks = "orbench: there is no test; hold persons out of its training with DATASETS.VAL"
    with pytest.raises(DataError, match=lacks):
        make_dataloader(modal_cfg(root), num_instance=2)
    datasets = {"table": load_orbench(root), "orbench": load_orbench(root)}
    with pytest.raises(DataError, match=lacks):  # others than these were held out
        other = modal_cfg(root, "DATASETS.NAMES", ("table",), "DATASETS.VAL_IDS", 0.5)
        arrange_multimodal(other, datasets, {"orbench": "ORBench"})


def test_the_rgb_images_of_training_come_in_order_each_once(root):
    data = make_dataloader(modal_cfg(root))
    batches = list(data.train_loader_normal)
    paths = [path for batch in batches for path in batch["paths"]]
    assert paths == [record.vis for record in data.train_loader.dataset.records]
    assert {name for batch in batches for name in batch["modalities"]} == {"vis"}


def test_two_data_sets_train_together_persons_and_cameras_apart():
    others = {"nir": ("n",)}
    first = [Record(7, "a", "x", others, 3), Record(2, "b", "", others)]
    joined = join_records([first, [Record(2, "c", "y", {}, 1)]])
    assert [(one.pid, one.vis, one.camid) for one in joined] == [(1, "a", 3), (0, "b", 0), (2, "c", 5)]
    assert joined[0].others == others


def test_a_modality_that_no_person_has_is_refused_and_the_way_out_named(root):
    train = [Record(0, "a", "x", {"nir": ("n",), "sk": ()})]
    check_modalities(train, ("vis", "nir", "text"))
    with pytest.raises(DataError, match="no person to train on has sk or cp, .* set it to vis, nir, text"):
        check_modalities(train, ALL)
    with pytest.raises(DataError, match="set it to vis and another one"):
        check_modalities(train, ("vis", "sk"))


def test_the_number_of_persons_at_a_test_is_that_of_the_checkpoint(root):
    told = Told(Counts(17, 1, 1), ("orbench",))
    assert make_dataloader(modal_cfg(root), counts=lambda: told).num_classes == 17
    entries = [entry | {"split": "val"} for entry in annotations()]
    write_json(root / "ORBench" / "train_annos.json", entries)
    data = make_dataloader(modal_cfg(root), counts=lambda: told)
    assert (data.train_loader, data.num_classes, data.fingerprint) == (None, 17, "")
    with pytest.raises(DataError, match="orbench: there is nothing to train on: no entry of .* has split train"):
        make_dataloader(modal_cfg(root), num_instance=2)


def test_fingerprints_follow_every_item_and_not_its_place(root, tmp_path):
    def prints(at: Path) -> tuple[str, str]:
        data: ReIDData = make_dataloader(modal_cfg(at))
        return data.fingerprint, data.test.fingerprint

    first = prints(root)
    other = tmp_path / "other"
    folder = write_orbench(other)
    content = queries_of()
    write_json(folder / TEST_FILE, {key: content[key][::-1] for key in ("RGB_GALLERY", *reversed(SETS))})
    write_json(folder / "train_annos.json", annotations()[::-1])
    assert prints(other) == first
    content["NIR+TEXT"][0][2] = "other words"
    write_json(folder / TEST_FILE, content)
    (folder / "sk" / "0003" / "0003_side_0_sk.jpg").unlink()
    changed = prints(other)
    assert changed[0] != first[0] and changed[1] != first[1]
    record = Record(0, "a/b.jpg", "x", {"nir": ("n/c.jpg",)})
    changes = [{"pid": 1}, {"vis": "a/d.jpg"}, {"caption": "y"}, {"camid": 1}, {"others": {"sk": ("n/c.jpg",)}}]
    assert len({records_fingerprint([record._replace(**change)]) for change in ({}, *changes)}) == 6


def test_trials_differ_in_their_fingerprint_by_set_query_and_gallery():
    gallery = [Query(1, {"vis": "a/1.jpg"}), Query(2, {"vis": "a/2.jpg"})]
    queries = {"SK": [Query(1, {"sk": "a/1.jpg"})], "TEXT": [Query(2, {"text": "x"})]}
    tests = [
        arrange_search(gallery, queries),
        arrange_search(gallery[:1], queries),
        arrange_search(gallery, {"CP": [Query(1, {"cp": "a/1.jpg"})], "TEXT": queries["TEXT"]}),
        arrange_search(gallery, queries | {"TEXT": [Query(1, {"text": "x"})]}),
        arrange_search(gallery, queries | {"TEXT": [Query(2, {"text": "y"})]}),
    ]
    assert len({search_fingerprint(test) for test in tests}) == len(tests)
    assert search_fingerprint(arrange_search(gallery[::-1], queries)) == search_fingerprint(tests[0])


def test_a_data_set_with_a_test_of_its_own_keeps_it_and_needs_its_modalities():
    items = [Item("vis", "a", 1, 2), Item("nir", "b", 1, 3)]
    own = SearchTest(items, (Trial("all", 0, np.array([[1]]), np.array([[0]])),), {"": ("all",)}, None, True)
    dataset = MultiModalDataset("x", [], test=own)
    assert make_search_test(dataset, ("vis", "nir"), ("official",), ("vis",)) is own
    with pytest.raises(DataError, match="x is tested on vis, nir, but MODEL.MULTIMODAL.MODALITIES has vis, sk alone"):
        make_search_test(dataset, ("vis", "sk"), ("official",), ("vis",))
    assert labels_of_items(items).camids.tolist() == [2, 3]


def test_captions_of_blanks_are_no_items_and_each_item_counts_once():
    items = [Item("text", " ", 1), Item("text", "x", 1), Item("text", "x", 1), Item("text", "x", 2), Item("sk", "a", 1)]
    assert pool_of(items) == {1: {"text": ["x"], "sk": ["a"]}, 2: {"text": ["x"]}}


def test_persons_without_anything_to_search_with_are_not_held_out():
    records = [Record(pid, f"{pid}", "", {"nir": ("n",) if pid < 4 else ()}) for pid in range(40)]
    few = ("MODEL.MULTIMODAL.MODALITIES", ("vis", "nir"))
    left, held = hold_out_records(modal_cfg(Path("x"), *few, "DATASETS.VAL_IDS", 0.1), records)
    assert {item.pid for item in held.test.items} == {0, 1, 2, 3} and [one.pid for one in left] == [*range(36)]
    with pytest.raises(DataError, match=r"asks for 8 held-out identities, but 4 of the 40 .* have nir and 2 must be"):
        hold_out_records(modal_cfg(Path("x"), *few, "DATASETS.VAL_IDS", 0.2), records)
