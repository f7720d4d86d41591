"""From the configuration to a model."""

import logging
from collections.abc import Callable

from torch import nn
from yacs.config import CfgNode

from configs.keys.clip_reid import NAMES as CLIP_REID
from configs.keys.irra import NAME as IRRA
from configs.keys.multimodal import NAME as MULTIMODAL
from configs.keys.pcb import NAME as PCB
from model.families.clip_reid import make_clip_reid
from model.families.common import Counts
from model.families.irra import make_irra
from model.families.multimodal import make_multimodal
from model.families.pcb import make_pcb
from model.families.resnet50 import make_resnet50
from model.families.transformer import make_transformer
from model.layers.patches import multiply_patches
from utils.errors import ConfigError

logger = logging.getLogger(__name__)

# MODEL.NAME -> builder, called with cfg, the counts of the data set, and MODEL.PRETRAIN_CHOICE or, where the caller
# loads the weights afterwards, 'resume'
FAMILIES: dict[str, Callable[[CfgNode, Counts, str], nn.Module]] = {
    "transformer": make_transformer,
    "resnet50": make_resnet50,
    **dict.fromkeys(CLIP_REID, make_clip_reid),
    IRRA: make_irra,
    PCB: make_pcb,
    MULTIMODAL: make_multimodal,
}


def make_model(cfg: CfgNode, num_class: int, camera_num: int, view_num: int, pretrained: bool = True) -> nn.Module:
    """Return the model of cfg.MODEL on the current default device, in training mode.

    `num_class` identities for the heads; `camera_num` and `view_num` are the training set's, read only where
    SIE_CAMERA / SIE_VIEW are on. `pretrained` False builds it without MODEL.PRETRAIN_CHOICE, for weights that are
    loaded afterwards. Raises ConfigError or DataError for what the configuration or a weight file gets wrong.

    Every model has `feat_dim`, the width of what metric losses see of its first branch, `num_class`, `branches` (name
    -> width, in the order of the embedding), `embed_batch(batch)` -> [B, D], `load_param(path, key)` and
    `part_of(name)` -> Part. An image model is called with (images, cam_label=None, view_label=None) and has
    `forward_output` with the same arguments -> ModelOutput in either mode. IRRA is called with (images, caption_ids,
    mlm_ids, mlm_labels) and embeds captions too; the model of several modalities with dicts of inputs and masks.
    """
    if cfg.MODEL.NAME not in FAMILIES:
        raise ConfigError(f"MODEL.NAME got '{cfg.MODEL.NAME}', allowed: {', '.join(FAMILIES)}")
    choice = cfg.MODEL.PRETRAIN_CHOICE if pretrained else "resume"
    model = FAMILIES[cfg.MODEL.NAME](cfg, Counts(num_class, camera_num, view_num), choice)
    if cfg.MODEL.PATCHES == "product":
        multiply_patches(model)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    total = sum(weight.numel() for weight in model.parameters())
    logger.info("%s: %s parameters, %s of them trained", cfg.MODEL.NAME, f"{total:,}", f"{trained:,}")
    return model
