"""The index of a large gallery: made of random clustered vectors, searched by a process that has nothing else.

The vectors are drawn chunk by chunk around a centre for each 30 of them, so no more than a part of them is ever in
memory. Each query is a vector of its own of some cluster; the ten nearest are compared with those of all vectors in
float32. Each search opens the index anew, on one thread; the first one reads from the disk what the others find mapped.
Three sizes, each a quarter of the next, give the line (in logarithms) by which ten times the largest is extrapolated.

python benchmarks/large_index.py                           (up to 50,000 vectors of 768 values; a few minutes)
python benchmarks/large_index.py --size million            (up to 1,000,000; 2 GB of disk, an hour)
python benchmarks/large_index.py 20000 256 50              (vectors, values of each, queries)
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import Bar, keep_size, read_size
from tools.search.lists import make_lists
from tools.search.shards import Shards, new_meta, write_meta
from tools.search.writer import Writer
from utils.errors import run_command

SIZES = {"small": (50_000, 768, 100), "million": (1_000_000, 768, 200)}
MEANING = "vectors, values of each, queries"
CHILD = Path(__file__).resolve().parent / "step" / "large_search.py"
TOPK, CHUNK, SHARES = 10, 10_000, (1 / 16, 1 / 4, 1)
CLUSTER, NOISE = 30, 0.8  # vectors around a centre; noise over its length: cosines within a cluster are about 0.6
SECONDS = Bar("time of a search after the first", 0.3, 0.1, "s")
MEMORY = Bar("memory of a process that searches", 300, 200, "MB")
RECALL = Bar(f"recall@{TOPK} against exact", 0.98, 0.995, "", at_least=True)


class Measured(NamedTuple):
    """What an index of some size takes."""

    vectors: int
    build_s: float
    disk_mb: float
    first_s: float  # of the first search of a process
    search_s: float  # median of the others
    start_mb: float  # of a process before its first search
    peak_mb: float
    recall: float


def draw(centres: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """Return unit vectors float32 [count, D] around unit `centres`."""
    feat = centres[rng.integers(len(centres), size=count)]
    feat = feat + rng.standard_normal(feat.shape, dtype=np.float32) * np.float32(NOISE / np.sqrt(feat.shape[1]))
    return feat / np.linalg.norm(feat, axis=1, keepdims=True)


def chunks(centres: np.ndarray, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, vectors) over all vectors; the same each time."""
    rng = np.random.default_rng(1)
    for start in range(0, count, CHUNK):
        yield start, draw(centres, rng, min(CHUNK, count - start))


def build(folder: Path, centres: np.ndarray, count: int) -> tuple[Shards, float]:
    """Return an index of all vectors, called by their numbers, and the seconds that its parts and lists took."""
    folder.mkdir()
    width, seconds = centres.shape[1], 0.0
    writer = Writer(Shards(folder, new_meta("0" * 64, folder, "float32", width)))
    for start, feat in chunks(centres, count):
        names, stamps = [str(start + row) for row in range(len(feat))], np.zeros((len(feat), 2), np.int64)
        begun = time.perf_counter()
        writer.add(names, stamps, feat)
        seconds += time.perf_counter() - begun
    begun = time.perf_counter()
    index = writer.flush()
    lists = make_lists(index)
    index = write_meta(folder, index.meta | {"lists": lists, "whole": True})
    return index, seconds + time.perf_counter() - begun


def exact(query: np.ndarray, centres: np.ndarray, count: int) -> np.ndarray:
    """Return the TOPK nearest of all vectors to each query, int64 [Q, TOPK], from float32 products."""
    best, rows = np.full((len(query), TOPK), -np.inf, np.float32), np.zeros((len(query), TOPK), np.int64)
    for start, feat in chunks(centres, count):
        scores = np.concatenate([best, query @ feat.T], axis=1)
        places = np.argpartition(-scores, TOPK - 1, axis=1)[:, :TOPK]
        numbers = np.concatenate(
            [rows, np.broadcast_to(np.arange(start, start + len(feat)), (len(query), len(feat)))], 1
        )
        best, rows = (np.take_along_axis(values, places, axis=1) for values in (scores, numbers))
    return rows


def measure_size(folder: Path, count: int, width: int, num_query: int) -> Measured:
    """Return what an index of `count` vectors takes; it is gone afterwards."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(1, count // CLUSTER), width), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    query = draw(centres, rng, num_query)
    index, build_s = build(folder / "i.shards", centres, count)
    disk = sum(file.stat().st_size for file in index.folder.iterdir()) / 1e6
    np.save(folder / "query.npy", query)
    result = folder / "result.json"
    command = [sys.executable, str(CHILD), str(index.folder), str(folder / "query.npy"), str(TOPK), str(result)]
    subprocess.run(command, check=True)
    searched = json.loads(result.read_text(encoding="utf-8"))
    nearest = exact(query, centres, count)
    found = [len(set(mine) & set(theirs)) for mine, theirs in zip(searched["found"], nearest.tolist(), strict=True)]
    first, *others = searched["seconds"]
    memory = searched["before_mb"], searched["peak_mb"]
    return Measured(count, build_s, disk, first, median(others), *memory, float(np.mean(found)) / TOPK)


def extrapolate(sizes: list[Measured], times: float) -> dict[str, float]:
    """Return what an index `times` the largest would take, by the line through the logarithms of the sizes measured."""
    numbers = np.log([one.vectors for one in sizes])
    larger = {"vectors": round(sizes[-1].vectors * times)}
    for name in ("build_s", "disk_mb", "search_s", "peak_mb"):
        slope, offset = np.polyfit(numbers, np.log([getattr(one, name) for one in sizes]), 1)
        larger[name] = float(np.exp(offset + slope * np.log(larger["vectors"])))
    return larger


def main(argv: list[str] | None = None) -> None:
    size = read_size(argv, "benchmarks/large_index.py", __doc__, SIZES, MEANING)
    count, width, num_query = size
    sizes = []
    for share in SHARES:
        with tempfile.TemporaryDirectory() as folder:
            sizes.append(measure_size(Path(folder), round(count * share), width, num_query))
        print(", ".join(f"{name} {value:.4g}" for name, value in sizes[-1]._asdict().items()))
    largest, larger = sizes[-1], extrapolate(sizes, 10)
    print("extrapolated, not measured: " + ", ".join(f"{name} {value:.4g}" for name, value in larger.items()))
    judged = [(SECONDS, largest.search_s), (MEMORY, largest.peak_mb), (RECALL, largest.recall)]
    for bar, value in judged:
        print(bar.judge(value))
    rows = [{"what": "measured", **one._asdict()} for one in sizes] + [{"what": "extrapolated, not measured", **larger}]
    facts = {"values": width, "queries": num_query, "rows": rows, "bars": [bar.facts(value) for bar, value in judged]}
    keep_size("large_index", facts, size, SIZES)


if __name__ == "__main__":
    sys.exit(run_command(main))
