"""What the families share: the counts of a data set, and the settings of heads."""

from typing import Any, NamedTuple

from yacs.config import CfgNode


class Counts(NamedTuple):
    """What a data set tells a model: identities for the heads, cameras and viewpoints for side information."""

    num_class: int
    camera_num: int
    view_num: int


def head_settings(cfg: CfgNode, num_class: int) -> dict[str, Any]:
    """Return what all families tell TransReID; SupCon projects a feature, without it there is no projection head."""
    return {
        "num_class": num_class,
        "head": cfg.MODEL.ID_LOSS_TYPE,
        "neck_feat": cfg.TEST.NECK_FEAT,
        "projection": cfg.LOSS.SUPCON.FEAT_SRC if cfg.LOSS.SUPCON.ENABLE else None,
    }
