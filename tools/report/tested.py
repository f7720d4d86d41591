"""The report of one test, made from the files in its folder."""

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tools.report import figures, result
from tools.report.files import Tested
from tools.report.modalities import modalities_part
from tools.report.origin import NO_RUN, Origin, best_tested, metric_of, origin_of, references_of
from tools.report.page import join, make_page, make_section, missing, part, pictures, short_path, verdict
from tools.report.settings import base_changes
from tools.report.thumbnails import query_rows
from tools.study.verdict import verdict_on_test
from utils.ap_rules import marked, marked_metric
from utils.statistics.bootstrap import intervals
from utils.test_folder import METRICS, ap_rule_of, read_per_query

FEWEST = 3  # worst and best queries that each of many experiments shows
ENVIRONMENT = ("python", "torch", "torchvision", "timm", "platform", "device", "device_name", "threads", "git_commit")


def make_test_page(tested: Tested) -> str:
    """Return the page of one test."""
    summary, origin = tested.summary, origin_of(tested.summary)
    epoch = summary.get("epoch")
    places = (summary.get("stage"), None if epoch is None else f"epoch {epoch}")
    title = ", ".join(filter(None, (f"Test of {summary.get('dataset', 'a checkpoint')}", *places)))
    sections = [
        make_section("result", "Result", result_part, tested, origin),
        make_section("sets", "Sets of queries", result.query_sets, summary),
        make_section("modalities", "Modalities", modalities_part, tested),
        make_section("tests", "Further test sets", result.further_tests, summary),
        make_section("settings", "Settings", settings_part, summary),
        make_section("training", "Training", training_part, summary, origin),
        make_section("branches", "Branches", branches_part, tested),
        make_section("slices", "Slices", slices_part, tested),
        make_section("cmc", "CMC curve", cmc_part, summary),
        make_section("pairs", "Distances and ROC", _from_analysis, tested, pairs_part),
        make_section("queries", "Queries", _from_analysis, tested, partial(queries_part, pictures=tested.pictures)),
        make_section("data", "Data and environment", fingerprints_part, summary),
        make_section("reproduce", "Reproduce", reproduce_part, summary),
    ]
    weight = summary.get("weight")
    line = f"Checkpoint: {short_path(weight) if weight else 'not recorded'}"
    return make_page(title, [line], [one for one in sections if one.body])


def result_part(tested: Tested, origin: Origin | None) -> str:
    """Return the verdict, the figure beside what it has to beat, and all metrics."""
    summary, rule = tested.summary, ap_rule_of(tested.summary)
    metric, references = metric_of(summary), references_of(summary, origin)
    intervals = {**_missing_intervals(tested), **summary.get("interval", {})}
    last = None if origin is None else origin.last_epoch
    epochs = last, best_tested(tested.folder, summary, origin)
    said = verdict_on_test({**summary, "interval": intervals}, metric, rule, references.metrics, epochs)
    found = {name: one[metric] for name, one in references.metrics.items() if metric in one}
    name = f"this test, {marked_metric(metric, rule)}"
    shown = result.reference_bars(name, summary[metric], intervals.get(metric), found)
    absent = "" if found else missing(f"Raw pixels and the untrained model are not shown: {references.why}.")
    cards = result.metric_cards(summary, intervals)
    return join([verdict(*said), shown, absent, cards, result.remarks(summary)])


def _missing_intervals(tested: Tested) -> dict[str, tuple[float, float]]:
    """Return the intervals that the file of an older version lacks, from the queries where they are whole."""
    missing_ones = [name for name in METRICS if name not in tested.summary.get("interval", {})]
    table = read_per_query(tested.folder, tested.summary) if missing_ones else None
    is_whole = table is not None and (table["first_hit"] >= 0).any()
    return intervals(table, missing_ones) if is_whole else {}


def settings_part(summary: dict[str, Any]) -> str:
    """Return the configuration of the test against the base recipe."""
    if not summary.get("config_file") or not summary.get("config"):
        return missing("summary.json does not record the configuration.")
    return base_changes(summary["config_file"], summary["config"])


def training_part(summary: dict[str, Any], origin: Origin | None) -> str:
    """Return the training of the stages that led to the checkpoint, from the run's records beside it.

    Nothing for a run of one stage, whose curves the report of the launch shows.
    """
    if origin is None:
        several = len(summary.get("config", {}).get("SOLVER", {}).get("STAGES", ())) > 1
        return missing(f"{NO_RUN.capitalize()}.") if several else ""
    if len(origin.stages) < 2:
        return ""
    return figures.stages({origin.cfg.SOLVER.SEED: origin.records}, origin.stages)


def branches_part(tested: Tested) -> str:
    """Return the table of the branches; nothing where the test did without it."""
    if tested.branches is None:
        absent = tested.absent.get(tested.folder.branches.name)
        return missing(absent) if absent else ""
    return result.branch_table(tested.branches, tested.summary)


def slices_part(tested: Tested) -> str:
    """Return heat map, bars and table of the slices."""
    if tested.slices is None:
        return missing(tested.absent[tested.folder.slices.name])
    return figures.slices(tested.slices, marked("", ap_rule_of(tested.summary)))


def cmc_part(summary: dict[str, Any]) -> str:
    """Return the CMC curve, and its figures at some ranks."""
    curve = summary["cmc"]
    return join([pictures([figures.cmc({"this test": curve})]), result.cmc_table({"this test": curve})])


def _from_analysis(tested: Tested, make: Callable[[dict[str, Any]], str]) -> str:
    return missing(tested.absent[tested.folder.analysis.name]) if tested.analysis is None else make(tested.analysis)


def pairs_part(analysis: dict[str, Any], of: str = "") -> str:
    """Return the histograms of positive and negative pairs, the ROC curve and the table of TPR@FPR."""
    if "distance" not in analysis:
        return missing("All images of the test set are of one identity, so there are no pairs of two.")
    of = f"{of}, {analysis['pairs_of']}" if "pairs_of" in analysis else of
    points = analysis["tpr_at_fpr"]
    drawn = [figures.distances(analysis["distance"], of), figures.roc(analysis["roc"], points, of)]
    return join([pictures(drawn), result.tpr_table(points, analysis.get("threshold", {}))])


def queries_part(analysis: dict[str, Any], pictures: Sequence[Path], share: int = 1, level: int = 3) -> str:
    """Return the first of `share` equal parts of the worst and the best queries, with their rank lists.

    At least FEWEST of each, if there are as many. Images below the folders `pictures` are shown.
    """
    worst, best = (analysis[name] for name in ("worst", "best")) if "best" in analysis else (analysis["worst"], None)
    worst = worst[: max(FEWEST, len(worst) // share)]
    parts = [part("Worst", query_rows(worst, pictures), level)]
    if best is None:
        return join([*parts, missing("The best queries are not shown: an older version ran this test.")])
    best = best[: max(FEWEST, len(best) // share)]
    return join([*parts, part("Best", query_rows(best, pictures, legend=False), level)])


def fingerprints_part(summary: dict[str, Any]) -> str:
    """Return what the result was made from and on."""
    environment = summary.get("environment", {})
    data = (
        ("test set", summary.get("dataset")),
        ("fingerprint of the test data", summary.get("data_fingerprint")),
        ("fingerprint of the training data", summary.get("train_fingerprint")),
        ("checkpoint", summary.get("weight")),
        ("SHA-256 of the checkpoint", summary.get("weight_sha256")),
        ("precision of the embedding", summary.get("precision")),
    )
    known = [(name.replace("_", " "), environment.get(name)) for name in ENVIRONMENT]
    return join([result.facts(data, "Data and checkpoint"), result.facts(known, "Environment of the test")])


def reproduce_part(summary: dict[str, Any]) -> str:
    """Return the command of the test."""
    command = summary.get("command")
    if not command:
        return missing("summary.json does not record the command.")
    return result.command_part(shlex.join(["python", *command]))
