"""From embeddings to metrics."""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn
from yacs.config import CfgNode

from configs.keys.multimodal import NAME as MULTIMODAL
from datasets.make_dataloader import ReIDData
from datasets.test_set import OWN_IMAGE, TestSet, Trial, first_items, query_names, same_camera
from processor.evaluation.cautions import cautions, image_sets
from processor.evaluation.embed import Embedded, embed_test, make_embedding, vectors
from utils.ap_rules import STANDARD, marked_metric
from utils.ranking.blocks import Look, look_at, no_looks
from utils.ranking.distance import Distances
from utils.ranking.protocol import Protocol, group
from utils.ranking.rank import Ranker, Ranking, make_distances
from utils.statistics.bootstrap import query_values
from utils.test_folder import METRICS, VIEW, TestResult

logger = logging.getLogger(__name__)


Watch = Callable[[int, Ranker], Sequence[Look]]  # number of a trial, what ranks it -> what sees its distances after it


class RankOptions(NamedTuple):
    """How distances are made and ranked."""

    max_rank: int
    expand: tuple[int, float, int] | None = None  # (k, alpha, times) of the query expansion
    rerank: tuple[int, int, float] | None = None  # (k1, k2, lambda) of the k-reciprocal re-ranking
    spectral: tuple[int, float] | None = None  # (k, temperature) of the spectral re-ranking
    ap: str = STANDARD  # one of AP_RULES
    depth: int | None = None  # k of mAP@k, told beside mAP; None = it is not

    def named(self) -> dict[str, Any]:
        """Return what a result says of how its ranks were made, ready for JSON; nothing where that is the plain way."""
        numbers = {
            "expansion": self.expand and dict(zip(("k", "alpha", "times"), self.expand, strict=True)),
            "re_ranking": self.rerank and dict(zip(("k1", "k2", "lambda"), self.rerank, strict=True)),
            "spectral": self.spectral and dict(zip(("k", "t"), self.spectral, strict=True)),
        }
        other = {name: values for name, values in numbers.items() if values}
        return {"ap": self.ap, **other} if other or self.ap != STANDARD else {}


class Searched(NamedTuple):
    """One trial of a test set with the distances of its queries to its gallery."""

    trial: Trial
    query: np.ndarray  # int64 [Q]: the row of each query's first item, which labels it
    protocol: Protocol
    distances: Distances


def do_inference(cfg: CfgNode, model: nn.Module, data: ReIDData) -> dict[str, Any]:
    """Embed query and gallery of the test set that decides, rank, and return the results as fractions in 0..1.

    Queries are images, or captions where the test set has some: `num_query` counts them, `path` of per_query has their
    text. With TEST.I2T, `i2t` has the METRICS and num_query of the other direction, and per_query also has its rows, of
    the `set` i2t and `weight` 0.

    Keys: mAP, mINP, Rank-1, Rank-5, Rank-10 (means over the trials where the protocol has several, with their sample
    standard deviations in `trial_sd`), cmc [max_rank], num_query, num_valid_query, num_trials, data_fingerprint, notes
    of the data set (images left out), precision (in which the model ran), and `per_query`: arrays over all queries (of
    all trials); see `utils.test_folder.TestResult`. The model is left in eval mode.
    """
    how = make_embedding(cfg, next(model.parameters()).device)
    return evaluate(data.test, embed_test(model, data.test, how), rank_options(cfg)).flat()


def rank_options(cfg: CfgNode) -> RankOptions:
    """Return what cfg.TEST says about ranking."""
    expand = (cfg.TEST.QE.K, cfg.TEST.QE.ALPHA, cfg.TEST.QE.TIMES) if cfg.TEST.QE.K else None
    rerank = (cfg.TEST.RERANK.K1, cfg.TEST.RERANK.K2, cfg.TEST.RERANK.LAMBDA) if cfg.TEST.RE_RANKING else None
    spectral = (cfg.TEST.SPECTRAL.K, cfg.TEST.SPECTRAL.T) if cfg.TEST.SPECTRAL.K else None
    depth = cfg.TEST.AP_DEPTH if cfg.MODEL.NAME == MULTIMODAL else None
    return RankOptions(cfg.TEST.MAX_RANK, expand, rerank, spectral, cfg.TEST.AP, depth)


class Gallery:
    """The vectors of the gallery that was searched last: the trials that share it make them once."""

    def __init__(self, embedded: Embedded) -> None:
        self._embedded = embedded
        self._rows: np.ndarray | None = None
        self._feat: Tensor | None = None

    def of(self, rows: np.ndarray) -> Tensor:
        """Return the vectors float32 [G, D] of gallery rows [G] or [G, n]."""
        if self._rows is None or not np.array_equal(rows, self._rows):
            self._rows, self._feat = rows, vectors(self._embedded, rows)
        return self._feat


def search(test: TestSet, embedded: Embedded, options: RankOptions, number: int = 0) -> Searched:
    """Return trial `number` of a test set whose rows are embedded, as `search_trial` does."""
    return search_trial(test, embedded, options, test.trials[number], Gallery(embedded))


def search_trial(test: TestSet, embedded: Embedded, options: RankOptions, trial: Trial, gallery: Gallery) -> Searched:
    """Return a trial of rows that are embedded, with its distances.

    A query or gallery item of several rows becomes one vector by `embedded.fuse`. Raises DataError for a query without
    any item.
    """
    query = first_items(trial.query)
    how = (options.expand, options.rerank, options.spectral)
    distances = make_distances(vectors(embedded, trial.query), gallery.of(trial.gallery), *how)
    return Searched(trial, query, protocol_of(test, trial, query), distances)


def protocol_of(test: TestSet, trial: Trial, query: np.ndarray) -> Protocol:
    """Return the labels of a trial, whose queries the rows `query` [Q] label, and which of its pairs are junk."""
    pids, camids, gallery = test.labels.pids, test.labels.camids, first_items(trial.gallery)
    labels = (pids[query], pids[gallery])
    if test.junk is None:
        return Protocol(*labels, np.zeros_like(query), np.ones_like(gallery))
    labels += (camids[query], camids[gallery])
    if test.junk is same_camera and trial.query.ndim == trial.gallery.ndim == 1:
        return Protocol(*labels)
    return Protocol(*labels, functools.partial(_junk, test, trial))


def _junk(test: TestSet, trial: Trial, start: int, stop: int) -> np.ndarray:
    """Return bool [c, G]: what is junk for any item of the queries start, ..., stop - 1 with any of the gallery's."""
    queries = trial.query[start:stop].reshape(stop - start, -1).T  # [n, c]
    gallery = trial.gallery.reshape(len(trial.gallery), -1).T  # [n, G]
    junk = np.zeros((stop - start, len(trial.gallery)), dtype=bool)
    for rows in queries:
        for images in gallery:
            given, there = np.flatnonzero(rows >= 0), np.flatnonzero(images >= 0)
            junk[np.ix_(given, there)] |= test.junk(test.labels, rows[given], images[there])
    return junk


def evaluate(test: TestSet, embedded: Embedded, options: RankOptions, watch: Watch = no_looks) -> TestResult:
    """Return the figures of a test set whose rows are embedded; what `watch` returns sees all distances, too.

    The draws of one set are averaged; several sets each have their figures in `sets`, and the metrics are their mean by
    `TestSet.set_weights`.
    """
    weights = test.set_weights()
    rankings: dict[str, list[Ranking]] = {name: [] for name in weights}
    tables = []
    for searched, ranking in rank_trials(test, embedded, options, watch):
        rankings[searched.trial.set].append(ranking)
        tables.append(_query_table(test, embedded.luma, searched, ranking))
        if len(weights) > 1:
            count, name = len(searched.query), searched.trial.set
            tables[-1] |= {"set": np.full(count, name), "weight": np.full(count, weights[name])}
    sets = {name: _figures(draws, options.depth) for name, draws in rankings.items()}
    shares, counted = list(weights.values()), [rankings[name][0] for name, weight in weights.items() if weight]
    curves = [np.mean([one.cmc for one in draws], axis=0) for draws in rankings.values()]
    return TestResult(
        metrics=_mean_over_sets(sets, weights),
        cmc=np.average(curves, axis=0, weights=shares),
        per_query={key: np.concatenate([table[key] for table in tables]) for key in tables[0]},
        num_query=sum(len(ranking.ap) for ranking in counted),
        num_valid_query=sum(int(np.sum(ranking.first_hit >= 0)) for ranking in counted),
        data_fingerprint=test.fingerprint,
        precision=embedded.precision,
        notes=test.notes,
        cautions=cautions(test.loaders, embedded.feat),
        damaged_images=sum(len(images.damaged) for images in image_sets(test.loaders)),
        trial_sd=_spread([*rankings.values()], shares),
        sets=sets if len(sets) > 1 else {},
        groups={name: _mean_of([sets[member] for member in members]) for name, members in test.groups.items()},
        ranking=options.named(),
    )


def rank_trials(
    test: TestSet, embedded: Embedded, options: RankOptions, watch: Watch = no_looks
) -> Iterator[tuple[Searched, Ranking]]:
    """Yield each trial of a test set, searched and ranked; `watch` as in `evaluate`."""
    gallery = Gallery(embedded)
    for number, trial in enumerate(test.trials):
        searched = search_trial(test, embedded, options, trial, gallery)
        yield searched, rank_searched(test, searched, options, functools.partial(watch, number))


def rank_searched(
    test: TestSet, searched: Searched, options: RankOptions, looks_of: Callable[[Ranker], Sequence[Look]] = no_looks
) -> Ranking:
    """Return the `Ranking` of a trial of a test set, whose distances `looks_of` its ranker see in the same pass."""
    labels = group(searched.protocol, searched.distances.shape)
    ranker = Ranker(labels, options.max_rank, test.distinct, options.ap, options.depth)
    look_at(searched.distances, labels, [ranker, *looks_of(ranker)])
    return ranker.ranking()


def mean_metrics(test: TestSet, embedded: Embedded, options: RankOptions) -> dict[str, float]:
    """Return the METRICS that `evaluate` gives, and nothing else of it."""
    weights = test.set_weights()
    rankings: dict[str, list[Ranking]] = {name: [] for name in weights}
    for searched, ranking in rank_trials(test, embedded, options):
        rankings[searched.trial.set].append(ranking)
    return _mean_over_sets({name: _figures(draws) for name, draws in rankings.items()}, weights)


def _mean_over_sets(sets: Mapping[str, dict[str, float]], weights: Mapping[str, float]) -> dict[str, float]:
    """Return the METRICS of a test whose sets have these figures and weights."""
    shares = list(weights.values())
    return {name: float(np.average([one[name] for one in sets.values()], weights=shares)) for name in METRICS}


def _figures(draws: Sequence[Ranking], depth: int | None = None) -> dict[str, float]:
    """Return the METRICS of a set, means over its draws, with a depth also mAP@depth, and num_query."""
    metrics = {metric: float(np.mean([_value(one, metric) for one in draws])) for metric in METRICS}
    near = {} if depth is None else {f"mAP@{depth}": float(np.mean([np.nanmean(one.ap_at) for one in draws]))}
    return metrics | near | {"num_query": len(draws[0].ap)}


def _mean_of(sets: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the means over sets of each of their metrics."""
    return {name: float(np.mean([one[name] for one in sets])) for name in sets[0] if name != "num_query"}


def _spread(sets: Sequence[Sequence[Ranking]], weights: Sequence[float]) -> dict[str, float]:
    """Return the sample standard deviation over draws of each metric's weighted mean over the sets.

    That is nothing where sets have one draw, or unequal numbers of them.
    """
    numbers = {len(draws) for draws in sets}
    if numbers == {1} or len(numbers) > 1:
        return {}
    values = {metric: [[_value(one, metric) for one in draws] for draws in sets] for metric in METRICS}
    return {
        metric: float(np.std(np.average(of_sets, axis=0, weights=weights), ddof=1))
        for metric, of_sets in values.items()
    }


def _value(ranking: Ranking, metric: str) -> float:
    return float(query_values(ranking._asdict(), metric).mean())


def _query_table(test: TestSet, luma: np.ndarray, searched: Searched, ranking: Ranking) -> dict[str, np.ndarray]:
    """Return the columns of per_query for one trial."""
    query, labels = searched.query, test.labels
    return {
        "ap": ranking.ap,
        "inp": ranking.inp,
        "first_hit": ranking.first_hit,
        "num_pos": ranking.num_pos,
        "pid": labels.pids[query],
        "camid": labels.camids[query],
        "viewid": labels.viewids[query],
        "brightness": luma[query],
        "path": query_names(labels, searched.trial.query),
        "trial": np.full(len(query), searched.trial.draw),
        **{name: values[query] for name, values in labels.more.items()},
        **({VIEW: _first_known(labels.more[VIEW], searched.trial.query)} if VIEW in labels.more else {}),
    }


def _first_known(values: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return of each query, rows [Q] or [Q, n], the first of its items' values [N] that is not below 0, else -1."""
    items = query.reshape(len(query), -1)
    of_items = np.where(items >= 0, values[items], -1)
    return of_items[np.arange(len(query)), (of_items >= 0).argmax(axis=1)]


def log_results(result: TestResult, title: str) -> None:
    """Log metrics in percent, in TransReID's lines; those of captions with three decimals, as they are published."""
    places = 3 if OWN_IMAGE in result.per_query else 1
    rule = result.ap_rule
    logger.info("%s", title)
    if result.num_valid_query < result.num_query:
        logger.info("valid queries: %d / %d", result.num_valid_query, result.num_query)
    for note in result.notes:
        logger.info("%s", note)
    for name in METRICS:
        label = (
            f"CMC curve, Rank-{name.removeprefix('Rank-'):<3}:"
            if name.startswith("Rank")
            else f"{marked_metric(name, rule)}: "
        )
        spread = result.trial_sd.get(name)
        note = "" if spread is None else f" +- {spread:.1%} over {result.num_trials} trials"
        if name in result.interval:
            low, high = result.interval[name]
            note += f" (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
        logger.info("%s%s%s", label, f"{result.metrics[name]:.{places}%}", note)
    for name, figures in (result.groups | result.sets).items():
        metrics = (metric for metric in figures if metric != "num_query")
        shown = (f"{marked_metric(metric, rule)} {figures[metric]:.{places}%}" for metric in metrics)
        logger.info("%s: %s", name, ", ".join(shown))
    for fpr, tpr in result.pairs.get("tpr_at_fpr", {}).items():
        logger.info("true positive rate at false positive rate %s: %s", fpr, f"{tpr:.1%}")
