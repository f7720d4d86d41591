"""What each branch of an embedding is worth: searched with alone, and left out."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from datasets.test_set import TestSet
from processor.evaluation.embed import Embedded
from processor.evaluation.evaluate import RankOptions, mean_metrics
from utils.ap_rules import marked
from utils.ranking.branches import BranchScore

logger = logging.getLogger(__name__)

NOTHING = (float("nan"), float("nan"))


def score_branches(
    test: TestSet,
    embedded: Embedded,
    options: RankOptions,
    branches: Mapping[str, int],
    weights: Sequence[float] = (),
    unit: bool = True,
) -> list[BranchScore]:
    """Return the scores of every branch of embeddings [N, D], ranked by the same options as the whole.

    `branches` are the widths of the branches by name, in their order, of sum D; `unit` L2-normalises what is left
    anew. A branch whose weight, of `weights` (() = all alike), is 0 was not embedded and has no figures of its own, nor
    has what is left without the only one.
    """
    parts = embedded.feat.split(list(branches.values()), dim=1)
    counts = [weight > 0 for weight in weights or [1.0] * len(parts)]
    scores = []
    for place, (name, width) in enumerate(branches.items()):
        others = [part for other, part in enumerate(parts) if other != place and counts[other]]
        alone = _figures(test, embedded, options, [parts[place]], unit) if counts[place] else NOTHING
        without = _figures(test, embedded, options, others, unit) if others else NOTHING
        scores.append(BranchScore(name, width, *alone, *without))
    return scores


@torch.inference_mode()
def _figures(
    test: TestSet, embedded: Embedded, options: RankOptions, parts: Sequence[torch.Tensor], unit: bool
) -> tuple[float, float]:
    """Return mAP and Rank-1 of an embedding that is made of these parts [N, d] alone."""
    feat = torch.cat([*parts], dim=1).float()
    metrics = mean_metrics(test, embedded._replace(feat=F.normalize(feat, dim=1) if unit else feat), options)
    return metrics["mAP"], metrics["Rank-1"]


def log_branches(scores: Sequence[BranchScore], rule: str) -> None:
    """Log mAP, by the rule of AP that `rule` names, and Rank-1 of every branch in percent."""
    for one in scores:
        alone = _in_words(one.mAP_alone, one.R1_alone, rule)
        without = _in_words(one.mAP_without, one.R1_without, rule)
        logger.info("branch %s: alone %s; without it %s", one.branch, alone, without)


def _in_words(mean_ap: float, rank1: float, rule: str) -> str:
    if np.isnan(mean_ap):
        return "no figures"
    return f"{marked('mAP', rule)} {100 * mean_ap:.1f} %, Rank-1 {100 * rank1:.1f} %"
