"""The search of a large gallery: exact where all is compared, nearly always exact among the candidates of lists."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tests.tools.search.large_galleries import FOLDERS, NUMBER, names_in, settle, write_files
from tests.tools.search.test_index import embedding_of
from tools.search import lists, nearest, shards
from tools.search.nearest import CANDIDATES, nearest_in
from tools.search.shards import Shards
from utils.errors import DataError

with_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="FAISS is not installed")


@pytest.fixture
def gallery(large_gallery: Path) -> Path:
    return large_gallery


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere" / "i.shards"


def clusters(gallery: int, width: int, number: int) -> np.ndarray:
    """Return unit vectors around `number` centres."""
    rng = np.random.default_rng(0)
    feat = rng.normal(size=(number, width))[rng.integers(number, size=gallery)] + rng.normal(size=(gallery, width))
    return (feat / np.linalg.norm(feat, axis=1, keepdims=True)).astype(np.float32)


def stored(folder: Path, feat: np.ndarray) -> Shards:
    """Return an index of rows called by their numbers."""
    folder.mkdir()
    names = [f"{row:06d}" for row in range(len(feat))]
    half = len(feat) // 2
    parts = [
        shards.write_part(folder, names[rows], np.zeros((len(feat[rows]), 2)), feat[rows])
        for rows in (slice(half), slice(half, None))
    ]
    return shards.write_meta(folder, shards.new_meta("f" * 64, folder, "float32", feat.shape[1]) | {"parts": parts})


def listed(index: Shards) -> Shards:
    return shards.write_meta(index.folder, index.meta | {"lists": lists.make_lists(index)})


def brute_force(query: np.ndarray, index: Shards, topk: int) -> tuple[list[list[str]], np.ndarray]:
    """Return names and similarities, in float64 with what is kept; of equal ones the lower name first."""
    rows = np.setdiff1d(np.arange(len(index)), index.gone)
    names, values = index.names(rows), query.astype(np.float64) @ index.take(rows).astype(np.float64).T
    orders = [sorted(range(len(names)), key=lambda row, one=one: (-one[row], names[row]))[:topk] for one in values]
    found = [[names[row] for row in order] for order in orders]
    return found, np.stack([one[order] for one, order in zip(values, orders, strict=True)])


@pytest.mark.parametrize("topk", [1, 7, 5000])
def test_an_exact_search_is_brute_force_on_what_is_kept(tmp_path, topk, monkeypatch):
    monkeypatch.setattr(shards, "READ_BYTES", 100 * 2 * 24)
    feat = clusters(700, 24, 30)
    feat[100:110] = feat[600]  # equal images, in both parts
    index = stored(tmp_path / "i.shards", feat)
    gone = np.arange(0, 700, 5)
    index = shards.write_meta(index.folder, index.meta | {"gone": shards.write_gone(index.folder, gone)})
    query = np.concatenate([feat[600:601], clusters(4, 24, 30)])
    paths, similarity = nearest_in(query, index, topk, exact=True)
    expected, values = brute_force(query, index, topk)
    assert len(paths[0]) == min(topk, 560)
    np.testing.assert_allclose(similarity, values, rtol=0, atol=1e-12)
    for mine, theirs, own in zip(paths, expected, similarity, strict=True):
        assert mine == theirs or len(np.unique(own.round(12))) < len(own)
    assert paths[0] == expected[0]


@with_faiss
@pytest.mark.parametrize("width", [8, 19])
def test_lists_find_nearly_all_that_is_near_and_rank_it_exactly(tmp_path, width):
    index = listed(stored(tmp_path / "i.shards", clusters(6000, width, 200)))
    assert lists.number_of_lists(6000) == 128 and lists.open_lists(index).nlist == 6000 // lists.TRAINED_ON
    query = clusters(50, width, 200)
    paths, similarity = nearest_in(query, index, 10)
    expected, _ = brute_force(query, index, 10)
    shared = [len(set(mine) & set(theirs)) / 10 for mine, theirs in zip(paths, expected, strict=True)]
    assert np.mean(shared) >= 0.98 and all((np.diff(values) <= 0).all() for values in similarity)


@with_faiss
def test_lists_take_new_rows_leave_gone_ones_out_and_are_learnt_anew_when_they_have_grown(opened, gallery, monkeypatch):
    write_files(gallery, NUMBER, 400)
    settle(gallery)
    index, _ = opened()
    assert index.meta["lists"]["rows"] == index.meta["lists"]["learnt_at"] == 400
    write_files(gallery, 400, 420)
    for number in range(20):
        (gallery / f"day {number % FOLDERS}/{number:05d}.png").unlink()
    index, _ = opened()
    assert index.meta["lists"]["rows"] == 420 and index.meta["lists"]["learnt_at"] == 400
    query = embedding_of(gallery / "day 1/00401.png")[None]
    found, _ = nearest_in(query, index, 5)
    assert found[0][0] == "day 1/00401.png"
    everything, _ = nearest_in(query, index, CANDIDATES)
    assert sorted(everything[0]) == sorted(names_in(index)) and len(everything[0]) == 400
    write_files(gallery, 420, 900)
    assert opened()[0].meta["lists"]["learnt_at"] == 900


@with_faiss
def test_update_reads_lists_against_their_checksum(opened, gallery, folder, caplog):
    write_files(gallery, NUMBER, 400)
    settle(gallery)
    entry = opened()[0].meta["lists"]
    file = lists.lists_file(folder, entry["number"])
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    index, seen = opened(checked=True)
    assert seen == [] and index.meta["lists"]["number"] > entry["number"] and "lists are damaged" in caplog.text


@with_faiss
def test_a_row_in_lists_that_the_index_has_not_is_damage(tmp_path, monkeypatch):
    index = listed(stored(tmp_path / "i.shards", clusters(600, 8, 20)))
    for rows in (np.arange(595, 605), np.arange(3)):  # too large, too few
        monkeypatch.setattr(nearest, "candidates", lambda *args, rows=rows: [rows])
        with pytest.raises(DataError, match="is damaged .the lists"):
            nearest_in(clusters(1, 8, 20), index, 5)


@with_faiss
@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"x" * len(data), None])
def test_lists_that_are_not_whole_are_said_and_made_again_by_update(opened, gallery, folder, damage):
    write_files(gallery, NUMBER, 400)
    settle(gallery)
    index, _ = opened()
    file = lists.lists_file(folder, index.meta["lists"]["number"])
    content = file.read_bytes()
    file.unlink()
    if damage:
        file.write_bytes(damage(content))
    query = embedding_of(gallery / "day 1/00001.png")[None]
    with pytest.raises(DataError, match="faiss.*search with --update"):
        nearest_in(query, opened()[0], 3)
    index, seen = opened(checked=True)
    assert seen == [] and nearest_in(query, index, 3)[0][0][0] == "day 1/00001.png"


def test_without_faiss_a_large_gallery_is_searched_all_the_same(opened, gallery, monkeypatch, caplog):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    index, _ = opened()
    assert "pip install faiss-cpu" in caplog.text and index.meta["lists"] is None
    assert nearest_in(embedding_of(gallery / "day 1/00001.png")[None], index, 3)[0][0][0] == "day 1/00001.png"
