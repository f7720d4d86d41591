"""What a test leaves beside its figures: slices, distances and ROC of pairs, and the worst queries."""

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from yacs.config import CfgNode

from datasets.make_dataloader import ReIDData
from processor.inference import Trial
from utils.rank_list import STATUS, rank_lists
from utils.report.files import ANALYSIS_NAME, ANALYSIS_SCHEMA
from utils.run_folder import write_text_atomic
from utils.slices import SLICES_NAME, Slice, camera_pair_slices, query_slices, write_slices
from utils.verification import Verification, verify

logger = logging.getLogger(__name__)

PICTURE_NAME = "slices.png"
NUM_WORST, NUM_RANKS = 12, 10  # queries, and ranked gallery images of each


class Analysis(NamedTuple):
    """Where a test is right and wrong."""

    slices: list[Slice]
    verification: Verification | None  # None: all images are of one identity
    worst: list[dict[str, Any]]  # see `worst_queries`


def verify_pairs(trial: Trial, fprs: Sequence[float]) -> Verification | None:
    """Return the `Verification` of the pairs of a trial; None, with a warning, when all images are of one identity."""
    if len(np.union1d(trial.q_pids, trial.g_pids)) > 1:
        return verify(trial.distances, *trial.labels, fprs)
    logger.warning("the test set has one identity, so no negative pairs: distances and ROC are left out")
    return None


def analyse(
    cfg: CfgNode, data: ReIDData, trial: Trial, results: dict[str, Any], verification: Verification | None
) -> Analysis:
    """Return the `Analysis` of a test: `results` of `do_inference`, the trial 0 that they come from, and its pairs.

    Viewpoint, brightness and matches are sliced over all trials, the rest is that of trial 0.
    """
    per_query = results["per_query"]
    slices = camera_pair_slices(trial.distances, *trial.labels)
    slices += query_slices(per_query, cfg.LOSS.BRIGHTNESS.THRESH)
    first = per_query["trial"] == 0
    scores = {name: per_query[name][first] for name in ("ap", "num_pos", "first_hit")}
    paths = [sample.path for sample in data.val_loader.dataset.samples]
    return Analysis(slices, verification, worst_queries(trial, scores, paths))


def worst_queries(trial: Trial, scores: dict[str, np.ndarray], paths: list[str]) -> list[dict[str, Any]]:
    """Return the valid queries of lowest AP, the worst first, with their rank lists, ready for JSON.

    `scores` are ap, num_pos and first_hit [Q] of the trial, `paths` those of all images of the test loader. Each entry
    has path, pid, camid, ap, num_pos, first_hit (0-based) and `ranks`: path, pid, camid, distance and status (right,
    wrong, junk) of the first ranked gallery images and of the junk between them.
    """
    valid = np.flatnonzero(scores["first_hit"] >= 0)
    rows = valid[np.argsort(scores["ap"][valid], kind="stable")[:NUM_WORST]]
    lists = rank_lists(trial.distances, rows.tolist(), NUM_RANKS, *trial.labels)
    worst = []
    for row, listed in zip(rows, lists, strict=True):
        ranks = [
            _image(paths[trial.gallery[image]], trial.g_pids[image], trial.g_camids[image])
            | {"distance": float(distance), "status": STATUS[status]}
            for image, status, distance in zip(listed.gallery, listed.status, listed.distance, strict=True)
        ]
        numbers = {name: values[row].item() for name, values in scores.items()}
        query = _image(paths[trial.query[row]], trial.q_pids[row], trial.q_camids[row])
        worst.append(query | numbers | {"ranks": ranks})
    return worst


def _image(path: str, pid: np.integer, camid: np.integer) -> dict[str, Any]:
    return {"path": path, "pid": int(pid), "camid": int(camid)}


def save_analysis(analysis: Analysis, folder: Path) -> None:
    """Write slices.csv, slices.png and analysis.json into an existing folder; each replaces an older one whole.

    analysis.json holds schema, worst, and unless the test set has one identity: distance (edges [n + 1], counts [n] of
    positive and negative pairs), roc (fpr, tpr: rising) and what `pair_rates` returns.
    """
    from utils import charts

    write_slices(folder / SLICES_NAME, analysis.slices)
    charts.save_png(charts.slices_chart(analysis.slices, "mAP and Rank-1 of parts of the test"), folder / PICTURE_NAME)
    content = {"schema": ANALYSIS_SCHEMA, **_pairs(analysis.verification), "worst": analysis.worst}
    write_text_atomic(folder / ANALYSIS_NAME, json.dumps(content, allow_nan=False) + "\n")


def _pairs(verification: Verification | None) -> dict[str, Any]:
    """Return what is known about pairs, ready for JSON."""
    if verification is None:
        return {}
    arrays = {name: getattr(verification, name).tolist() for name in ("edges", "positive", "negative", "fpr", "tpr")}
    return {
        "distance": {name: arrays[name] for name in ("edges", "positive", "negative")},
        "roc": {name: arrays[name] for name in ("fpr", "tpr")},
        **pair_rates(verification),
    }


def pair_rates(verification: Verification) -> dict[str, Any]:
    """Return tpr_at_fpr {rate: fraction} and threshold {rate: the distance up to which a pair is accepted}, for JSON.

    Distances are those of `utils.metrics.make_distances`; None accepts all pairs.
    """
    thresholds = verification.threshold.items()
    return {
        "tpr_at_fpr": {str(float(rate)): tpr for rate, tpr in verification.tpr_at_fpr.items()},
        "threshold": {str(float(rate)): value if math.isfinite(value) else None for rate, value in thresholds},
    }
