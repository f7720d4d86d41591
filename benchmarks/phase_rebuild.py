"""Seconds from a change of K between two epochs to the first batch: ours, which changes the sampler in place, against
a lineage-like rebuild of sampler and loader, whose workers start anew.

python benchmarks/phase_rebuild.py                        (a list of VeRi's size, 2 workers, under a minute)
python benchmarks/phase_rebuild.py --workers 8

Both read the same small images with the same code, so that only the rebuilding differs. Wall-clock time.
"""

import collections
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler
from yacs.config import CfgNode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.input_pipeline import write_images
from benchmarks.measure import Bar, describe_seconds, keep, make_parser, ratio
from configs import get_cfg_defaults
from datasets import ReIDData, make_dataloader
from datasets.bases import Sample
from datasets.torch_datasets import collate
from utils.commands import whole_number
from utils.errors import ConfigError, run_command

NUM_IMAGES, NUM_IDS, WORKERS = 37778, 576, 2  # of VeRi's training set
BATCH, KS = 64, (4, 8)
CHANGES = 5
NUM_FILES, SIDE = 64, 32  # the list names few, small files again and again
PLAN = Bar("new plan", 0.5, 0.1, "s")
FIRST_BATCH = Bar("change of K to the first batch", 0.5, 0.25, "s")


def draw_counts(num_images: int, num_ids: int) -> np.ndarray:
    """Return images per identity, gamma-distributed, at least 2, that sum to `num_images`."""
    rng = np.random.default_rng(0)
    shares = rng.gamma(3.0, 1.0, num_ids)
    counts = np.maximum(2, (shares / shares.sum() * num_images).astype(int))
    while counts.sum() != num_images:  # what rounding and the minimum left over
        counts[np.argmax(counts)] += num_images - counts.sum()
    return counts


def make_cfg(folder: Path, num_images: int, num_ids: int, workers: int) -> CfgNode:
    """Write images and a table that lists them, and return a configuration that trains on it."""
    paths = write_images(folder, NUM_FILES, (SIDE, SIDE))
    pids = np.repeat(np.arange(num_ids), draw_counts(num_images, num_ids))
    links = [folder / f"row_{row}.jpg" for row in range(num_images)]  # an image may have one identity only
    for row, link in enumerate(links):
        os.link(paths[row % NUM_FILES], link)
    lines = [f"{links[row]},{pid},{row % 20},{row % 8},train" for row, pid in enumerate(pids)]
    lines += [f"{paths[0]},0,0,0,query", f"{paths[1]},0,1,0,gallery"]
    (folder / "list.csv").write_text("path,pid,camid,viewid,split\n" + "\n".join(lines) + "\n")
    cfg = get_cfg_defaults()
    cfg.MODEL.DEVICE = "cpu"
    cfg.DATASETS.NAMES = ("table",)
    cfg.DATASETS.TABLE = str(folder / "list.csv")
    cfg.DATALOADER.SAMPLER = "softmax_triplet"
    cfg.DATALOADER.NUM_INSTANCE, cfg.DATALOADER.NUM_WORKERS = KS[0], workers
    cfg.SOLVER.IMS_PER_BATCH = BATCH
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = [SIDE, SIDE]
    return cfg


class ListWalkSampler(Sampler):
    """P identities x K images a batch, drawn by walking lists, as the lineage's sampler does."""

    def __init__(self, samples: Sequence[Sample], batch_size: int, k: int) -> None:
        self.k, self.p = k, batch_size // k
        self.rows_of = collections.defaultdict(list)
        for row, sample in enumerate(samples):
            self.rows_of[sample.pid].append(row)

    def __iter__(self) -> Iterator[int]:
        blocks = {}
        for pid, rows in self.rows_of.items():
            rows = list(rows)
            if len(rows) < self.k:
                rows = random.choices(rows, k=self.k)
            random.shuffle(rows)
            blocks[pid] = [rows[start : start + self.k] for start in range(0, len(rows) - self.k + 1, self.k)]
        left, drawn = list(blocks), []
        while len(left) >= self.p:
            for pid in random.sample(left, self.p):
                drawn += blocks[pid].pop(0)
                if not blocks[pid]:
                    left.remove(pid)
        return iter(drawn)


def time_ours(data: ReIDData) -> tuple[list[float], list[float]]:
    """Return the seconds of new plans, and of plan and first batch, after an epoch each."""
    loader, plans, totals = data.train_loader, [], []
    for epoch in range(CHANGES + 1):
        k = KS[epoch % len(KS)]
        start = time.perf_counter()
        loader.sampler.set_epoch(epoch + 1)
        loader.sampler.set_num_instances(k)
        steps = len(loader)  # makes the plan
        planned = time.perf_counter()
        first = None
        for batch in loader:
            first = first or (time.perf_counter(), batch["pids"])
        if epoch:  # the first epoch starts the workers
            plans.append(planned - start)
            totals.append(first[0] - start)
        if sorted(set(first[1].bincount().tolist()) - {0})[0] % k or not steps:
            raise AssertionError(f"the first batch does not hold {k} images of an identity")
    return plans, totals


def time_rebuild(cfg: CfgNode, data: ReIDData) -> list[float]:
    """Return the seconds of a new sampler, a new loader with new workers, and its first batch."""
    dataset, seconds = data.train_loader.dataset, []
    for change in range(CHANGES):
        start = time.perf_counter()
        sampler = ListWalkSampler(dataset.samples, BATCH, KS[change % len(KS)])
        loader = DataLoader(
            dataset,
            batch_size=BATCH,
            sampler=sampler,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            collate_fn=collate,
            generator=torch.Generator(),
        )
        iterator = iter(loader)
        next(iterator)
        seconds.append(time.perf_counter() - start)
        del iterator  # ends its workers
    return seconds


def main(argv: list[str] | None = None) -> None:
    parser = make_parser("benchmarks/phase_rebuild.py", __doc__)
    parser.add_argument("--images", type=whole_number, default=NUM_IMAGES, help=f"default: {NUM_IMAGES}")
    parser.add_argument("--ids", type=whole_number, default=NUM_IDS, help=f"identities (default: {NUM_IDS})")
    parser.add_argument("--workers", type=whole_number, default=WORKERS, help=f"of the loader (default: {WORKERS})")
    args = parser.parse_args(argv)
    if args.images < 4 * args.ids or args.ids < BATCH // KS[0]:
        raise ConfigError(
            f"--images {args.images} --ids {args.ids}: a batch of {BATCH} needs {BATCH // KS[0]} identities, and an "
            "identity 4 images in the mean"
        )
    with tempfile.TemporaryDirectory() as folder:
        cfg = make_cfg(Path(folder), args.images, args.ids, args.workers)
        data = make_dataloader(cfg, KS[0])
        print(
            f"{args.images} images, {args.ids} identities, batches of {BATCH}, K {KS[0]} and {KS[1]}, "
            f"{args.workers} workers"
        )
        plans, totals = time_ours(data)
        rebuilt = time_rebuild(cfg, data)
    print(f"rebuilt, lineage-like, to the first batch: {describe_seconds(rebuilt)}")
    print(f"ours, plan: {describe_seconds(plans)}")
    print(f"ours, to the first batch: {describe_seconds(totals)}; {ratio(rebuilt, totals):.1f}x faster")
    judged = [(PLAN, statistics.median(plans)), (FIRST_BATCH, statistics.median(totals))]
    for bar, seconds in judged:
        print(bar.judge(seconds))
    if (args.images, args.ids, args.workers) == (NUM_IMAGES, NUM_IDS, WORKERS):
        facts = {"clock": "wall-clock seconds", "rebuilt": statistics.median(rebuilt)}
        facts |= {"plan": statistics.median(plans), "first batch": statistics.median(totals)}
        keep("phase_rebuild", facts | {"bars": [bar.facts(seconds) for bar, seconds in judged]})


if __name__ == "__main__":
    sys.exit(run_command(main))
