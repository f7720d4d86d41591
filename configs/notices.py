"""What a user should hear once about a sound configuration: legacy keys, switches without effect."""

from collections.abc import Iterator

from yacs.config import CfgNode

from configs.defaults import LEGACY, get_cfg_defaults
from configs.schedule import resolve
from configs.validate import value_of


def find_notices(cfg: CfgNode) -> list[str]:
    """Return what a user should hear once about a sound configuration: legacy keys and switches without effect."""
    defaults = get_cfg_defaults()
    notices = [
        f"{key} is not used here: {instead}"
        for key, instead in LEGACY.items()
        if value_of(cfg, key) != value_of(defaults, key)
    ]
    notices += _schedule_notices(cfg)
    supervised = cfg.MODEL.TRAINING_MODE == "supervised"
    if supervised and "triplet" not in cfg.DATALOADER.SAMPLER and "triplet" in cfg.MODEL.METRIC_LOSS_TYPE:
        notices.append(
            f"DATALOADER.SAMPLER {cfg.DATALOADER.SAMPLER} draws no PxK batches, so the triplet loss is off "
            "(softmax_triplet turns it on)"
        )
    if cfg.MODEL.NAME == "transformer" and cfg.MODEL.NECK == "no":
        notices.append("MODEL.NECK no applies to ResNet only; the transformer keeps its BNNeck")
    if cfg.SOLVER.WARMUP_EPOCHS >= cfg.SOLVER.MAX_EPOCHS:
        notices.append(
            f"SOLVER.WARMUP_EPOCHS {cfg.SOLVER.WARMUP_EPOCHS} covers all of SOLVER.MAX_EPOCHS {cfg.SOLVER.MAX_EPOCHS}: "
            "the learning rate never reaches SOLVER.BASE_LR"
        )
    return notices


def _schedule_notices(cfg: CfgNode) -> Iterator[str]:
    phased = cfg.LOSS.PHASED
    plan = [resolve(cfg, epoch) for epoch in range(1, cfg.SOLVER.MAX_EPOCHS + 1)]
    with_tripletx = [epoch for epoch, rules in enumerate(plan, start=1) if rules.weights["tripletx"] > 0]
    warmup = cfg.LOSS.TRIPLETX.WARMUP_EPOCHS
    if phased.ENABLE:
        phases = len(phased.BOUNDARIES) + 1
        for name in ("METRIC_SEQ", "W_METRIC_SEQ", "W_SUP_SPEC"):
            if len(phased[name]) > phases:
                yield f"LOSS.PHASED.{name} has {len(phased[name])} entries for {phases} phases; the last ones never act"
        late = [boundary for boundary in phased.BOUNDARIES if boundary > cfg.SOLVER.MAX_EPOCHS]
        if late:
            yield (
                f"LOSS.PHASED.BOUNDARIES {late} lie past SOLVER.MAX_EPOCHS {cfg.SOLVER.MAX_EPOCHS}: those phases never "
                "begin"
            )
    if cfg.LOSS.TRIPLETX.SOFT_WARMUP and with_tripletx and with_tripletx[0] >= warmup:
        yield (
            f"LOSS.TRIPLETX.SOFT_WARMUP never applies: TripletX starts at epoch {with_tripletx[0]}, and WARMUP_EPOCHS "
            f"{warmup} counts from epoch 1 of the run"
        )
    if cfg.LOSS.TRIPLETX.ENABLE and not with_tripletx:
        yield "LOSS.TRIPLETX.ENABLE is True, but no epoch gives TripletX a weight"
    if cfg.LOSS.SUPCON.ENABLE and not any(rules.weights["supcon"] > 0 for rules in plan):
        yield "LOSS.SUPCON.ENABLE is True, but no epoch gives SupCon a weight"
    if cfg.LOSS.BRIGHTNESS.ENABLE and not any(rules.routed for rules in plan):
        yield "LOSS.BRIGHTNESS.ENABLE: TripletX is never active, so nothing is routed; the dark share is logged"
