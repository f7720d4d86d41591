"""Embedding a batch: the reference network against ours."""

import copy
from functools import partial
from statistics import median

import torch
from torch import nn

from benchmarks.measure import alternate, summary
from benchmarks.step.lineage_model import LineageModel
from benchmarks.step.ours import make_cfg, make_ours, sizes_of
from benchmarks.step.training import FLOAT32, OURS, REFERENCE, Bench, clock_of, flop_of_batch
from model.layers.packed import packed_linears
from processor.evaluation.embed import embed_batch, make_embedding, precision_name
from utils.device import resolve_amp

TITLE = "embedding, {}"


def measure_inference(bench: Bench, batch: dict) -> list[dict]:
    """Return a row of figures for the reference, ours in float32 and ours in the device's own precision."""
    cfg = make_cfg(bench.recipe, bench.size, bench.batch_size)
    ours = make_ours(cfg, bench.recipe, bench.device).eval()
    packing = copy.deepcopy(
        ours
    )  # whose linear layers TEST.LINEAR decides on, once for all calls, as for all of a test
    lineage = LineageModel(sizes_of(cfg, ours, bench.recipe)).to(bench.device).eval()
    lineage.load_state_dict(ours.state_dict())

    @torch.no_grad()
    def embed_reference(batch: dict) -> None:
        lineage(batch["images"], batch["camids"], batch["viewids"])

    plain = make_embedding(cfg, bench.device, exact=True)._replace(flip=False, unit=False)

    def embed(batch: dict, model: nn.Module = ours, amp: torch.dtype | None = None) -> None:
        embed_batch(model, batch, plain._replace(amp=amp))  # its images are normalised already

    functions = {TITLE.format(REFERENCE): embed_reference}
    if bench.levers:
        functions[TITLE.format(f"{OURS}, plain linear layers")] = embed
    functions[TITLE.format(OURS)] = partial(embed, model=packing)
    precisions = dict.fromkeys(functions, FLOAT32)
    best = resolve_amp("auto", bench.device)
    if best is not None:
        name = TITLE.format(f"{OURS}, {precision_name(best)}")
        functions[name], precisions[name] = partial(embed, amp=best), precision_name(best)
    threads = 1 if bench.device.type == "cpu" else None
    calls = {name: partial(function, batch) for name, function in functions.items()}
    flop = {name: flop_of_batch(function, batch) for name, function in functions.items()}  # not seen in packed layers
    with packed_linears(packing, bench.device, plain.amp, plain.linear):
        times = alternate(calls, bench.repeats, threads, clock_of(bench.device))
    expected = median(times[TITLE.format(REFERENCE)])
    return [
        {
            "step": name,
            "precision": precisions[name],
            **summary(seconds),
            "images/s": bench.batch_size / median(seconds),
            "times the reference": expected / median(seconds),
            "GFLOP": flop[name] / 1e9,
            "GFLOP/s": flop[name] / median(seconds) / 1e9,
        }
        for name, seconds in times.items()
    ]
