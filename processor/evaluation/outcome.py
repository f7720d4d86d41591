"""What a test leaves: lines in the log, and the files of its folder."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from torch import nn
from yacs.config import CfgNode

from configs.compare import result_settings
from datasets.make_dataloader import ReIDData
from datasets.test_set import TestSet
from processor.evaluation.analysis import Analyst, pair_rates, save_analysis
from processor.evaluation.branches import log_branches, score_branches
from processor.evaluation.embed import embed_test, make_embedding
from processor.evaluation.evaluate import evaluate, log_results, rank_options
from processor.evaluation.modalities import missing_scores, score_modalities
from processor.provenance import data_differences, read_run, warn_of_other_settings
from utils.digest import sha256_of
from utils.errors import ConfigError, DataError, RunError
from utils.ranking.branches import write_branches
from utils.ranking.set_scores import Gain, MissingScore, SetScore
from utils.run_folder import epoch_of, make_folder
from utils.statistics.bootstrap import intervals
from utils.test_folder import METRICS, TestFolder, TestResult, write_result
from utils.typed_csv import write_rows

logger = logging.getLogger(__name__)


def warn_of_other_data(cfg: CfgNode, weight: Path, data: ReIDData) -> None:
    """Warn, naming both, where settings and data of this test are not those that the checkpoint was trained with."""
    provenance = read_run(weight)
    if provenance is None:
        return
    warn_of_other_settings(provenance, cfg, weight)
    for line in data_differences(provenance, cfg, data.fingerprint, data.test.fingerprint):
        logger.warning("%s", line)


def describe_test(cfg: CfgNode, weight: Path, data: ReIDData, origin: dict[str, Any]) -> dict[str, Any]:
    """Return what all test sets of one test share; `origin` holds command, config_file and environment.

    Epoch and run are those that the checkpoint itself tells; one of other code tells its epoch by its name alone.
    """
    provenance = read_run(weight)
    return {
        "epoch": epoch_of(weight) if provenance is None else provenance["epoch"],
        "stage": None if provenance is None else provenance.get("stage"),  # of a checkpoint of an earlier stage alone
        "run": None if provenance is None else provenance.get("run"),
        "weight": str(weight),
        "weight_sha256": sha256_of(weight),
        "train_fingerprint": data.fingerprint,
        "settings": result_settings(cfg),
        "config": json.loads(json.dumps(cfg)),
        **origin,
    }


def check_unchanged(weight: Path, facts: dict[str, Any]) -> None:
    """Raise DataError where a checkpoint is no longer the one that `facts`, see `describe_test`, were read from."""
    if sha256_of(weight) != facts["weight_sha256"]:
        raise DataError(f"'{weight}' was replaced while it was read; run the test again")


def evaluate_one(
    cfg: CfgNode, model: nn.Module, test: TestSet, folder: TestFolder, facts: dict[str, Any]
) -> TestResult:
    """Test the model on a test set, leave all files in `folder`, and return the result.

    `facts` come from `describe_test`; they stand in summary.json as they are.
    """
    make_folder(str(folder.path), "OUTPUT_DIR")
    for old in folder.files:  # or a test that is killed, or leaves no report, would stand beside an older one's
        old.unlink(missing_ok=True)
    options, how = rank_options(cfg), make_embedding(cfg, next(model.parameters()).device)
    embedded = embed_test(model, test, how)
    analyst = Analyst(cfg, test)
    result = evaluate(test, embedded, options, analyst.watch)
    missing = missing_scores(test, embedded, options) if cfg.TEST.MISSING else []
    result = dataclasses.replace(
        result,
        interval=intervals(result.per_query, METRICS),
        pairs={} if analyst.verification is None else pair_rates(analyst.verification),
        missing={f"{one.removed:g}": one.mAP for one in missing},
    )
    analysis, scores, gains = None, [], []
    if cfg.TEST.REPORT:
        analysis = analyst.analyse(result)
        scores, gains = score_modalities(test, embedded, options, result)
    log_results(result, f"Test Results - {test.title} - {facts['weight']}")
    branches = None
    if cfg.TEST.BRANCHES:
        unit = how.unit and how.fuse is not None  # else it is what the model makes of them that is normalised
        branches = score_branches(test, embedded, options, model.branches, how.part_weights, unit)
        log_branches(branches, options.ap)
    try:
        if analysis is not None:
            save_analysis(analysis, folder)
        if branches is not None:
            write_branches(folder.branches, branches)
        tables = ((folder.sets, SetScore, scores), (folder.gains, Gain, gains), (folder.missing, MissingScore, missing))
        for path, kind, rows in tables:
            if rows:
                write_rows(path, kind, rows)
    except (ConfigError, RunError) as error:  # the result stands, only what its page shows is missing
        logger.warning("no whole report in '%s': %s", folder.path, error)
    write_result(folder, result, {"dataset": test.title, **facts})
    return result
