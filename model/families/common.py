"""What the families share: the counts of a data set, settings of heads, positions of another grid."""

import logging
from typing import Any, NamedTuple

import torch
from yacs.config import CfgNode

from model.backbones.clip_levels import resized
from model.weights.load import Weights

logger = logging.getLogger(__name__)


class Counts(NamedTuple):
    """What a data set tells a model: identities for the heads, cameras and viewpoints for side information."""

    num_class: int
    camera_num: int
    view_num: int


def head_settings(cfg: CfgNode, num_class: int) -> dict[str, Any]:
    """Return what all families tell TransReID; SupCon projects a feature, without it there is no projection head."""
    return {
        "num_class": num_class,
        "head": cfg.MODEL.ID_LOSS_TYPE,
        "neck_feat": cfg.TEST.NECK_FEAT,
        "projection": cfg.LOSS.SUPCON.FEAT_SRC if cfg.LOSS.SUPCON.ENABLE else None,
    }


def side_count(switch: bool, count: int, key: str, side: str) -> int:
    """Return the number of rows for one side of the side information: 0 = off, also when there is nothing to tell."""
    if switch and count <= 1:
        logger.warning("%s True, but the training data has %d %s: side information on it is off", key, count, side)
    return count if switch and count > 1 else 0


def with_fitted_positions(weights: Weights, name: str, ours: torch.Tensor, grid: tuple[int, int]) -> Weights:
    """Return a file's weights with the position table `name` of an image tower for a grid of (rows, columns).

    `ours` is the model's table; that the file's changes is logged.
    """
    table = weights.get(name)
    if table is None or table.dim() != 2 or len(table) < 2 or table.shape[1] != ours.shape[1]:
        return weights  # loading says what is wrong
    if len(table) != len(ours):
        logger.warning("%s: resized from %d to %d rows, for another INPUT.SIZE_TRAIN", name, len(table), len(ours))
    return {**weights, name: resized(table, grid)}
