"""Rank lists of queries of several modalities: all items and what they find, against the formulas in float64."""

import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from processor.trained import load_trained
from tests import commands
from tests.datasets.modal import TESTED, paths_of, queries_of
from tests.tools.modal_runs import NAME, embeddings_of, write_modal_run
from tests.tools.visualize.test_visualize_commands import one_error
from tools.visualize import ranks
from tools.visualize.__main__ import main
from tools.visualize.grid import Tile

visualize = partial(commands.run, main)
Drawn = dict[str, tuple[Tile | None, list[Tile], str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, its data beside it; read only."""
    return write_modal_run(tmp_path_factory.mktemp("modal"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """What is drawn into which file: query, results, title."""
    pictures = {}

    def record(query: Tile | None, results: list[Tile], path: Path, title: str = "") -> None:
        pictures[path.name] = (query, results, title)

    monkeypatch.setattr(ranks, "draw_grid", record)
    return pictures


def similar(run: Path, name: str) -> tuple[list[tuple[int, dict[str, str]]], np.ndarray, list[str]]:
    """Return the queries of a set, (person, path or sentence by modality), their cosines [Q, G], and the gallery."""
    trained, folder = load_trained(run / NAME), run.parent / "data" / "ORBench"
    queries = []
    for pid, *values in queries_of()[name]:
        items = dict(zip(name.lower().split("+"), values, strict=True))
        queries.append((pid, {m: value if m == "text" else str(folder / value) for m, value in items.items()}))
    gallery = [str(folder / path) for pid in TESTED for path in paths_of(pid)["vis"]]
    feat = embeddings_of(trained.model, trained.cfg, [items for _, items in queries])
    other = embeddings_of(trained.model, trained.cfg, [{"vis": path} for path in gallery])
    return queries, (feat @ other.t()).numpy(), gallery


@pytest.mark.parametrize("name", ["NIR+CP+SK+TEXT", "TEXT"])
def test_all_items_of_a_query_stand_beside_what_they_find(run, drawn, tmp_path, name):
    words = ("--num-queries", 99, "--topk", 4, "--set", name.lower())
    assert visualize("ranks", "--run", run, "--out", tmp_path, *words) == 0
    queries, cosines, gallery = similar(run, name)
    assert len(drawn) == len(queries)
    seen = []
    for file, (first, results, title) in sorted(drawn.items()):
        tiles = [first, *first.beside] if first else []
        shown = {tile.label: str(tile.image) for tile in tiles}
        text = title.partition(" (AP")[0]
        row = next(place for place, (_, items) in enumerate(queries) if items == {**shown, "text": text})
        seen.append(row)
        order = np.argsort(-cosines[row], kind="stable")
        hits = np.array([Path(gallery[place]).parent.name == f"{queries[row][0]:04d}" for place in order])
        ap = np.mean(hits.cumsum()[hits] / (np.flatnonzero(hits) + 1))
        assert [tile.image for tile in results] == [gallery[place] for place in order[:4]]
        assert [tile.status for tile in results] == ["right" if hit else "wrong" for hit in hits[:4]]
        assert not any("cam" in line for tile in (*tiles, *results) for line in tile.caption[:2])
        told = tiles[0].caption[0] if tiles else title.partition(" (")[2].removesuffix(")")
        assert told == f"AP {ap:.1%}"
        assert file == f"{len(seen):03d}_ap{ap:.2f}_pid{queries[row][0]}_{name.lower().replace('+', '_')}.png"
    assert sorted(seen) == list(range(len(queries)))


def test_the_pictures_and_the_overview_are_written(run, tmp_path, capsys):
    assert visualize("ranks", "--run", run, "--out", tmp_path, "--num-queries", 2, "--set", "NIR+CP+SK") == 0
    assert sorted(path.name for path in tmp_path.iterdir())[-1] == "overview.png"
    assert capsys.readouterr().out == f"2 rank lists and overview.png in {tmp_path}\n"


def test_a_set_that_is_not_tested_is_named(run, tmp_path, capsys):
    assert visualize("ranks", "--run", run, "--out", tmp_path, "--set", "NIR+SK+CP") == 2
    assert "--set 'NIR+SK+CP' is not tested (TEST.QUERY_SETS); sets of ORBench: NIR, CP, SK, TEXT" in one_error(capsys)


def test_items_of_all_modalities_share_the_plane_as_single_queries(run, tmp_path):
    assert visualize("embedding", "--run", run, "--out", tmp_path, "--method", "pca", "--num-ids", 1) == 0
    rows = list(csv.DictReader((tmp_path / "pca.csv").open()))
    splits = {path.split("/")[-3]: row["split"] for row in rows if "/" in (path := row["path"])}
    assert splits == {"vis": "gallery", "nir": "query", "sk": "query", "cp": "query"}
    trained = load_trained(run / NAME)
    items = [{row["path"].split("/")[-3] if "/" in row["path"] else "text": row["path"]} for row in rows]
    feat = embeddings_of(trained.model, trained.cfg, items).numpy()
    axes = np.linalg.svd(feat - feat.mean(0), full_matrices=False)[2][:2]
    points = np.array([[float(row["x"]), float(row["y"])] for row in rows])
    np.testing.assert_allclose(np.abs(points), np.abs((feat - feat.mean(0)) @ axes.T), atol=1e-4)
