"""What is written for Qdrant is the index, and the example uploads it by the calls that its client has."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests import commands
from tests.tools.search.test_index import FakeExtractor, embedding_of
from tests.tools.search.test_large_index import settle, write_files
from tools import qdrant, qdrant_example
from tools.search import index as small
from tools.search.index import up_to_date
from tools.search.large_index import Update

LOCAL = os.environ.get("REID_QDRANT", "http://localhost:6333")


@pytest.fixture(params=["npz", "shards"])
def made(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A gallery of 30 images, one of which is gone since, and its index."""
    monkeypatch.setattr(small, "LARGE_FROM", 10**6 if request.param == "npz" else 10)
    gallery, file = tmp_path / "photos", tmp_path / "i.npz"
    write_files(gallery, 0, 30)
    settle(gallery)
    old = up_to_date(FakeExtractor(tmp_path), gallery, file, None, Update())
    os.rename(gallery / "day 1/00001.png", gallery / "day 1/\udcff.png")
    up_to_date(FakeExtractor(tmp_path), gallery, file, old, Update())
    return gallery, file.with_suffix(f".{request.param}")


def written(index: Path, out: Path) -> tuple[dict, list[dict], np.ndarray]:
    assert commands.run(qdrant.main, "--index", index, "--out", out) == 0
    points = [json.loads(line) for file in sorted(out.glob("*.jsonl")) for line in file.read_text().splitlines()]
    vectors = [np.load(file, mmap_mode="r", allow_pickle=False) for file in sorted(out.glob("*.npy"))]
    return json.loads((out / qdrant.COLLECTION).read_text()), points, np.concatenate(vectors)


def test_points_are_the_images_of_the_index_with_their_embeddings(made, tmp_path, capsys):
    gallery, index = made
    about, points, vectors = written(index, tmp_path / "points")
    assert about["vectors"] == {"size": 8, "distance": "Dot", "datatype": "float16", "on_disk": True}
    assert about["points"] == len(points) == len(vectors) == 30 and about["model"]["fingerprint"] == "f" * 64
    by_path = {point["payload"]["path"]: row for row, point in enumerate(points)}
    for path in gallery.rglob("*.png"):
        name = path.relative_to(gallery).as_posix()
        row = by_path.pop(name.replace("\udcff", "\\xff"))
        np.testing.assert_array_equal(vectors[row], embedding_of(path).astype(np.float16))
        stat = path.stat()
        assert (
            points[row]["payload"]["bytes"] == stat.st_size and points[row]["payload"]["changed_ns"] == stat.st_mtime_ns
        )
    assert not by_path and "30 points x 8 values" in capsys.readouterr().out
    assert len({uuid.UUID(point["id"]) for point in points}) == 30


def test_an_image_has_the_same_id_in_each_export(made, tmp_path):
    first, again = (written(made[1], tmp_path / name)[1] for name in ("one", "two"))
    assert first == again


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--index", "gone.npz", "--out", "o"), "--index: no index 'gone.npz'"),
        (("--index", "other.npz", "--out", "o"), "is another file than an index"),
        (("--index", "note.npz", "--out", "o"), "is damaged, or no index"),
        (("--index", "empty.shards", "--out", "o"), "is not whole; search the gallery again"),
        (("--index", "INDEX", "--out", "full"), "--out 'full' is not empty"),
    ],
)
def test_mistakes_are_one_line_and_code_2(made, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    np.savez("other.npz", meta=np.array('{"kind": "embeddings"}'))
    Path("note.npz").write_text("no archive")
    Path("empty.shards").mkdir()
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    assert commands.run(qdrant.main, *(made[1] if word == "INDEX" else word for word in words)) == 2
    assert message in capsys.readouterr().err


class Client:
    """Stands for Qdrant's client: the calls of the example, with the names of their arguments in the real one."""

    def __init__(self) -> None:
        self.collections: dict[str, dict] = {}

    def collection_exists(self, collection_name: str) -> bool:
        return collection_name in self.collections

    def create_collection(self, collection_name: str, vectors_config: SimpleNamespace) -> bool:
        self.collections[collection_name] = {"config": vectors_config, "points": {}}
        return True

    def upload_collection(
        self, collection_name: str, vectors: np.ndarray, payload: object, ids: object, batch_size: int, wait: bool
    ) -> None:
        points = self.collections[collection_name]["points"]
        for vector, own, key in zip(vectors, payload, ids, strict=True):
            points[str(uuid.UUID(key))] = (vector.astype(float), own)

    def query_points(self, collection_name: str, query: list[float], limit: int, with_payload: bool) -> SimpleNamespace:
        points = self.collections[collection_name]["points"].values()
        found = sorted(((float(vector @ query), own) for vector, own in points), key=lambda pair: -pair[0])
        return SimpleNamespace(points=[SimpleNamespace(score=score, payload=own) for score, own in found[:limit]])


MODELS = SimpleNamespace(
    VectorParams=lambda size, distance, datatype, on_disk: SimpleNamespace(size=size, distance=distance),
    Distance=Enum("Distance", {"DOT": "Dot", "COSINE": "Cosine"}),
    Datatype=Enum("Datatype", {"FLOAT16": "float16", "FLOAT32": "float32"}),
)


def test_the_example_uploads_all_points_and_finds_an_image_by_itself(made, tmp_path):
    _, points, vectors = written(made[1], tmp_path / "points")
    client = Client()
    for _ in range(2):  # the second time each point takes its own place
        qdrant_example.upload(client, MODELS, tmp_path / "points", "gallery")
    collection = client.collections["gallery"]
    assert len(collection["points"]) == 30 and collection["config"].size == 8
    found = qdrant_example.search(client, "gallery", vectors[3])
    assert found[0] == (pytest.approx(1, abs=1e-2), points[3]["payload"]["path"]) and len(found) == qdrant_example.SHOWN


def test_the_example_runs_against_a_local_server(made, tmp_path):
    client = pytest.importorskip("qdrant_client", reason="Qdrant's client is not installed")
    try:
        client.QdrantClient(url=LOCAL, timeout=2).get_collections()
    except Exception as error:
        pytest.skip(f"no Qdrant answers at {LOCAL}: {error}")
    _, points, _ = written(made[1], tmp_path / "points")
    name = f"test_{uuid.uuid4().hex}"
    try:
        command = [sys.executable, "-m", "tools.qdrant_example", str(tmp_path / "points"), LOCAL, name]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(qdrant.__file__).parents[1])
        assert ran.stdout.splitlines()[0].endswith(points[0]["payload"]["path"])
    finally:
        client.QdrantClient(url=LOCAL).delete_collection(name)


def test_a_copy_of_the_example_says_what_it_lacks_in_one_line(made, tmp_path):
    shutil.copy(qdrant_example.__file__, tmp_path / "copied.py")
    ran = subprocess.run([sys.executable, "copied.py", "photos"], cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (2, "error: 'photos' is no folder of python -m tools.qdrant\n")
