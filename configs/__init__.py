"""From YAML recipes to one validated, frozen configuration; every key stands once, in `configs/keys`."""

from configs.keys import get_cfg_defaults
from configs.load import load_cfg, restore_cfg
from configs.rules.notices import find_notices
from configs.values import parse_value

__all__ = ["find_notices", "get_cfg_defaults", "load_cfg", "parse_value", "restore_cfg"]
