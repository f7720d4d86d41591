"""Rules between the keys of tests."""

from collections.abc import Iterator

from yacs.config import CfgNode

from configs.keys.pcb import NAME as PCB
from configs.phases import Problem
from configs.rules.branches import LAYOUTS
from configs.values import value_of


def find_test_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield every rule that `cfg` breaks, as (keys concerned, one line that says what to do)."""
    if cfg.TEST.RE_RANKING and cfg.TEST.SPECTRAL.K:
        yield (
            ("TEST.RE_RANKING", "TEST.SPECTRAL.K"),
            f"TEST.RE_RANKING True with TEST.SPECTRAL.K {cfg.TEST.SPECTRAL.K}: each of them replaces the order of the "
            "other; set TEST.RE_RANKING False or TEST.SPECTRAL.K 0",
        )
    weights, branches = cfg.TEST.PART_WEIGHTS, num_branches(cfg)
    if weights and len(weights) != branches:
        shown = ", ".join(f"{key} {value_of(cfg, key)}" for key in _deciding(cfg))
        yield (
            ("TEST.PART_WEIGHTS", *_deciding(cfg)),
            f"TEST.PART_WEIGHTS {list(weights)} has {len(weights)} weights, the embedding of this model has {branches} "
            f"branch{'es' * (branches > 1)} ({shown}); give one weight for each, or ()",
        )
    elif weights and not any(weights):
        yield (
            ("TEST.PART_WEIGHTS",),
            f"TEST.PART_WEIGHTS {list(weights)} leaves nothing of the embedding; give a branch a weight above 0",
        )


def num_branches(cfg: CfgNode) -> int:
    """Return how many branches the embedding of the configured model has: those in `branches` of that model."""
    seen = LAYOUTS[cfg.MODEL.NAME](cfg)
    joined = cfg.MODEL.USE_CLIP and cfg.MODEL.CLIP_FUSION == "concat"  # which no loss sees
    return joined + (1 if seen is None else seen.count)


def _deciding(cfg: CfgNode) -> tuple[str, ...]:
    """Return the keys that decide about the number of branches."""
    if cfg.MODEL.NAME == PCB:
        return "MODEL.PCB.PARTS", "MODEL.PCB.GLOBAL_DIM"
    return ("MODEL.JPM", "MODEL.DEVIDE_LENGTH") if cfg.MODEL.JPM else ("MODEL.NAME",)
