"""The systems by MODEL.NAME: what the stages of each are made of."""

from collections.abc import Callable

from torch import nn
from yacs.config import CfgNode

from configs.keys.clip_reid import NAMES as CLIP_REID
from configs.keys.irra import NAME as IRRA
from configs.keys.multimodal import NAME as MULTIMODAL
from configs.keys.pcb import NAME as PCB
from configs.stages import stages_of, unknown_stage
from datasets.make_dataloader import ReIDData
from processor.distill import with_teacher
from processor.stage import Stage
from processor.systems.clip_reid import clip_reid_stage
from processor.systems.irra import irra_stage
from processor.systems.multimodal import multimodal_stage
from processor.systems.pcb import pcb_stage
from processor.systems.transreid import transreid_stage
from utils.errors import ConfigError

SYSTEMS: dict[str, Callable[[CfgNode, str, nn.Module, ReIDData | None], Stage]] = {
    "transformer": transreid_stage,
    "resnet50": transreid_stage,
    **dict.fromkeys(CLIP_REID, clip_reid_stage),
    IRRA: irra_stage,
    PCB: pcb_stage,
    MULTIMODAL: multimodal_stage,
}


def make_stage(cfg: CfgNode, name: str, model: nn.Module, data: ReIDData | None = None) -> Stage:
    """Return a stage of the model's system; the model is on its device and holds what earlier stages learnt.

    Without data it is a stage for batches that the caller makes, without a loader and a test set. Raises ConfigError
    for a stage that the configuration does not have, and for keys that cannot work on the model's device. A stage on
    images has its teacher where DISTILL names one, see `processor.distill.make_teacher` for what that may raise.
    """
    if name not in stages_of(cfg):
        raise ConfigError(unknown_stage(cfg, name))
    return with_teacher(cfg, SYSTEMS[cfg.MODEL.NAME](cfg, name, model, data), data)
