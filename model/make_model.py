"""From the configuration to a model: with `make_clip`, the only place under `model` that reads cfg."""

import logging

from torch import nn
from yacs.config import CfgNode

from model.backbones import resnet, timm_trunks
from model.backbones.vit import Trunk, VisionTransformer
from model.backbones.vit_types import TIMM_PREFIX, Dropping, build_trunk, published_weights
from model.convert import Weights, imagenet_trunk, reid_trunk
from model.layers.jigsaw import Jigsaw
from model.make_clip import make_fused
from model.pretrained import first_weights, load_rest, load_trunk, source_of
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
    choice = cfg.MODEL.PRETRAIN_CHOICE if pretrained else "resume"
    model = FAMILIES[cfg.MODEL.NAME](cfg, num_class, camera_num, view_num, choice)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    total = sum(weight.numel() for weight in model.parameters())
    logger.info("%s: %s parameters, %s of them trained", cfg.MODEL.NAME, f"{total:,}", f"{trained:,}")
    return model


def make_transformer(cfg: CfgNode, num_class: int, camera_num: int, view_num: int, choice: str) -> TransReID:
    """Return TransReID on a ViT, with side information, jigsaw module and CLIP fusion as cfg.MODEL says."""
    kind, overrides = cfg.MODEL.TRANSFORMER_TYPE, _overrides(cfg)
    weights = first_weights(choice, cfg.MODEL.PRETRAIN_PATH, lambda: published_weights(kind, overrides))
    dropping = Dropping(cfg.MODEL.DROP_OUT, cfg.MODEL.ATT_DROP_RATE, cfg.MODEL.DROP_PATH)
    trunk = build_trunk(kind, overrides, dropping)
    base = VisionTransformer(
        trunk,
        image_size=tuple(cfg.INPUT.SIZE_TRAIN),
        stride=tuple(cfg.MODEL.STRIDE_SIZE),
        drop_out=cfg.MODEL.DROP_OUT,
        camera_num=_side_count(cfg.MODEL.SIE_CAMERA, camera_num, "MODEL.SIE_CAMERA", "camera"),
        view_num=_side_count(cfg.MODEL.SIE_VIEW, view_num, "MODEL.SIE_VIEW", "view"),
        sie_coe=cfg.MODEL.SIE_COE,
        imagenet_head=not kind.startswith(TIMM_PREFIX),
    )
    logger.info(
        "%s: %d x %d patches of stride %s, width %d, %d blocks, feature from %s, %d side information rows",
        *(kind, *base.grid, list(cfg.MODEL.STRIDE_SIZE), base.feat_dim, len(base.blocks), base.pooling.kind),
        base.side_rows,
    )
    if weights is not None:  # before adapters are added and the jigsaw module copies the last block
        load_trunk(base, _trunk_weights(cfg, weights, choice, trunk, base), cfg.MODEL.PRETRAIN_PATH)
    _limit_training(cfg, base)
    jigsaw = None
    if cfg.MODEL.JPM:
        shift, groups = cfg.MODEL.SHIFT_NUM, cfg.MODEL.SHUFFLE_GROUP
        jigsaw = Jigsaw(cfg.MODEL.DEVIDE_LENGTH, shift, groups, cfg.MODEL.RE_ARRANGE)
    settings = {**_head_settings(cfg, num_class), "jigsaw": jigsaw}
    if cfg.MODEL.USE_CLIP:
        model = make_fused(cfg, base, settings, trained_elsewhere=choice == "resume")
    else:
        model = TransReID(base, **settings)
    if weights is not None:
        load_rest(model, weights, choice, cfg.MODEL.PRETRAIN_PATH)
    return model


def make_resnet(cfg: CfgNode, num_class: int, camera_num: int, view_num: int, choice: str) -> TransReID:
    """Return a global branch on ResNet-50; it has no side information, so the counts are not used."""
    weights = first_weights(choice, cfg.MODEL.PRETRAIN_PATH, lambda: resnet.HUB_NAME)
    base = resnet.ResNet50(cfg.MODEL.LAST_STRIDE, cfg.MODEL.RESNET_STEM)
    if weights is not None:
        trunk = imagenet_trunk(weights, base.state_dict()) if choice == "imagenet" else reid_trunk(weights)
        load_trunk(base, trunk, cfg.MODEL.PRETRAIN_PATH)
    model = TransReID(base, **_head_settings(cfg, num_class), neck=cfg.MODEL.NECK == "bnneck")
    if weights is not None:
        load_rest(model, weights, choice, cfg.MODEL.PRETRAIN_PATH)
    return model


FAMILIES = {"transformer": make_transformer, "resnet50": make_resnet}  # MODEL.NAME -> builder


def _head_settings(cfg: CfgNode, num_class: int) -> dict:
    """Return what all families tell TransReID; SupCon projects a feature, without it there is no projection head."""
    projection = cfg.LOSS.SUPCON.FEAT_SRC if cfg.LOSS.SUPCON.ENABLE else None
    return {
        "num_class": num_class,
        "head": cfg.MODEL.ID_LOSS_TYPE,
        "neck_feat": cfg.TEST.NECK_FEAT,
        "projection": projection,
    }


def _overrides(cfg: CfgNode) -> dict[str, float]:
    return {
        "embed_dim": cfg.MODEL.VIT.EMBED_DIM,
        "depth": cfg.MODEL.VIT.DEPTH,
        "num_heads": cfg.MODEL.VIT.NUM_HEADS,
        "mlp_ratio": cfg.MODEL.VIT.MLP_RATIO,
        "patch_size": cfg.MODEL.VIT.PATCH_SIZE,
    }


def _trunk_weights(cfg: CfgNode, weights: Weights, choice: str, trunk: Trunk, base: VisionTransformer) -> Weights:
    """Return the trunk among `weights` by the names of `base`."""
    kind = cfg.MODEL.TRANSFORMER_TYPE
    if choice != "imagenet":
        return reid_trunk(weights, base.tail_names)
    if not kind.startswith(TIMM_PREFIX):
        return imagenet_trunk(weights, base.state_dict())
    name = kind.removeprefix(TIMM_PREFIX)
    given, trained_with = (list(cfg.INPUT.PIXEL_MEAN), list(cfg.INPUT.PIXEL_STD)), timm_trunks.pixel_statistics(name)
    if given != trained_with:
        logger.warning(
            "INPUT.PIXEL_MEAN %s and PIXEL_STD %s differ from those that %s was trained with, %s and %s",
            *(*given, name, *trained_with),
        )
    return timm_trunks.by_timm_names(weights, trunk, base.grid, source_of(cfg.MODEL.PRETRAIN_PATH))


def _limit_training(cfg: CfgNode, base: VisionTransformer) -> None:
    """Freeze the first blocks and add the adapters that cfg.MODEL asks for."""
    frozen, depth = cfg.MODEL.FREEZE_BLOCKS, len(base.blocks)
    most = depth - 1 if cfg.MODEL.JPM or cfg.MODEL.LORA.RANK else depth  # the last block has copies or adapters
    if frozen > most:
        raise ConfigError(
            f"MODEL.FREEZE_BLOCKS got {frozen}, allowed: 0 to {most} for {cfg.MODEL.TRANSFORMER_TYPE} with {depth} "
            "blocks" + (", the last of which learns for MODEL.JPM or MODEL.LORA" if most < depth else "")
        )
    if frozen:
        base.freeze(frozen)
    if cfg.MODEL.LORA.RANK:
        base.adapt(cfg.MODEL.LORA.RANK, cfg.MODEL.LORA.ALPHA, tuple(cfg.MODEL.LORA.TARGETS))


def _side_count(switch: bool, count: int, key: str, side: str) -> int:
    """Return the number of rows for one side of the side information: 0 = off, also when there is nothing to tell."""
    if switch and count <= 1:
        logger.warning("%s True, but the training data has %d %s: side information on it is off", key, count, side)
    return count if switch and count > 1 else 0
