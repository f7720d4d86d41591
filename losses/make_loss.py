"""Build the criterion of a run from its configuration."""

from yacs.config import CfgNode

from configs.schedule import center_weight, supcon_across_cameras
from losses.center import CenterLoss
from losses.criterion import Criterion
from losses.identity import IdentityLoss
from losses.margin_softmax import MARGINS
from losses.metric import MetricLosses
from losses.routing import Routing
from losses.supcon import SupConTerm
from losses.triplet import TripletLoss
from losses.tripletx import TripletXLoss
from utils.errors import ConfigError


def make_loss(cfg: CfgNode, num_classes: int, feat_dim: int) -> Criterion:
    """Return the criterion for `num_classes` training identities and global pre-BN features of width `feat_dim`.

    Which losses act, and with which weights, comes with each call, from the phase. Raises ConfigError for an unknown
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
    weight = center_weight(cfg)
    center = CenterLoss(num_classes, feat_dim) if weight > 0 else None
    supcon = _make_supcon(cfg) if cfg.LOSS.SUPCON.ENABLE else None
    return Criterion(identity, _make_metric(cfg), supcon, cfg.LOSS.GLOBAL_WEIGHT, center, weight)


def _make_metric(cfg: CfgNode) -> MetricLosses:
    triplet = TripletLoss(
        margin=None if cfg.MODEL.NO_MARGIN else cfg.SOLVER.MARGIN, hard_factor=cfg.LOSS.TRIPLET.HARD_FACTOR
    )
    tripletx = TripletXLoss(
        margin=cfg.LOSS.TRIPLETX.MARGIN,
        soft_warmup=cfg.LOSS.TRIPLETX.SOFT_WARMUP,
        warmup_epochs=cfg.LOSS.TRIPLETX.WARMUP_EPOCHS,
        k=cfg.LOSS.TRIPLETX.K,
        alpha=cfg.LOSS.TRIPLETX.ALPHA,
        cross_cam_pos=cfg.LOSS.TRIPLETX.CROSS_CAM_POS,
        same_cam_neg_boost=cfg.LOSS.TRIPLETX.SAME_CAM_NEG_BOOST,
        normalize=cfg.LOSS.TRIPLETX.NORM_FEAT,
    )
    routing = Routing(
        threshold=cfg.LOSS.BRIGHTNESS.THRESH,
        softness=cfg.LOSS.BRIGHTNESS.K,
        soft=cfg.LOSS.BRIGHTNESS.MODE == "soft",
        global_only=cfg.LOSS.BRIGHTNESS.BRANCHES == "global",
    )
    sources = {"triplet": cfg.LOSS.TRIPLET.FEAT_SRC, "tripletx": cfg.LOSS.TRIPLETX.FEAT_SRC}
    return MetricLosses(triplet, tripletx, routing, sources, cfg.LOSS.GLOBAL_WEIGHT)


def _make_supcon(cfg: CfgNode) -> SupConTerm:
    return SupConTerm(cfg.LOSS.SUPCON.T, supcon_across_cameras(cfg), cfg.LOSS.SUPCON.DARK_GAMMA)
