"""What '' and () stand for in a key whose value each system has of its own, and modalities by their own names."""

from collections.abc import Collection, Mapping
from typing import Any

from yacs.config import CfgNode

from configs.keys.clip_reid import BASELINE, STAGE1, STAGE2
from configs.keys.clip_reid import NAMES as CLIP_REID
from configs.keys.irra import NAME as IRRA
from configs.keys.multimodal import ALL, OFFICIAL
from configs.keys.pcb import NAME as PCB
from configs.modalities import in_order, parse_set, set_name
from configs.stages import STAGES
from configs.values import set_value, value_of

# key -> (what '' stands for, by MODEL.NAME where that is something else)
OWN_VALUES: dict[str, tuple[str, dict[str, str]]] = {
    "SOLVER.SCHEDULER": ("cosine", {**dict.fromkeys(CLIP_REID, "multistep"), IRRA: "after_warmup_cosine"}),
    "LOSS.BRANCHES.REDUCE": ("halves", dict.fromkeys((*CLIP_REID, PCB), "sum")),
}
MODALITY_KEYS = ("MODEL.MULTIMODAL.MODALITIES", "TEST.GALLERY_SET")
SETS_KEY = "TEST.QUERY_SETS"
STAGE_SECTIONS = tuple(f"SOLVER.{stage.upper()}." for stage in (STAGE1, STAGE2))


def own_value(cfg: CfgNode, key: str) -> str:
    """Return the value of a key of OWN_VALUES, of which '' is the system's own."""
    return value_of(cfg, key) or _own(key, cfg.MODEL.NAME)


def with_own_values(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return {dotted key: value} with the own values of the system `name` in place of ''."""
    own = {key: _own(key, name) for key in OWN_VALUES if settings.get(key) == ""}
    return {**settings, **own}


def fill_in(cfg: CfgNode, given: Collection[str]) -> None:
    """Write what '' and () stand for into a configuration in which the keys `given` were set, and modalities' names.

    Names that mean no modality stay as they are.
    """
    for key in OWN_VALUES:
        set_value(cfg, key, own_value(cfg, key))
    for key in MODALITY_KEYS:
        set_value(cfg, key, in_order(value_of(cfg, key)))
    set_value(cfg, SETS_KEY, tuple(map(_set_by_its_name, value_of(cfg, SETS_KEY))))
    if cfg.MODEL.NAME in CLIP_REID and not cfg.SOLVER.STAGES:
        in_stages = any(key.startswith(STAGE_SECTIONS) for key in given)
        cfg.SOLVER.STAGES = STAGES[cfg.MODEL.NAME] if in_stages else (BASELINE,)


def _set_by_its_name(name: str) -> str:
    """Return the name of a set of modalities as `set_name` writes it; other words as they are, or in lower case."""
    if name.lower() in (OFFICIAL, ALL):
        return name.lower()
    try:
        return set_name(parse_set(name))
    except ValueError:  # configs.rules.multimodal says what is wrong
        return name


def _own(key: str, name: str) -> str:
    usual, others = OWN_VALUES[key]
    return others.get(name, usual)
