"""MODEL.NAME transformer: TransReID on TransReID's transformers or on timm's, with CLIP fusion or without."""

import logging

from yacs.config import CfgNode

from model.backbones.timm_trunks import pixel_statistics
from model.backbones.vit import Trunk, VisionTransformer
from model.backbones.vit_types import TIMM_PREFIX, Dropping, build_trunk, published_weights
from model.families.clip_fusion import make_fused
from model.families.common import Counts, head_settings, side_count
from model.layers.jigsaw import Jigsaw
from model.transreid import TransReID
from model.weights.imagenet import imagenet_trunk
from model.weights.load import Weights
from model.weights.pretrained import first_weights, load_rest, load_trunk, source_of
from model.weights.timm_names import by_timm_names
from model.weights.transreid import BEYOND_THE_TRUNK, reid_trunk
from utils.errors import ConfigError

logger = logging.getLogger(__name__)


def make_transformer(cfg: CfgNode, counts: Counts, choice: str) -> TransReID:
    """Return TransReID on a ViT, with side information, jigsaw module and CLIP fusion as cfg.MODEL says."""
    kind, overrides = cfg.MODEL.TRANSFORMER_TYPE, size_overrides(cfg)
    weights = first_weights(choice, cfg.MODEL.PRETRAIN_PATH, lambda: published_weights(kind, overrides))
    dropping = Dropping(cfg.MODEL.DROP_OUT, cfg.MODEL.ATT_DROP_RATE, cfg.MODEL.DROP_PATH)
    trunk = build_trunk(kind, overrides, dropping)
    base = VisionTransformer(
        trunk,
        image_size=tuple(cfg.INPUT.SIZE_TRAIN),
        stride=tuple(cfg.MODEL.STRIDE_SIZE),
        drop_out=cfg.MODEL.DROP_OUT,
        camera_num=side_count(cfg.MODEL.SIE_CAMERA, counts.camera_num, "MODEL.SIE_CAMERA", "camera"),
        view_num=side_count(cfg.MODEL.SIE_VIEW, counts.view_num, "MODEL.SIE_VIEW", "view"),
        sie_coe=cfg.MODEL.SIE_COE,
        imagenet_head=not kind.startswith(TIMM_PREFIX),
        narrow=cfg.MODEL.RESIDUAL == "amp",
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
    settings = {**head_settings(cfg, counts.num_class), "jigsaw": jigsaw}
    if cfg.MODEL.USE_CLIP:
        model = make_fused(cfg, base, settings, trained_elsewhere=choice == "resume")
    else:
        model = TransReID(base, **settings)
    if choice in BEYOND_THE_TRUNK:
        load_rest(model, model.weight_rules(), weights, BEYOND_THE_TRUNK[choice], cfg.MODEL.PRETRAIN_PATH)
    return model


def size_overrides(cfg: CfgNode) -> dict[str, float]:
    """Return the sizes of MODEL.VIT by the names of `SIZE_KEYS`; 0 = that of the type."""
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
    given, trained_with = (list(cfg.INPUT.PIXEL_MEAN), list(cfg.INPUT.PIXEL_STD)), pixel_statistics(name)
    if given != trained_with:
        logger.warning(
            "INPUT.PIXEL_MEAN %s and PIXEL_STD %s differ from those that %s was trained with, %s and %s",
            *(*given, name, *trained_with),
        )
    return by_timm_names(weights, trunk, base.grid, source_of(cfg.MODEL.PRETRAIN_PATH))


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
