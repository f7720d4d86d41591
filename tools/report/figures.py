"""From recorded numbers to the charts of a report (`tools.charts`), as markup."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from configs.phases import TITLES
from configs.readings import CHANCE, FIT, IN_CHARTS
from tools import charts
from tools.report.page import details, join, missing, paragraph, part, pictures, table
from tools.study.summary import SeedResults
from utils.ranking.slices import LEFT_OUT, Slice
from utils.run_folder import of_stage

Record = Mapping[str, Any]
NO_SLICES = "The test set cannot be divided: one camera, one viewpoint."
MIB_PER_GIB = 1024
AFTER_EACH_OTHER = "epoch, the stages one after the other"
SLICE_HEAD = ("slice", "query", "gallery", "queries", "identities", "mAP", "Rank-1")


def slices(parts: Sequence[Slice], of: str = "") -> str:
    """Return heat map and bars of the slices, and their table behind a click; `of` says whose they are."""
    if not parts:
        return missing(NO_SLICES)
    left_out = [part.query for part in parts if part.kind == LEFT_OUT]
    parts = [part for part in parts if part.kind != LEFT_OUT]
    kinds = dict.fromkeys(part.kind for part in parts)
    drawn = [charts.camera_pair_chart(parts, f"mAP per camera pair{of}")] if "camera_pair" in kinds else []
    drawn += [
        charts.slice_chart(parts, kind, charts.SLICE_TITLES[kind] + of) for kind in kinds if kind in charts.SLICE_TITLES
    ]
    rows = [[part.kind.replace("_", " "), *map(str, part[1:5]), *map(_percent, part[5:])] for part in parts]
    numbers = table([SLICE_HEAD, *rows], f"Slices{of}: queries with a match, metrics in percent", left=range(3))
    notes = [f"Shown are those of the most images. Left out are {'; '.join(left_out)}."] if left_out else []
    words = [paragraph(note, "note") for note in notes]
    of_pairs = camera_pair_note([part for part in parts if part.kind == "camera_pair" and part.num_query])
    return join(
        [pictures(drawn, packed=True, note=of_pairs), *words, details(f"All {len(parts)} slices as a table", numbers)]
    )


def camera_pair_note(pairs: Sequence[Slice]) -> str:
    """Return of how many queries camera pairs are, and why their mAP can be above that of the whole test."""
    if not pairs:
        return ""
    counts = [pair.num_query for pair in pairs]
    span = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
    return (
        f"A cell is the mAP of n = {span} queries. It can be above that of the whole test: a query is ranked against "
        "the images of one camera alone, so there are fewer wrong images to lose to, and a query without a match in "
        "that camera does not count."
    )


def _percent(fraction: float) -> str:
    return "-" if np.isnan(fraction) else f"{100 * fraction:.2f}"


def cmc(curves: Mapping[str, Sequence[float]], title: str = "CMC curve") -> Figure:
    """Return the CMC curves by name, each [max_rank] from rank 1 on, as fractions."""
    return charts.cmc_chart({name: np.asarray(curve) for name, curve in curves.items()}, title)


def distances(counts: Mapping[str, Sequence[float]], of: str = "") -> Figure:
    """Return the histograms of `distance` in an analysis.json."""
    edges, positive, negative = (np.asarray(counts[name]) for name in ("edges", "positive", "negative"))
    return charts.distance_chart(edges, positive, negative, f"Distances of query-gallery pairs{of}")


def roc(curve: Mapping[str, Sequence[float]], points: Mapping[str, float], of: str = "") -> Figure:
    """Return the ROC curve of an analysis.json with its TPR@FPR as dots."""
    dots = {float(rate): value for rate, value in points.items()}
    return charts.roc_chart(curve["fpr"], curve["tpr"], dots, f"ROC of query-gallery pairs{of}")


def stages(records: Mapping[int, Sequence[Record]], names: Sequence[str], of: str = "", level: int = 3) -> str:
    """Return the training of every stage of a run, its parts titled at the heading `level` where there are several.

    Charts over (stage, epoch) come first: the stages one after the other.
    """
    if len(names) == 1:
        return training(records, of)
    parts = []
    for number, stage in enumerate(names, start=1):
        own = {seed: of_stage(lines, names, stage) for seed, lines in records.items()}
        title = f"Stage {number} of {len(names)}: {stage}"
        parts.append(part(title, training(own, f"{of}, {stage}"), level))
    joined, starts = in_a_row(records, names)
    whole = {seed: [one for one in lines if one["kind"] in ("train", "phase")] for seed, lines in joined.items()}
    losses = _by_seed(whole, "train", "loss")
    if len(starts) > 1 and losses:
        first = next(iter(whole.values()))
        rates = {"learning rate": epoch_means([one for one in first if one["kind"] == "phase"], "lr")}
        drawn = [
            charts.line_chart(losses, f"Training loss over all stages{of}", AFTER_EACH_OTHER, "loss", starts),
            charts.line_chart(rates, f"Learning rate over all stages{of}", AFTER_EACH_OTHER, "learning rate", starts),
        ]
        parts.insert(0, pictures(drawn))
    return join(parts)


def in_a_row(
    records: Mapping[int, Sequence[Record]], names: Sequence[str]
) -> tuple[dict[int, list[dict[str, Any]]], list[tuple[float, str]]]:
    """Return the records of a run's stages with epochs that count on over them, and (x, name) where each begins."""
    joined: dict[int, list[dict[str, Any]]] = {seed: [] for seed in records}
    starts, done = [], 0
    for stage in names:
        own = {seed: of_stage(lines, names, stage) for seed, lines in records.items()}
        epochs = max((one["epoch"] for lines in own.values() for one in lines if one["kind"] == "train"), default=0)
        if epochs:
            starts.append((done + 0.5, stage))
        for seed, lines in own.items():
            joined[seed] += [{**one, "epoch": one["epoch"] + done} for one in lines]
        done += epochs
    return joined, starts


def training(records: Mapping[int, Sequence[Record]], of: str = "") -> str:
    """Return what is trained, and by epoch loss, terms of the loss, accuracies and learning rate.

    Terms are means over the seeds, what else is measured has a line for each.
    """
    by_seed = {seed: [one for one in lines if one["kind"] == "train"] for seed, lines in records.items()}
    by_seed = {seed: lines for seed, lines in by_seed.items() if lines}
    if not by_seed:
        return missing("No training was recorded: metrics.jsonl is absent or empty.")
    phases = next(lines for seed, lines in records.items() if seed in by_seed)
    marks = phase_starts(phases)
    losses = {f"seed {seed}": epoch_means(lines, "loss") for seed, lines in by_seed.items()}
    everything = [line for lines in by_seed.values() for line in lines]
    terms = {title: epoch_means(everything, name) for name, title in TITLES.items()}
    epochs = np.unique([line["epoch"] for line in everything])
    terms = {title: with_gaps(curve, epochs) for title, curve in terms.items() if len(curve[0])}
    rates = {"learning rate": epoch_means([one for one in phases if one["kind"] == "phase"], "lr")}
    drawn = [charts.line_chart(losses, f"Training loss{of}", "epoch", "loss", marks)]
    if len(terms) > 1:
        drawn.append(charts.line_chart(terms, f"Terms of the loss, before their weights{of}", "epoch", "loss", marks))
    drawn += accuracy_charts(records, of, marks)
    drawn.append(charts.line_chart(rates, f"Learning rate{of}", "epoch", "learning rate", marks))
    trains = [f"Trained are {one['parameters']}: {one['parts']}." for one in phases if one["kind"] == "trains"]
    note = "Losses are means over the records of an epoch; dashed lines: a phase begins."
    speeds = [f"Seed {seed}: {speed(lines)}." for seed, lines in by_seed.items() if any(map(_is_timed, lines))]
    notes = [note, *reached(records), *speeds]
    return join([*map(paragraph, trains), pictures(drawn), *(paragraph(line, "note") for line in notes)])


def accuracy_charts(
    records: Mapping[int, Sequence[Record]], of: str, marks: Sequence[tuple[float, str]]
) -> list[Figure]:
    """Return the accuracies by epoch, a line for each seed: what a stage has reached, then those of its batches."""
    fitted = _by_seed(records, "fit", FIT)
    drawn = []
    if fitted:
        first = next(iter(records.values()))
        chance = {CHANCE: epoch_means([one for one in first if one["kind"] == "fit"], CHANCE)}
        series = fitted | {name: line for name, line in chance.items() if len(line[0])}
        title = f"{FIT.capitalize()} over all training images{of}"
        drawn.append(charts.line_chart(series, title, "epoch, 0 = before training", "accuracy", marks, percent=True))
    for name, title in IN_CHARTS.items():
        read = _by_seed(records, "train", name)
        if read:
            title = f"{title} in training batches{of}"
            drawn.append(charts.line_chart(read, title, "epoch", "accuracy", marks, percent=True))
    return drawn


def reached(records: Mapping[int, Sequence[Record]]) -> list[str]:
    """Return a line for each seed with what its stage had reached before training and has now."""
    lines = []
    for seed, own in records.items():
        fits = [one for one in own if one["kind"] == "fit" and FIT in one]
        if not fits:
            continue
        first, last = (min(fits, key=lambda one: one["epoch"]), max(fits, key=lambda one: one["epoch"]))
        values = [f"{100 * one[FIT]:.1f} % after epoch {one['epoch']}" for one in (first, last)]
        chance = f"; chance: {100 * last[CHANCE]:.1f} %" if CHANCE in last else ""
        lines.append(f"Seed {seed}: {FIT} {values[0]}, {values[1]}{chance}.")
    return [line.replace("after epoch 0", "before training") for line in lines]


def _by_seed(records: Mapping[int, Sequence[Record]], kind: str, name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the epoch means of `name` in records of a kind, by seed; seeds without it are left out."""
    lines = {
        f"seed {seed}": epoch_means([one for one in own if one["kind"] == kind], name) for seed, own in records.items()
    }
    return {seed: line for seed, line in lines.items() if len(line[0])}


def speed(records: Sequence[Record]) -> str:
    """Return how fast a run trained: medians over its windows, e.g. `305 images/s, data 2 % of a step, MFU 41 %`."""
    timed = [record for record in records if _is_timed(record)]
    middle = {
        name: float(np.median([record[name] for record in timed if name in record] or [np.nan]))
        for name in ("images_per_s", "data_share", "mfu")
    }
    parts = [f"{middle['images_per_s']:,.0f} images/s", f"data {100 * middle['data_share']:.0f} % of a step"]
    if not np.isnan(middle["mfu"]):
        parts.append(f"MFU {100 * middle['mfu']:.0f} %")
    memory = max((record["max_memory"] for record in timed if "max_memory" in record), default=None)
    if memory is not None:
        parts.append(f"at most {memory / MIB_PER_GIB:.1f} GiB of memory")
    return ", ".join(parts)


def _is_timed(record: Record) -> bool:
    return "data_share" in record  # records of older runs are not


def epoch_means(records: Sequence[Record], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the epochs in which a record has `name`, rising, and the mean of its values in each, both [n]."""
    values: dict[int, list[float]] = {}
    for record in records:
        if name in record:
            values.setdefault(record["epoch"], []).append(record[name])
    epochs = sorted(values)
    return np.array(epochs), np.array([np.mean(values[epoch]) for epoch in epochs])


def with_gaps(curve: tuple[np.ndarray, np.ndarray], epochs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (epochs, values) [n] of a curve with NaN where it has no value, so that no line bridges these epochs."""
    values = dict(zip(*curve, strict=True))
    return epochs, np.array([values.get(epoch, np.nan) for epoch in epochs])


def phase_starts(records: Sequence[Record]) -> list[tuple[float, str]]:
    """Return (x, name) of each phase of a plan with several; it begins half an epoch before its first."""
    starts: dict[float, str] = {}
    before = None
    for record in sorted((one for one in records if one["kind"] == "phase"), key=lambda one: one["epoch"]):
        if record["phase"] != before:
            starts[record["epoch"] - 0.5] = f"phase {record['phase']}"
        before = record["phase"]
    return list(starts.items()) if len(starts) > 1 else []


def progress(one: SeedResults, records: Sequence[Record]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the lines of mAP over epochs of a seed: of the tests (else the run's evaluations), of held-out identities.

    A line is (epochs, mAP), both [n].
    """
    tested = [{"epoch": epoch, **metrics} for epoch, metrics in one.epochs.items()]
    held_out = [{"epoch": epoch, **metrics} for epoch, metrics in one.held_out.items()]
    lines = {
        f"seed {one.seed}": tested or [record for record in records if record["kind"] == "eval"],
        f"seed {one.seed}, held-out ids": held_out,
    }
    return {name: epoch_means(line, "mAP") for name, line in lines.items() if line}


def progress_chart(results: Sequence[SeedResults], records: Mapping[int, Sequence[Record]], of: str = "") -> Figure:
    """Return mAP over epochs of each seed."""
    series = {name: line for one in results for name, line in progress(one, records[one.seed]).items()}
    marks = phase_starts(next(iter(records.values())))
    return charts.line_chart(series, f"mAP over epochs{of}", "epoch", "mAP", marks, percent=True)
