"""Embedding a batch: the reference network against ours."""

from statistics import median

import torch

from benchmarks.measure import alternate, summary
from benchmarks.step.lineage_model import LineageModel
from benchmarks.step.ours import make_cfg, make_ours, sizes_of, take_as_they_are
from benchmarks.step.training import OURS, REFERENCE, Bench, clock_of
from processor.embed import embed_batch
from utils.device import resolve_amp

TITLE = "embedding, {}"


def measure_inference(bench: Bench, batch: dict) -> list[dict]:
    """Return a row of figures for the reference, ours in float32 and ours in the device's own precision."""
    cfg = make_cfg(bench.recipe, bench.size, bench.batch_size)
    ours = make_ours(cfg, bench.recipe, bench.device).eval()
    lineage = LineageModel(sizes_of(cfg, ours, bench.recipe)).to(bench.device).eval()
    lineage.load_state_dict(ours.state_dict())

    def embed_reference() -> None:
        with torch.no_grad():
            lineage(batch["images"], batch["camids"], batch["viewids"])

    def embed(amp: torch.dtype | None) -> None:
        labels = batch["camids"], batch["viewids"]
        embed_batch(ours, batch["images"], *labels, take_as_they_are, flip=False, amp=amp)

    functions = {TITLE.format(REFERENCE): embed_reference, TITLE.format(OURS): lambda: embed(None)}
    best = resolve_amp("auto", bench.device)
    if best is not None:
        functions[TITLE.format(f"{OURS}, {str(best).removeprefix('torch.')}")] = lambda: embed(best)
    threads = 1 if bench.device.type == "cpu" else None
    times = alternate(functions, bench.repeats, threads, clock_of(bench.device))
    expected = median(times[TITLE.format(REFERENCE)])
    return [
        {
            "step": name,
            **summary(seconds),
            "images/s": bench.batch_size / median(seconds),
            "times the reference": expected / median(seconds),
        }
        for name, seconds in times.items()
    ]
