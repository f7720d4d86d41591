"""Which test results count for an experiment: those that are provably of its runs; and what they sum up to."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from configs import get_cfg_defaults
from configs.compare import result_settings
from configs.picking import picked_by
from configs.titles import dataset_title
from tools.study.experiment import Experiment
from tools.study.summary import FurtherTest, SeedResults, best_held_out, build_summary, pick_references
from utils.ap_rules import marked
from utils.digest import remembered_sha256
from utils.run_folder import EMA, RunFolder, of_stage, read_metrics
from utils.run_record import RunRecord, read_record
from utils.test_folder import METRICS, TestFolder, epoch_folders, has_metrics, read_per_query, read_result

UNTESTED = "not tested yet"


def checkpoint_problem(run: RunFolder, epoch: int, record: RunRecord | None, stage: str = "") -> str | None:
    """Return why the file of an epoch's checkpoint is none of this run, None when it is one.

    `stage` is as in `RunFolder.checkpoint`; `record` is that of the run folder. It tells what the run wrote; without
    it, in the folder of an older version, the checkpoint itself tells of which epoch it is.
    """
    path = run.checkpoint(epoch, stage)
    if not path.is_file():
        return "is no file"
    if record is not None:
        written = record.checkpoints.get(path.name)
        if written is None:
            return "was not written by the run of this folder"
        return None if remembered_sha256(path) == written else "has another content than its run wrote"
    from utils.checkpoint import read_provenance

    provenance = read_provenance(path)
    if provenance is None:
        return "does not tell of which epoch it is, or is damaged"
    told = provenance.get("epoch")
    is_own = (told, provenance.get("stage", "")) == (epoch, stage)
    return None if is_own else f"is the checkpoint of epoch {told}"


def why_untested(experiment: Experiment, seed: int, epoch: int, stage: str = "") -> str | None:
    """Return why there is no valid result of an epoch, None when there is one.

    Valid is a whole result under the experiment's settings of the very checkpoint that this run wrote for this epoch:
    of that file's content, or, where the file was deleted, of the content that the run recorded.
    """
    folder = experiment.test_folder(seed, epoch, stage)
    result = read_result(folder)
    if result is None:
        return "no whole result" if folder.path.is_dir() else UNTESTED
    saved = result_settings(get_cfg_defaults()) | result.get("settings", {})  # a key it lacks is younger than it
    wanted = experiment.test_settings
    changes = [f"{key} {saved.get(key)} -> {new}" for key, new in wanted.items() if saved.get(key) != new]
    if changes:
        return f"tested with other settings: {'; '.join(changes)}"
    if result.get("epoch") not in (None, epoch):
        return f"its result is of epoch {result['epoch']}"
    return _why_not_whole(folder, result) or _why_not_of_this_run(experiment.run_folder(seed), epoch, result, stage)


def _why_not_whole(folder: TestFolder, result: dict[str, Any]) -> str | None:
    """Return which of a test's files are absent, damaged or of another test."""
    if read_per_query(folder, result) is None:
        return f"no whole {folder.per_query.name}"
    for name in result.get("tests", {}):  # further test sets, each with a folder of its name
        other = read_result(folder.further(name))
        if other is None or other.get("weight_sha256") != result.get("weight_sha256"):
            return f"no whole result on {name}"
        if read_per_query(folder.further(name), other) is None:
            return f"no whole {folder.per_query.name} on {name}"
    return None


def _why_not_of_this_run(run: RunFolder, epoch: int, result: dict[str, Any], stage: str) -> str | None:
    record, path, tested = read_record(run), run.checkpoint(epoch, stage), result.get("weight_sha256")
    if record is not None and result.get("run") not in (None, record.run):
        return "its result is of another run"
    if path.exists():
        problem = checkpoint_problem(run, epoch, record, stage)
        if problem:
            return f"{path.name} {problem}"
        return None if remembered_sha256(path) == tested else "the checkpoint changed after its test"
    written = record.checkpoints.get(path.name) if record is not None and run.config.is_file() else None
    if written is None:
        return f"{path.name} is gone, and nothing proves that its result is of this run"
    return (
        None if written == tested else f"{path.name} is gone, and its result is of another content than this run wrote"
    )


def collect_results(experiment: Experiment, seed: int) -> SeedResults:
    """Return what lies in the folders of one seed: valid test results up to the last epoch, and reference figures."""
    epochs, fingerprints, last, left_out = {}, set(), {}, {}
    run, whole = experiment.run_folder(seed), {}
    for epoch, folder in epoch_folders(experiment.tests_of(seed)).items():
        if epoch > experiment.last_epoch or not folder.summary.exists():
            continue
        why, result = why_untested(experiment, seed, epoch), read_result(folder)
        if why is not None or result is None:
            left_out[epoch] = why or "no whole result"
            continue
        whole[epoch] = result
        epochs[epoch] = {name: result[name] for name in METRICS}
        fingerprints |= {result["data_fingerprint"]} if result.get("data_fingerprint") else set()
        last = result if epoch == experiment.last_epoch else last
    records = read_metrics(run.metrics)
    looked_at = of_stage(records, experiment.stages, experiment.stages[-1])
    held_out = {
        record["epoch"]: {name: record[name] for name in METRICS}
        for record in looked_at
        if record["kind"] == "val" and has_metrics(record)
    }
    picks = picked_by(experiment.model_name)
    unseen = {experiment.last_epoch, best_held_out(epochs, held_out, picks)} & epochs.keys()
    tables = {epoch: read_per_query(experiment.test_folder(seed, epoch), whole[epoch]) for epoch in unseen}
    per_query = {epoch: table for epoch, table in tables.items() if table is not None}
    further = {name: _read_further(experiment, seed, name, metrics) for name, metrics in last.get("tests", {}).items()}
    further |= _read_averaged(experiment, seed)
    references, groups = pick_references(records), last.get("groups", {})
    return SeedResults(seed, epochs, references, fingerprints, held_out, per_query, further, left_out, picks, groups)


def _read_further(experiment: Experiment, seed: int, name: str, metrics: dict[str, float]) -> FurtherTest:
    """Return the last epoch's result on another test set, which test.py leaves in a folder of that name."""
    settings = experiment.test_settings
    title = marked(dataset_title(name, settings["DATASETS.VEHICLEID_TEST_SIZE"]), settings["TEST.AP"])
    folder = experiment.test_folder(seed, experiment.last_epoch).further(name)
    return FurtherTest(title, metrics, read_per_query(folder))


def _read_averaged(experiment: Experiment, seed: int) -> dict[str, FurtherTest]:
    """Return the result of the averaged weights of the last epoch by the name EMA; {} where there is no valid one."""
    folder = experiment.test_folder(seed, experiment.last_epoch, EMA)
    result = read_result(folder)
    if result is None or why_untested(experiment, seed, experiment.last_epoch, EMA) is not None:
        return {}
    metrics = {name: result[name] for name in METRICS}
    return {EMA: FurtherTest(f"{experiment.facts['dataset']}, averaged weights", metrics, read_per_query(folder))}


def summarise(
    experiment: Experiment, seeds: Sequence[int], failed_tests: Sequence[dict[str, Any]]
) -> tuple[dict[str, Any], list[SeedResults]]:
    """Return the summary of these seeds as far as they have results, and the results."""
    results = [collect_results(experiment, seed) for seed in seeds]
    time = datetime.now().astimezone().isoformat(timespec="seconds")
    facts = {"name": experiment.name, "timestamp": time, **experiment.facts}
    return build_summary(results, experiment.last_epoch, facts, failed_tests), results
