"""From embeddings to metrics, and to the files that keep them."""

import logging
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from yacs.config import CfgNode

from datasets.bases import fingerprint
from datasets.make_dataloader import ReIDData
from processor.embed import Embedded, embed
from utils.bootstrap import query_values
from utils.distance import Distances
from utils.metrics import make_distances, rank
from utils.results import METRICS

logger = logging.getLogger(__name__)


class RankOptions(NamedTuple):
    """How distances are made and ranked."""

    max_rank: int
    expand: tuple[int, float, int] | None = None  # (k, alpha, times) of the query expansion
    rerank: tuple[int, int, float] | None = None  # (k1, k2, lambda) of the k-reciprocal re-ranking


class Trial(NamedTuple):
    """One query set and one gallery, with the labels by which the protocol ranks them."""

    query: np.ndarray  # int64 [Q]: rows of the test loader's samples
    gallery: np.ndarray  # int64 [G]
    q_pids: np.ndarray
    g_pids: np.ndarray
    q_camids: np.ndarray  # where the protocol has no cameras 0, and 1 for the gallery, so that none filters
    g_camids: np.ndarray
    distances: Distances

    @property
    def labels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self.q_pids, self.g_pids, self.q_camids, self.g_camids


def do_inference(cfg: CfgNode, model: nn.Module, data: ReIDData) -> dict[str, Any]:
    """Embed query and gallery, rank, and return the results as fractions in 0..1.

    Keys: mAP, mINP, Rank-1, Rank-5, Rank-10 (means over the trials where the protocol has several, with their sample
    standard deviations in `trial_sd`), cmc [max_rank], num_query, num_valid_query, num_trials, data_fingerprint, notes
    of the data set (images left out), precision (in which the model ran, see `processor.embed`), and `per_query`:
    arrays over all queries (of all trials), see `processor.outcome.save_results`.
    The model is left in eval mode.
    """
    return evaluate(cfg, data, embed(cfg, model, data.val_loader))


def evaluate(cfg: CfgNode, data: ReIDData, embedded: Embedded, first: Trial | None = None) -> dict[str, Any]:
    """Return the results of `do_inference` for images that are embedded already; `first` is their trial 0 if made."""
    results = evaluate_features(data, embedded.feat, embedded.luma, rank_options(cfg), first)
    return results | {"precision": embedded.precision}


def rank_options(cfg: CfgNode) -> RankOptions:
    """Return what cfg.TEST says about ranking."""
    expand = (cfg.TEST.QE.K, cfg.TEST.QE.ALPHA, cfg.TEST.QE.TIMES) if cfg.TEST.QE.K else None
    rerank = (cfg.TEST.RERANK.K1, cfg.TEST.RERANK.K2, cfg.TEST.RERANK.LAMBDA) if cfg.TEST.RE_RANKING else None
    return RankOptions(cfg.TEST.MAX_RANK, expand, rerank)


def make_trial(data: ReIDData, feat: torch.Tensor, options: RankOptions, number: int = 0) -> Trial:
    """Return trial `number` of the test set for the features [N, D] of its query and gallery images."""
    images = data.val_loader.dataset
    pids, camids = np.array([(sample.pid, sample.camid) for sample in images.samples], dtype=np.int64).T
    query, gallery = _trial_rows(data, number)
    q_camids, g_camids = camids[query], camids[gallery]
    if images.trials:
        q_camids, g_camids = np.zeros_like(query), np.ones_like(gallery)
    distances = make_distances(feat[query], feat[gallery], options.expand, options.rerank)
    return Trial(query, gallery, pids[query], pids[gallery], q_camids, g_camids, distances)


def _trial_rows(data: ReIDData, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the query and of the gallery images of trial `number` among those of the test loader."""
    images = data.val_loader.dataset
    if images.trials:
        return images.trials[number]
    rows = np.arange(len(images.samples))
    return rows[: data.num_query], rows[data.num_query :]


def evaluate_features(
    data: ReIDData, feat: torch.Tensor, luma: np.ndarray, options: RankOptions, first: Trial | None = None
) -> dict[str, Any]:
    """Return the results of `do_inference`, but precision, for features [N, D] and brightness [N] of query + gallery.

    `first` is their trial 0 where that is made already: re-ranking takes long.
    """
    images = data.val_loader.dataset
    num_trials = len(images.trials) or 1
    rankings, per_query = [], []
    for number in range(num_trials):
        trial = first if first and number == 0 else make_trial(data, feat, options, number)
        ranking = rank(trial.distances, *trial.labels, options.max_rank)
        rankings.append(ranking)
        samples = [images.samples[row] for row in trial.query]
        per_query.append(
            {
                "ap": ranking.ap,
                "inp": ranking.inp,
                "first_hit": ranking.first_hit,
                "num_pos": ranking.num_pos,
                "pid": trial.q_pids,
                "camid": np.array([sample.camid for sample in samples], dtype=np.int64),
                "viewid": np.array([sample.viewid for sample in samples], dtype=np.int64),
                "brightness": luma[trial.query],
                "path": np.array([sample.path for sample in samples]),
                "trial": np.full(len(samples), number),
            }
        )
    values = {name: [float(query_values(one._asdict(), name).mean()) for one in rankings] for name in METRICS}
    results: dict[str, Any] = {name: float(np.mean(value)) for name, value in values.items()}
    if num_trials > 1:
        results["trial_sd"] = {name: float(np.std(value, ddof=1)) for name, value in values.items()}
    return results | {
        "cmc": np.mean([ranking.cmc for ranking in rankings], axis=0),
        "num_query": len(per_query[0]["pid"]),
        "num_valid_query": int(np.sum(per_query[0]["first_hit"] >= 0)),
        "num_trials": num_trials,
        "data_fingerprint": fingerprint_of_test(data),
        "notes": list(images.notes),
        "per_query": {key: np.concatenate([part[key] for part in per_query]) for key in per_query[0]},
    }


def fingerprint_of_test(data: ReIDData) -> str:
    """Return the fingerprint of the test set's query and gallery images (of its first trial)."""
    images = data.val_loader.dataset
    query, gallery = _trial_rows(data, 0)
    splits = {"query": [images.samples[row] for row in query], "gallery": [images.samples[row] for row in gallery]}
    return fingerprint(splits)


def log_results(results: dict[str, Any], title: str) -> None:
    """Log metrics in percent, in TransReID's lines."""
    logger.info("%s", title)
    if results["num_valid_query"] < results["num_query"]:
        logger.info("valid queries: %d / %d", results["num_valid_query"], results["num_query"])
    for note in results["notes"]:
        logger.info("%s", note)
    spread, intervals = results.get("trial_sd", {}), results.get("interval", {})
    for name in METRICS:
        label = f"CMC curve, Rank-{name.removeprefix('Rank-'):<3}:" if name.startswith("Rank") else f"{name}: "
        note = f" +- {spread[name]:.1%} over {results['num_trials']} trials" if name in spread else ""
        if name in intervals:
            low, high = intervals[name]
            note += f" (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
        logger.info("%s%s%s", label, f"{results[name]:.1%}", note)
    for fpr, tpr in results.get("tpr_at_fpr", {}).items():
        logger.info("true positive rate at false positive rate %s: %s", fpr, f"{tpr:.1%}")
