"""What a test leaves beside its figures: slices, distances and ROC of pairs, worst and best queries."""

import json
import logging
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from yacs.config import CfgNode

from datasets.test_set import MODALITY, OWN_IMAGE, Labels, TestSet, first_items, query_names
from utils.atomic import write_text_atomic
from utils.ranking.blocks import Look
from utils.ranking.camera_pairs import CameraPairs, has_camera_pairs
from utils.ranking.rank import Ranker
from utils.ranking.rank_list import STATUS, FirstLists, Found, best_first, worst_first
from utils.ranking.slices import LEFT_OUT, MOST, Slice, query_slices, write_slices
from utils.ranking.verification import Verification, Verifier
from utils.test_folder import ANALYSIS_SCHEMA, TestFolder, TestResult

logger = logging.getLogger(__name__)

NUM_WORST, NUM_BEST, NUM_RANKS = 12, 6, 10  # queries, and ranked gallery images of each


class Analysis(NamedTuple):
    """Where a test is right and wrong."""

    slices: list[Slice]
    verification: Verification | None  # None: all images are of one identity
    worst: list[dict[str, Any]]  # see `listed_queries`
    best: list[dict[str, Any]]  # likewise
    pairs_of: str = ""  # the set whose pairs are verified, "" where the figures of the test are those of that set alone


class Analyst:
    """Looks at the distances of a test while they are ranked, once for all that its analysis tells.

    Of the first trial it sees the pairs and, with TEST.REPORT, the camera pairs; with it also the worst and the best
    queries of the first draw of each set that may be the weakest of a group.
    """

    def __init__(self, cfg: CfgNode, test: TestSet) -> None:
        self.cfg, self.test = cfg, test
        self._verifier: Verifier | None = None
        self._cameras: CameraPairs | None = None
        self._listed: dict[int, tuple[FirstLists, FirstLists]] = {}  # worst, best; by the number of the trial
        first = first_draws(test)
        self._shown = {first[name] for members in test.groups.values() for name in members} or {0}

    def watch(self, number: int, ranker: Ranker) -> list[Look]:
        """Return what sees the distances of trial `number` after what ranks it, for `evaluate`."""
        labels, report = ranker.labels, self.cfg.TEST.REPORT
        if number == 0 and len(np.union1d(labels.q_pids, labels.g_pids)) > 1:
            self._verifier = Verifier(labels, self.cfg.TEST.ROC_FPR)
        elif number == 0:
            logger.warning("the test set has one identity, so no negative pairs: distances and ROC are left out")
        if number == 0 and report and has_camera_pairs(labels):
            self._cameras = CameraPairs(labels, ranker.rule)
        if report and number in self._shown:
            self._listed[number] = (
                FirstLists(ranker, NUM_WORST, NUM_RANKS, worst_first),
                FirstLists(ranker, NUM_BEST, NUM_RANKS, best_first),
            )
        own = (self._verifier, self._cameras) if number == 0 else ()
        return [look for look in (*own, *self._listed.get(number, ())) if look is not None]

    @cached_property
    def verification(self) -> Verification | None:
        """The pairs of the first trial; None when all images are of one identity."""
        return None if self._verifier is None else self._verifier.verification()

    def analyse(self, result: TestResult) -> Analysis:
        """Return the `Analysis` of a test that was watched to its `result`.

        Viewpoint, brightness and matches are sliced over all trials; the worst and the best queries are those of the
        trials that `shown_trials` names, as many of each; the rest is that of the first.
        """
        slices = [] if self._cameras is None else self._cameras.slices()
        slices += query_slices(result.per_query, self.cfg.LOSS.BRIGHTNESS.THRESH)
        for part in slices:
            if part.kind == LEFT_OUT:
                logger.warning("slices are of the %d with the most images; left out are %s", MOST, part.query)
        shown = list(dict.fromkeys(shown_trials(self.test, result)))
        worst, best = [], []
        for number in shown:
            for queries, most, lists in zip((worst, best), (NUM_WORST, NUM_BEST), self._listed[number], strict=True):
                queries += listed_queries(self.test, number, result, lists.found[: max(1, most // len(shown))])
        first = self.test.trials[0].set
        several = result.sets and self.test.set_weights()[first] < 1
        return Analysis(slices, self.verification, worst, best, first if several else "")


def first_draws(test: TestSet) -> dict[str, int]:
    """Return the number of the first trial of each set."""
    return {trial.set: number for number, trial in reversed([*enumerate(test.trials)])}


def shown_trials(test: TestSet, result: TestResult) -> list[int]:
    """Return the trials whose worst queries are shown: of each group, the first draw of its set of lowest mAP."""
    if not result.sets or not test.groups:
        return [0]
    first = first_draws(test)
    return [first[min(members, key=lambda name: result.sets[name]["mAP"])] for members in test.groups.values()]


def listed_queries(test: TestSet, number: int, result: TestResult, found: Sequence[Found]) -> list[dict[str, Any]]:
    """Return some queries of trial `number` with their rank lists, ready for JSON.

    Each entry has path, pid, camid, ap, num_pos, first_hit (0-based) and `ranks`: path, pid, camid, distance and status
    (right, wrong, junk) of the first ranked gallery images and of the junk between them. The path of a caption is its
    text, and `own` the path of the image that it was written for, "" where that is not there; cameras are then unknown,
    and there is no camid. Queries of modalities also have `set` and `items`: modality, path (or caption), ... of each,
    and no camera where all have the same.
    """
    trial = test.trials[number]
    start = sum(len(earlier.query) for earlier in test.trials[:number])
    rows = np.array([one.query for one in found], dtype=np.int64)
    first, gallery = first_items(trial.query), first_items(trial.gallery)
    own, modality = test.labels.more.get(OWN_IMAGE), test.labels.more.get(MODALITY)
    cameras = own is None and (modality is None or bool(test.labels.camids.any()))
    entries = []
    for one, name in zip(found, query_names(test.labels, trial.query[rows]).tolist(), strict=True):
        ranks = [
            _entry(test.labels, gallery[image], cameras) | {"distance": float(distance), "status": STATUS[status]}
            for image, status, distance in zip(one.ranks.gallery, one.ranks.status, one.ranks.distance, strict=True)
        ]
        scores = {name: result.per_query[name][start + one.query].item() for name in ("ap", "num_pos", "first_hit")}
        query = _entry(test.labels, first[one.query], cameras) | {"path": name}
        if own is not None:
            image = own[first[one.query]]
            query["own"] = test.labels.names[image] if image >= 0 else ""
        if modality is not None:
            items = [item for item in np.atleast_1d(trial.query[one.query]).tolist() if item >= 0]
            query |= {"set": trial.set, "items": [_entry(test.labels, item, cameras) for item in items]}
        entries.append(query | scores | {"ranks": ranks})
    return entries


def _entry(labels: Labels, row: int, cameras: bool) -> dict[str, Any]:
    """Return what is known of a row of a test set: path, pid, modality where it has one, camid where `cameras`."""
    entry = {"path": labels.names[row], "pid": int(labels.pids[row])}
    if MODALITY in labels.more:
        entry["modality"] = str(labels.more[MODALITY][row])
    return entry | {"camid": int(labels.camids[row])} if cameras else entry


def save_analysis(analysis: Analysis, folder: TestFolder) -> None:
    """Write slices.csv and analysis.json into an existing folder; each replaces an older one whole.

    analysis.json holds schema, worst, best, where several sets count pairs_of, and unless the test set has one
    identity: distance (edges [n + 1], counts [n] of positive and negative pairs), roc (fpr, tpr: rising) and what
    `pair_rates` returns.
    """
    write_slices(folder.slices, analysis.slices)
    pairs = _pairs(analysis.verification) | ({"pairs_of": analysis.pairs_of} if analysis.pairs_of else {})
    content = {"schema": ANALYSIS_SCHEMA, **pairs, "worst": analysis.worst, "best": analysis.best}
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
