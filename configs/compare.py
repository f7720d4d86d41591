"""In which keys two sets of settings differ, and which of them may change when a run continues."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from yacs.config import CfgNode

from configs.defaults import get_cfg_defaults

# Where things lie, how often something is written, how it is tested: none of it changes the weights.
FREE_PREFIXES = ("TEST.", "OUTPUT_DIR", "MODEL.DEVICE")
FREE_KEYS = (
    "MODEL.CLIP_LOCAL_PATH",  # another tower there does not fit the saved state
    "DATASETS.ROOT_DIR",
    "DATASETS.TABLE",
    "DATASETS.VIEW_FILES",
    "DATASETS.TESTS",
    "DATASETS.VEHICLEID_TEST_SIZE",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.CACHE",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.EVAL_PERIOD",
    "SOLVER.LOG_PERIOD",
    "SOLVER.PEAK_TFLOPS",
    "MODEL.COMPILE",
)
CHOICE_KEY = "MODEL.PRETRAIN_CHOICE"  # resume stands for whatever the run began with
PATH_KEY = "MODEL.PRETRAIN_PATH"  # counts where it says which training the run goes on from
PATH_COUNTS_FOR = ("self", "finetune")
LAST_EPOCH_KEY = "SOLVER.MAX_EPOCHS"  # may grow: the run goes on


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


def find_differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return `KEY old -> new` for each setting that makes `now` another training than the recorded `saved`.

    Both are nested sections. A key that `saved` lacks is younger than that run and counts with its default.
    """
    old_values, new_values = flatten(get_cfg_defaults()) | flatten(saved), flatten(now)
    differing = []
    for key, old, new in find_changes(old_values, new_values):
        if key in FREE_KEYS or key.startswith(FREE_PREFIXES):
            continue
        if key == PATH_KEY and not {old_values[CHOICE_KEY], new_values[CHOICE_KEY]} <= set(PATH_COUNTS_FOR):
            continue
        if (key == LAST_EPOCH_KEY and new > old) or (key == CHOICE_KEY and "resume" in (old, new)):
            continue
        differing.append(f"{key} {old} -> {new}")
    return differing


def changes_from_defaults(cfg: CfgNode) -> list[str]:
    """Return `KEY value` for each key whose value is not its default, by name."""
    return [f"{key} {new}" for key, _, new in find_changes(flatten(get_cfg_defaults()), flatten(cfg))]
