"""The report of a launch: its experiments side by side, how they trained, and what their last epochs reached."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from configs import load_cfg
from tools.report import figures, result
from tools.report.files import Tested, read_tested
from tools.report.linked import test_pages
from tools.report.modalities import modalities_part
from tools.report.page import (
    Bar,
    Section,
    bars,
    code,
    details,
    join,
    make_page,
    make_section,
    missing,
    paragraph,
    part,
    pictures,
    short_path,
    table,
    try_part,
    verdict,
)
from tools.report.places import ANYWHERE
from tools.report.settings import base_changes, experiment_changes
from tools.report.tested import ENVIRONMENT, branches_part, pairs_part, queries_part
from tools.study.ablation import HEADER, TEXT_COLUMNS, recipe_names, table_note, table_rows
from tools.study.experiment import Experiment
from tools.study.summary import REFERENCES, SeedResults, seed_rows
from tools.study.verdict import deciding_metric, verdict_on_launch
from utils.ap_rules import marked, marked_metric
from utils.ranking.slices import mean_slices
from utils.run_folder import of_stage, read_environment, read_metrics

LEAD_COLUMNS = (HEADER.index("recipe"), HEADER.index("mAP"), HEADER.index("95 %"))  # first of a card on a phone
SEED_TEXT_COLUMNS, SEED_LEAD_COLUMNS = (0, 1), (0, 3)  # result and data; result and mAP


class Launched(NamedTuple):
    """One experiment of a launch and what its seeds left."""

    name: str  # as in the ablation table
    experiment: Experiment
    summary: dict[str, Any]
    results: Sequence[SeedResults]
    records: dict[int, list[dict[str, Any]]]  # of metrics.jsonl, by seed
    tested: dict[int, Tested]  # the last epoch's test, by seed; seeds without one are left out


def gather(
    experiments: Sequence[Experiment], summaries: Sequence[dict[str, Any]], results: Sequence[Sequence[SeedResults]]
) -> list[Launched]:
    """Return the experiments that have a summary, with the records and the last tests of their seeds."""
    launched = []
    for name, experiment, summary, own in zip(
        recipe_names(summaries), experiments, summaries, results, strict=False
    ):  # a launch that goes on has more experiments than summaries
        records = {one.seed: read_metrics(experiment.run_folder(one.seed).metrics) for one in own}
        epoch = experiment.last_epoch
        folders = {one.seed: experiment.test_folder(one.seed, epoch) for one in own if epoch in one.epochs}
        tested = {seed: read_tested(folder) for seed, folder in folders.items()}
        launched.append(Launched(name, experiment, summary, own, records, tested))
    return launched


def make_launch_page(launched: Sequence[Launched], command: str) -> str:
    """Return the page of a launch."""
    names = f"{len(launched)} experiments" if len(launched) > 1 else launched[0].experiment.name
    seeds = " ".join(map(str, launched[0].records))
    subtitle = [f"Seeds {seeds}, folders in {short_path(launched[0].experiment.root)}"]
    count = sum(one.summary["num_seeds"]["last"] for one in launched)
    first = make_section("result", "Result", result_part, launched)
    return make_page(f"Report of {names}", subtitle, [first, *launch_sections(launched, command)], count)


def launch_sections(launched: Sequence[Launched], command: str) -> list[Section]:
    """Return what a page shows of a launch below its result."""
    several = len(launched) > 1
    sections = [
        make_section("settings", "Settings", settings_part, launched),
        make_section("schedule", "Schedule", _each, launched, schedule),
        make_section("training", "Training", _each, launched, training, several),
        make_section("progress", "mAP over epochs", progress, launched),
        make_section("cmc", "CMC curves" if several else "CMC curve", mean_cmc, launched),
    ]
    for number, one in enumerate(launched, start=1):
        title = f"Last epoch: {one.name}" if several else "Last epoch"
        sections.append(make_section(f"last-{number}", title, last_epoch, one, len(launched)))
    sections.append(make_section("data", "Data and environment", _each, launched, environment))
    sections.append(make_section("reproduce", "Reproduce", reproduce, launched, command))
    return sections


def reproduce(launched: Sequence[Launched], command: str) -> str:
    """Return the command of the launch and links to the pages of its tests."""
    pages = try_part("Pages of the tests", test_pages, launched)
    return join([result.command_part(command), part("Pages of the tests", pages)])


def _each(launched: Sequence[Launched], make: Callable[..., str], *args: Any) -> str:
    """Return `make(experiment, *args)` of each experiment, titled where there are several."""
    if len(launched) == 1:
        return make(launched[0], *args)
    titles = [_title(number, one) for number, one in enumerate(launched, start=1)]
    return join(part(title, try_part(title, make, one, *args)) for title, one in zip(titles, launched, strict=True))


def _title(number: int, one: Launched) -> str:
    return f"{number} {one.name}"


def result_part(launched: Sequence[Launched]) -> str:
    """Return the verdict, each experiment's figure beside what it has to beat, and the tables."""
    summaries = [one.summary for one in launched]
    experiments = [one.experiment for one in launched]
    said = verdict_on_launch(experiments, summaries)
    top = verdict(*said) if said else missing("No last epoch was tested.")
    return join([top, figure_bars(launched, deciding_metric(experiments)), try_part("Tables", tables, launched)])


def figure_bars(launched: Sequence[Launched], metric: str) -> str:
    """Return a bar for each experiment with a result, means over its seeds, and for what they have to beat.

    References are the first experiment's, which shares its test set with the others, or they would not compare.
    """
    rows = []
    for number, one in enumerate(launched, start=1):
        mean, data = one.summary["mean"].get("last", {}), one.summary["dataset"]
        if metric in mean:
            other = "" if data == launched[0].summary["dataset"] else f" ({data})"
            name = f"{_title(number, one)}{other}" if len(launched) > 1 else one.name
            rows.append(Bar(name, mean[metric], one.summary["interval"].get("last", {}).get(metric)))
    found = launched[0].summary["reference"]
    for name, title in REFERENCES.items():
        if metric in found.get(name, {}):
            rows.append(Bar(title, found[name][metric], None, "reference"))
    if not rows:
        return ""
    rule = launched[0].experiment.test_settings["TEST.AP"]
    note = f"{marked_metric(metric, rule)} at the last epoch in percent, mean over the seeds, with 95 % intervals."
    absent = "" if found else missing("Raw pixels and the untrained model were not scored (TEST.REFERENCE).")
    return join([bars(rows), paragraph(note, "note"), absent])


def tables(launched: Sequence[Launched]) -> str:
    """Return the ablation table with its notes, the failed tests, and the seeds of each experiment."""
    summaries = [one.summary for one in launched]
    parts = [table(table_rows(summaries), "Experiments of this launch", left=TEXT_COLUMNS, lead=LEAD_COLUMNS)]
    parts += [paragraph(line, "note") for line in table_note(summaries).splitlines()]
    for one in launched:
        for test in one.summary["failed_tests"]:
            where = f"seed {test['seed']}, epoch {test['epoch']}, exit code {test['exit_code']}, see {test['folder']}"
            parts.append(missing(f"A test of {one.name} failed: {where}."))
    seeds = []
    for number, one in enumerate(launched, start=1):
        head, *rows = seed_rows(one.summary)
        title = f"{_title(number, one)}, in percent"
        seeds.append(table([["result", *head[1:]], *rows], title, left=SEED_TEXT_COLUMNS, lead=SEED_LEAD_COLUMNS))
    parts.append(details("Each seed", join(seeds), is_open=len(launched) == 1))
    return join(parts)


def settings_part(launched: Sequence[Launched]) -> str:
    """Return each experiment against its base recipe, and the experiments against the first."""
    configs = [load_cfg(one.experiment.config, one.experiment.opts) for one in launched]
    parts = []
    if len(launched) > 1:
        parts.append(part("Between the experiments", experiment_changes(configs, [one.name for one in launched])))
    for number, (one, cfg) in enumerate(zip(launched, configs, strict=True), start=1):
        changes = base_changes(one.experiment.config, cfg)
        notices = [paragraph(f"Note: {notice}", "note") for notice in one.experiment.notices]
        heading, body = f"{_title(number, one)}, against its base recipe", join([changes, *notices])
        parts.append(part(heading, body) if len(launched) == 1 else details(heading, body))
    return join(parts)


def schedule(one: Launched) -> str:
    """Return losses, weights, P x K and learning rate by range of epochs."""
    from solver.preview import schedule_table

    return code(schedule_table(load_cfg(one.experiment.config, one.experiment.opts)))


def training(one: Launched, titled: bool) -> str:
    """Return what each stage trained and its curves; `titled`: below a title of the experiment's own."""
    return figures.stages(one.records, one.experiment.stages, f", {one.name}", level=4 if titled else 3)


def progress(launched: Sequence[Launched]) -> str:
    """Return mAP over epochs of each experiment's seeds; a line in place of charts that would be a point each."""
    records = [_of_last_stage(one) for one in launched]
    lines = [
        epochs
        for one, own in zip(launched, records, strict=True)
        for result in one.results
        for epochs, _ in figures.progress(result, own[result.seed]).values()
    ]
    if lines and max(map(len, lines)) == 1:
        return paragraph("Each run was tested at one epoch: its figures stand above.")
    return pictures(
        figures.progress_chart(one.results, own, _marked_name(one)) for one, own in zip(launched, records, strict=True)
    )


def _marked_name(one: Launched) -> str:
    """Return how the title of a chart with mAP ends."""
    return marked(f", {one.name}", one.experiment.test_settings["TEST.AP"])


def _of_last_stage(one: Launched) -> dict[int, list[dict[str, Any]]]:
    """Return the records of the stage whose epochs are tested, by seed."""
    stages = one.experiment.stages
    return {seed: of_stage(records, stages, stages[-1]) for seed, records in one.records.items()}


def mean_cmc(launched: Sequence[Launched]) -> str:
    """Return the CMC of each experiment's last epoch, as means over its seeds."""
    curves = {}
    for one in launched:
        own = [tested.summary["cmc"] for tested in one.tested.values()]
        if own:
            curves[one.name] = np.mean([curve[: min(map(len, own))] for curve in own], axis=0)
    if not curves:
        return missing("No last epoch was tested.")
    drawn = pictures([figures.cmc(curves, "CMC at the last epoch, mean over the seeds")])
    return join([drawn, result.cmc_table(curves)])


def last_epoch(one: Launched, num_experiments: int) -> str:
    """Return slices (means over the seeds), pairs, worst and best queries (of the first seed) of the last epoch.

    The queries are fewer where several experiments share the page.
    """
    if not one.tested:
        return missing(f"Epoch {one.experiment.last_epoch} has no result yet.")
    seed, any_test = next(iter(one.tested.items()))
    of = _marked_name(one)
    runs = {seed: tested.slices for seed, tested in one.tested.items() if tested.slices is not None}
    analyses = {seed: tested.analysis for seed, tested in one.tested.items() if tested.analysis is not None}
    if runs:
        slices = try_part("Slices", lambda: figures.slices(mean_slices(list(runs.values())), of))
    else:
        slices = missing(any_test.absent[any_test.folder.slices.name])
    sets = try_part("Sets of queries", result.query_sets, any_test.summary)
    parts = [part(f"Sets of queries, seed {seed}", sets)] if sets else []
    modalities = try_part("Modalities", modalities_part, any_test)
    parts += [part(f"Modalities, seed {seed}", modalities)] if modalities else []
    branches = try_part("Branches", branches_part, any_test)
    parts += [part(f"Branches, seed {seed}", branches)] if branches else []
    parts.append(part(f"Slices, {_over_seeds(runs)}" if runs else "Slices", slices))
    if not analyses:
        return join([*parts, part("Pairs and queries", missing(any_test.absent[any_test.folder.analysis.name]))])
    seed, analysis = next(iter(analyses.items()))
    pairs = try_part("Distances and ROC", pairs_part, analysis, of)
    queries = try_part("Queries", queries_part, analysis, ANYWHERE, num_experiments, 4)
    return join([*parts, part(f"Distances and ROC, seed {seed}", pairs), part(f"Queries, seed {seed}", queries)])


def _over_seeds(runs: Mapping[int, Any]) -> str:
    names = " ".join(map(str, runs))
    return f"mean over seeds {names}" if len(runs) > 1 else f"seed {names}"


def environment(one: Launched) -> str:
    """Return data and environment of the runs of an experiment; where seeds differ, every value."""
    found = [read_environment(one.experiment.run_folder(seed).environment) for seed in one.records]
    data = [("data sets", _test_sets(one)), ("fingerprint of the test data", one.summary["data_fingerprints"])]
    data.append(("fingerprint of the training data", _distinct(found, "data_fingerprint")))
    known = [(name.replace("_", " "), _distinct(found, name)) for name in ENVIRONMENT]
    return join([result.facts(data, "Data"), result.facts(known, "Environment of the training")])


def _test_sets(one: Launched) -> list[str]:
    names = [tested.summary.get("dataset") for tested in one.tested.values()]
    return list(dict.fromkeys(name for name in names if name))


def _distinct(found: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    return list(dict.fromkeys(str(one[name]) for one in found if one.get(name) not in (None, "")))
