"""Model B's losses as their rules read: one loop per index, no masks, torch scalars so that gradients come along.

Features are [N, D] tensors, labels and camids lists of ints, `members` the indices that take part (default: all).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from yacs.config import CfgNode

EPS = 1e-12
Scalar = torch.Tensor  # of shape []


class Anchor(NamedTuple):
    """One valid anchor: its distances, its loss, and its hardness weight, which carries no gradient."""

    index: int
    d_ap: Scalar
    d_an: Scalar
    loss: Scalar
    weight: Scalar


@dataclass(frozen=True)
class TripletXOptions:
    margin: float = 0.3
    soft_warmup: bool = True
    warmup_epochs: int = 10
    k: int = 5
    alpha: float = 2.0
    cross_cam_pos: bool = True
    same_cam_neg_boost: float = 1.2
    normalize: bool = True


def mean(values: Sequence[Scalar]) -> Scalar:
    return sum(values) / len(values)


def zero(feat: torch.Tensor) -> Scalar:
    return feat[:0].sum()


def unit(vector: torch.Tensor) -> torch.Tensor:
    return vector / (vector**2).sum().clamp(min=EPS**2).sqrt()


def distance(a: torch.Tensor, b: torch.Tensor) -> Scalar:
    return ((a - b) ** 2).sum().clamp(min=EPS).sqrt()


def softplus(value: Scalar) -> Scalar:
    return torch.logaddexp(value, torch.zeros_like(value))


def hinge(value: Scalar) -> Scalar:
    return value if value > 0 else value * 0


def weighted_mean(values: Sequence[Scalar], weights: Sequence[Scalar], feat: torch.Tensor) -> Scalar:
    if not values:
        return zero(feat)
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights).clamp(min=EPS)


def cross_entropy(logits: torch.Tensor, labels: Sequence[int], smoothing: float = 0.0) -> Scalar:
    total = zero(logits)
    for row, label in zip(logits, labels, strict=True):
        log_sum = torch.logsumexp(row, 0)
        for c, value in enumerate(row):
            target = smoothing / len(row) + (1 - smoothing) * (c == label)
            total = total - target * (value - log_sum)
    return total / len(labels)


def triplet_anchors(
    feat: torch.Tensor,
    labels: Sequence[int],
    margin: float | None = None,
    hard_factor: float = 0.0,
    members: Sequence[int] | None = None,
) -> list[Anchor]:
    """Batch hard: the farthest other sample of the label and the nearest of another; equal weights."""
    members = range(len(labels)) if members is None else members
    x = list(feat)
    anchors = []
    for i in members:
        positives = [distance(x[i], x[j]) for j in members if j != i and labels[j] == labels[i]]
        negatives = [distance(x[i], x[j]) for j in members if labels[j] != labels[i]]
        if positives and negatives:
            d_ap, d_an = max(positives), min(negatives)
            gap = (1 + hard_factor) * d_ap - (1 - hard_factor) * d_an
            loss = softplus(gap) if margin is None else hinge(gap + margin)
            anchors.append(Anchor(i, d_ap, d_an, loss, torch.ones_like(loss)))
    return anchors


def tripletx_anchors(
    feat: torch.Tensor,
    labels: Sequence[int],
    camids: Sequence[int] | None = None,
    epoch: int | None = None,
    options: TripletXOptions | None = None,
    members: Sequence[int] | None = None,
) -> list[Anchor]:
    """The k hardest of each side are averaged; fewer candidates than k: the mean of those that exist."""
    options = options or TripletXOptions()
    members = range(len(labels)) if members is None else members
    x = [unit(row) if options.normalize else row for row in feat]
    anchors = []
    for i in members:
        positives = [j for j in members if j != i and labels[j] == labels[i]]
        if camids is not None and options.cross_cam_pos:
            positives = [j for j in positives if camids[j] != camids[i]] or positives
        negatives = [j for j in members if labels[j] != labels[i]]
        if not positives or not negatives:
            continue
        far = [distance(x[i], x[j]) for j in positives]
        near = []
        for j in negatives:
            same_camera = camids is not None and camids[j] == camids[i]
            near.append(distance(x[i], x[j]) / (options.same_cam_neg_boost if same_camera else 1.0))
        d_ap = mean(sorted(far, key=torch.Tensor.item)[-options.k :])
        d_an = mean(sorted(near, key=torch.Tensor.item)[: options.k])
        gap = d_ap - d_an
        soft = options.soft_warmup and epoch is not None and epoch < options.warmup_epochs
        loss = softplus(gap) if soft else hinge(gap + options.margin)
        anchors.append(Anchor(i, d_ap, d_an, loss, torch.sigmoid(options.alpha * gap.detach())))
    return anchors


def reduce_anchors(anchors: Sequence[Anchor], feat: torch.Tensor, share: Sequence[Scalar] | None = None) -> Scalar:
    """sum(share w l) / sum(share w), with share[i] = 1 unless given; 0 without an anchor."""
    share = torch.ones(len(feat), dtype=feat.dtype) if share is None else share
    weights = [share[anchor.index] * anchor.weight for anchor in anchors]
    return weighted_mean([anchor.loss for anchor in anchors], weights, feat)


def triplet(feat: torch.Tensor, labels: Sequence[int], *args: Any, **kwargs: Any) -> Scalar:
    return reduce_anchors(triplet_anchors(feat, labels, *args, **kwargs), feat)


def tripletx(feat: torch.Tensor, labels: Sequence[int], *args: Any, **kwargs: Any) -> Scalar:
    return reduce_anchors(tripletx_anchors(feat, labels, *args, **kwargs), feat)


def supcon(
    feat: torch.Tensor,
    labels: Sequence[int],
    camids: Sequence[int] | None = None,
    temperature: float = 0.07,
    members: Sequence[int] | None = None,
) -> Scalar:
    """The mean over anchors with a positive of -1/|P| sum over P of log softmax over all others."""
    members = range(len(labels)) if members is None else members
    z = [unit(row) for row in feat]
    per_anchor = []
    for i in members:
        others = [j for j in members if j != i]
        similarity = {j: (z[i] * z[j]).sum() / temperature for j in others}
        positives = [j for j in others if labels[j] == labels[i] and (camids is None or camids[j] != camids[i])]
        if positives:
            log_sum = torch.logsumexp(torch.stack([similarity[j] for j in others]), 0)
            per_anchor.append(-mean([similarity[j] - log_sum for j in positives]))
    return mean(per_anchor) if per_anchor else zero(feat)


def boosted_supcon(
    feat: torch.Tensor,
    labels: Sequence[int],
    camids: Sequence[int] | None,
    temperature: float,
    dark: Sequence[bool],
    gamma: float,
) -> Scalar:
    """(L_all + b L_dark) / (1 + b) with b = (gamma - 1) n_dark / n."""
    darks = [i for i in range(len(labels)) if dark[i]]
    boost = (gamma - 1) * len(darks) / max(len(labels), 1)
    whole = supcon(feat, labels, camids, temperature)
    return (whole + boost * supcon(feat, labels, camids, temperature, darks)) / (1 + boost)


def combine(loss: Callable[..., Scalar], branches: Sequence, global_weight: float = 0.5) -> Scalar:
    """w f(global) + (1 - w) mean f(locals); f(global) where there is no local branch."""
    values = [loss(branch) for branch in branches]
    if len(values) == 1:
        return values[0]
    return global_weight * values[0] + (1 - global_weight) * mean(values[1:])


def source(output: Any, name: str) -> list[torch.Tensor]:
    return {"pre_bn": output.pre_bn, "bnneck": output.bnneck}[name]


def is_dark(brightness: torch.Tensor, threshold: float) -> list[bool]:
    return [value < threshold for value in brightness.tolist()]


def dark_share(brightness: torch.Tensor, threshold: float, width: float) -> list[Scalar]:
    return [1 / (1 + torch.exp(-(threshold - value) / width)) for value in brightness.double()]


def hard_routing(
    tri: Callable[[Sequence[int] | None], tuple[list[Anchor], Scalar]],
    tx: Callable[[Sequence[int] | None], tuple[list[Anchor], Scalar]],
    dark: Sequence[bool],
    weights: tuple[float, float],
) -> tuple[Scalar, Scalar]:
    """The terms of triplet (bright images) and TripletX (dark ones); without a valid anchor the fall-back.

    tri and tx map members to (valid anchors, loss); weights are (triplet, tripletx).
    """
    bright_anchors, bright = tri([i for i, value in enumerate(dark) if not value])
    dark_anchors, dim = tx([i for i, value in enumerate(dark) if value])
    if bright_anchors or dark_anchors:
        return bright, dim
    _, full = tri(None)
    return (full, dim) if weights[0] > 0 else (bright, full)


def metric_terms(
    output: Any, labels: list[int], camids: list[int], batch: dict, phase: Any, cfg: CfgNode
) -> dict[str, Scalar]:
    """The values of `triplet` and `tripletx`, over branches."""
    options = TripletXOptions(
        margin=cfg.LOSS.TRIPLETX.MARGIN,
        soft_warmup=cfg.LOSS.TRIPLETX.SOFT_WARMUP,
        warmup_epochs=cfg.LOSS.TRIPLETX.WARMUP_EPOCHS,
        k=cfg.LOSS.TRIPLETX.K,
        alpha=cfg.LOSS.TRIPLETX.ALPHA,
        cross_cam_pos=cfg.LOSS.TRIPLETX.CROSS_CAM_POS,
        same_cam_neg_boost=cfg.LOSS.TRIPLETX.SAME_CAM_NEG_BOOST,
        normalize=cfg.LOSS.TRIPLETX.NORM_FEAT,
    )
    margin = None if cfg.MODEL.NO_MARGIN else cfg.SOLVER.MARGIN
    values = {"triplet": [], "tripletx": []}
    pairs = list(
        zip(source(output, cfg.LOSS.TRIPLET.FEAT_SRC), source(output, cfg.LOSS.TRIPLETX.FEAT_SRC), strict=True)
    )
    if phase.routed and cfg.LOSS.BRIGHTNESS.BRANCHES == "global":
        pairs = pairs[:1]
    for tri_feat, tx_feat in pairs:

        def tri(
            members: Sequence[int] | None, share: Sequence[Scalar] | None = None, feat: torch.Tensor = tri_feat
        ) -> tuple[list[Anchor], Scalar]:
            anchors = triplet_anchors(feat, labels, margin, cfg.LOSS.TRIPLET.HARD_FACTOR, members)
            return anchors, reduce_anchors(anchors, feat, share)

        def tx(
            members: Sequence[int] | None, share: Sequence[Scalar] | None = None, feat: torch.Tensor = tx_feat
        ) -> tuple[list[Anchor], Scalar]:
            anchors = tripletx_anchors(feat, labels, camids, phase.epoch, options, members)
            return anchors, reduce_anchors(anchors, feat, share)

        if not phase.routed:
            only_triplet = phase.weights["triplet"] > 0
            pair = (tri(None)[1], zero(tx_feat)) if only_triplet else (zero(tri_feat), tx(None)[1])
        elif cfg.LOSS.BRIGHTNESS.MODE == "hard":
            dark = is_dark(batch["brightness"], cfg.LOSS.BRIGHTNESS.THRESH)
            pair = hard_routing(tri, tx, dark, (phase.weights["triplet"], phase.weights["tripletx"]))
        else:
            q = dark_share(batch["brightness"], cfg.LOSS.BRIGHTNESS.THRESH, cfg.LOSS.BRIGHTNESS.K)
            pair = tri(None, [1 - value for value in q])[1], tx(None, q)[1]
        values["triplet"].append(pair[0])
        values["tripletx"].append(pair[1])
    return {name: combine(lambda value: value, both, cfg.LOSS.GLOBAL_WEIGHT) for name, both in values.items()}


def supcon_term(output: Any, labels: list[int], camids: list[int], batch: dict, cfg: CfgNode) -> Scalar:
    aware = cfg.LOSS.SUPCON.CAM_AWARE or cfg.LOSS.SUPCON.POS_RULE == "class+camera"
    cameras = camids if aware and cfg.MODEL.TRAINING_MODE == "supervised" else None
    if not cfg.LOSS.BRIGHTNESS.ENABLE:
        return supcon(output.projection, labels, cameras, cfg.LOSS.SUPCON.T)
    dark = is_dark(batch["brightness"], cfg.LOSS.BRIGHTNESS.THRESH)
    return boosted_supcon(output.projection, labels, cameras, cfg.LOSS.SUPCON.T, dark, cfg.LOSS.SUPCON.DARK_GAMMA)


def criterion(output: Any, batch: dict, phase: Any, cfg: CfgNode) -> tuple[Scalar, dict[str, Scalar]]:
    """The total and the unweighted parts; `phase` has epoch, weights and routed."""
    labels, camids = batch["pids"].tolist(), batch["camids"].tolist()
    active = {name: weight for name, weight in phase.weights.items() if weight > 0}
    parts = {}
    if "id" in active:
        smoothing = cfg.LOSS.LABEL_SMOOTH_EPS if cfg.MODEL.IF_LABELSMOOTH == "on" else 0.0
        parts["id"] = combine(lambda x: cross_entropy(x, labels, smoothing), output.logits, cfg.LOSS.GLOBAL_WEIGHT)
    if "triplet" in active or "tripletx" in active:
        metric = metric_terms(output, labels, camids, batch, phase, cfg)
        parts |= {name: value for name, value in metric.items() if name in active}
    if "supcon" in active:
        parts["supcon"] = supcon_term(output, labels, camids, batch, cfg)
    total = sum((active[name] * value for name, value in parts.items()), zero(output.pre_bn[0]))
    return total, parts
