"""Names of an experiment's folders and files, from the command line and the data set."""

import re
from collections.abc import Sequence
from pathlib import Path

from utils.errors import ConfigError

NAME_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
MAX_NAME = 150  # characters; the longest file name, with what is added, has 255
COMMON_START = "deit_transreid_stride_"
PREFIXES = {"veri": "veri776"}  # folder prefix of a data set where it is not the lower-case name


def default_prefix(dataset: str) -> str:
    """Return the start of the folder names for a data set of DATASETS.NAMES."""
    return PREFIXES.get(dataset, dataset.lower())


def config_label(config: str) -> str:
    """Return a config's name without .yml and without the start that all of Model B's recipes share."""
    return Path(config).stem.removeprefix(COMMON_START)


def experiment_name(prefix: str, stamp: str | None, tag: str | None, label: str | None, words: Sequence[str]) -> str:
    """Return `{prefix}[_{stamp}][_{tag}][_{label}][_{words}]`, the start of all folder and file names.

    `label` is the YAML's, `words` those of the switches that the command line gives; None = absent. Raises ConfigError
    for a part with characters other than A-Z a-z 0-9 . _ -, one that begins with . or -, and a name over MAX_NAME
    """
    parts = {
        "--ds-prefix": prefix,
        "RUN_TAG_TS": stamp,
        "--tag": tag,
        "the YAML's name": label,
        "switch": "_".join(words) or None,
    }
    for source, part in parts.items():
        if part is not None and not NAME_PATTERN.fullmatch(part):
            way_out = "; or give a --tag" if source == "the YAML's name" and tag is None else ""
            raise ConfigError(
                f"{source} '{part}' cannot be part of a folder name; use letters, digits, '_', and after the first one "
                f"'.' and '-'{way_out}"
            )
    name = "_".join(part for part in parts.values() if part is not None)
    if len(name) > MAX_NAME:
        raise ConfigError(
            f"the name '{name}' of the folders has {len(name)} characters, at most {MAX_NAME}; give a shorter --tag"
            + (", or sweep fewer keys" if words else "")
        )
    return name
