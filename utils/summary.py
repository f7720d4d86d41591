"""From the tested epochs of an experiment to its summary: last and best epoch per seed, mean and sd over seeds."""

import csv
import io
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from utils.results import METRICS
from utils.run_folder import write_text_atomic
from utils.tables import align

SUMMARY_SCHEMA = 1
CSV_HEADER = ("seed", "epoch", "mAP", "mINP", "R1", "R5", "R10", "best")
KINDS = {"last": "last", "best": "best on test"}  # name in the files -> name in the table
REFERENCES = {"raw_pixels": "raw pixels", "untrained": "untrained"}
NOTE = "'best' is the epoch with the highest (mAP, Rank-1) on the test set itself; 'last' is chosen without looking"

Metrics = dict[str, float]


class SeedResults(NamedTuple):
    """What one seed has to show: metrics (fractions) by tested epoch, and by reference (raw_pixels, untrained)."""

    seed: int
    epochs: dict[int, Metrics]
    references: dict[str, Metrics]
    fingerprints: set[str]


def pick_references(records: Iterable[dict[str, Any]]) -> dict[str, Metrics]:
    """Return {name: metrics} of the `reference` lines of a metrics.jsonl; metrics that a line lacks are left out."""
    return {
        record["name"]: {metric: record[metric] for metric in METRICS if metric in record}
        for record in records
        if record.get("kind") == "reference" and record.get("name") in REFERENCES
    }


def best_epoch(epochs: dict[int, Metrics]) -> int:
    """Return the epoch with the highest (mAP, Rank-1); of equals the earliest."""
    return max(sorted(epochs), key=lambda epoch: (epochs[epoch]["mAP"], epochs[epoch]["Rank-1"]))


def mean_and_sd(rows: Sequence[Metrics]) -> tuple[Metrics, Metrics]:
    """Return mean and sample standard deviation (0.0 below two rows) of each metric; two empty dicts without rows."""
    shared = [name for name in METRICS if rows and all(name in row for row in rows)]
    columns = {name: [row[name] for row in rows] for name in shared}
    mean = {name: statistics.fmean(column) for name, column in columns.items()}
    sd = {name: statistics.stdev(column) if len(column) > 1 else 0.0 for name, column in columns.items()}
    return mean, sd


def build_summary(
    results: Sequence[SeedResults], last_epoch: int, facts: dict[str, Any], failed_tests: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return the summary as plain values, metrics as fractions.

    `facts` (config, time, ...) come first. `last` is the result at `last_epoch`, null when that test is missing, never
    an earlier epoch. `num_seeds` says how many seeds `mean` and `std` cover.
    """
    seeds: dict[str, dict[str, Any]] = {}
    for result in results:
        epochs = {"best": best_epoch(result.epochs) if result.epochs else None, "last": last_epoch}
        entry: dict[str, Any] = {
            kind: {"epoch": epoch, **result.epochs[epoch]} if epoch in result.epochs else None
            for kind, epoch in epochs.items()
        }
        seeds[str(result.seed)] = entry | {"reference": result.references}
    summary: dict[str, Any] = {"schema": SUMMARY_SCHEMA, **facts, "seeds": seeds, "mean": {}, "std": {}}
    summary["num_seeds"] = {}
    for kind in KINDS:
        rows = [entry[kind] for entry in seeds.values() if entry[kind]]
        summary["mean"][kind], summary["std"][kind] = mean_and_sd(rows)
        summary["num_seeds"][kind] = len(rows)
    summary["reference"] = {
        name: mean_and_sd([result.references[name] for result in results if name in result.references])[0]
        for name in REFERENCES
        if any(name in result.references for result in results)
    }
    summary["data_fingerprints"] = sorted(set().union(*(result.fingerprints for result in results)))
    return summary | {"failed_tests": list(failed_tests), "note": NOTE}


def csv_rows(results: Sequence[SeedResults]) -> list[list[Any]]:
    """Return one row per seed and epoch in the columns of CSV_HEADER."""
    rows = []
    for result in results:
        best = best_epoch(result.epochs) if result.epochs else None
        for epoch, metrics in sorted(result.epochs.items()):
            rows.append([result.seed, epoch, *(metrics[name] for name in METRICS), int(epoch == best)])
    return rows


def write_files(start: Path, content: Any, rows: Iterable[Sequence[Any]], text: str) -> list[Path]:
    """Write `content` to <start>.json, `rows` to .csv and `text` to .md, each file at once; returns the paths."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    files = {".json": json.dumps(content, indent=2) + "\n", ".csv": stream.getvalue(), ".md": text}
    paths = [start.with_name(start.name + ending) for ending in files]
    for path, whole in zip(paths, files.values(), strict=True):
        write_text_atomic(path, whole)
    return paths


def format_table(summary: dict[str, Any]) -> str:
    """Return the summary as aligned text, metrics in percent."""
    return align(seed_rows(summary))


def seed_rows(summary: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the summary's table, the head first: each seed, mean and sd over them, the references."""
    rows = [["", "epoch", *METRICS]]
    for seed, entry in summary["seeds"].items():
        for kind, label in KINDS.items():
            epoch = str(entry[kind]["epoch"]) if entry[kind] else "-"
            rows.append([f"seed {seed}, {label}", epoch, *percents(entry[kind] or {})])
    for kind, label in KINDS.items():
        count = summary["num_seeds"][kind]
        if count > 1:
            cells = percents(summary["mean"][kind], summary["std"][kind])
            rows.append([f"mean +- sd of {count}, {label}", "", *cells])
    return rows + [[REFERENCES[name], "", *percents(metrics)] for name, metrics in summary["reference"].items()]


def percents(metrics: Metrics, sd: Metrics | None = None) -> list[str]:
    """Return a cell for each of METRICS, e.g. 45.00 or 45.00 +- 7.07; - where there is none."""
    cells = []
    for name in METRICS:
        if name not in metrics:
            cells.append("-")
        else:
            cells.append(f"{100 * metrics[name]:.2f}" + (f" +- {100 * sd[name]:.2f}" if sd else ""))
    return cells
