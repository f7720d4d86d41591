"""The plan of a run as a table, from the configuration alone."""

from yacs.config import CfgNode

from configs.phase_words import describe_losses
from configs.phases import Phase, PhasePlan
from configs.stages import solver_of, stages_of
from solver.scheduler import make_schedule
from utils.tables import align

HEADER = ("epochs", "phase", "losses and weights", "PxK", "learning rate")


def schedule_table(cfg: CfgNode) -> str:
    """Return epochs, phase, losses with weights, P x K and learning rate as aligned text.

    One line for each run of epochs with equal phase, losses and K; what moves within it is written first->last, the
    learning rate also with its peak in between. Where there are several stages, each line begins with its own. Raises
    ConfigError for a plan that cannot be trained.
    """
    stages = list(stages_of(cfg))
    if len(stages) == 1:
        return align([HEADER, *_rows(cfg, stages[0])], left=range(len(HEADER)))
    rows = [(stage, *row) for stage in stages for row in _rows(cfg, stage)]
    return align([("stage", *HEADER), *rows], left=range(len(HEADER) + 1))


def _rows(cfg: CfgNode, stage: str) -> list[tuple[str, ...]]:
    """Return the rows of one stage, in the order of HEADER."""
    plan, schedule, base_lr = PhasePlan(cfg, stage), make_schedule(cfg, stage), solver_of(cfg, stage).BASE_LR
    rows = []
    for first, last in plan.segments():
        rates = _moving([schedule(epoch, base_lr) for epoch in range(first.epoch, last.epoch + 1)])
        rows.append((_epochs(first, last), first.tag, describe_losses(first, last), plan.batch_shape(first), rates))
    return rows


def _epochs(first: Phase, last: Phase) -> str:
    return str(first.epoch) if first.epoch == last.epoch else f"{first.epoch}-{last.epoch}"


def _moving(values: list[float]) -> str:
    """Return first->last, with the highest in between where it is higher than both."""
    ends = [values[0], values[-1]]
    peak = max(values)
    shown = [ends[0], peak, ends[1]] if peak > max(ends) else ends
    texts = [f"{value:.2e}" for value in shown]
    return "->".join(dict.fromkeys(texts))
