"""Which settings of a run may change when it continues, and which of the others did."""

from collections.abc import Mapping
from typing import Any

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
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.EVAL_PERIOD",
    "SOLVER.LOG_PERIOD",
)
CHOICE_KEY = "MODEL.PRETRAIN_CHOICE"  # resume stands for whatever the run began with
PATH_KEY = "MODEL.PRETRAIN_PATH"  # counts where it says which training the run goes on from
PATH_COUNTS_FOR = ("self", "finetune")
LAST_EPOCH_KEY = "SOLVER.MAX_EPOCHS"  # may grow: the run goes on


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested sections as {dotted key: value}, tuples as lists (as YAML and JSON store them)."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat


def find_differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return `KEY old -> new` for each setting that makes `now` another training than the recorded `saved`.

    Both are nested sections. A key that `saved` lacks is younger than that run and counts with its default.
    """
    old_values, new_values = flatten(get_cfg_defaults()) | flatten(saved), flatten(now)
    differing = []
    for key in sorted(old_values.keys() | new_values.keys()):
        old, new = old_values.get(key), new_values.get(key)
        if old == new or key in FREE_KEYS or key.startswith(FREE_PREFIXES):
            continue
        if key == PATH_KEY and not {old_values[CHOICE_KEY], new_values[CHOICE_KEY]} <= set(PATH_COUNTS_FOR):
            continue
        if (key == LAST_EPOCH_KEY and new > old) or (key == CHOICE_KEY and "resume" in (old, new)):
            continue
        differing.append(f"{key} {old} -> {new}")
    return differing


def changes_from_defaults(cfg: CfgNode) -> list[str]:
    """Return `KEY value` for each key whose value is not its default."""
    defaults = flatten(get_cfg_defaults())
    return [f"{key} {value}" for key, value in flatten(cfg).items() if value != defaults[key]]
