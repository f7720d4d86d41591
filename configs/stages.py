"""The stages of a run, in order, and the solver keys of each."""

from yacs.config import CfgNode

STAGES: dict[str, tuple[str, ...]] = {}  # by MODEL.NAME: the stages of a system that has others than `main`


def stages_of(cfg: CfgNode) -> dict[str, int]:
    """Return the epochs of each stage, in order; {"main": SOLVER.MAX_EPOCHS} for a system of one stage."""
    names = tuple(cfg.SOLVER.STAGES) or STAGES.get(cfg.MODEL.NAME, ("main",))
    return {
        name: (cfg.SOLVER.get(name.upper()) or cfg.SOLVER).get("MAX_EPOCHS", cfg.SOLVER.MAX_EPOCHS) for name in names
    }


def unknown_stage(cfg: CfgNode, stage: str) -> str:
    """Return what to say of a stage that is none of `stages_of`."""
    return f"MODEL.NAME {cfg.MODEL.NAME} has no stage '{stage}'; its stages are {', '.join(stages_of(cfg))}"


def solver_of(cfg: CfgNode, stage: str = "") -> CfgNode:
    """Return cfg.SOLVER with the keys of SOLVER.<STAGE> laid over, as far as there are any; "" is the last stage."""
    own = cfg.SOLVER.get((stage or last_stage(cfg)).upper())
    if own is None:
        return cfg.SOLVER
    solver = cfg.SOLVER.clone()
    solver.defrost()
    solver.update(own)
    return solver


def last_stage(cfg: CfgNode) -> str:
    """Return the name of the last stage, whose weights are the model's; its files carry no stage in their names."""
    return list(stages_of(cfg))[-1]


def solver_key(cfg: CfgNode, name: str, stage: str = "") -> str:
    """Return the dotted key that `solver_of` reads SOLVER.<name> of a stage from; "" is the last stage."""
    section = (stage or last_stage(cfg)).upper()
    return f"SOLVER.{section}.{name}" if name in cfg.SOLVER.get(section, {}) else f"SOLVER.{name}"
