"""Which terms TransReID and Model B have, built from the configuration."""

from yacs.config import CfgNode

from configs.phases import center_weight, supcon_across_cameras
from losses.center import CenterLoss, CenterTerm
from losses.criterion import Criterion, Reading, Term
from losses.identity import IdentityLoss, IdentityTerm
from losses.margin_softmax import MARGINS
from losses.metric import MetricLosses
from losses.readings import DarkShare, accuracy
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
    dark = {"dark": Reading(DarkShare(cfg.LOSS.BRIGHTNESS.THRESH))} if cfg.LOSS.BRIGHTNESS.ENABLE else {}
    return Criterion(make_terms(cfg, num_classes, feat_dim), {**dark, "acc": Reading(accuracy, of="id")})


def make_terms(cfg: CfgNode, num_classes: int, feat_dim: int) -> dict[str, Term]:
    """Return the terms by their names in the weights of a phase; arguments and errors as for `make_loss`."""
    metric = _make_metric(cfg)
    terms: dict[str, Term] = {"id": _make_identity(cfg), "triplet": metric, "tripletx": metric}
    if cfg.LOSS.SUPCON.ENABLE:
        terms["supcon"] = _make_supcon(cfg)
    if center_weight(cfg) > 0:
        terms["center"] = CenterTerm(CenterLoss(num_classes, feat_dim))
    return terms


def _make_identity(cfg: CfgNode) -> IdentityTerm:
    kind = cfg.MODEL.ID_LOSS_TYPE
    if kind != "softmax" and kind not in MARGINS:
        raise ConfigError(f"MODEL.ID_LOSS_TYPE got '{kind}', allowed: softmax, {', '.join(MARGINS)}")
    loss = IdentityLoss(
        smoothing=cfg.LOSS.LABEL_SMOOTH_EPS if cfg.MODEL.IF_LABELSMOOTH == "on" else 0.0,
        margin=None if kind == "softmax" else MARGINS[kind],
        scale=cfg.SOLVER.COSINE_SCALE,
        margin_size=cfg.SOLVER.COSINE_MARGIN,
    )
    return IdentityTerm(loss, cfg.LOSS.GLOBAL_WEIGHT)


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
    supcon, dark_below = cfg.LOSS.SUPCON, cfg.LOSS.BRIGHTNESS.THRESH
    return SupConTerm(supcon.T, supcon_across_cameras(cfg), supcon.DARK_GAMMA, dark_below)
