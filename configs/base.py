"""The recipe that a configuration builds on."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from configs.compare import flatten
from configs.keys import get_cfg_defaults
from configs.load import base_file, load_cfg
from configs.own_values import with_own_values
from configs.yaml_settings import read_settings
from utils.paths import user_path

NAME_KEY = "MODEL.NAME"
DEFAULTS_NAME = "the defaults (docs/config.md)"


class Base(NamedTuple):
    """What a recipe is compared with."""

    name: str  # path of the YAML that `_BASE_` names, or DEFAULTS_NAME for a recipe without one
    settings: dict[str, Any]  # value by dotted key


def base_path(config_file: str | Path) -> Path | None:
    """Return the file that a YAML's `_BASE_` names, None when it names none.

    Raises ConfigError for a file, or a base, that is not there or is no YAML of settings.
    """
    path = user_path(config_file, "config file")
    base = base_file(path, read_settings(path))
    return None if base is None else Path(os.path.normpath(base))


def base_of(config_file: str | Path) -> Base:
    """Return the recipe below a YAML, or the defaults of all keys where it names none.

    Raises ConfigError for a YAML or a base that cannot be read.
    """
    path = base_path(config_file)
    if path is None:
        defaults = flatten(get_cfg_defaults())
        given = {setting.key: setting.value for setting in read_settings(user_path(config_file, "config file"))}
        return Base(DEFAULTS_NAME, with_own_values(defaults, str(given.get(NAME_KEY, defaults[NAME_KEY]))))
    return Base(str(path), flatten(load_cfg(path)))
