"""Configurations that tests build from the defaults."""

from yacs.config import CfgNode

from configs import get_cfg_defaults


def cfg_with(*opts: object) -> CfgNode:
    """Return the defaults with KEY, VALUE, ... laid over them; nothing is checked."""
    cfg = get_cfg_defaults()
    cfg.merge_from_list(list(opts))
    return cfg
