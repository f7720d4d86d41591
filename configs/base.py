"""The recipe that a configuration builds on."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from configs.compare import flatten
from configs.keys import get_cfg_defaults
from configs.load import BASE_KEY, load_cfg
from utils.errors import ConfigError

DEFAULTS_NAME = "the defaults (docs/config.md)"


class Base(NamedTuple):
    """What a recipe is compared with."""

    name: str  # path of the YAML that `_BASE_` names, or DEFAULTS_NAME for a recipe without one
    settings: dict[str, Any]  # value by dotted key


def base_path(config_file: str | Path) -> Path | None:
    """Return the file that a YAML's `_BASE_` names, None when it names none.

    Raises ConfigError for a file that is not there or holds no YAML mapping.
    """
    path = Path(config_file)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"config file '{path}' cannot be read ({type(error).__name__}); put it back") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds no KEY: value lines")
    return Path(os.path.normpath(path.parent / content[BASE_KEY])) if BASE_KEY in content else None


def base_of(config_file: str | Path) -> Base:
    """Return the recipe below a YAML, or the defaults of all keys where it names none.

    Raises ConfigError for a YAML or a base that cannot be read.
    """
    path = base_path(config_file)
    if path is None:
        return Base(DEFAULTS_NAME, flatten(get_cfg_defaults()))
    return Base(str(path), flatten(load_cfg(path)))
