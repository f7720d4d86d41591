"""From the tested epochs of an experiment to its summary: last and best epochs per seed, mean, sd and intervals."""

import csv
import io
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from configs.picking import USUAL
from utils.atomic import write_text_atomic
from utils.errors import DataError
from utils.statistics.bootstrap import PerQuery, mean_intervals, query_units, query_weights
from utils.statistics.paired import mean_values, pair_queries
from utils.tables import align, percent
from utils.test_folder import METRICS, is_fraction

SUMMARY_SCHEMA = 1
CSV_HEADER = ("seed", "epoch", "mAP", "mINP", "R1", "R5", "R10", "best", "best_held_out", "data")
# name in the files -> name in the table
KINDS = {"last": "last", "best_held_out": "best on held-out ids", "best": "best on test"}
REFERENCES = {"raw_pixels": "raw pixels", "untrained": "untrained"}
NOTE = "'best on test' is the epoch with the highest ({}) on the test set itself, 'last' is chosen without it"
HELD_OUT_NOTE = (
    "'best on held-out ids' is the best on identities kept out of training (DATASETS.VAL_IDS, or a val split by "
    "DATASETS.EVAL_SPLIT)"
)

Metrics = dict[str, float]


class FurtherTest(NamedTuple):
    """The last epoch on a further test set of DATASETS.TESTS."""

    title: str
    metrics: Metrics
    per_query: PerQuery | None


class SeedResults(NamedTuple):
    """What one seed has to show: metrics (fractions) by tested epoch, and by reference (raw_pixels, untrained)."""

    seed: int
    epochs: dict[int, Metrics]
    references: dict[str, Metrics]
    fingerprints: set[str]
    held_out: Mapping[int, Metrics] = {}  # by epoch: on the identities of DATASETS.VAL_IDS
    per_query: Mapping[int, PerQuery] = {}  # of the epochs that are chosen without looking at the test set
    further: Mapping[str, FurtherTest] = {}
    left_out: Mapping[int, str] = {}  # by epoch: why its result does not count
    picked_by: tuple[str, str] = USUAL  # metrics of the best epoch, see `configs.picking`
    groups: Mapping[str, Metrics] = {}  # of the last epoch: means over sets of queries, by number of modalities


def pick_references(records: Iterable[dict[str, Any]]) -> dict[str, Metrics]:
    """Return {name: metrics} of the `reference` lines of a metrics.jsonl; metrics that a line lacks are left out."""
    return {
        record["name"]: {metric: record[metric] for metric in METRICS if is_fraction(record.get(metric))}
        for record in records
        if record.get("kind") == "reference" and record.get("name") in [*REFERENCES]
    }


def best_epoch(epochs: Mapping[int, Metrics], names: tuple[str, str] = USUAL) -> int | None:
    """Return the epoch with the highest metrics `names`, of equals the earliest; None without epochs."""
    return max(sorted(epochs), key=lambda epoch: [epochs[epoch][name] for name in names], default=None)


def best_held_out(tested: Iterable[int], held_out: Mapping[int, Metrics], names: tuple[str, str] = USUAL) -> int | None:
    """Return the best of the tested epochs on the held-out identities; None where there are none."""
    return best_epoch({epoch: held_out[epoch] for epoch in tested if epoch in held_out}, names)


def chosen_epochs(result: SeedResults, last_epoch: int) -> dict[str, int | None]:
    """Return the epoch of each of KINDS."""
    held_out = best_held_out(result.epochs, result.held_out, result.picked_by)
    return {"last": last_epoch, "best_held_out": held_out, "best": best_epoch(result.epochs, result.picked_by)}


def mean_and_sd(rows: Sequence[Metrics]) -> tuple[Metrics, Metrics]:
    """Return mean and sample standard deviation (0.0 below two rows) of each metric; two empty dicts without rows."""
    shared = [name for name in METRICS if rows and all(name in row for row in rows)]
    columns = {name: [row[name] for row in rows] for name in shared}
    mean = {name: statistics.fmean(column) for name, column in columns.items()}
    sd = {name: statistics.stdev(column) if len(column) > 1 else 0.0 for name, column in columns.items()}
    return mean, sd


def pair_tables(tables: Iterable[PerQuery | None]) -> list[PerQuery]:
    """Return the tables in one order of queries; none where a file is absent or the test sets differ."""
    named = [(f"table {number}", table) for number, table in enumerate(tables)]
    if not named or any(table is None for _, table in named):
        return []
    try:
        return pair_queries(named)
    except DataError:  # the launcher warns of differing fingerprints
        return []


def find_intervals(tables: Sequence[PerQuery]) -> dict[str, list[float]]:
    """Return {metric: [low, high]}, 95 % over test identities of the mean over paired seeds; empty without tables."""
    if not tables:
        return {}
    units, weights = query_units(tables[0]), query_weights(tables[0])
    values = [mean_values(tables, name) for name in METRICS]
    return dict(zip(METRICS, map(list, mean_intervals(values, units, (0.0, 1.0), weights)), strict=True))


def tables_at(results: Sequence[SeedResults], epochs: Sequence[int | None]) -> list[PerQuery]:
    """Return the paired tables of the seeds that have a result at their one of `epochs`."""
    pairs = zip(results, epochs, strict=True)
    return pair_tables([result.per_query.get(epoch) for result, epoch in pairs if epoch in result.epochs])


def further_tables(results: Sequence[SeedResults], name: str) -> list[PerQuery]:
    """Return the paired tables of the seeds on a further test set."""
    return pair_tables([result.further[name].per_query for result in results if name in result.further])


def build_summary(
    results: Sequence[SeedResults], last_epoch: int, facts: dict[str, Any], failed_tests: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return the summary as plain values, metrics as fractions.

    `facts` (config, dataset, time, ...) come first. `last` is the result at `last_epoch`, null when that test is
    missing, never an earlier epoch. `best_held_out` is there where a seed evaluated held-out identities. `num_seeds`
    says how many seeds `mean` and `std` cover. `interval` holds no `best`: that epoch was chosen on the test set.
    `tests` holds the further test sets at the last epoch.
    """
    any_held_out = any(result.held_out for result in results)
    kinds = [kind for kind in KINDS if any_held_out or kind != "best_held_out"]
    chosen = [chosen_epochs(result, last_epoch) for result in results]
    summary: dict[str, Any] = {"schema": SUMMARY_SCHEMA, **facts, "seeds": {}, "mean": {}, "std": {}}
    for result, epochs in zip(results, chosen, strict=True):
        entry: dict[str, Any] = {
            kind: {"epoch": epochs[kind], **result.epochs[epochs[kind]]} if epochs[kind] in result.epochs else None
            for kind in kinds
        }
        summary["seeds"][str(result.seed)] = entry | {"reference": result.references}
    summary |= {"num_seeds": {}, "interval": {}}
    for kind in kinds:
        rows = [entry[kind] for entry in summary["seeds"].values() if entry[kind]]
        summary["mean"][kind], summary["std"][kind] = mean_and_sd(rows)
        summary["num_seeds"][kind] = len(rows)
        if kind != "best":
            summary["interval"][kind] = find_intervals(tables_at(results, [epochs[kind] for epochs in chosen]))
    summary["tests"] = {name: summarise_further(results, name) for name in further_names(results)}
    groups = summarise_groups(results)
    summary |= {"groups": groups} if groups else {}
    summary["reference"] = {
        name: mean_and_sd([result.references[name] for result in results if name in result.references])[0]
        for name in REFERENCES
        if any(name in result.references for result in results)
    }
    summary["data_fingerprints"] = sorted(set().union(*(result.fingerprints for result in results)))
    note = NOTE.format(", ".join(results[0].picked_by if results else USUAL))
    note += f"; {HELD_OUT_NOTE}" if any_held_out else ""
    return summary | {"failed_tests": list(failed_tests), "note": note}


def further_names(results: Sequence[SeedResults]) -> list[str]:
    """Return the names of the further test sets that any seed has a result on."""
    return list(dict.fromkeys(name for result in results for name in result.further))


def summarise_further(results: Sequence[SeedResults], name: str) -> dict[str, Any]:
    """Return dataset, mean, std, num_seeds and interval on a further test set."""
    tests = [result.further[name] for result in results if name in result.further]
    mean, sd = mean_and_sd([test.metrics for test in tests])
    interval = find_intervals(further_tables(results, name))
    return {"dataset": tests[0].title, "mean": mean, "std": sd, "num_seeds": len(tests), "interval": interval}


def summarise_groups(results: Sequence[SeedResults]) -> dict[str, Any]:
    """Return mean, std and num_seeds of each group of query sets at the last epoch; {} where there are fewer than two.

    A single group is the result itself.
    """
    names = dict.fromkeys(name for result in results for name in result.groups)
    if len(names) < 2:
        return {}
    found = {name: [result.groups[name] for result in results if name in result.groups] for name in names}
    return {
        name: dict(zip(("mean", "std"), mean_and_sd(rows), strict=True)) | {"num_seeds": len(rows)}
        for name, rows in found.items()
    }


def csv_rows(results: Sequence[SeedResults], dataset: str) -> list[list[Any]]:
    """Return the rows in the columns of CSV_HEADER: one per seed and epoch, and per further test set at the last."""
    rows = []
    for result in results:
        chosen = chosen_epochs(result, max(result.epochs, default=0))
        for epoch, metrics in sorted(result.epochs.items()):
            marks = [int(epoch == chosen["best"]), int(epoch == chosen["best_held_out"]) if result.held_out else ""]
            rows.append([result.seed, epoch, *(metrics[name] for name in METRICS), *marks, dataset])
        for test in result.further.values():
            values = [test.metrics[name] for name in METRICS]
            rows.append([result.seed, max(result.epochs), *values, "", "", test.title])
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
    return align(seed_rows(summary), (0, 1))


def seed_rows(summary: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the summary's table, the head first.

    Each seed, mean, sd and interval over them, the further test sets, the references.
    """
    data = summary["dataset"]
    kinds = {kind: label for kind, label in KINDS.items() if kind in summary["num_seeds"]}
    rows = [["", "data", "epoch", *METRICS]]
    for seed, entry in summary["seeds"].items():
        for kind, label in kinds.items():
            epoch = str(entry[kind]["epoch"]) if entry[kind] else "-"
            rows.append([f"seed {seed}, {label}", data, epoch, *percents(entry[kind] or {})])
    for kind, label in kinds.items():
        means = summary["mean"][kind], summary["std"][kind], summary["num_seeds"][kind]
        rows += _mean_rows(label, data, *means, summary["interval"].get(kind, {}))
    for name, group in summary.get("groups", {}).items():
        several = group["num_seeds"] > 1
        label = f"mean +- sd of {group['num_seeds']}, last" if several else "last"
        rows.append([f"{label}, {name}", data, "", *percents(group["mean"], group["std"] if several else None)])
    for test in summary["tests"].values():
        if test["num_seeds"] == 1:
            rows.append(["last", test["dataset"], "", *percents(test["mean"])])
        rows += _mean_rows("last", test["dataset"], test["mean"], test["std"], test["num_seeds"], test["interval"])
    return rows + [[REFERENCES[name], data, "", *percents(metrics)] for name, metrics in summary["reference"].items()]


def _mean_rows(
    label: str, data: str, mean: Metrics, sd: Metrics, count: int, interval: Mapping[str, Sequence[float]]
) -> list[list[str]]:
    rows = [[f"mean +- sd of {count}, {label}", data, "", *percents(mean, sd)]] if count > 1 else []
    if interval:
        rows.append([f"95 % interval, {label}", data, "", *(percent_range(interval.get(name)) for name in METRICS)])
    return rows


def percents(metrics: Metrics, sd: Metrics | None = None) -> list[str]:
    """Return a cell for each of METRICS, e.g. 45.00 or 45.00 +- 7.07; - where there is none."""
    spread = {name: f" +- {percent(value)}" for name, value in (sd or {}).items()}
    return [percent(metrics.get(name)) + spread.get(name, "") for name in METRICS]


def percent_range(interval: Sequence[float] | None) -> str:
    """Return an interval of fractions as a cell, e.g. 41.20 - 48.90; - where there is none."""
    return " - ".join(map(percent, interval)) if interval else percent(None)
