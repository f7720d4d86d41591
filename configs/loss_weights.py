"""The weight of every term of each system at an epoch of a stage; LOSS.PHASED.W_TERMS, where set, goes over them.

Each is a pure function of configuration and epoch, which counts from 1. `configs.phases` makes phases of them.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence

from yacs.config import CfgNode

from configs.keys.clip_reid import NAMES as CLIP_REID
from configs.keys.clip_reid import STAGE1, STAGE2
from configs.keys.irra import LOSSES as TEXT_LOSSES
from configs.keys.irra import MASKED_WORDS
from configs.keys.irra import NAME as IRRA
from configs.keys.multimodal import ALIGN, NORM
from configs.keys.multimodal import NAME as MULTIMODAL
from configs.keys.pcb import NAME as PCB
from configs.stages import solver_of
from configs.weight_spec import decayed_weight, spec_weight

DISTILL = "distill"  # the term of a teacher, whose parts have weights of their own in DISTILL


def transreid_weights(cfg: CfgNode, epoch: int, stage: str) -> dict[str, float]:
    """Return the weights of TransReID's and Model B's terms at `epoch` of a stage on images."""
    kind = metric_kind(cfg, epoch)
    triplet, tripletx = float(cfg.MODEL.TRIPLET_LOSS_WEIGHT), float(cfg.LOSS.TRIPLETX.W)
    if cfg.LOSS.PHASED.ENABLE:
        triplet = tripletx = float(_pick(cfg.LOSS.PHASED.W_METRIC_SEQ, phase_index(cfg, epoch)))
    routed = cfg.LOSS.BRIGHTNESS.ENABLE and kind == "tripletx"
    supervised = cfg.MODEL.TRAINING_MODE == "supervised"
    weights = {
        "id": float(cfg.MODEL.ID_LOSS_WEIGHT) if supervised and cfg.DATALOADER.SAMPLER != "triplet" else 0.0,
        "triplet": triplet if routed or kind == "triplet" else 0.0,
        "tripletx": tripletx if kind == "tripletx" else 0.0,
        "supcon": supcon_weight(cfg, epoch),
    }
    weights |= {"center": center_weight(cfg, stage)} if center_weight(cfg, stage) > 0 else {}
    return weights | ({DISTILL: 1.0} if has_teacher(cfg) else {})


def clip_reid_weights(cfg: CfgNode, epoch: int, stage: str) -> dict[str, float]:
    """Return the weights of CLIP-ReID's terms; what `i2t` is, a contrast or a classification, the stage decides."""
    if stage == STAGE1:
        return {"i2t": 1.0, "t2i": 1.0}
    weights = transreid_weights(cfg, epoch, stage)
    return weights | ({"i2t": float(cfg.MODEL.I2T_LOSS_WEIGHT)} if stage == STAGE2 else {})


def irra_weights(cfg: CfgNode, epoch: int, stage: str) -> dict[str, float]:
    """Return the weights of IRRA's terms, those of LOSS.TEXT.NAMES in the order of the choices."""
    weights = {"id": float(cfg.LOSS.TEXT.ID_W), MASKED_WORDS: float(cfg.LOSS.TEXT.MLM_W)}
    return {name: weights.get(name, 1.0) for name in TEXT_LOSSES if name in cfg.LOSS.TEXT.NAMES}


def pcb_weights(cfg: CfgNode, epoch: int, stage: str) -> dict[str, float]:
    """Return the weights of the terms of part branches: those on images, and `spectral` where it has a weight."""
    spectral = cfg.LOSS.SPECTRAL
    weight = float(spectral.W) if epoch >= spectral.START_EPOCH else 0.0
    return transreid_weights(cfg, epoch, stage) | ({"spectral": weight} if spectral.W > 0 else {})


def multimodal_weights(cfg: CfgNode, epoch: int, stage: str) -> dict[str, float]:
    """Return the weights of the terms of sets of modalities, beside those on images, which see RGB alone."""
    return transreid_weights(cfg, epoch, stage) | {ALIGN: align_weight(cfg, epoch), NORM: float(cfg.LOSS.FEAT_NORM.W)}


def align_weight(cfg: CfgNode, epoch: int) -> float:
    """Return the weight of the alignment: 0 before START, then RAMP equal steps to W, the first of them in START."""
    align = cfg.LOSS.ALIGN
    return float(align.W) * min(max(epoch - align.START + 1, 0) / align.RAMP, 1.0)


# by MODEL.NAME: (cfg, epoch, stage) -> weight of each term of that system and stage; between the epochs that
# LOSS.PHASED, LOSS.SUPCON.DECAY_*, LOSS.SPECTRAL.START_EPOCH and LOSS.ALIGN.START name, a weight rises or falls
WEIGHTS: dict[str, Callable[[CfgNode, int, str], dict[str, float]]] = {
    "transformer": transreid_weights,
    "resnet50": transreid_weights,
    **dict.fromkeys(CLIP_REID, clip_reid_weights),
    IRRA: irra_weights,
    PCB: pcb_weights,
    MULTIMODAL: multimodal_weights,
}


def has_teacher(cfg: CfgNode) -> bool:
    """Return whether the stages on images learn from a trained model."""
    return bool(cfg.DISTILL.TEACHER_RUN or cfg.DISTILL.TEACHER_WEIGHT)


def phase_index(cfg: CfgNode, epoch: int) -> int:
    """Return the number of boundaries that `epoch` has reached; 0 while LOSS.PHASED is off."""
    return bisect_right(cfg.LOSS.PHASED.BOUNDARIES, epoch) if cfg.LOSS.PHASED.ENABLE else 0


def metric_kind(cfg: CfgNode, epoch: int) -> str:
    """Return the metric loss of `epoch`: triplet, tripletx or none."""
    draws_pxk = "triplet" in cfg.DATALOADER.SAMPLER
    if not draws_pxk or "triplet" not in cfg.MODEL.METRIC_LOSS_TYPE or cfg.MODEL.TRAINING_MODE != "supervised":
        return "none"
    if not cfg.LOSS.PHASED.ENABLE:
        return "tripletx" if cfg.LOSS.TRIPLETX.ENABLE else "triplet"
    kind = _pick(cfg.LOSS.PHASED.METRIC_SEQ, phase_index(cfg, epoch))
    return "triplet" if kind == "tripletx" and 0 <= cfg.LOSS.PHASED.TRIPLETX_END <= epoch else kind


def supcon_weight(cfg: CfgNode, epoch: int) -> float:
    """Return SupCon's weight at `epoch`: W, or with LOSS.PHASED on W_SUP_SPEC, or where that is [] W0 with DECAY_*."""
    if not cfg.LOSS.SUPCON.ENABLE:
        return 0.0
    if not cfg.LOSS.PHASED.ENABLE:
        return float(cfg.LOSS.SUPCON.W)
    if not cfg.LOSS.PHASED.W_SUP_SPEC:
        supcon = cfg.LOSS.SUPCON
        return decayed_weight(float(supcon.W0), supcon.DECAY_TYPE, supcon.DECAY_START, supcon.DECAY_END, epoch)
    return weight_by_spec(cfg, cfg.LOSS.PHASED.W_SUP_SPEC, epoch)


def weight_by_spec(cfg: CfgNode, specs: Sequence[str], epoch: int) -> float:
    """Return the weight at `epoch` of the last stage by specs of the phases, see `configs.weight_spec`."""
    return spec_weight(specs, phase_index(cfg, epoch), cfg.LOSS.PHASED.BOUNDARIES, solver_of(cfg).MAX_EPOCHS, epoch)


def wants_center(cfg: CfgNode) -> bool:
    """Return whether the configuration asks for the centre loss, whatever its weight."""
    return cfg.MODEL.IF_WITH_CENTER == "yes" or "center" in cfg.MODEL.METRIC_LOSS_TYPE


def center_weight(cfg: CfgNode, stage: str = "") -> float:
    """Return the weight of the centre loss in a stage ("" = the last one), which no phase changes; 0.0 = off."""
    return float(solver_of(cfg, stage).CENTER_LOSS_WEIGHT) if wants_center(cfg) else 0.0


def supcon_across_cameras(cfg: CfgNode) -> bool:
    """Return whether SupCon's positives come from other cameras; never for two views of one image."""
    asked = cfg.LOSS.SUPCON.CAM_AWARE or cfg.LOSS.SUPCON.POS_RULE == "class+camera"
    return asked and cfg.MODEL.TRAINING_MODE == "supervised"


def _pick(sequence: Sequence, index: int):
    return sequence[min(index, len(sequence) - 1)]
