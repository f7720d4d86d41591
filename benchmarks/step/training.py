"""The variants of the training step, from the reference to ours, and what each of them costs."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.measure import MIB, alternate, summary
from benchmarks.step.batches import first_rows, tensors_in
from benchmarks.step.cost import count_flop, held_bytes, layer_products, peak_bytes
from benchmarks.step.lineage_model import Levers, LineageModel, Sizes
from benchmarks.step.lineage_step import LoopLevers, make_step
from benchmarks.step.ours import left_as_it_is, make_cfg, make_loop, make_ours, make_stage, rates_of, sizes_of
from processor.evaluation.embed import precision_name
from processor.stage import Stage
from processor.step.compiling import CompiledTraining
from utils.device import resolve_amp

REFERENCE, OURS = "reference", "ours"
PRODUCTS = "torch.mm on the layer shapes"
FLOAT32 = precision_name(None)
BROUGHT = "times the one before"  # the column of a table of levers
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


class Lever(NamedTuple):
    """A key of the configuration that may make our step faster, and the recipes in which it can."""

    title: str
    opts: tuple  # KEY, VALUE
    recipes: tuple[str, ...]
    half: bool = False  # it does something in bf16 or fp16 alone


OUR_LEVERS = (
    Lever("patches as products", ("MODEL.PATCHES", "product"), ("veri", "market", "clip_reid", "irra", "multimodal")),
    Lever("tokens between blocks as autocast", ("MODEL.RESIDUAL", "amp"), ("veri", "market"), half=True),
)


class Variant(NamedTuple):
    """A way to compute the step: one step, as many as a timed call takes, the model whose weights move."""

    name: str
    one: Callable[[dict], Any]
    many: Callable[[dict], Any]
    model: nn.Module
    precision: str  # of the matrix products
    compiled: bool = False
    before: str = ""  # the variant with one lever less


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
    variants, before = [], ""
    for name, network, loop, compiled in staircase(bench):
        reference = LineageModel(sizes, network).to(bench.device)
        reference.load_state_dict(weights)
        step = make_step(reference, rates, loop, compiled)
        many = repeated(step, bench.steps)
        variants.append(Variant(name, step, many, reference, precision_name(loop.amp), compiled, before))
        before = name

    def build(opts: tuple) -> Stage:
        cfg = make_cfg(bench.recipe, bench.size, bench.batch_size, opts)
        model = make_ours(cfg, bench.recipe, bench.device)
        model.load_state_dict(weights)
        stage = make_stage(cfg, model)
        stage.prepare = left_as_it_is(bench.device)
        return stage

    return variants + our_variants(bench, build)


def our_variants(bench: Bench, build: Callable[[tuple], Stage], compiles: bool = True) -> list[Variant]:
    """Return the variants of ours, whose stage `build` makes for keys (KEY, VALUE, ...) of the configuration.

    On a CPU float32, and in the device's own precision that; on top of it the levers of OUR_LEVERS, one more each, and
    all of them compiled.
    """
    best = resolve_amp("auto", bench.device)
    title, amp = (OURS, "off") if best is None else (f"{OURS}, {precision_name(best)}", "auto")
    found = [_ours(bench, build, title, amp)]
    if best is not None and bench.device.type == "cpu":
        found.insert(0, _ours(bench, build, OURS, "off"))
    levers = [lever for lever in OUR_LEVERS if bench.levers and bench.recipe in lever.recipes]
    levers = [lever for lever in levers if best is not None or not lever.half]
    for compiled in (False, True) if bench.compiles and compiles else (False,):
        name, opts = title, ()
        if compiled:
            name = f"{title}, compiled"
            found.append(_ours(bench, build, name, amp, opts, compiled, before=title))
        for lever in levers:
            before, name, opts = name, f"{name} + {lever.title}", (*opts, *lever.opts)
            found.append(_ours(bench, build, name, amp, opts, compiled, before))
    return found


def _ours(
    bench: Bench,
    build: Callable[[tuple], Stage],
    name: str,
    amp: str,
    opts: tuple = (),
    compiled: bool = False,
    before: str = "",
) -> Variant:
    stage = build(("SOLVER.AMP", amp, *opts))
    train = make_loop(stage, CompiledTraining(stage.model) if compiled else stage.model)

    def run(batch: dict, steps: int) -> dict[str, float]:
        return train([batch] * steps)

    one, many = (partial(run, steps=steps) for steps in (1, bench.steps))
    return Variant(name, one, many, stage.model, precision_name(resolve_amp(amp, bench.device)), compiled, before)


def repeated(step: Callable[[dict], Any], times: int) -> Callable[[dict], None]:
    """Return what takes so many steps on a batch."""

    def run(batch: dict) -> None:
        for _ in range(times):
            step(batch)

    return run


def measure_training(bench: Bench, batch: dict, variants: list[Variant], sizes: Sizes | None = None) -> list[dict]:
    """Return a row of figures for each variant: time, work, memory; times alternate.

    On a CPU the products of the layers of a network of `sizes` take their turns too, in float32, as a last row.
    """
    cpu = bench.device.type == "cpu"
    functions = {variant.name: partial(variant.many, batch) for variant in variants}
    if cpu and sizes is not None:
        multiply, products_flop = layer_products(sizes, bench.batch_size, bench.device, torch.float32)
        functions[PRODUCTS] = multiply
    times = alternate(functions, bench.repeats, threads=1 if cpu else None, clock=clock_of(bench.device))
    rows, flop = [], 0.0
    for variant in variants:
        if not variant.compiled:  # a graph's work is that of the eager model before it
            flop = flop_of_batch(variant.one, batch)
        rows.append(_row(bench, variant, times, flop) | _memory(bench, variant, batch))
    if PRODUCTS in times:
        seconds = times[PRODUCTS]
        speed = products_flop / median(seconds) / 1e9
        rows.append({"step": PRODUCTS, "precision": FLOAT32, **summary(seconds), "GFLOP/s": speed})
    return rows


def flop_of_batch(function: Callable[[dict], Any], batch: dict) -> float:
    """Return the floating point operations of a call, counted on a few images of the batch."""
    few = first_rows(batch, COUNTED_IMAGES)
    return count_flop(partial(function, few)) * len(batch["pids"]) / len(few["pids"])


def _row(bench: Bench, variant: Variant, times: dict[str, list[float]], flop: float) -> dict:
    seconds, reference = ([value / bench.steps for value in times[name]] for name in (variant.name, REFERENCE))
    return {
        "step": variant.name,
        "precision": variant.precision,
        **summary(seconds),
        "images/s": bench.batch_size / median(seconds),
        "times the reference": median(reference) / median(seconds),
        **({BROUGHT: _brought(variant, times)} if bench.levers else {}),
        "GFLOP": flop / 1e9,
        "GFLOP/s": flop / median(seconds) / 1e9,
    }


def _brought(variant: Variant, times: dict[str, list[float]]) -> float | None:
    """Return how many times faster a variant is than the one with a lever less, None = there is no such one."""
    return median(times[variant.before]) / median(times[variant.name]) if variant.before else None


def _memory(bench: Bench, variant: Variant, batch: dict) -> dict:
    step = partial(variant.one, batch)
    held = None if variant.compiled else held_bytes(step, variant.model, tensors_in(batch)) / MIB
    return {"activations MiB": held, "peak MiB": peak_bytes(step, bench.device) / MIB}
