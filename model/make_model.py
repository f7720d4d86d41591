"""From the configuration to a model: the only place under `model` that reads cfg."""

import logging

from torch import nn
from yacs.config import CfgNode

from model.backbones import resnet
from model.backbones.vit import VisionTransformer
from model.backbones.vit_types import Dropping, build_trunk, published_weights
from model.layers.jigsaw import Jigsaw
from model.pretrained import first_weights, load_rest, load_trunk
from model.transreid import TransReID
from utils.errors import ConfigError

logger = logging.getLogger(__name__)


def make_model(cfg: CfgNode, num_class: int, camera_num: int, view_num: int, pretrained: bool = True) -> nn.Module:
    """Return the model of cfg.MODEL on the current default device, in training mode.

    `num_class` identities for the heads; `camera_num` and `view_num` are the training set's, read only where
    SIE_CAMERA / SIE_VIEW are on. `pretrained` False builds it without MODEL.PRETRAIN_CHOICE, for weights that are
    loaded afterwards. The model takes (images, cam_label=None, view_label=None), has `feat_dim` (width of one branch)
    and `load_param(path)`. Raises ConfigError or DataError for what the configuration or a weight file gets wrong.
    """
    if cfg.MODEL.NAME not in FAMILIES:
        raise ConfigError(f"MODEL.NAME got '{cfg.MODEL.NAME}', allowed: {', '.join(FAMILIES)}")
    choice = cfg.MODEL.PRETRAIN_CHOICE if pretrained else "none"
    model = FAMILIES[cfg.MODEL.NAME](cfg, num_class, camera_num, view_num, choice)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    total = sum(weight.numel() for weight in model.parameters())
    logger.info("%s: %s parameters, %s of them trained", cfg.MODEL.NAME, f"{total:,}", f"{trained:,}")
    return model


def make_transformer(cfg: CfgNode, num_class: int, camera_num: int, view_num: int, choice: str) -> TransReID:
    """Return TransReID on a ViT, with side information and jigsaw module as cfg.MODEL says."""
    kind = cfg.MODEL.TRANSFORMER_TYPE
    overrides = {
        "embed_dim": cfg.MODEL.VIT.EMBED_DIM,
        "depth": cfg.MODEL.VIT.DEPTH,
        "num_heads": cfg.MODEL.VIT.NUM_HEADS,
        "mlp_ratio": cfg.MODEL.VIT.MLP_RATIO,
        "patch_size": cfg.MODEL.VIT.PATCH_SIZE,
    }
    weights = first_weights(choice, cfg.MODEL.PRETRAIN_PATH, lambda: published_weights(kind, overrides))
    dropping = Dropping(cfg.MODEL.DROP_OUT, cfg.MODEL.ATT_DROP_RATE, cfg.MODEL.DROP_PATH)
    base = VisionTransformer(
        build_trunk(kind, overrides, dropping),
        image_size=tuple(cfg.INPUT.SIZE_TRAIN),
        stride=tuple(cfg.MODEL.STRIDE_SIZE),
        drop_out=cfg.MODEL.DROP_OUT,
        camera_num=_side_count(cfg.MODEL.SIE_CAMERA, camera_num, "MODEL.SIE_CAMERA", "camera"),
        view_num=_side_count(cfg.MODEL.SIE_VIEW, view_num, "MODEL.SIE_VIEW", "view"),
        sie_coe=cfg.MODEL.SIE_COE,
    )
    logger.info(
        "%s: %d x %d patches of stride %s, width %d, %d blocks, %d side information rows",
        *(kind, *base.grid, list(cfg.MODEL.STRIDE_SIZE), base.feat_dim, len(base.blocks), base.side_rows),
    )
    jigsaw = None
    if cfg.MODEL.JPM:
        shift, groups = cfg.MODEL.SHIFT_NUM, cfg.MODEL.SHUFFLE_GROUP
        jigsaw = Jigsaw(cfg.MODEL.DEVIDE_LENGTH, shift, groups, cfg.MODEL.RE_ARRANGE)
    if weights is not None:  # before the jigsaw module copies the last block
        load_trunk(base, weights, choice, cfg.MODEL.PRETRAIN_PATH)
    neck_feat, projection = cfg.TEST.NECK_FEAT, _projection_source(cfg)
    model = TransReID(base, num_class, cfg.MODEL.ID_LOSS_TYPE, jigsaw, neck_feat=neck_feat, projection=projection)
    if weights is not None:
        load_rest(model, weights, choice, cfg.MODEL.PRETRAIN_PATH)
    return model


def make_resnet(cfg: CfgNode, num_class: int, camera_num: int, view_num: int, choice: str) -> TransReID:
    """Return a global branch on ResNet-50; it has no side information, so the counts are not used."""
    weights = first_weights(choice, cfg.MODEL.PRETRAIN_PATH, lambda: resnet.HUB_NAME)
    base = resnet.ResNet50(cfg.MODEL.LAST_STRIDE, cfg.MODEL.RESNET_STEM)
    if weights is not None:
        load_trunk(base, weights, choice, cfg.MODEL.PRETRAIN_PATH)
    neck = cfg.MODEL.NECK == "bnneck"
    neck_feat, projection = cfg.TEST.NECK_FEAT, _projection_source(cfg)
    model = TransReID(base, num_class, cfg.MODEL.ID_LOSS_TYPE, neck=neck, neck_feat=neck_feat, projection=projection)
    if weights is not None:
        load_rest(model, weights, choice, cfg.MODEL.PRETRAIN_PATH)
    return model


FAMILIES = {"transformer": make_transformer, "resnet50": make_resnet}  # MODEL.NAME -> builder


def _projection_source(cfg: CfgNode) -> str | None:
    """Return the feature that SupCon projects; None without SupCon, then there is no projection head."""
    return cfg.LOSS.SUPCON.FEAT_SRC if cfg.LOSS.SUPCON.ENABLE else None


def _side_count(switch: bool, count: int, key: str, side: str) -> int:
    """Return the number of rows for one side of the side information: 0 = off, also when there is nothing to tell."""
    if switch and count <= 1:
        logger.warning("%s True, but the training data has %d %s: side information on it is off", key, count, side)
    return count if switch and count > 1 else 0
