"""Queries of several modalities: all sets against one gallery, ours against the plain way; asserts that figures agree.

Ours fuses the gallery once for all sets, the queries in parts, and ranks in blocks. The plain way fuses the gallery for
every set and holds the whole matrix of similarities, sorts each row of it, and makes matrices of matches. Each side
runs in a process of its own, on one thread: CPU seconds of a set, and the largest memory of the process beyond what it
held before. Features are random, around a centre for each person; the fusion has random weights.

python benchmarks/query_sets.py                            (32 sets of 500 queries, 2,000 images, seconds)
python benchmarks/query_sets.py --size orbench             (32 sets of 10,000 queries, 18,000 images; minutes, 6 GB)
python benchmarks/query_sets.py 500 2000 100 64 2          (queries, images, persons, width, sets of the plain way)
"""

import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import Bar, keep_size, limited_threads, read_size
from configs.modalities import VIS, group_name, set_name
from datasets.test_set import MODALITY, Labels, TestSet, Trial
from model.layers.masked_fusion import MaskedFusion
from processor.evaluation.embed import Embedded, fuse_by_model
from processor.evaluation.evaluate import RankOptions, evaluate
from processor.step.clock import max_memory
from utils.errors import run_command

SIZES = {"small": (500, 2000, 100, 64, 32), "orbench": (10_000, 18_000, 400, 512, 1)}
MEANING = "queries of a set, gallery images, persons, values of a feature, sets that the plain way evaluates"
WAYS = ("plain", "ours")
ASKED = ("nir", "cp", "sk", "text")
DEPTH, MAX_RANK, PAGE = 100, 10, 4 / 1024  # MiB: a page, the least that a process grows by
NOISE = 3.0  # around the centre of a person, in its standard deviations: neither chance nor a solved task
TOLERANCE, SWAPS = 1e-5, 3  # of a mean, and queries: float32 leaves the order of near-ties open
TIME = Bar("time of a set over the plain way's", 1, 0.5, "x")
MEMORY = {SIZES["orbench"]: Bar("memory over the plain way's", 0.2, 0.1, "x")}


class Found(NamedTuple):
    """What one side found, and what it took."""

    sets: dict[str, dict[str, float]]  # metrics as fractions, by set
    seconds: float  # of a set
    mib: float


class Fusing(nn.Module):
    """The fusion alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fusion = MaskedFusion(width).eval()

    def fuse(self, z: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return self.fusion(z, valid)


def query_sets() -> list[tuple[str, ...]]:
    """Return the 32 sets of ORBench: each main modality with every combination of the others."""
    return [
        (main, *others)
        for size in range(len(ASKED))
        for main in ASKED
        for others in combinations([name for name in ASKED if name != main], size)
    ]


def make_test(num_query: int, num_gallery: int, persons: int) -> TestSet:
    """Return the test: images, then `num_query` items of each other modality; a query has others of its person."""
    rng = np.random.default_rng(0)
    counts = {VIS: num_gallery} | dict.fromkeys(ASKED, num_query)
    pids = np.concatenate([np.arange(count) % persons for count in counts.values()])
    start = dict(zip(counts, np.cumsum([0, *counts.values()]).tolist(), strict=False))
    trials, groups = [], {}
    gallery = np.arange(num_gallery)[:, None]
    each = num_query // persons  # items that every person has of a modality
    for names in query_sets():
        own = np.arange(num_query)
        drawn = [own % persons + persons * rng.integers(each, size=num_query) for _ in names[1:]]
        rows = np.stack([start[name] + items for name, items in zip(names, [own, *drawn], strict=True)], axis=1)
        trials.append(Trial(set_name(names), 0, rows, gallery))
        groups.setdefault(group_name(len(names)), []).append(set_name(names))
    zeros, modality = np.zeros_like(pids), np.repeat([*counts], [*counts.values()])
    labels = Labels(pids, zeros, zeros - 1, [""] * len(pids), {MODALITY: modality})
    groups = {name: tuple(members) for name, members in groups.items()}
    return TestSet("query_sets", "", (), labels, tuple(trials), None, False, (), "", groups)


def make_embedded(test: TestSet, width: int) -> Embedded:
    """Return random features of the rows of a test, and the fusion."""
    generator = torch.Generator().manual_seed(0)
    pids = torch.from_numpy(test.labels.pids)
    centres = torch.randn(int(pids.max()) + 1, width, generator=generator)
    feat = torch.randn(len(pids), width, generator=generator).mul_(NOISE).add_(centres[pids])
    fuse = partial(fuse_by_model, model=Fusing(width), unit=True)
    return Embedded(feat, np.full(len(pids), np.nan), "float32", fuse)


@torch.inference_mode()
def plain_sets(test: TestSet, embedded: Embedded, count: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the metrics of the first `count` sets by matrices over all queries and images; every query has a match."""
    pids = torch.from_numpy(test.labels.pids)
    for trial in test.trials[:count]:
        query, gallery = (
            embedded.fuse(embedded.feat[rows], torch.ones(rows.shape, dtype=torch.bool))
            for rows in map(torch.from_numpy, (trial.query, trial.gallery))
        )
        order = torch.argsort(query @ gallery.t(), dim=1, descending=True)
        matches = pids[trial.gallery[:, 0]][order] == pids[trial.query[:, 0]][:, None]
        found = matches.cumsum(1)
        precision = found / torch.arange(1, matches.shape[1] + 1)
        total = found[:, -1]
        worth = precision * matches
        last = matches.shape[1] - matches.flip(1).int().argmax(1)  # the rank of the last match, from 1
        yield (
            trial.set,
            {
                "mAP": (worth.sum(1, dtype=torch.float64) / total).mean().item(),
                "mINP": (total / last).double().mean().item(),
                **{f"Rank-{k}": (found[:, k - 1] > 0).double().mean().item() for k in (1, 5, MAX_RANK)},
                f"mAP@{DEPTH}": (worth[:, :DEPTH].sum(1, dtype=torch.float64) / total.clamp(max=DEPTH)).mean().item(),
            },
        )


def run_way(way: str, size: tuple[int, ...]) -> Found:
    """Return what a way finds, the CPU seconds of a set on one thread, and how far the memory of this process grew."""
    *rows, width, count = size
    test = make_test(*rows)
    embedded, cpu = make_embedded(test, width), torch.device("cpu")
    with limited_threads(1):
        before, started = max_memory(cpu)["max_memory"], time.process_time()
        if way == "plain":
            sets = dict(plain_sets(test, embedded, count))
        else:
            sets = evaluate(test, embedded, RankOptions(MAX_RANK, depth=DEPTH)).sets
        seconds = (time.process_time() - started) / len(sets)
    return Found(sets, seconds, max(max_memory(cpu)["max_memory"] - before, PAGE))


def run_apart(way: str, size: tuple[int, ...]) -> Found:
    """Return what `run_way` returns, of a new process: what another side took stands in no one's memory."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run_way, way, size).result()


def check(found: dict[str, Found], num_query: int) -> None:
    """Assert that all metrics of the sets that both sides have agree but for near-ties."""
    for name, metrics in found["plain"].sets.items():
        for metric, value in metrics.items():
            most = SWAPS / num_query if metric.startswith("Rank-") else TOLERANCE
            ours = found["ours"].sets[name][metric]
            np.testing.assert_allclose(ours, value, rtol=0, atol=most, err_msg=f"{name}: {metric}")


def main(argv: list[str] | None = None) -> None:
    size = read_size(argv, "benchmarks/query_sets.py", __doc__, SIZES, MEANING)
    print("{} queries of a set x {} images of {} persons, {} values each, one thread".format(*size))
    found = {way: run_apart(way, size) for way in WAYS}
    plain, ours = found["plain"], found["ours"]
    check(found, size[0])
    print(f"equal in {len(plain.sets)} sets; ours has {len(ours.sets)}")
    for way, one in found.items():
        print(f"{way}: {one.seconds:.3f} s a set, {one.mib:,.0f} MiB")
    judged = [(TIME, ours.seconds / plain.seconds)]
    judged += [(MEMORY[size], ours.mib / plain.mib)] if size in MEMORY else []
    for bar, value in judged:
        print(bar.judge(value))
    rows = [
        {"way": way, "sets": len(one.sets), "s a set": one.seconds, "s": one.seconds * len(one.sets), "MiB": one.mib}
        for way, one in found.items()
    ]
    facts = dict(zip(("queries", "images", "persons", "width"), size, strict=False))
    keep_size("query_sets", {**facts, "rows": rows, "bars": [bar.facts(value) for bar, value in judged]}, size, SIZES)


if __name__ == "__main__":
    sys.exit(run_command(main))
