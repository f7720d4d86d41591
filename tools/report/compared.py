"""The report of several systems on one test set: their figures, paired differences, and queries where they differ."""

from collections.abc import Sequence
from itertools import combinations, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.picking import picked_by
from tools.report import figures, result
from tools.report.differing import differing_part
from tools.report.files import Tested, read_tested
from tools.report.origin import origin_of, references_of
from tools.report.page import (
    Bar,
    bars,
    details,
    join,
    make_page,
    make_section,
    missing,
    paragraph,
    pictures,
    short_path,
    table,
    verdict,
)
from tools.report.settings import experiment_changes
from tools.report.tested import ENVIRONMENT
from tools.study.summary import REFERENCES, find_intervals, percent_range, percents
from tools.study.tested_runs import Run, check_same_ap, load_run, pair_runs
from tools.study.trials import compare_sides, join_trials
from tools.study.verdict import Verdict, percent
from utils.ap_rules import marked_metric
from utils.ranking.slices import LEFT_OUT, Slice, mean_slices
from utils.statistics.bootstrap import PerQuery
from utils.statistics.paired import SIGNIFICANCE, Comparison, holm, mean_value
from utils.test_folder import METRICS, epoch_of_folder

HEAD = ("ID", "run", "system", "seeds", "epoch", "mAP", "95 %", "mINP", "Rank-1", "95 % of Rank-1", "Rank-5", "Rank-10")
DIFFERENCE_HEAD = ("pair", "difference", "95 %", "p, identities", "p, seeds", "p, Holm", "significant")


class System(NamedTuple):
    """One of the runs of a comparison, its queries in the order of the first run's."""

    name: str
    run: Run
    by_trial: dict[int | None, list[PerQuery]]
    tested: list[Tested]  # one a seed and trial

    @property
    def tables(self) -> list[PerQuery]:
        """One a seed."""
        return join_trials(self.by_trial)

    @property
    def model(self) -> str:
        return str(self.run.results[0].get("config", {}).get("MODEL", {}).get("NAME", "-"))


class Pair(NamedTuple):
    """Two systems, by their numbers from 1, and how the second differs from the first."""

    first: int
    second: int
    comparison: Comparison
    p_holm: float  # of the larger of both p, for the number of pairs

    @property
    def significance(self) -> str:
        if self.p_holm >= SIGNIFICANCE:
            return "no"
        return "yes" if self.comparison.p_seeds is not None else "over identities, one seed"


def load_systems(names: Sequence[str], pictures: Sequence[Path] | None = None) -> list[System]:
    """Return the runs that `names` name, as `tools.compare` reads them, each paired with the first.

    Raises the errors of `load_run` and `pair_runs`: other test sets, other rules of AP, damaged results.
    """
    runs = [load_run(name, None) for name in names]
    check_same_ap(runs)
    sides = [pair_runs([runs[0], other]) for other in runs[1:]]
    by_trial = [sides[0][0], *(second for _, second in sides)]
    tested = [[read_tested(folder, pictures) for folder in run.folders] for run in runs]
    return [System(*one) for one in zip(_short_names(names), runs, by_trial, tested, strict=True)]


def _short_names(names: Sequence[str]) -> list[str]:
    """Return the last part of each path, or as many as tell them apart, without the first words that all share."""
    parts = [Path(name).parts for name in names]
    for count in range(1, max(map(len, parts)) + 1):
        short = ["/".join(one[-count:]) for one in parts]
        if len(set(short)) == len(short):
            return _without_shared_start(short)
    return [f"{number}: {name}" for number, name in enumerate(short, start=1)]


def _without_shared_start(names: Sequence[str]) -> list[str]:
    words = [name.split("_") for name in names]
    shared = takewhile(lambda column: len(set(column)) == 1, zip(*(own[:-1] for own in words), strict=False))
    count = len([*shared])
    return ["_".join(own[count:]) for own in words]


def make_comparison_page(systems: Sequence[System], command: str) -> str:
    """Return the page of several systems."""
    models = {one.model for one in systems}
    metric = picked_by(models.pop())[0] if len(models) == 1 else "mAP"
    pairs = compare_pairs(systems, metric)
    names = [one.name for one in systems]
    sections = [
        make_section("result", "Result", result_part, systems, pairs, metric),
        make_section("differences", "Paired differences", differences_part, systems, pairs, metric),
        make_section("queries", "Queries where they differ", differing_part, systems, names),
        make_section("cmc", "CMC curves", cmc_part, systems),
        make_section("slices", "Slices", slices_part, systems),
        make_section("settings", "Settings", settings_part, systems),
        make_section("data", "Data and environment", environment_part, systems),
        make_section("reproduce", "Reproduce", result.command_part, command),
    ]
    data = next((name for one in systems for name in one.run.datasets if name), "one test set")
    runs = ", ".join(short_path(one.run.name) for one in systems)
    return make_page(f"{len(systems)} systems on {data}", [runs], sections)


def compare_pairs(systems: Sequence[System], metric: str) -> list[Pair]:
    """Return each pair of systems, compared query by query, p corrected by Holm for their number."""
    numbers = [*combinations(range(len(systems)), 2)]
    found = [compare_sides([systems[a].by_trial, systems[b].by_trial], metric)[0] for a, b in numbers]
    adjusted = holm([one.p for one in found])
    return [Pair(a + 1, b + 1, one, p) for (a, b), one, p in zip(numbers, found, adjusted, strict=True)]


def result_part(systems: Sequence[System], pairs: Sequence[Pair], metric: str) -> str:
    """Return the verdict, a bar for each system and what they have to beat, and the table of figures."""
    rule = systems[0].run.ap_rules[0]
    intervals = [find_intervals(one.tables) for one in systems]
    rows = [
        Bar(f"{number} {one.name}", mean_value(one.tables, metric), own[metric])
        for number, (one, own) in enumerate(zip(systems, intervals, strict=True), start=1)
    ]
    said = comparison_verdict(systems, pairs, metric)
    summaries = [summary for one in systems for summary in one.run.results]
    found = next((ref.metrics for one in summaries if (ref := references_of(one, origin_of(one))).metrics), {})
    for name in found.keys() & {"raw_pixels"}:  # what is untrained differs from system to system
        rows.append(Bar(REFERENCES[name], found[name][metric], None, "reference"))
    note = f"{marked_metric(metric, rule)} in percent, mean over the seeds, with 95 % intervals over identities."
    parts = [verdict(*said), bars(rows), paragraph(note, "note")]
    return join([*parts, figures_table(systems, intervals)])


def figures_table(systems: Sequence[System], intervals: Sequence[dict[str, list[float]]]) -> str:
    """Return the table of all metrics, means over the seeds, with their intervals."""
    rows: list[Sequence[str]] = [HEAD]
    for number, (one, own) in enumerate(zip(systems, intervals, strict=True), start=1):
        values = {name: [mean_value([table], name) for table in one.tables] for name in METRICS}
        mean = {name: float(np.mean(column)) for name, column in values.items()}
        spread = (
            {name: float(np.std(column, ddof=1)) for name, column in values.items()} if len(one.tables) > 1 else None
        )
        cells = dict(zip(METRICS, percents(mean, spread), strict=True))
        epoch = epoch_of_folder(one.run.folders[0])
        facts = [str(number), one.name, one.model, str(len(one.tables)), "-" if epoch is None else str(epoch)]
        ranges = [percent_range(own[name]) for name in ("mAP", "Rank-1")]
        shown = [cells["mAP"], ranges[0], cells["mINP"], cells["Rank-1"], ranges[1], cells["Rank-5"], cells["Rank-10"]]
        rows.append([*facts, *shown])
    return table(rows, "Figures in percent, mean +- sd over the seeds", left=(1, 2), lead=(1, 5, 6))


def comparison_verdict(systems: Sequence[System], pairs: Sequence[Pair], metric: str) -> Verdict:
    """Return which system has the highest figure, and from which others it differs significantly."""
    values = [mean_value(one.tables, metric) for one in systems]
    best = int(np.argmax(values)) + 1
    own = [pair for pair in pairs if best in (pair.first, pair.second)]
    below = [pair for pair in own if pair.significance != "no"]
    low, high = find_intervals(systems[best - 1].tables)[metric]
    figure = f"{percent(values[best - 1])} {marked_metric(metric, systems[0].run.ap_rules[0])}"
    names = [f"{number} {systems[number - 1].name}" for number in (p.first + p.second - best for p in below)]
    told = f"significantly above {' and '.join(names)}" if names else "not significantly above any other"
    if any(pair.comparison.p_seeds is None for pair in below):
        told += " (over test identities: with one seed on a side, training again could turn it round)"
    by = f" by {best} {systems[best - 1].name}, the highest of {len(systems)}"
    return Verdict(figure, f"{by} (95 %: {percent(low)} to {percent(high)}), {told}.")


def differences_part(systems: Sequence[System], pairs: Sequence[Pair], metric: str) -> str:
    """Return the table of all pairs."""
    rows: list[Sequence[str]] = [DIFFERENCE_HEAD]
    for pair in pairs:
        one = pair.comparison
        names = f"{pair.second} {systems[pair.second - 1].name} - {pair.first} {systems[pair.first - 1].name}"
        low, high = (100 * bound for bound in one.interval)
        again = "-" if one.p_seeds is None else f"{one.p_seeds:.4f}"
        numbers = (f"{100 * one.difference:+.2f}", f"{low:+.2f} to {high:+.2f}", f"{one.p_units:.4f}", again)
        rows.append((names, *numbers, f"{pair.p_holm:.4f}", pair.significance))
    title = f"Points of {marked_metric(metric, systems[0].run.ap_rules[0])}, query by query"
    notes = (
        f"p over identities: paired permutation test over {pairs[0].comparison.num_units} identities; over seeds: "
        "Welch's t-test, or over trials a paired one, - below two on a side.",
        f"p, Holm: the larger of both, corrected for {len(pairs)} pair{'s' * (len(pairs) > 1)}; significant below "
        f"{SIGNIFICANCE}.",
    )
    return join([table(rows, title, lead=(0, 1)), *(paragraph(note, "note") for note in notes)])


def cmc_part(systems: Sequence[System]) -> str:
    """Return the CMC of each system, the mean over its tests."""
    curves = {}
    for number, one in enumerate(systems, start=1):
        own = [summary["cmc"] for summary in one.run.results if summary.get("cmc")]
        if own:
            curves[f"{number} {one.name}"] = np.mean([curve[: min(map(len, own))] for curve in own], axis=0)
    if not curves:
        return missing("No test recorded its CMC.")
    return join([pictures([figures.cmc(curves, "CMC, mean over the tests")]), result.cmc_table(curves)])


def slices_part(systems: Sequence[System]) -> str:
    """Return the table of mAP in each slice by system, with the number of its queries."""
    kept = [[tested.slices for tested in one.tested if tested.slices is not None] for one in systems]
    if not all(kept):
        lacking = [one.name for one, own in zip(systems, kept, strict=True) if not own]
        return missing(f"No slices of {', '.join(lacking)}.")
    means: list[dict[tuple[str, str, str], Slice]] = [
        {part[:3]: part for part in mean_slices(own) if part.kind != LEFT_OUT} for own in kept
    ]
    heads = ["slice", "query", "gallery", "n", *(f"{number} {one.name}" for number, one in enumerate(systems, start=1))]
    rows = {"camera_pair": [heads], "other": [heads]}
    for key, part in means[0].items():
        if not part.num_query or not all(key in own for own in means):
            continue
        values = [f"{100 * own[key].mAP:.2f}" for own in means]
        kind = key[0] if key[0] in rows else "other"
        rows[kind].append([part.kind.replace("_", " "), *key[1:], str(part.num_query), *values])
    parts = [table(rows["other"], "mAP of parts of the queries, in percent", left=range(3))]
    pairs = [part for part in means[0].values() if part.kind == "camera_pair" and part.num_query]
    if pairs:
        body = table(rows["camera_pair"], "mAP per camera pair, in percent", left=range(3))
        parts += [details(f"{len(pairs)} camera pairs", body)]
        parts.append(paragraph(figures.camera_pair_note(pairs), "note"))
    return join(parts)


def settings_part(systems: Sequence[System]) -> str:
    """Return the keys in which the systems differ."""
    configs = [one.run.results[0].get("config") or {} for one in systems]
    if not all(configs):
        return missing("Not every test recorded its configuration.")
    return details("Keys in which they differ", experiment_changes(configs, [one.name for one in systems]))


def environment_part(systems: Sequence[System]) -> str:
    """Return which checkpoints were tested on which data, and where."""
    parts = []
    for number, one in enumerate(systems, start=1):
        summaries: list[dict[str, Any]] = one.run.results
        weights = [short_path(summary["weight"]) for summary in summaries if summary.get("weight")]
        data = [("test set", _distinct(one.run.datasets)), ("fingerprint", _distinct(one.run.fingerprints))]
        data += [("checkpoints", weights)]
        data += [("precision", _distinct([summary.get("precision") for summary in summaries]))]
        environments = [summary.get("environment", {}) for summary in summaries]
        data += [
            (name.replace("_", " "), _distinct([known.get(name) for known in environments])) for name in ENVIRONMENT
        ]
        parts.append(details(f"{number} {one.name}", result.facts(data, "What was tested, and where"), is_open=True))
    return join(parts)


def _distinct(values: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values if value not in (None, "")))
