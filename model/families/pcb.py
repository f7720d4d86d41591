"""MODEL.NAME pcb: stripes and a global branch on a ResNet or on a small CNN."""

import logging

from yacs.config import CfgNode

from configs.keys.pcb import TINY
from model.backbones.resnet import HUB_NAMES, ResNetTrunk
from model.backbones.tiny_cnn import TinyCNN
from model.families.common import Counts
from model.pcb import PCB
from model.weights.imagenet import imagenet_trunk
from model.weights.load import Weights
from model.weights.pcb import BEYOND_THE_TRUNK, OF_SHARED, by_our_names, from_torchreid, is_torchreid
from model.weights.pretrained import first_weights, load_rest, load_trunk, source_of
from model.weights.transreid import reid_trunk
from utils.errors import ConfigError

logger = logging.getLogger(__name__)


def make_pcb(cfg: CfgNode, counts: Counts, choice: str) -> PCB:
    """Return PCB on the trunk MODEL.PCB.TRUNK; it has no side information, so cameras and viewpoints are not used."""
    pcb, path = cfg.MODEL.PCB, cfg.MODEL.PRETRAIN_PATH
    weights = first_weights(choice, path, lambda: _hub_name(pcb.TRUNK))
    stem = cfg.MODEL.RESNET_STEM
    base = TinyCNN(cfg.MODEL.LAST_STRIDE) if pcb.TRUNK == TINY else ResNetTrunk(pcb.TRUNK, cfg.MODEL.LAST_STRIDE, stem)
    prefixes = BEYOND_THE_TRUNK.get(choice, ())
    if weights is not None:  # before the global branch takes its copy of the last stage
        weights, prefixes = _by_our_names(cfg, weights, choice, prefixes)
        load_trunk(base, imagenet_trunk(weights, {}) if choice == "imagenet" else reid_trunk(weights), path)
    model = PCB(
        base,
        counts.num_class,
        parts=pcb.PARTS,
        part_dim=pcb.PART_DIM,
        global_dim=pcb.GLOBAL_DIM,
        part_pool=pcb.PART_POOL,
        global_pool=pcb.GLOBAL_POOL,
        dropout=pcb.DROPOUT,
        head=cfg.MODEL.ID_LOSS_TYPE,
        part_norm=pcb.PART_NORM,
        own_stage4=pcb.OWN_STAGE4,
        gate=pcb.GATE,
        global_erase=pcb.GLOBAL_ERASE,
        part_erase=pcb.PART_ERASE,
        spectral=cfg.LOSS.SPECTRAL.FEAT if cfg.LOSS.SPECTRAL.W > 0 else None,
    )
    logger.info("PCB on %s: branches %s", pcb.TRUNK, ", ".join(f"{name} {dim}" for name, dim in model.branches.items()))
    if prefixes:
        load_rest(model, model.weight_rules(), weights, prefixes, path)
    return model


def _by_our_names(
    cfg: CfgNode, weights: Weights, choice: str, prefixes: tuple[str, ...]
) -> tuple[Weights, tuple[str, ...]]:
    """Return the weights of a ReID file by our names, and which of them beyond the trunk are loaded; others as is."""
    if choice == "imagenet":
        return weights, prefixes
    if not is_torchreid(weights):
        return by_our_names(weights, cfg.MODEL.PCB.GATE), prefixes
    if cfg.MODEL.PCB.PARTS:
        logger.warning(
            "%s: its stripes share one reduction, which becomes the first values of all %d of MODEL.PCB.PARTS",
            *(source_of(cfg.MODEL.PRETRAIN_PATH), cfg.MODEL.PCB.PARTS),
        )
    return from_torchreid(weights, cfg.MODEL.PCB.PARTS), (*prefixes, *OF_SHARED)


def _hub_name(trunk: str) -> str:
    """Return timm's name of a trunk's ImageNet weights; ConfigError for one that has none."""
    if trunk not in HUB_NAMES:
        raise ConfigError(
            f"MODEL.PCB.TRUNK {trunk} has no published ImageNet weights; set MODEL.PRETRAIN_CHOICE none, or "
            "PRETRAIN_PATH to a file"
        )
    return HUB_NAMES[trunk]
