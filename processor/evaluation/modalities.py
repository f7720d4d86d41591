"""What modalities are worth: each set of queries, what a modality adds to a set, and what its lack costs."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from datasets.test_set import MODALITY, TestSet, Trial
from processor.evaluation.embed import Embedded
from processor.evaluation.evaluate import Gallery, RankOptions, rank_searched, search_trial
from utils.ranking.rank import Ranking
from utils.ranking.set_scores import Gain, MissingScore, SetScore, adjusted, paired_gain, score_sets
from utils.statistics.bootstrap import mean_interval
from utils.test_folder import TestResult

logger = logging.getLogger(__name__)

REMOVED = (0.0, 0.25, 0.5, 0.75)  # with which probability an item is taken out of a query
SEED = 0  # of what is taken out: the same in every test, so that tests compare


def modalities_of(test: TestSet, trial: Trial) -> np.ndarray:
    """Return the modality of each item of the queries of a trial, unicode [Q, n], "" where there is none."""
    items = trial.query.reshape(len(trial.query), -1)
    return np.where(items >= 0, test.labels.more[MODALITY][items], "")


def set_sizes(test: TestSet) -> dict[str, int]:
    """Return how many items a query has at most, by set, in the order of the trials."""
    return {trial.set: trial.query.reshape(len(trial.query), -1).shape[1] for trial in test.trials}


def score_modalities(
    test: TestSet, embedded: Embedded, options: RankOptions, result: TestResult
) -> tuple[list[SetScore], list[Gain]]:
    """Return the scores of groups and sets, and what each modality adds to a set; nothing of a test without modalities.

    Of a test of one set there are no scores beside the result itself.
    """
    if MODALITY not in test.labels.more:
        return [], []
    scores, figures = [], result.sets | result.groups
    if result.sets:
        scores = score_sets(figures, result.per_query, test.groups, set_sizes(test))
    return scores, modality_gains(test, embedded, options, result)


def modality_gains(test: TestSet, embedded: Embedded, options: RankOptions, result: TestResult) -> list[Gain]:
    """Return what each modality adds to each set of several: the same queries with it and without it, paired.

    Queries that have nothing else are left out; a modality is, where no query with a match has both.
    """
    gains, gallery = [], Gallery(embedded)
    for name, size in set_sizes(test).items():
        trials = [trial for trial in test.trials if trial.set == name and size > 1]
        known = [modalities_of(test, trial) for trial in trials]
        of_set = result.per_query["set"] == name if result.sets else slice(None)
        whole, pids = result.per_query["ap"][of_set], result.per_query["pid"][of_set]
        matched = np.split(~np.isnan(whole), np.cumsum([len(own) for own in known])[:-1])
        for modality in dict.fromkeys(item for own in known for item in own.T.ravel().tolist() if item):
            pairs = [_without(*one, modality) for one in zip(trials, known, matched, strict=True)]
            rows = np.concatenate([rows for _, rows in pairs])
            if rows.any():
                thinned = [trial for trial, _ in pairs if len(trial.query)]
                found = [one.ap for one, _ in _rankings(test, embedded, options, thinned, gallery)]
                gains.append(paired_gain(name, modality, whole[rows], np.concatenate(found), pids[rows]))
    return adjusted(gains)


def _without(trial: Trial, known: np.ndarray, matched: np.ndarray, modality: str) -> tuple[Trial, np.ndarray]:
    """Return a trial without the items of a modality, of the queries [Q] that had some of these and others, too.

    `known` [Q, n] are the modalities of its items; `matched` [Q] says which queries have a match in the gallery: where
    none that is left does, none is left.
    """
    gone = known == modality
    left = np.where(gone, -1, trial.query)
    rows = gone.any(axis=1) & (left >= 0).any(axis=1)
    rows &= (rows & matched).any()
    return trial._replace(query=left[rows]), rows


def _rankings(
    test: TestSet, embedded: Embedded, options: RankOptions, trials: Sequence[Trial], gallery: Gallery
) -> Iterator[tuple[Ranking, np.ndarray]]:
    """Yield the ranking of each trial and the identities of its queries [Q]."""
    for trial in trials:
        searched = search_trial(test, embedded, options, trial, gallery)
        yield rank_searched(test, searched, options), test.labels.pids[searched.query]


def missing_scores(test: TestSet, embedded: Embedded, options: RankOptions) -> list[MissingScore]:
    """Return the scores of the largest set, the first of equals, whose queries lost items at random, by REMOVED.

    What is taken out at one probability is out at the larger ones, too. Nothing, with a warning, where no query has
    several items.
    """
    sizes = set_sizes(test)
    name = max(sizes, key=sizes.get)
    if sizes[name] < 2:
        logger.warning("TEST.MISSING: no query of %s has several items, so none can be taken out", test.title)
        return []
    trials, gallery = [trial for trial in test.trials if trial.set == name], Gallery(embedded)
    scores = []
    for share in REMOVED:
        thinned = [trial._replace(query=without_some(trial.query, share, SEED + trial.draw)) for trial in trials]
        found = [*_rankings(test, embedded, options, thinned, gallery)]
        ap, pids = (np.concatenate(parts) for parts in zip(*((one.ap, own) for one, own in found), strict=True))
        valid = ~np.isnan(ap)
        low, high = mean_interval(ap[valid], np.unique(pids[valid], return_inverse=True)[1], (0.0, 1.0))
        items = float(np.mean([(trial.query >= 0).sum(axis=1).mean() for trial in thinned]))
        mean_ap = float(np.mean([one.mAP for one, _ in found]))
        scores.append(MissingScore(name, share, items, mean_ap, low, high))
        logger.info("%s, each item missing with probability %g: mAP %.1f %%", name, share, 100 * mean_ap)
    return scores


def without_some(query: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return query rows [Q, n] of which each item is taken out (-1) with probability `share`; one of a query stays.

    Each item has a random number of its own in [0, 1), from the seed, and is out where that is below `share`; of a
    query that would lose all the item of the largest number stays.
    """
    drawn = np.where(query >= 0, np.random.default_rng(seed).random(query.shape), -1.0)
    stays = drawn >= share
    stays[np.arange(len(query)), drawn.argmax(axis=1)] = True
    return np.where(stays, query, -1)
