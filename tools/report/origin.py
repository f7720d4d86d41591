"""The training that a test's checkpoint comes from, as far as the run's files lie beside it, and its other tests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from yacs.config import CfgNode

from configs import get_cfg_defaults
from configs.compare import flatten
from configs.picking import picked_by
from configs.stages import solver_of, stages_of
from configs.titles import dataset_title, names_of_tests
from tools.study.summary import Metrics, best_epoch, pick_references
from utils.run_folder import RunFolder, read_metrics
from utils.run_record import read_record
from utils.test_folder import METRICS, TestFolder, ap_rule_of, epoch_folders, read_result
from utils.yaml_text import plain_tree

NO_RUN = "the records of the training do not lie beside the checkpoint"
NOT_SCORED = "the training did not score them (TEST.REFERENCE)"
OTHER_TEST = "the training scored them on another test set, or by another rule of AP"

Summary = Mapping[str, Any]


class Origin(NamedTuple):
    """What the folder of a run tells of the training that made a checkpoint."""

    records: list[dict[str, Any]]  # of metrics.jsonl
    cfg: CfgNode | None  # of the training; None where an older version did not record it

    @property
    def stages(self) -> tuple[str, ...]:
        return () if self.cfg is None else tuple(stages_of(self.cfg))

    @property
    def last_epoch(self) -> int | None:
        """Return the last epoch of the last stage, None where it is not known."""
        return None if self.cfg is None else solver_of(self.cfg).MAX_EPOCHS


class References(NamedTuple):
    """What a test has to beat, by name (`tools.study.summary.REFERENCES`); `why` says why there is nothing."""

    metrics: dict[str, Metrics]
    why: str = ""


def origin_of(summary: Summary) -> Origin | None:
    """Return the training of a test's checkpoint; None where its run folder is not there, or is of another run."""
    run = RunFolder(Path(summary.get("weight", "")).parent, "")
    record = read_record(run)
    if record is None or record.run != summary.get("run"):
        return None
    tree = plain_tree(record.config) if record.config else None
    return Origin(read_metrics(run.metrics), None if tree is None else _whole(tree))


def _whole(tree: dict[str, Any]) -> CfgNode:
    """Return a recorded configuration; keys younger than it have their defaults."""
    cfg = get_cfg_defaults()
    known, recorded = flatten(cfg), flatten(tree)
    for key in known.keys() & recorded.keys():
        *path, name = key.split(".")
        node = cfg
        for part in path:
            node = node[part]
        node[name] = recorded[key]
    return cfg


def references_of(summary: Summary, origin: Origin | None) -> References:
    """Return what raw pixels and the untrained model reached on the same test set, as the training recorded it."""
    if origin is None or origin.cfg is None:
        return References({}, NO_RUN)
    found = pick_references(origin.records)
    if not found:
        return References({}, NOT_SCORED)
    cfg, settings = origin.cfg, summary.get("settings", {})
    title = dataset_title(names_of_tests(cfg)[0], cfg.DATASETS.VEHICLEID_TEST_SIZE)
    same = title == summary.get("dataset") and ap_rule_of(summary) == cfg.TEST.AP
    same = same and settings.get("DATASETS.TRIAL", cfg.DATASETS.TRIAL) == cfg.DATASETS.TRIAL
    return References(found) if same else References({}, OTHER_TEST)


def tested_epochs(folder: TestFolder, summary: Summary) -> dict[int, Metrics]:
    """Return the metrics of this run's tests beside one in its folder, itself included, by epoch, ascending."""
    names = ("run", "settings", "dataset")
    found = {epoch: read_result(one) for epoch, one in epoch_folders(folder.path.absolute().parent).items()}
    return {
        epoch: {metric: one[metric] for metric in METRICS}
        for epoch, one in found.items()
        if one is not None and one.get("epoch") == epoch and all(one.get(key) == summary.get(key) for key in names)
    }


def metric_of(summary: Summary) -> str:
    """Return the metric by which the system of a test is judged."""
    return picked_by(str(summary.get("config", {}).get("MODEL", {}).get("NAME", "")))[0]


def best_tested(folder: TestFolder, summary: Summary, origin: Origin | None) -> tuple[int, float] | None:
    """Return the best of the tested epochs and its figure, where this test is that of the last and others are there.

    Before the last is tested there may be more to come, and nothing is said.
    """
    last = None if origin is None else origin.last_epoch
    epochs = tested_epochs(folder, summary)
    if last is None or summary.get("epoch") != last or last not in epochs or len(epochs) < 2:
        return None
    best = best_epoch(epochs, picked_by(str(summary.get("config", {}).get("MODEL", {}).get("NAME", ""))))
    return best, epochs[best][metric_of(summary)]
