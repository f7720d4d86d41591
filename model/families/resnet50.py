"""MODEL.NAME resnet50: a global branch on ResNet-50."""

from yacs.config import CfgNode

from model.backbones.resnet import HUB_NAMES, ResNet50
from model.families.common import Counts, head_settings
from model.transreid import TransReID
from model.weights.imagenet import imagenet_trunk
from model.weights.pretrained import first_weights, load_rest, load_trunk
from model.weights.transreid import BEYOND_THE_TRUNK, reid_trunk


def make_resnet50(cfg: CfgNode, counts: Counts, choice: str) -> TransReID:
    """Return a global branch on ResNet-50; it has no side information, so cameras and viewpoints are not used."""
    weights = first_weights(choice, cfg.MODEL.PRETRAIN_PATH, lambda: HUB_NAMES["resnet50"])
    base = ResNet50(cfg.MODEL.LAST_STRIDE, cfg.MODEL.RESNET_STEM)
    if weights is not None:
        trunk = imagenet_trunk(weights, base.state_dict()) if choice == "imagenet" else reid_trunk(weights)
        load_trunk(base, trunk, cfg.MODEL.PRETRAIN_PATH)
    model = TransReID(base, **head_settings(cfg, counts.num_class), neck=cfg.MODEL.NECK == "bnneck")
    if choice in BEYOND_THE_TRUNK:
        load_rest(model, model.weight_rules(), weights, BEYOND_THE_TRUNK[choice], cfg.MODEL.PRETRAIN_PATH)
    return model
