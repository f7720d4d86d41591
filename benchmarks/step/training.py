"""The variants of the training step, from the reference to ours, and what each of them costs."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.measure import MIB, alternate, summary
from benchmarks.step.cost import count_flop, held_bytes, layer_products, peak_bytes
from benchmarks.step.lineage_model import Levers, LineageModel
from benchmarks.step.lineage_step import LoopLevers, make_step
from benchmarks.step.ours import make_cfg, make_ours, make_stage, make_steps, rates_of, sizes_of
from processor.evaluation.embed import precision_name
from processor.step.compiling import CompiledTraining
from utils.device import resolve_amp

REFERENCE, OURS = "reference", "ours"
PRODUCTS = "torch.mm on the layer shapes"
FLOAT32 = precision_name(None)
COUNTED_IMAGES = 8  # whose work is counted, by unfused attention, for which a large batch may lack memory


class Bench(NamedTuple):
    """What is measured, and how often."""

    recipe: str
    size: str
    device: torch.device
    batch_size: int
    steps: int  # in each timed call
    repeats: int
    levers: bool  # also what lies between the reference and ours
    compiles: bool  # the compiled steps too


class Variant(NamedTuple):
    """A way to compute the step: one step, as many as a timed call takes, the model whose weights move."""

    name: str
    one: Callable[[dict], Any]
    many: Callable[[dict], Any]
    model: nn.Module
    precision: str  # of the matrix products
    compiled: bool = False


def clock_of(device: torch.device) -> Callable[[], float]:
    """Return the CPU time of this process or, on other devices, the wall time once the device is done."""
    if device.type == "cpu":
        return time.process_time

    synchronize = torch.cuda.synchronize if device.type == "cuda" else torch.mps.synchronize

    def now() -> float:
        synchronize()
        return time.perf_counter()

    return now


def staircase(bench: Bench) -> Iterator[tuple[str, Levers, LoopLevers, bool]]:
    """Yield (name, network, loop, compiled) from the reference on, each with one lever more."""
    cuda, best = bench.device.type == "cuda", resolve_amp("auto", bench.device)
    network, loop = Levers(), LoopLevers(torch.float16 if cuda else None)
    yield REFERENCE, network, loop, False
    if not bench.levers:
        return
    if cuda and best == torch.bfloat16:
        loop = loop._replace(amp=best)
        yield "+ bf16 without a loss scaler", network, loop, False
    for lever, name in (
        ("fused_attention", "+ fused attention"),
        ("batched_branches", "+ local branches as one batch"),
        ("class_token_only", "+ last blocks for the class token only"),
    ):
        network = network._replace(**{lever: True})
        yield name, network, loop, False
    loop = loop._replace(grouped_optimizer=True)
    yield "+ two fused optimizer groups", network, loop, False
    if cuda:
        loop = loop._replace(no_sync=True)
        yield "+ no wait in the step", network, loop, False
    if bench.compiles:
        yield "+ compile", network, loop, True


def make_variants(bench: Bench) -> list[Variant]:
    """Return the variants in the order of the table, all with the same first weights."""
    plain = make_cfg(bench.recipe, bench.size, bench.batch_size, ("SOLVER.AMP", "off"))
    model = make_ours(plain, bench.recipe, bench.device)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    sizes, rates = sizes_of(plain, model, bench.recipe), rates_of(plain, make_stage(plain, model))
    variants = []
    for name, network, loop, compiled in staircase(bench):
        reference = LineageModel(sizes, network).to(bench.device)
        reference.load_state_dict(weights)
        step = make_step(reference, rates, loop, compiled)
        many = _repeated(step, bench.steps)
        variants.append(Variant(name, step, many, reference, precision_name(loop.amp), compiled))
    best = resolve_amp("auto", bench.device)
    if best is None or bench.device.type == "cpu":
        variants.append(_ours(bench, weights, OURS, "off"))
    if best is not None:
        name = f"{OURS}, {precision_name(best)}"
        variants.append(_ours(bench, weights, name, "auto"))
        if bench.compiles:
            variants.append(_ours(bench, weights, f"{name}, compiled", "auto", compiled=True))
    return variants


def _ours(bench: Bench, weights: dict, name: str, amp: str, compiled: bool = False) -> Variant:
    cfg = make_cfg(bench.recipe, bench.size, bench.batch_size, ("SOLVER.AMP", amp))
    model = make_ours(cfg, bench.recipe, bench.device)
    model.load_state_dict(weights)
    stage = make_stage(cfg, model)
    wrapped = CompiledTraining(model) if compiled else model
    train = make_steps(stage, wrapped)

    def run(batch: dict, steps: int) -> dict[str, float]:
        return train([batch] * steps)

    one, many = (partial(run, steps=steps) for steps in (1, bench.steps))
    return Variant(name, one, many, model, precision_name(resolve_amp(amp, bench.device)), compiled)


def _repeated(step: Callable[[dict], Any], times: int) -> Callable[[dict], None]:
    def run(batch: dict) -> None:
        for _ in range(times):
            step(batch)

    return run


def measure_training(bench: Bench, batch: dict, variants: list[Variant]) -> list[dict]:
    """Return a row of figures for each variant: time, work, memory; times alternate.

    On a CPU the products of the layers take their turns too, in float32, as a last row.
    """
    cpu, sizes = bench.device.type == "cpu", variants[0].model.sizes
    functions = {variant.name: partial(variant.many, batch) for variant in variants}
    if cpu:
        multiply, products_flop = layer_products(sizes, bench.batch_size, bench.device, torch.float32)
        functions[PRODUCTS] = multiply
    times = alternate(functions, bench.repeats, threads=1 if cpu else None, clock=clock_of(bench.device))
    rows, flop = [], 0.0
    for variant in variants:
        if not variant.compiled:  # a graph's work is that of the eager model before it
            flop = flop_of_batch(variant.one, batch)
        rows.append(_row(bench, variant, times, flop) | _memory(bench, variant, batch))
    if cpu:
        seconds = times[PRODUCTS]
        speed = products_flop / median(seconds) / 1e9
        rows.append({"step": PRODUCTS, "precision": FLOAT32, **summary(seconds), "GFLOP/s": speed})
    return rows


def flop_of_batch(function: Callable[[dict], Any], batch: dict) -> float:
    """Return the floating point operations of a call, counted on a few images of the batch."""
    few = {name: values[:COUNTED_IMAGES] for name, values in batch.items()}
    return count_flop(partial(function, few)) * len(batch["pids"]) / len(few["pids"])


def _row(bench: Bench, variant: Variant, times: dict[str, list[float]], flop: float) -> dict:
    seconds, reference = ([value / bench.steps for value in times[name]] for name in (variant.name, REFERENCE))
    return {
        "step": variant.name,
        "precision": variant.precision,
        **summary(seconds),
        "images/s": bench.batch_size / median(seconds),
        "times the reference": median(reference) / median(seconds),
        "GFLOP": flop / 1e9,
        "GFLOP/s": flop / median(seconds) / 1e9,
    }


def _memory(bench: Bench, variant: Variant, batch: dict) -> dict:
    step = partial(variant.one, batch)
    held = None if variant.compiled else held_bytes(step, variant.model, batch.values()) / MIB
    return {"activations MiB": held, "peak MiB": peak_bytes(step, bench.device) / MIB}
