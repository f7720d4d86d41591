"""A whole test, from embeddings to its files: ranks, rates of pairs, slices by camera pair and the worst queries.

The plain way makes the distances anew for each of them, from copies of the features; ours looks at each block of
distances once. Ranking alone is what both add to. Synthetic features; AP, rates and slices are asserted to be equal,
and the worst queries to have the same rank lists. CPU time of one thread, in turns; memory is what a process grows by
that is its own: a file that is mapped is not, for the system may drop it.

python benchmarks/whole_test.py [--size small | market | msmt17]      (small: as large as VeRi-776, some minutes)
python benchmarks/whole_test.py 1678 11579 3840 200 20
"""

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from yacs.config import CfgNode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import MIB, Bar, alternate, cores, keep_size, read_size
from configs import get_cfg_defaults
from datasets.test_set import Labels, TestSet, Trial, same_camera
from processor.evaluation.embed import Embedded, embed, make_embedding
from processor.evaluation.evaluate import evaluate, rank_options
from processor.evaluation.outcome import evaluate_one
from processor.evaluation.store import FLOAT32, STORES
from utils.errors import run_command
from utils.ranking.distance import Distances
from utils.ranking.protocol import Protocol
from utils.ranking.rank import make_distances, rank_distances
from utils.ranking.rank_list import RankList, rank_lists
from utils.ranking.slices import read_slices
from utils.ranking.verification import Verification, verify
from utils.test_folder import TestFolder, TestResult

SIZES = {
    "small": (1678, 11579, 3840, 200, 20),
    "market": (3368, 15913, 3840, 750, 6),
    "msmt17": (11659, 82161, 768, 3060, 15),
}
MEANING = "queries, gallery images, values of a feature, identities, cameras"
REPEATS, MANY_PAIRS = 3, 10**8  # from so many pairs on each way runs once
BATCH, NOISE, NUM_WORST, NUM_RANKS = 128, 4, 12, 10
CPU = torch.device("cpu")
SAMPLED = 0.005  # seconds between two looks at the memory
OVER_RANKING = Bar("a whole test over ranking alone", 1.5, 1.3, "x")
OVER_PLAIN = Bar("times faster than separate passes", 1.5, 2.5, "x", at_least=True)


class Plain(NamedTuple):
    """What separate passes find."""

    result: TestResult
    verification: Verification
    pairs: dict[tuple[str, str], tuple[float, float]]  # mAP and Rank-1 by query and gallery camera
    worst: list[RankList]


class Held(nn.Module):
    """A model whose embeddings are made already."""

    def __init__(self, feat: torch.Tensor) -> None:
        super().__init__()
        self.feat = nn.Parameter(feat, requires_grad=False)

    def embed_batch(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.feat[batch["caption_ids"]]


def make_case(
    num_query: int, num_gallery: int, width: int, num_ids: int, num_cameras: int
) -> tuple[CfgNode, Held, TestSet]:
    """Return configuration, model and test set of synthetic features."""
    rng, total = np.random.default_rng(0), num_query + num_gallery
    rows, pids, cameras = np.arange(total), rng.integers(num_ids, size=total), rng.integers(num_cameras, size=total)
    feat = rng.standard_normal((num_ids, width), dtype=np.float32)[pids]
    for part in np.array_split(feat, 32):
        part += NOISE * rng.standard_normal(part.shape, dtype=np.float32)
    labels = Labels(pids, cameras, np.full(total, -1), [f"{row:06d}.jpg" for row in rows])
    loader = DataLoader(rows, BATCH, collate_fn=lambda rows: {"caption_ids": torch.tensor(rows)})
    trial = Trial("", 0, rows[:num_query], rows[num_query:])
    test = TestSet("drawn", "Drawn", (loader,), labels, (trial,), same_camera, False, (), "0" * 16)
    cfg = get_cfg_defaults()
    cfg.TEST.AMP = "off"
    return cfg, Held(torch.from_numpy(feat)), test


def embed_rows(cfg: CfgNode, model: Held, test: TestSet) -> Embedded:
    """Return the embeddings as a test makes them."""
    return embed(model, test.loaders, make_embedding(cfg, CPU))


def ranking_alone(cfg: CfgNode, model: Held, test: TestSet) -> TestResult:
    """Return the figures of a test without its analysis."""
    return evaluate(test, embed_rows(cfg, model, test), rank_options(cfg))


def separate_passes(cfg: CfgNode, model: Held, test: TestSet) -> Plain:
    """Return what a pass for each thing finds, and the rows of the worst queries one by one."""
    embedded, trial = embed_rows(cfg, model, test), test.trials[0]
    result = evaluate(test, embedded, rank_options(cfg))
    distances = make_distances(embedded.feat[trial.query], embedded.feat[trial.gallery])
    sides = [values[rows] for values in test.labels[:2] for rows in (trial.query, trial.gallery)]
    protocol = Protocol(*sides)
    verification, pairs = verify(distances, protocol, cfg.TEST.ROC_FPR), plain_camera_pairs(distances, protocol)
    ap = result.per_query["ap"]
    worst = np.argsort(ap, kind="stable")[: min(NUM_WORST, result.num_valid_query)]
    return Plain(result, verification, pairs, rank_lists(distances, worst.tolist(), NUM_RANKS, protocol))


def plain_camera_pairs(distances: Distances, protocol: Protocol) -> dict[tuple[str, str], tuple[float, float]]:
    """Return mAP and Rank-1 of each query camera against each gallery camera that has a match, ranked one by one."""
    q_pids, g_pids, q_camids, g_camids = protocol[:4]
    columns = {camera: np.flatnonzero(g_camids == camera) for camera in np.unique(g_camids).tolist()}
    ap = {camera: np.full(len(q_pids), np.nan) for camera in columns}
    first = {camera: np.full(len(q_pids), -1) for camera in columns}
    for start, rows in distances.blocks():
        for camera, column in columns.items():
            known = np.isin(q_pids[start : start + len(rows)], g_pids[column])
            row = np.flatnonzero(known & (q_camids[start : start + len(rows)] != camera))
            if len(row):
                query = start + row
                labels = q_pids[query], g_pids[column], q_camids[query], g_camids[column]
                ranking = rank_distances(rows[np.ix_(row, column)], *labels, max_rank=1)
                ap[camera][query], first[camera][query] = ranking.ap, ranking.first_hit
    found = {}
    for own in np.unique(q_camids).tolist():
        for camera in columns:
            valid = (q_camids == own) & (first[camera] >= 0)
            if valid.any():
                found[str(own), str(camera)] = ap[camera][valid].mean(), (first[camera][valid] == 0).mean()
    return found


def one_pass(cfg: CfgNode, model: Held, test: TestSet, folder: TestFolder) -> TestResult:
    """Test as test.py does, with all files but the page."""
    return evaluate_one(cfg, model, test, folder, {"weight": "drawn"})


def check(plain: Plain, result: TestResult, folder: TestFolder, test: TestSet) -> None:
    """Assert that a test found what separate passes find: ranks, rates and slices, and the same rank lists."""
    for name in ("ap", "inp", "first_hit", "num_pos"):
        np.testing.assert_array_equal(result.per_query[name], plain.result.per_query[name])
    analysis = json.loads(folder.analysis.read_text(encoding="utf-8"))
    rates = {str(float(rate)): value for rate, value in plain.verification.tpr_at_fpr.items()}
    if analysis["tpr_at_fpr"] != rates or analysis["distance"]["negative"] != plain.verification.negative.tolist():
        raise AssertionError(f"rates of pairs are {analysis['tpr_at_fpr']}, in a pass of their own {rates}")
    slices = [part for part in read_slices(folder.slices) if part.kind == "camera_pair" and part.num_query]
    pairs = {(part.query, part.gallery): (part.mAP, part.R1) for part in slices}
    if pairs.keys() != plain.pairs.keys():
        raise AssertionError(f"{len(pairs)} camera pairs have queries, in a pass of their own {len(plain.pairs)}")
    for pair, figures in plain.pairs.items():
        np.testing.assert_allclose(pairs[pair], figures, rtol=0, atol=1e-6)  # the table has 6 decimals
    first = len(test.trials[0].query)
    for entry, ranks in zip(analysis["worst"], plain.worst, strict=True):
        if [image["path"] for image in entry["ranks"]] != [test.labels.names[first + row] for row in ranks.gallery]:
            raise AssertionError(f"the rank list of {entry['path']} is another one than that of its own row")
    print("equal: AP, INP, rates of pairs, camera pairs and the rank lists of the worst queries")


def own_memory() -> int:
    """Return the bytes of this process that no file holds; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def grown_by(function: Callable[[], Any]) -> int:
    """Return by how many bytes, at most, the process's own memory grows while `function` runs."""
    before, peak, done = own_memory(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLED):
            peak[0] = max(peak[0], own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        function()
    finally:
        done.set()
        watcher.join()
    return max(0, peak[0] - before)


def main(argv: list[str] | None = None) -> None:
    size = read_size(argv, "benchmarks/whole_test.py", __doc__, SIZES, MEANING)
    cfg, model, test = make_case(*size)
    print("{} queries x {} gallery images, {} values, {} identities, {} cameras, {}".format(*size, cores()))
    with tempfile.TemporaryDirectory() as name:
        cfg.OUTPUT_DIR, folder = name, TestFolder(Path(name) / "test")
        check(separate_passes(cfg, model, test), one_pass(cfg, model, test, folder), folder, test)
        ways = {
            "ranking alone": partial(ranking_alone, cfg, model, test),
            "separate passes": partial(separate_passes, cfg, model, test),
            "one pass, and all files": partial(one_pass, cfg, model, test, folder),
        }
        repeats = REPEATS if size[0] * size[1] < MANY_PAIRS else 1
        times = alternate(ways, repeats, clock=time.process_time)
        rows = [
            {"way": way, "TEST.FEATURES": FLOAT32, "s": median(seconds), "least": min(seconds)}
            for way, seconds in times.items()
        ]
        for row, way in zip(rows, ways.values(), strict=True):
            row["MiB"] = grown_by(way) / MIB
        for store in STORES[1:]:
            cfg.TEST.FEATURES = store
            rows.append(
                {"way": "one pass, and all files", "TEST.FEATURES": store, "MiB": grown_by([*ways.values()][-1]) / MIB}
            )
    for row in rows:
        print(f"{row['way']}, {row['TEST.FEATURES']}: {row['MiB']:.0f} MiB")
    alone, plain, ours = [*times.values()]
    judged = [(OVER_RANKING, _ratio(ours, alone)), (OVER_PLAIN, _ratio(plain, ours))]
    for bar, value in judged:
        print(bar.judge(value))
    bars = [bar.facts(value) for bar, value in judged]
    facts = dict(zip(MEANING.split(", "), size, strict=True)) | {
        "features MiB": 4 * (size[0] + size[1]) * size[2] / MIB
    }
    keep_size("whole_test", facts | {"rows": rows, "bars": bars}, size, SIZES)


def _ratio(one: list[float], other: list[float]) -> float:
    """Return the median over the turns of one way's time over the other's in the same turn."""
    return median(a / b for a, b in zip(one, other, strict=True))


if __name__ == "__main__":
    sys.exit(run_command(main))
