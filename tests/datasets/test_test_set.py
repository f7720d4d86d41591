"""The contract of a test set: labels, rules of junk, rows of queries, weights of sets."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from configs import load_cfg
from datasets import make_dataloader
from datasets.bases import Sample, fingerprint
from datasets.test_set import TestSet, Trial, first_items, labels_of, query_names, same_camera
from utils.errors import DataError

SAMPLES = [Sample("a.jpg", 7, 0, 2), Sample("b.jpg", 7, 1, -1), Sample("c.jpg", 8, 0, 0), Sample("d.jpg", 7, 0, 1)]


def sets_of(*names: str, **groups: tuple[str, ...]) -> TestSet:
    """Return a test set of trials of these sets."""
    trials = tuple(Trial(name, 0, np.array([0]), np.array([1])) for name in names)
    return TestSet("toy", "Toy", (), labels_of(SAMPLES), trials, None, False, (), "", groups)


def test_labels_are_those_of_the_samples_in_their_order():
    labels = labels_of(SAMPLES)
    assert [labels.pids.tolist(), labels.camids.tolist(), labels.viewids.tolist(), labels.names] == [
        [7, 7, 8, 7],
        [0, 1, 0, 0],
        [2, -1, 0, 1],
        ["a.jpg", "b.jpg", "c.jpg", "d.jpg"],
    ]
    assert labels_of([]).pids.shape == (0,)


def test_the_rule_of_cameras_takes_the_own_identity_under_the_own_camera():
    query, gallery = np.array([0, 1]), np.array([1, 2, 3])
    junk = same_camera(labels_of(SAMPLES), query, gallery)
    expected = [[SAMPLES[q][1:3] == SAMPLES[g][1:3] for g in gallery] for q in query]
    assert junk.tolist() == expected == [[False, False, True], [True, False, False]]


def test_the_first_item_labels_a_query_and_all_name_it():
    rows = np.array([[-1, 2, 0], [1, -1, -1]])
    assert first_items(rows).tolist() == [2, 1] and first_items(np.array([3, 0])).tolist() == [3, 0]
    assert query_names(labels_of(SAMPLES), rows).tolist() == ["c.jpg + a.jpg", "b.jpg"]
    assert query_names(labels_of(SAMPLES), np.array([3, 0])).tolist() == ["d.jpg", "a.jpg"]
    with pytest.raises(DataError, match=r"query 1 \(0-based\) has no item; 1 of 2 queries have none"):
        first_items(np.array([[0, 1], [-1, -1]]))


def test_sets_weigh_alike_or_by_groups():
    assert sets_of("").set_weights() == {"": 1.0}
    assert sets_of("x", "y", "x").set_weights() == {"x": 0.5, "y": 0.5}
    grouped = sets_of("x", "y", "z", one=("x", "y"), two=("z",))
    assert grouped.set_weights() == {"x": 0.25, "y": 0.25, "z": 0.5}
    assert sets_of("t2i", "i2t", score=("t2i",)).set_weights() == {"t2i": 1.0, "i2t": 0.0}


def test_data_unpack_and_index_as_transreids_do_and_cannot_be_changed(tiny_config: Path):
    data = make_dataloader(load_cfg(tiny_config))
    names = ("train_loader", "train_loader_normal", "val_loader", "num_query", "num_classes", "camera_num", "view_num")
    for place, (name, value) in enumerate(zip(names, data, strict=True)):
        assert value is getattr(data, name) or value == getattr(data, name)
        assert data[place] is value
    assert data[3:] == (36, 8, 3, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.tests = {}


def test_fingerprints_are_those_of_the_samples(tiny_config: Path):
    data = make_dataloader(load_cfg(tiny_config))
    images = data.val_loader.dataset.samples
    assert data.fingerprint == fingerprint({"train": data.train_loader.dataset.samples})
    splits = {"query": images[: data.num_query], "gallery": images[data.num_query :]}
    assert data.test.fingerprint == fingerprint(splits) and data.held_out is None
    assert (data.test.name, data.test.title, data.test.junk) == ("veri", "VeRi-776", same_camera)
