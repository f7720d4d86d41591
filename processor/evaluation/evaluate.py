"""From embeddings to metrics."""

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from yacs.config import CfgNode

from datasets.make_dataloader import ReIDData
from datasets.test_set import OWN_IMAGE, TestSet, Trial, first_items, query_names, same_camera
from processor.evaluation.cautions import cautions, image_sets
from processor.evaluation.embed import Embedded, embed, make_embedding
from utils.ap_rules import STANDARD, marked_metric
from utils.ranking.distance import Distances
from utils.ranking.protocol import Protocol
from utils.ranking.rank import Ranking, make_distances, rank
from utils.statistics.bootstrap import query_values
from utils.test_folder import METRICS, TestResult

logger = logging.getLogger(__name__)

FUSED_AT_ONCE = 1024  # queries of several items


class RankOptions(NamedTuple):
    """How distances are made and ranked."""

    max_rank: int
    expand: tuple[int, float, int] | None = None  # (k, alpha, times) of the query expansion
    rerank: tuple[int, int, float] | None = None  # (k1, k2, lambda) of the k-reciprocal re-ranking
    spectral: tuple[int, float] | None = None  # (k, temperature) of the spectral re-ranking
    ap: str = STANDARD  # one of AP_RULES

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
    return evaluate(data.test, embed(model, data.test.loaders, how), rank_options(cfg)).flat()


def rank_options(cfg: CfgNode) -> RankOptions:
    """Return what cfg.TEST says about ranking."""
    expand = (cfg.TEST.QE.K, cfg.TEST.QE.ALPHA, cfg.TEST.QE.TIMES) if cfg.TEST.QE.K else None
    rerank = (cfg.TEST.RERANK.K1, cfg.TEST.RERANK.K2, cfg.TEST.RERANK.LAMBDA) if cfg.TEST.RE_RANKING else None
    spectral = (cfg.TEST.SPECTRAL.K, cfg.TEST.SPECTRAL.T) if cfg.TEST.SPECTRAL.K else None
    return RankOptions(cfg.TEST.MAX_RANK, expand, rerank, spectral, cfg.TEST.AP)


def search(test: TestSet, embedded: Embedded, options: RankOptions, number: int = 0) -> Searched:
    """Return trial `number` of a test set whose rows are embedded, with its distances.

    A query of several items becomes one vector by `embedded.fuse`. Raises DataError for a query without any item.
    """
    trial = test.trials[number]
    query = first_items(trial.query)
    query_feat = embedded.feat[query] if trial.query.ndim == 1 else _fused(embedded, trial.query)
    how = (options.expand, options.rerank, options.spectral)
    distances = make_distances(query_feat, embedded.feat[trial.gallery], *how)
    return Searched(trial, query, protocol_of(test, trial, query), distances)


@torch.inference_mode()
def _fused(embedded: Embedded, query: np.ndarray) -> torch.Tensor:
    """Return the features [Q, D] of query rows [Q, n]."""
    parts = []
    for rows in torch.from_numpy(query).to(embedded.feat.device).split(FUSED_AT_ONCE):
        parts.append(embedded.fuse(embedded.feat[rows.clamp(min=0)], rows >= 0))
    return torch.cat(parts)


def protocol_of(test: TestSet, trial: Trial, query: np.ndarray) -> Protocol:
    """Return the labels of a trial, whose queries the rows `query` [Q] label, and which of its pairs are junk."""
    pids, camids = test.labels.pids, test.labels.camids
    labels = (pids[query], pids[trial.gallery])
    if test.junk is None:
        return Protocol(*labels, np.zeros_like(query), np.ones_like(trial.gallery))
    labels += (camids[query], camids[trial.gallery])
    if test.junk is same_camera and trial.query.ndim == 1:
        return Protocol(*labels)
    return Protocol(*labels, functools.partial(_junk, test, trial))


def _junk(test: TestSet, trial: Trial, start: int, stop: int) -> np.ndarray:
    """Return bool [c, G]: what is junk for any item of the queries start, ..., stop - 1."""
    items = trial.query[start:stop].reshape(stop - start, -1)  # [c, n]
    junk = np.zeros((stop - start, len(trial.gallery)), dtype=bool)
    for rows in items.T:
        given = rows >= 0
        junk[given] |= test.junk(test.labels, rows[given], trial.gallery)
    return junk


def evaluate(test: TestSet, embedded: Embedded, options: RankOptions, first: Searched | None = None) -> TestResult:
    """Return the figures of a test set whose rows are embedded; `first` is its first trial where that is made already.

    The draws of one set are averaged; several sets each have their figures in `sets`, and the metrics are their mean by
    `TestSet.set_weights`.
    """
    weights = test.set_weights()
    rankings: dict[str, list[Ranking]] = {name: [] for name in weights}
    tables = []
    for searched, ranking in rank_trials(test, embedded, options, first):
        rankings[searched.trial.set].append(ranking)
        tables.append(_query_table(test, embedded.luma, searched, ranking))
        if len(weights) > 1:
            count, name = len(searched.query), searched.trial.set
            tables[-1] |= {"set": np.full(count, name), "weight": np.full(count, weights[name])}
    sets = {name: _figures(draws) for name, draws in rankings.items()}
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
        groups={
            name: {metric: float(np.mean([sets[member][metric] for member in members])) for metric in METRICS}
            for name, members in test.groups.items()
        },
        ranking=options.named(),
    )


def rank_trials(
    test: TestSet, embedded: Embedded, options: RankOptions, first: Searched | None = None
) -> Iterator[tuple[Searched, Ranking]]:
    """Yield each trial of a test set, searched and ranked; `first` as in `evaluate`."""
    for number in range(len(test.trials)):
        searched = first if first and number == 0 else search(test, embedded, options, number)
        yield searched, rank(searched.distances, searched.protocol, options.max_rank, test.distinct, options.ap)


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


def _figures(draws: Sequence[Ranking]) -> dict[str, float]:
    """Return the METRICS of a set, means over its draws, and num_query."""
    metrics = {metric: float(np.mean([_value(one, metric) for one in draws])) for metric in METRICS}
    return metrics | {"num_query": len(draws[0].ap)}


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
    }


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
        shown = (f"{marked_metric(metric, rule)} {figures[metric]:.{places}%}" for metric in METRICS)
        logger.info("%s: %s", name, ", ".join(shown))
    for fpr, tpr in result.pairs.get("tpr_at_fpr", {}).items():
        logger.info("true positive rate at false positive rate %s: %s", fpr, f"{tpr:.1%}")
