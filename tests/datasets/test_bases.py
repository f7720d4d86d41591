import hashlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.bases import (
    Published,
    ReIDDataset,
    Sample,
    fingerprint,
    match_findings,
    published_findings,
    statistics_table,
    valid_queries,
)
from utils.errors import DataError


def samples(*labels: tuple[int, int], view: int = 0) -> list[Sample]:
    return [Sample(f"/root/part/{row}.jpg", pid, camid, view) for row, (pid, camid) in enumerate(labels)]


def dataset(
    query: Sequence[tuple[int, int]] = (), gallery: Sequence[tuple[int, int]] = (), **options: object
) -> ReIDDataset:
    return ReIDDataset("toy", samples((5, 0), (5, 1), (9, 1)), samples(*query), samples(*gallery), **options)


def test_fingerprint_is_the_hash_of_the_sorted_lines():
    data = [Sample("/a/b/train/2.jpg", 7, 1, 3), Sample("/a/b/train/1.jpg", 4, 0, -1)]
    text = "train\ttrain/1.jpg\t4\t0\t-1\ntrain\ttrain/2.jpg\t7\t1\t3"
    assert fingerprint({"train": data}) == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_fingerprint_ignores_order_and_root():
    data = [Sample("/a/train/2.jpg", 7, 1, 3), Sample("/a/train/1.jpg", 4, 0, 0)]
    moved = [Sample("data/elsewhere/train/1.jpg", 4, 0, 0), Sample("data/elsewhere/train/2.jpg", 7, 1, 3)]
    assert fingerprint({"train": data}) == fingerprint({"train": moved})


@pytest.mark.parametrize(
    "change", [{"path": "/a/test/1.jpg"}, {"path": "/a/train/3.jpg"}, {"pid": 5}, {"camid": 1}, {"viewid": 1}]
)
def test_fingerprint_changes_with_every_label(change):
    sample = Sample("/a/train/1.jpg", 4, 0, 0)
    assert fingerprint({"query": [sample]}) != fingerprint({"query": [sample._replace(**change)]})


def test_fingerprint_tells_the_splits_apart():
    one, other = samples((1, 0)), samples((1, 1))
    assert fingerprint({"query": one, "gallery": other}) != fingerprint({"query": other, "gallery": one})


def test_a_camera_beyond_those_of_the_data_set_is_a_finding():
    assert published_findings(dataset([(1, 5)], [(1, 1)], num_cameras=6)) == []
    (finding,) = published_findings(dataset([(1, 8)], [(1, 1)], num_cameras=6))
    assert "claims camera 9, but the data set has 6 cameras" in finding


def test_statistics_table_counts_distinct_labels():
    lines = statistics_table([dataset([(1, 0)] * 1200, [(1, 0), (2, 4)])]).splitlines()
    assert [line.split() for line in lines if "-----" not in line] == [
        ["data", "set", "split", "ids", "images", "cameras", "views"],
        ["toy", "train", "2", "3", "2", "1"],
        ["toy", "query", "1", "1,200", "1", "1"],
        ["toy", "gallery", "2", "2", "2", "1"],
    ]
    assert len({len(line) for line in lines}) == 1


def test_statistics_table_shows_no_cameras_and_unknown_views_as_such():
    toy = ReIDDataset("toy", samples((1, 0), (2, 0), view=-1), [], [], has_cameras=False)
    assert statistics_table([toy]).splitlines()[2].split() == ["toy", "train", "2", "2", "-", "0"]


def test_counts_equal_to_any_published_figure_are_no_finding():
    published = {"train": Published(images=(7, 3), ids=(2,)), "query": Published(images=(), ids=())}
    assert published_findings(dataset([(1, 0)], [(1, 1)], published=published)) == []


def test_counts_that_differ_from_the_published_ones_are_named():
    published = {"train": Published(images=(37_778, 37_746), ids=(575,))}
    images, ids = published_findings(dataset(published=published))
    assert images.startswith("toy train: expected 37,778 or 37,746 images (published), found 3; ")
    assert ids.startswith("toy train: expected 575 ids (published), found 2; ")


LABELS = st.lists(st.tuples(st.integers(-1, 6), st.integers(0, 4)), max_size=30)


@given(LABELS, LABELS)
def test_valid_queries_equal_a_naive_search(query, gallery):
    expected = [any(pid == other and camid != camera for other, camera in gallery) for pid, camid in query]
    np.testing.assert_array_equal(valid_queries(samples(*query), samples(*gallery)), np.array(expected, dtype=bool))


def test_queries_that_all_match_are_no_finding():
    assert match_findings(dataset([(1, 0), (2, 1)], [(1, 1), (2, 0), (0, 3)])) == []


def test_queries_without_a_match_are_counted_with_an_example():
    (line,) = match_findings(dataset([(1, 0), (2, 1), (3, 1)], [(1, 1), (2, 1)]))
    assert "2 of 3 queries" in line and "'/root/part/1.jpg'" in line


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        ([], [(1, 0)], "the query holds no image"),
        ([(1, 0)], [], "the gallery holds no image"),
        ([(4, 0), (2, 0)], [(7, 1), (8, 1), (9, 1), (10, 1)], r"query ids e.g. 2, 4; gallery ids e.g. 7, 8, 9\)"),
        ([(1, 0), (2, 1)], [(1, 0), (3, 1)], "query's own camera"),
    ],
)
def test_no_valid_query_at_all_says_why(query, gallery, message):
    with pytest.raises(DataError, match=message):
        match_findings(dataset(query, gallery))
