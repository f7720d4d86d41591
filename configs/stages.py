"""The stages of a run, in order, and the solver keys of each."""

from yacs.config import CfgNode

from configs.keys.clip_reid import BASELINE, STAGE1, STAGE2
from configs.keys.clip_reid import NAMES as CLIP_REID

ONE_STAGE = ("main",)
STAGES: dict[str, tuple[str, ...]] = dict.fromkeys(CLIP_REID, (STAGE1, STAGE2))  # by MODEL.NAME: others than ONE_STAGE
ALONE = dict.fromkeys(CLIP_REID, (BASELINE,))  # by MODEL.NAME: stages that are trained in place of all those
WITHOUT_IMAGES = (STAGE1,)  # stages whose batches are drawn from cached features


def stages_of(cfg: CfgNode) -> dict[str, int]:
    """Return the epochs of each stage, in order; {"main": SOLVER.MAX_EPOCHS} for a system of one stage."""
    names = tuple(cfg.SOLVER.STAGES) or STAGES.get(cfg.MODEL.NAME, ONE_STAGE)
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


def draws_pxk(cfg: CfgNode, stage: str = "") -> bool:
    """Return whether the batches of a stage ("" = the last one) are P identities x K images."""
    last = last_stage(cfg)
    return (stage or last) == last and last not in WITHOUT_IMAGES and "triplet" in cfg.DATALOADER.SAMPLER


def warmup_epochs(cfg: CfgNode, stage: str = "") -> int:
    """Return the epochs of a stage's warm-up: WARMUP_ITERS where it is the stage's own or not 0, else WARMUP_EPOCHS."""
    solver, name = solver_of(cfg, stage), stage or last_stage(cfg)
    if name in WITHOUT_IMAGES:
        return solver.WARMUP_EPOCHS
    is_own = solver_key(cfg, "WARMUP_ITERS", name) != "SOLVER.WARMUP_ITERS"
    return solver.WARMUP_ITERS if is_own or solver.WARMUP_ITERS else solver.WARMUP_EPOCHS
