"""The plan of a run as a table, from the configuration alone."""

from yacs.config import CfgNode

from configs.schedule import center_weight
from processor.phases import Phase, PhasePlan, describe_losses
from solver.scheduler import make_schedule
from utils.tables import align

HEADER = ("epochs", "phase", "losses and weights", "PxK", "learning rate")


def schedule_table(cfg: CfgNode) -> str:
    """Return epochs, phase, losses with weights, P x K and learning rate as aligned text.

    One line for each run of epochs with equal phase, losses and K; what moves within it is written first->last, the
    learning rate also with its peak in between. Raises ConfigError for a plan that cannot be trained.
    """
    plan, schedule = PhasePlan(cfg), make_schedule(cfg)
    center = f", Center {center_weight(cfg):.4g}" if center_weight(cfg) else ""
    rows = [HEADER]
    for run in plan.segments():
        first, last = run[0], run[-1]
        rates = [schedule(phase.epoch, cfg.SOLVER.BASE_LR) for phase in run]
        shape = plan.batch_shape(first)
        rows.append((_epochs(first, last), first.tag, describe_losses(first, last) + center, shape, _moving(rates)))
    return align(rows, left=range(len(HEADER)))


def _epochs(first: Phase, last: Phase) -> str:
    return str(first.epoch) if first.epoch == last.epoch else f"{first.epoch}-{last.epoch}"


def _moving(values: list[float]) -> str:
    """Return first->last, with the highest in between where it is higher than both."""
    ends = [values[0], values[-1]]
    peak = max(values)
    shown = [ends[0], peak, ends[1]] if peak > max(ends) else ends
    texts = [f"{value:.2e}" for value in shown]
    return "->".join(dict.fromkeys(texts))
