"""The report of one test, made from the files in its folder."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.report import figures, result
from tools.report.files import Tested
from tools.report.modalities import modalities_part
from tools.report.page import join, make_page, make_section, missing, pictures
from tools.report.settings import base_changes
from tools.report.thumbnails import worst_queries
from utils.ap_rules import marked
from utils.run_folder import RunFolder, read_metrics
from utils.run_record import read_record
from utils.test_folder import ap_rule_of
from utils.yaml_text import plain_tree

FEWEST_WORST = 3  # worst queries that each of many experiments shows
ENVIRONMENT = ("python", "torch", "torchvision", "timm", "platform", "device", "device_name", "threads", "git_commit")


def make_test_page(tested: Tested) -> str:
    """Return the page of one test."""
    summary = tested.summary
    epoch = summary.get("epoch")
    places = (summary.get("stage"), None if epoch is None else f"epoch {epoch}")
    title = ", ".join(filter(None, (f"Test of {summary.get('dataset', 'a checkpoint')}", *places)))
    sections = [
        make_section("result", "Result", result.headline, summary),
        make_section("sets", "Sets of queries", result.query_sets, summary),
        make_section("modalities", "Modalities", modalities_part, tested),
        make_section("tests", "Further test sets", result.further_tests, summary),
        make_section("settings", "Settings", settings_part, summary),
        make_section("training", "Training", training_part, summary),
        make_section("branches", "Branches", branches_part, tested),
        make_section("slices", "Slices", slices_part, tested),
        make_section("cmc", "CMC curve", cmc_part, summary),
        make_section("pairs", "Distances and ROC", _from_analysis, tested, pairs_part),
        make_section("worst", "Worst queries", _from_analysis, tested, worst_part),
        make_section("data", "Data and environment", fingerprints_part, summary),
        make_section("reproduce", "Reproduce", reproduce_part, summary),
    ]
    return make_page(
        title, [f"Checkpoint: {summary.get('weight', 'not recorded')}"], [one for one in sections if one.body]
    )


def settings_part(summary: dict[str, Any]) -> str:
    """Return the configuration of the test against the base recipe."""
    if not summary.get("config_file") or not summary.get("config"):
        return missing("summary.json does not record the configuration.")
    return base_changes(summary["config_file"], summary["config"])


def training_part(summary: dict[str, Any]) -> str:
    """Return the training of the stages that led to the checkpoint, from the run's records beside it.

    Nothing for a run of one stage, whose curves the report of the launch shows.
    """
    run = RunFolder(Path(summary.get("weight", "")).parent, "")
    record = read_record(run)
    if record is None or record.run != summary.get("run"):
        several = len(summary.get("config", {}).get("SOLVER", {}).get("STAGES", ())) > 1
        return missing("The records of the training do not lie beside the checkpoint.") if several else ""
    if not record.config:  # a run of an older version, which had one stage
        return ""
    solver = plain_tree(record.config)["SOLVER"]  # of the training: the test may have another seed
    stages = solver.get("STAGES", ())
    return figures.stages({solver["SEED"]: read_metrics(run.metrics)}, stages) if len(stages) > 1 else ""


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
    """Return the CMC curve."""
    return pictures([figures.cmc({"this test": summary["cmc"]})])


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


def worst_part(analysis: dict[str, Any], share: int = 1) -> str:
    """Return the first of `share` equal parts of the worst queries, at least FEWEST_WORST, with their rank lists."""
    worst = analysis["worst"]
    return worst_queries(worst[: max(FEWEST_WORST, len(worst) // share)])


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
