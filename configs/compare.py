"""In which keys two sets of settings differ, and which of them may change when a run continues."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from yacs.config import CfgNode

from configs.keys import affects, get_cfg_defaults
from configs.own_values import with_own_values
from configs.stages import solver_key

CHOICE_KEY = "MODEL.PRETRAIN_CHOICE"  # resume stands for whatever the run began with
PATH_KEY = "MODEL.PRETRAIN_PATH"  # counts where it says which training the run goes on from
PATH_COUNTS_FOR = ("self", "finetune")


class Change(NamedTuple):
    """A key whose value differs; None stands for a key that one side does not have."""

    key: str
    old: Any
    new: Any


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested sections as {dotted key: value}, tuples as lists (as YAML and JSON store them)."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat


def find_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return the keys whose values differ between two {dotted key: value}, by name."""
    changes = [Change(key, old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys())]
    return [change for change in changes if change.old != change.new]


def shapes_training(key: str) -> bool:
    """Return whether another value of a key makes another training."""
    return affects(key, "training")


def find_differences(
    saved: Mapping[str, Any], now: Mapping[str, Any], counts: Callable[[str], bool] = shapes_training
) -> list[str]:
    """Return `KEY old -> new` for each setting that makes `now` another training than the recorded `saved`.

    Both are nested sections. A key that `saved` lacks is younger than that run and counts with its default. `counts`
    says which keys are compared.
    """
    new_values = flatten(now)
    name = new_values["MODEL.NAME"]
    new_values = with_own_values(new_values, name)
    old_values = with_own_values(flatten(get_cfg_defaults()) | flatten(saved), name)
    last_epoch_key = solver_key(CfgNode(now), "MAX_EPOCHS")  # may grow: the run goes on
    differing = []
    for key, old, new in find_changes(old_values, new_values):
        if not counts(key):
            continue
        choices = (old_values.get(CHOICE_KEY), new_values[CHOICE_KEY])
        if key == PATH_KEY and not all(choice in PATH_COUNTS_FOR for choice in choices):
            continue
        if (key == last_epoch_key and type(old) is int and new > old) or (key == CHOICE_KEY and "resume" in (old, new)):
            continue
        differing.append(f"{key} {old} -> {new}")
    return differing


def changes_from_defaults(cfg: CfgNode) -> list[str]:
    """Return `KEY value` for each key whose value is not its default, by name."""
    defaults, values = (with_own_values(flatten(tree), cfg.MODEL.NAME) for tree in (get_cfg_defaults(), cfg))
    return [f"{key} {new}" for key, _, new in find_changes(defaults, values)]


def result_settings(cfg: CfgNode) -> dict[str, Any]:
    """Return the settings that the result of testing one checkpoint depends on, by dotted key, those of TEST first."""
    keys = flatten({"TEST": cfg.TEST, **cfg})
    return {key: value for key, value in keys.items() if affects(key, "ranking")}
