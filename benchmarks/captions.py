"""Images searched by captions: our evaluation, in blocks, against the plain way; asserts that the figures agree.

The plain way holds the whole matrix of similarities, sorts each row of it, and makes matrices of matches and of
precisions, as the original code of IRRA does. Each side runs in a process of its own, on one thread: CPU seconds, and
the largest memory of the process beyond what it held before, features included. The features are random, around a
centre for each identity.

python benchmarks/captions.py                       (4,000 captions and images, 1 GB, seconds)
python benchmarks/captions.py --size icfg           (20,000, about as many as ICFG-PEDES tests; 14 GB, minutes)
python benchmarks/captions.py 4000 4000 200 512     (captions, images, identities, values of a feature)
"""

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import Bar, keep_size, limited_threads, read_size
from processor.step.clock import max_memory
from utils.errors import run_command
from utils.ranking.protocol import Protocol
from utils.ranking.rank import make_distances, rank

SIZES = {"small": (4000, 4000, 200, 512), "icfg": (20_000, 20_000, 1000, 512)}
MEANING = "captions, images, identities, values of a feature"
WAYS = ("plain", "ours")
MAX_RANK, PAGE = 10, 4 / 1024  # MiB: a page, the least that a process grows by
NOISE = 3.0  # around the centre of an identity, in its standard deviations: neither chance nor a solved task
# float32 rounds a cosine in two ways, so that images whose cosines differ by less, some 1e-7, may swap their ranks: a
# mean moves a little, and Rank-k by whole captions
TOLERANCE, SWAPS = 1e-5, 3
TIME = Bar("time over the plain way's", 1, 0.5, "x")
MEMORY = {SIZES["icfg"]: Bar("memory over the plain way's", 0.02, 0.01, "x")}  # of few rows a block takes most

Labelled = tuple[torch.Tensor, torch.Tensor]  # unit features float32 [N, D], identities int64 [N]


class Found(NamedTuple):
    """What one side found, and what it took."""

    metrics: dict[str, float]  # fractions
    seconds: float
    mib: float


def make_side(rows: int, identities: int, width: int, seed: int) -> Labelled:
    """Return features and identities of captions or images; the centres of the identities are those of any seed."""
    centres = torch.randn(identities, width, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    pids = torch.randint(identities, (rows,), generator=generator)
    feat = torch.randn(rows, width, generator=generator).mul_(NOISE).add_(centres[pids])
    return torch.nn.functional.normalize(feat, dim=1), pids


def plain_metrics(captions: Labelled, images: Labelled) -> dict[str, float]:
    """Return the metrics of IRRA's protocol by matrices over all captions and images.

    Every caption has a match. Reference: Jiang and Ye, IRRA, CVPR 2023, section 4.1 (Rank-k, mAP), and Ye et al., TPAMI
    2021, section 3.3 (mINP).
    """
    (text, text_pids), (image, image_pids) = captions, images
    order = torch.argsort(text @ image.t(), dim=1, descending=True)  # [Q, G]
    matches = image_pids[order] == text_pids[:, None]
    found = matches.cumsum(1)
    precision = found / torch.arange(1, matches.shape[1] + 1)
    total = found[:, -1]
    last = matches.shape[1] - matches.flip(1).int().argmax(1)  # the rank of the last match, from 1
    rank_k = {f"Rank-{k}": (found[:, k - 1] > 0).double().mean().item() for k in (1, 5, MAX_RANK)}
    ap = (precision * matches).sum(1, dtype=torch.float64) / total
    return {"mAP": ap.mean().item(), "mINP": (total / last).double().mean().item(), **rank_k}


def our_metrics(captions: Labelled, images: Labelled) -> dict[str, float]:
    """Return the same as a test computes it."""
    (text, text_pids), (image, image_pids) = captions, images
    cameras = np.zeros(len(text), dtype=np.int64), np.ones(len(image), dtype=np.int64)  # no pair is junk
    ranking = rank(make_distances(text, image), Protocol(text_pids.numpy(), image_pids.numpy(), *cameras), MAX_RANK)
    rank_k = {f"Rank-{k}": float(ranking.cmc[k - 1]) for k in (1, 5, MAX_RANK)}
    return {"mAP": ranking.mAP, "mINP": ranking.mINP, **rank_k}


def run_way(way: str, size: tuple[int, ...]) -> Found:
    """Return what a way finds, its CPU seconds on one thread, and how far the memory of this process grew."""
    num_captions, num_images, identities, width = size
    cpu = torch.device("cpu")
    sides = make_side(num_captions, identities, width, 1), make_side(num_images, identities, width, 2)
    with limited_threads(1):
        before, started = max_memory(cpu)["max_memory"], time.process_time()
        metrics = (plain_metrics if way == "plain" else our_metrics)(*sides)
        seconds = time.process_time() - started
    return Found(metrics, seconds, max(max_memory(cpu)["max_memory"] - before, PAGE))


def run_apart(way: str, size: tuple[int, ...]) -> Found:
    """Return what `run_way` returns, of a new process: what another side took stands in no one's memory."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run_way, way, size).result()


def check(found: dict[str, Found], num_captions: int) -> None:
    """Assert that all metrics of both sides agree but for near-ties."""
    for name, value in found["plain"].metrics.items():
        most = SWAPS / num_captions if name.startswith("Rank-") else TOLERANCE
        np.testing.assert_allclose(found["ours"].metrics[name], value, rtol=0, atol=most, err_msg=name)


def main(argv: list[str] | None = None) -> None:
    size = read_size(argv, "benchmarks/captions.py", __doc__, SIZES, MEANING)
    print("{} captions x {} images of {} identities, {} values each, one thread".format(*size))
    found = {way: run_apart(way, size) for way in WAYS}
    plain, ours = found["plain"], found["ours"]
    check(found, size[0])
    print(f"equal: {', '.join(f'{name} {value:.3%}' for name, value in ours.metrics.items())}")
    for way, one in found.items():
        print(f"{way}: {one.seconds:.2f} s, {one.mib:,.0f} MiB")
    judged = [(TIME, ours.seconds / plain.seconds)]
    judged += [(MEMORY[size], ours.mib / plain.mib)] if size in MEMORY else []
    for bar, value in judged:
        print(bar.judge(value))
    rows = [{"way": way, "s": one.seconds, "MiB": one.mib, **one.metrics} for way, one in found.items()]
    facts = dict(zip(("captions", "images", "identities", "width"), size, strict=True))
    keep_size("captions", {**facts, "rows": rows, "bars": [bar.facts(value) for bar, value in judged]}, size, SIZES)


if __name__ == "__main__":
    sys.exit(run_command(main))
