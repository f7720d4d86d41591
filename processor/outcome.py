"""What a test leaves: lines in the log, and the files of its folder."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from yacs.config import CfgNode

from configs.titles import dataset_title
from datasets.bases import fingerprint
from datasets.make_dataloader import ReIDData
from processor.analysis import PICTURE_NAME, analyse, pair_rates, save_analysis, verify_pairs
from processor.embed import embed
from processor.inference import evaluate, fingerprint_of_test, log_results, make_trial, rank_options
from processor.trained import data_differences, read_run
from utils.bootstrap import interval
from utils.checkpoint import sha256_of
from utils.report import REPORT_NAME, write_test_report
from utils.report.files import ANALYSIS_NAME
from utils.results import METRICS, PER_QUERY_NAME, RESULT_NAME, result_settings
from utils.run_folder import make_folder, replacing, write_text_atomic
from utils.slices import SLICES_NAME
from utils.summary import WITH_INTERVAL

logger = logging.getLogger(__name__)

SUMMARY_SCHEMA = 1
FILES = (RESULT_NAME, PER_QUERY_NAME, SLICES_NAME, PICTURE_NAME, ANALYSIS_NAME, REPORT_NAME)  # of one test


def warn_of_other_data(cfg: CfgNode, weight: Path, data: ReIDData) -> None:
    """Warn, naming both, where the data of this test are not those that the checkpoint was trained and tested on."""
    provenance = read_run(weight)
    if provenance is None:
        return
    for line in data_differences(provenance, cfg, train_fingerprint(data), fingerprint_of_test(data)):
        logger.warning("%s", line)


def train_fingerprint(data: ReIDData) -> str:
    """Return the fingerprint of the training images."""
    return fingerprint({"train": data.train_loader.dataset.samples})


def describe_test(
    cfg: CfgNode, weight: Path, epoch: int | None, data: ReIDData, origin: dict[str, Any]
) -> dict[str, Any]:
    """Return what all test sets of one test share; `origin` holds command, config_file and environment."""
    return {
        "epoch": epoch,
        "weight": str(weight),
        "weight_sha256": sha256_of(weight),
        "train_fingerprint": train_fingerprint(data),
        "settings": result_settings(cfg),
        "config": json.loads(json.dumps(cfg)),
        **origin,
    }


def evaluate_one(
    cfg: CfgNode, model: nn.Module, data: ReIDData, name: str, folder: Path, facts: dict[str, Any]
) -> dict[str, Any]:
    """Test the model on the test set of `data`, leave all files in `folder`, and return the results.

    `facts` come from `describe_test`; they stand in summary.json as they are.
    """
    folder = make_folder(str(folder), "OUTPUT_DIR")
    for old in FILES:  # or a test that is killed, or leaves no report, would stand beside an older one's
        (folder / old).unlink(missing_ok=True)
    embedded = embed(cfg, model, data.val_loader)
    trial = make_trial(data, embedded.feat, rank_options(cfg))
    results = evaluate(cfg, data, embedded, trial)
    results["interval"] = {metric: interval(results["per_query"], metric) for metric in WITH_INTERVAL}
    title = dataset_title(name, cfg.DATASETS.VEHICLEID_TEST_SIZE)
    verification = verify_pairs(trial, cfg.TEST.ROC_FPR)
    if verification is not None:
        results |= pair_rates(verification)
    analysis = analyse(cfg, data, trial, results, verification) if cfg.TEST.REPORT else None
    log_results(results, f"Test Results - {title} - {facts['weight']}")
    save_results(results, folder, {"dataset": title, **facts})
    if analysis is not None:
        try:
            save_analysis(analysis, folder)
            write_test_report(folder)
        except OSError as error:  # the result stands, only its page is missing
            logger.warning("no whole report in '%s' (%s); make room and test again", folder, error)
    return results


def save_results(results: dict[str, Any], folder: Path, facts: dict[str, Any]) -> None:
    """Write per_query.npz and then, as the mark of a finished test, summary.json; both replace older ones whole.

    per_query.npz holds, per query: ap, inp (float), first_hit (0-based rank, -1 = no match, query excluded), num_pos,
    pid, camid, viewid, brightness (of the clean image, 0..1), path (unicode), trial. Read it with allow_pickle=False.
    """
    with replacing(folder / PER_QUERY_NAME) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **results["per_query"])
    own = {key: value for key, value in results.items() if key not in (*METRICS, "per_query", "cmc")}
    summary = {
        "schema": SUMMARY_SCHEMA,
        **{name: results[name] for name in METRICS},
        **own,
        "cmc": [float(value) for value in results["cmc"]],
        **facts,
    }
    write_text_atomic(folder / RESULT_NAME, json.dumps(summary, indent=2) + "\n")
