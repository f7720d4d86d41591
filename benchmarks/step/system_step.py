"""One training step of a system beside TransReID: its plain form against ours, and for sets of modalities the sets."""

from collections.abc import Callable
from functools import partial
from statistics import median

import torch

from benchmarks.measure import Bar, alternate, summary
from benchmarks.step.lineage_step import LoopLevers
from benchmarks.step.ours import make_loop
from benchmarks.step.systems import SYSTEMS, Pair, PlainTraining, make_batch, make_pair
from benchmarks.step.training import OURS, REFERENCE, Bench, Variant, clock_of, our_variants, repeated
from datasets.batch import Batch
from processor.evaluation.embed import precision_name
from processor.stage import Stage
from utils.device import resolve_amp

SETS = "sets alone, {}"  # of the multimodal step, on features that are given
BARS = {  # on a CPU, of the row "ours"
    "pcb": Bar("training step, times faster than the plain form", 0.97, 1, "x", at_least=True),  # most is common
    "clip_reid": Bar("training step, times faster than the plain form", 1, 1.05, "x", at_least=True),
    "irra": Bar("training step, times faster than the plain form", 1.15, 1.25, "x", at_least=True),
    "multimodal": Bar("training step, times faster than the plain form", 1, 1.1, "x", at_least=True),
}
SETS_BAR = Bar("the sets alone, times faster than the plain form", 1.5, 2.5, "x", at_least=True)


def make_pair_of(bench: Bench, keys: tuple = ("SOLVER.AMP", "off")) -> Pair:
    """Return both forms of the step that is measured; `keys` are KEY, VALUE, ... of ours."""
    opts = (*keys, "MODEL.DEVICE", bench.device.type)
    return make_pair(bench.recipe, bench.size, bench.batch_size, bench.device, opts)


def make_system_variants(bench: Bench) -> list[Variant]:
    """Return the plain form, with each lever around it where they are asked for, and the variants of ours."""

    def build(keys: tuple) -> Stage:
        return make_pair_of(bench, keys).stage

    plain, variants, before = make_pair_of(bench), [], ""
    for name, levers in plain_staircase(bench):
        training = PlainTraining(plain, levers)
        many = repeated(training.step, bench.steps)
        variants.append(Variant(name, training.step, many, training.model, precision_name(levers.amp), before=before))
        before = name
    return variants + our_variants(bench, build, compiles=SYSTEMS[bench.recipe].compiles)


def plain_staircase(bench: Bench) -> list[tuple[str, LoopLevers]]:
    """Return (name, what is around the plain form) from the reference on, each with one lever more."""
    cuda, best = bench.device.type == "cuda", resolve_amp("auto", bench.device)
    levers = LoopLevers(torch.float16 if cuda else None)
    found = [(REFERENCE, levers)]
    if not bench.levers:
        return found
    if cuda and best == torch.bfloat16:
        levers = levers._replace(amp=best)
        found.append(("+ bf16 without a loss scaler", levers))
    levers = levers._replace(grouped_optimizer=True)
    found.append(("+ few fused optimizer groups", levers))
    return [*found, ("+ no wait in the step", levers._replace(no_sync=True))] if cuda else found


def measure_sets(bench: Bench) -> list[dict]:
    """Return rows of the multimodal step behind the towers: fusion, norm, classifiers and losses, with their gradients.

    The plain form takes one set after the other.
    """
    pair = make_pair_of(bench)
    training = PlainTraining(pair, LoopLevers())
    batch = with_features(make_batch(bench.recipe, pair, bench.device), pair.stage)
    pair.stage.prepare = dict
    pair.stage.model.encode = take_features
    steps: dict[str, Callable[[], object]] = {
        SETS.format(REFERENCE): partial(training.step, batch),
        SETS.format(OURS): partial(make_loop(pair.stage, pair.stage.model), [batch]),
    }
    times = alternate(steps, bench.repeats, 1 if bench.device.type == "cpu" else None, clock_of(bench.device))
    expected = median(times[SETS.format(REFERENCE)])
    return [
        {
            **{"step": name, "precision": precision_name(None), **summary(seconds)},
            **{"images/s": bench.batch_size / median(seconds), "times the reference": expected / median(seconds)},
        }
        for name, seconds in times.items()
    ]


def with_features(batch: Batch, stage: Stage) -> Batch:
    """Return the batch with random features in place of what the towers would encode, of which gradients are made."""
    device, count = stage.settings.device, len(batch["pids"])
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(count, len(stage.model.modalities), stage.model.feat_dim, generator=generator)
    z = z.to(device).requires_grad_()
    given = dict(zip(stage.model.modalities, z.unbind(1), strict=True))
    return batch | {"pids": batch["pids"].to(device), "features": z, "modalities": given}


def take_features(modality: str, x: torch.Tensor) -> torch.Tensor:
    """Take the place of the towers: the features are there already."""
    return x


def judge(bench: Bench, rows: list[dict]) -> list[tuple[Bar, float]]:
    """Return the bars that are set for this device, with the values that they judge."""
    if bench.device.type != "cpu":
        return []
    by_name = {row["step"]: row["times the reference"] for row in rows}
    sets = SETS.format(OURS)
    return [(BARS[bench.recipe], by_name[OURS])] + ([(SETS_BAR, by_name[sets])] if sets in by_name else [])
