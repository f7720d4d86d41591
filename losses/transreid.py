"""Which terms TransReID and Model B have, built from the configuration."""

from collections.abc import Sequence

from yacs.config import CfgNode

from configs.loss_weights import center_weight, supcon_across_cameras
from configs.own_values import own_value
from configs.readings import ACC
from losses.branches import Draws, Reduce, Views
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
    readings = dark_reading(cfg) | {ACC: Reading(accuracy, of="id")}
    return Criterion(make_terms(cfg, num_classes, feat_dim), readings)


def dark_reading(cfg: CfgNode) -> dict[str, Reading]:
    """Return the reading `dark`, the share of dark images, where LOSS.BRIGHTNESS is on."""
    return {"dark": Reading(DarkShare(cfg.LOSS.BRIGHTNESS.THRESH))} if cfg.LOSS.BRIGHTNESS.ENABLE else {}


def make_terms(
    cfg: CfgNode,
    num_classes: int,
    feat_dim: int,
    stage: str = "",
    further: Sequence[str] = (),
    has_global: bool = True,
) -> dict[str, Term]:
    """Return the terms by their names in the weights of a phase of a stage ("" = the last one).

    `further` are names of `MetricLosses`; `has_global` says that the model's first branch is a global one; other
    arguments and errors as for `make_loss`.
    """
    metric = _make_metric(cfg, further, has_global)
    draws = Draws(cfg.LOSS.BRANCHES.DRAWS, cfg.SOLVER.SEED)
    identity = IdentityTerm(make_identity(cfg), make_reduce(cfg), draws)
    terms: dict[str, Term] = {"id": identity, "triplet": metric, "tripletx": metric}
    if cfg.LOSS.SUPCON.ENABLE:
        terms["supcon"] = _make_supcon(cfg)
    if center_weight(cfg, stage) > 0:
        terms["center"] = CenterTerm(CenterLoss(num_classes, feat_dim))
    return terms


def smoothing_of(cfg: CfgNode) -> float:
    """Return the label smoothing of the losses over classes, 0 = off."""
    return cfg.LOSS.LABEL_SMOOTH_EPS if cfg.MODEL.IF_LABELSMOOTH == "on" else 0.0


def make_identity(cfg: CfgNode) -> IdentityLoss:
    """Return the identity loss of one branch: smoothing and margin as asked for; errors as for `make_loss`."""
    kind = cfg.MODEL.ID_LOSS_TYPE
    if kind != "softmax" and kind not in MARGINS:
        raise ConfigError(f"MODEL.ID_LOSS_TYPE got '{kind}', allowed: softmax, {', '.join(MARGINS)}")
    return IdentityLoss(
        smoothing=smoothing_of(cfg),
        margin=None if kind == "softmax" else MARGINS[kind],
        scale=cfg.SOLVER.COSINE_SCALE,
        margin_size=cfg.SOLVER.COSINE_MARGIN,
        warmup_epochs=cfg.SOLVER.COSINE_MARGIN_WARMUP,
    )


def make_reduce(cfg: CfgNode) -> Reduce:
    """Return how the values of a loss over the branches become one."""
    return Reduce(own_value(cfg, "LOSS.BRANCHES.REDUCE"), cfg.LOSS.GLOBAL_WEIGHT)


def _make_metric(cfg: CfgNode, further: Sequence[str], has_global: bool) -> MetricLosses:
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
    views = Views(cfg.LOSS.TRIPLET.BRANCHES, has_global)
    return MetricLosses(triplet, tripletx, routing, sources, make_reduce(cfg), further, views)


def _make_supcon(cfg: CfgNode) -> SupConTerm:
    supcon, dark_below = cfg.LOSS.SUPCON, cfg.LOSS.BRIGHTNESS.THRESH
    return SupConTerm(supcon.T, supcon_across_cameras(cfg), supcon.DARK_GAMMA, dark_below)
