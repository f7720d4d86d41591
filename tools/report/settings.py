"""What a configuration changes: against the recipe below it, and between experiments."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.base import base_of
from configs.compare import Change, find_changes, flatten
from configs.keys import affects, get_cfg_defaults
from configs.own_values import with_own_values
from tools.report.page import missing, paragraph, short_path, table
from utils.errors import ConfigError

logger = logging.getLogger(__name__)

ABSENT = "(no such key)"


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded configuration (nested) by dotted key; a key that it lacks is younger and has its default."""
    settings = flatten(get_cfg_defaults()) | flatten(config)
    return with_own_values(settings, settings["MODEL.NAME"])


def shown(value: Any) -> str:
    """Return a setting's value as text: an empty string visibly, None as a key that is no longer there."""
    if value is None:
        return ABSENT
    return repr(value) if value == "" else str(value)


def base_changes(config_file: str, config: Mapping[str, Any]) -> str:
    """Return the table of the keys in which the resolved `config` (nested) differs from its YAML's `_BASE_`.

    Places of one machine or run, no part of a recipe, are left out.
    """
    if not Path(config_file).is_file():
        return missing(f"'{short_path(config_file)}' is gone, and with it the name of its base recipe: no comparison.")
    try:
        base = base_of(config_file)
    except ConfigError as error:  # its words may quote the file, which the test of somebody else names
        logger.warning("no comparison of '%s' with its base recipe: %s", config_file, error)
        return missing(f"'{short_path(config_file)}' is no recipe now: no comparison with its base.")
    changes = [
        change for change in find_changes(base.settings, settings_of(config)) if not affects(change.key, "place")
    ]
    if not changes:
        return paragraph(f"No key differs from {short_path(base.name)}.")
    rows = [("key", "base", "here"), *((one.key, shown(one.old), shown(one.new)) for one in changes)]
    which = f"{short_path(config_file)}, the command line included, against its base {short_path(base.name)}"
    return table(rows, which, left=range(3), lead=())


def experiment_changes(configs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Return the table of the keys in which any experiment differs from the first; one column an experiment.

    Places of one machine or run are left out.
    """
    flat = [settings_of(config) for config in configs]
    changed: list[Change] = [change for other in flat[1:] for change in find_changes(flat[0], other)]
    keys = sorted({change.key for change in changed if not affects(change.key, "place")})
    if not keys:
        return paragraph("All experiments have the same settings.")
    heads = [f"{number} {name}" for number, name in enumerate(names, start=1)]
    rows = [["key", *heads], *([key, *(shown(one.get(key)) for one in flat)] for key in keys)]
    return table(
        rows,
        "Keys in which the experiments differ, by their ID in the ablation table",
        left=range(len(rows[0])),
        lead=(),
    )
