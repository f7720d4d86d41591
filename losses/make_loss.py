"""Build the criterion of a run from its configuration."""

import logging

from yacs.config import CfgNode

from losses.center import CenterLoss
from losses.criterion import Criterion
from losses.identity import IdentityLoss
from losses.margin_softmax import MARGINS
from losses.triplet import TripletLoss
from utils.errors import ConfigError

logger = logging.getLogger(__name__)


def make_loss(cfg: CfgNode, num_classes: int, feat_dim: int) -> Criterion:
    """Return the criterion for `num_classes` training identities and global pre-BN features of width `feat_dim`.

    The weights of identity and triplet loss come with each call, from the phase. Raises ConfigError for an unknown
    MODEL.ID_LOSS_TYPE.
    """
    kind = cfg.MODEL.ID_LOSS_TYPE
    if kind != "softmax" and kind not in MARGINS:
        raise ConfigError(f"MODEL.ID_LOSS_TYPE got '{kind}', allowed: softmax, {', '.join(MARGINS)}")
    identity = IdentityLoss(
        smoothing=cfg.LOSS.LABEL_SMOOTH_EPS if cfg.MODEL.IF_LABELSMOOTH == "on" else 0.0,
        margin=None if kind == "softmax" else MARGINS[kind],
        scale=cfg.SOLVER.COSINE_SCALE,
        margin_size=cfg.SOLVER.COSINE_MARGIN,
    )
    triplet = TripletLoss(
        margin=None if cfg.MODEL.NO_MARGIN else cfg.SOLVER.MARGIN, hard_factor=cfg.LOSS.TRIPLET.HARD_FACTOR
    )
    wants_center = cfg.MODEL.IF_WITH_CENTER == "yes" or "center" in cfg.MODEL.METRIC_LOSS_TYPE
    center_weight = cfg.SOLVER.CENTER_LOSS_WEIGHT
    if wants_center and center_weight == 0:
        logger.info("the centre loss is off: SOLVER.CENTER_LOSS_WEIGHT is 0")
    center = CenterLoss(num_classes, feat_dim) if wants_center and center_weight > 0 else None
    return Criterion(identity, triplet, cfg.LOSS.GLOBAL_WEIGHT, center, center_weight)
