"""What a test leaves beside its figures: slices, distances and ROC of pairs, and the worst queries."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from yacs.config import CfgNode

from datasets.test_set import MODALITY, OWN_IMAGE, Labels, TestSet, first_items, query_names
from processor.evaluation.evaluate import Searched
from utils.atomic import write_text_atomic
from utils.ranking.rank_list import STATUS, rank_lists
from utils.ranking.slices import LEFT_OUT, MOST, Slice, camera_pair_slices, query_slices, write_slices
from utils.ranking.verification import Verification, verify
from utils.test_folder import ANALYSIS_SCHEMA, TestFolder, TestResult

logger = logging.getLogger(__name__)

NUM_WORST, NUM_RANKS = 12, 10  # queries, and ranked gallery images of each


class Analysis(NamedTuple):
    """Where a test is right and wrong."""

    slices: list[Slice]
    verification: Verification | None  # None: all images are of one identity
    worst: list[dict[str, Any]]  # see `worst_queries`
    pairs_of: str = ""  # the set whose pairs are verified, "" where the figures of the test are those of that set alone


def shown_trials(test: TestSet, result: TestResult) -> list[int]:
    """Return the trials whose worst queries are shown: of each group, the first draw of its set of lowest mAP."""
    first = {trial.set: number for number, trial in reversed([*enumerate(test.trials)])}
    weakest = [min(members, key=lambda name: result.sets[name]["mAP"]) for members in test.groups.values()]
    return [first[name] for name in weakest] if result.sets and weakest else [0]


def verify_pairs(searched: Searched, fprs: Sequence[float]) -> Verification | None:
    """Return the `Verification` of the pairs of a trial; None, with a warning, when all images are of one identity."""
    protocol = searched.protocol
    if len(np.union1d(protocol.q_pids, protocol.g_pids)) > 1:
        return verify(searched.distances, protocol, fprs)
    logger.warning("the test set has one identity, so no negative pairs: distances and ROC are left out")
    return None


def analyse(
    cfg: CfgNode,
    test: TestSet,
    searched: Searched,
    result: TestResult,
    verification: Verification | None,
    shown: Mapping[int, Searched],
) -> Analysis:
    """Return the `Analysis` of a test: its result, its first trial as searched, and that trial's pairs.

    Viewpoint, brightness and matches are sliced over all trials; the worst queries are those of the trials `shown`, by
    their numbers, as many of each; the rest is that of the first.
    """
    slices = camera_pair_slices(searched.distances, searched.protocol, result.ap_rule)
    slices += query_slices(result.per_query, cfg.LOSS.BRIGHTNESS.THRESH)
    for part in slices:
        if part.kind == LEFT_OUT:
            logger.warning("slices are of the %d with the most images; left out are %s", MOST, part.query)
    worst = []
    for number, one in shown.items():
        start = sum(len(trial.query) for trial in test.trials[:number])
        rows = slice(start, start + len(one.query))
        scores = {name: result.per_query[name][rows] for name in ("ap", "num_pos", "first_hit")}
        worst += worst_queries(test, one, scores, max(1, NUM_WORST // len(shown)))
    first = searched.trial.set
    return Analysis(slices, verification, worst, first if result.sets and test.set_weights()[first] < 1 else "")


def worst_queries(
    test: TestSet, searched: Searched, scores: dict[str, np.ndarray], count: int = NUM_WORST
) -> list[dict[str, Any]]:
    """Return the `count` valid queries of lowest AP, the worst first, with their rank lists, ready for JSON.

    `scores` are ap, num_pos and first_hit [Q] of the trial. Each entry has path, pid, camid, ap, num_pos, first_hit
    (0-based) and `ranks`: path, pid, camid, distance and status (right, wrong, junk) of the first ranked gallery images
    and of the junk between them. The path of a caption is its text, and `own` the path of the image that it was written
    for, "" where that is not there; cameras are then unknown, and there is no camid. Queries of modalities also have
    `set` and `items`: modality, path (or caption), ... of each, and no camera where all have the same.
    """
    trial, protocol = searched.trial, searched.protocol
    valid = np.flatnonzero(scores["first_hit"] >= 0)
    rows = valid[np.argsort(scores["ap"][valid], kind="stable")[:count]]
    lists = rank_lists(searched.distances, rows.tolist(), NUM_RANKS, protocol)
    names = query_names(test.labels, trial.query[rows])
    own, modality = test.labels.more.get(OWN_IMAGE), test.labels.more.get(MODALITY)
    gallery, cameras = first_items(trial.gallery), own is None and (modality is None or bool(test.labels.camids.any()))
    worst = []
    for row, name, listed in zip(rows, names.tolist(), lists, strict=True):
        ranks = [
            _entry(test.labels, gallery[image], cameras) | {"distance": float(distance), "status": STATUS[status]}
            for image, status, distance in zip(listed.gallery, listed.status, listed.distance, strict=True)
        ]
        numbers = {name: values[row].item() for name, values in scores.items()}
        query = _entry(test.labels, searched.query[row], cameras) | {"path": name}
        if own is not None:
            image = own[searched.query[row]]
            query["own"] = test.labels.names[image] if image >= 0 else ""
        if modality is not None:
            items = [item for item in np.atleast_1d(trial.query[row]).tolist() if item >= 0]
            query |= {"set": trial.set, "items": [_entry(test.labels, item, cameras) for item in items]}
        worst.append(query | numbers | {"ranks": ranks})
    return worst


def _entry(labels: Labels, row: int, cameras: bool) -> dict[str, Any]:
    """Return what is known of a row of a test set: path, pid, modality where it has one, camid where `cameras`."""
    entry = {"path": labels.names[row], "pid": int(labels.pids[row])}
    if MODALITY in labels.more:
        entry["modality"] = str(labels.more[MODALITY][row])
    return entry | {"camid": int(labels.camids[row])} if cameras else entry


def save_analysis(analysis: Analysis, folder: TestFolder) -> None:
    """Write slices.csv and analysis.json into an existing folder; each replaces an older one whole.

    analysis.json holds schema, worst, where several sets count pairs_of, and unless the test set has one identity:
    distance (edges [n + 1], counts [n] of positive and negative pairs), roc (fpr, tpr: rising) and what `pair_rates`
    returns.
    """
    write_slices(folder.slices, analysis.slices)
    pairs = _pairs(analysis.verification) | ({"pairs_of": analysis.pairs_of} if analysis.pairs_of else {})
    content = {"schema": ANALYSIS_SCHEMA, **pairs, "worst": analysis.worst}
    write_text_atomic(folder.analysis, json.dumps(content, allow_nan=False) + "\n")


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
