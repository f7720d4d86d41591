"""Everything that can be known wrong before data or weights are read: each key by itself, then keys together."""

import difflib
import re
from collections.abc import Iterator
from typing import Any

from yacs.config import CfgNode

from configs.keys import KEYS
from configs.keys.key import MOST_ITEMS, Key
from configs.phases import Problem, find_schedule_problems
from configs.rules.branches import find_branch_problems
from configs.rules.clip_fusion import find_clip_problems
from configs.rules.clip_reid import find_clip_reid_problems
from configs.rules.data import find_data_problems
from configs.rules.distill import find_distill_problems
from configs.rules.irra import find_irra_problems
from configs.rules.model import find_model_problems
from configs.rules.multimodal import find_multimodal_problems
from configs.rules.pcb import find_pcb_problems
from configs.rules.test import find_test_problems
from configs.rules.training import find_loss_problems, find_solver_problems, find_ssl_problems, find_stage_problems
from configs.values import value_of


def find_problems(cfg: CfgNode) -> list[Problem]:
    """Return every rule that `cfg` breaks, as (keys concerned, one line that says what to do)."""
    values = {name: value_of(cfg, name) for name in KEYS}
    problems = [((name,), text) for name, key in KEYS.items() for text in _bad_values(name, key, values[name])]
    if problems:  # the rules between keys presume that each key is sound
        return problems
    problems = list(find_stage_problems(cfg))
    if problems:  # what follows asks the stages for their epochs
        return problems
    problems = [*find_model_problems(cfg), *find_clip_problems(cfg), *find_clip_reid_problems(cfg)]
    problems += [
        *find_irra_problems(cfg),
        *find_pcb_problems(cfg),
        *find_multimodal_problems(cfg),
        *find_solver_problems(cfg),
        *find_data_problems(cfg),
        *find_test_problems(cfg),
        *find_distill_problems(cfg),
    ]
    schedule = [*find_ssl_problems(cfg), *find_schedule_problems(cfg)]
    return [*problems, *(schedule or [*find_loss_problems(cfg), *find_branch_problems(cfg)])]


def _bad_values(name: str, key: Key, value: Any) -> Iterator[str]:
    """Yield what is wrong with the value of one key."""
    items = value if isinstance(value, (tuple, list)) else (value,)
    if key.choices:
        yield from (_not_allowed(name, key, item) for item in items if item not in key.choices)
    if key.length and len(items) != key.length:
        yield f"{name} got {value}, expected {key.length} numbers"
    if len(items) > MOST_ITEMS:
        yield f"{name} has {len(items):,} entries, allowed: at most {MOST_ITEMS:,}"
    if key.low is not None and not all(key.low <= item <= key.high for item in items):  # NaN is in no range
        yield f"{name} got {value}, allowed: {bounds(key)}"


def bounds(key: Key) -> str:
    """Return the bounds of a number with their reason, e.g. `1 to 100000 (more is a slip of the keyboard)`."""
    return f"{key.low:g} to {key.high:.12g}" + (f" ({key.why})" if key.why else "")


def _not_allowed(name: str, key: Key, item: Any) -> str:
    allowed = ", ".join(str(choice) or "''" for choice in key.choices)
    if not isinstance(item, str):
        return f"{name} got {item}, allowed: {allowed}"
    several = [choice for choice in re.split(r"[\s,;()\[\]{}'\"]+", item) if choice in key.choices]
    if several and item not in several and not isinstance(key.default, str):
        return f"{name} got '{item}', a list in text; write [{', '.join(several)}] in a YAML, \"{several}\" in a shell"
    near = [choice for choice in key.choices if choice.lower() == item.lower()]
    near += difflib.get_close_matches(item, key.choices, n=1)
    return f"{name} got '{item}', allowed: {allowed}" + (f"; did you mean {near[0]}?" if near else "")
