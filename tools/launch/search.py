"""The points of a search, from Optuna: its storage is a file beside the results, so that the same command goes on."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.picking import picked_by
from tools.launch.plan import Sweep, check_choice, plan_one
from tools.launch.points import Point, Span, spelt
from tools.launch.screen import say
from tools.study.experiment import Experiment, check_same_settings
from tools.study.response import PointResult
from utils.commands import is_installed
from utils.errors import USER_ERROR_CODE, ConfigError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

DIGITS = 4  # of a drawn value: more than any training can tell apart
MOST_DRAWS = 100  # for a point that is new
SEED = 776  # of the draws; with the number of a trial it makes them the same in a search that was killed
CONFIG = "--config"  # the parameter that picks the recipe where there are several
SPACE = "space"  # what a study knows of itself


def corner_of(sweep: Sweep) -> Point:
    """Return a point that every search could try: the first choices and the lowest values."""
    lowest = {span.key: spelt(int(span.low) if span.whole else float(span.low)) for span in sweep.spans}
    return {axis.key: axis.values[0] for axis in sweep.axes} | lowest


class Search:
    """Asks Optuna for points and tells it what they reached; `place` is the file that holds both."""

    def __init__(self, args: argparse.Namespace, sweep: Sweep) -> None:
        if not is_installed("optuna"):
            raise ConfigError(f"--search {sweep.count} needs optuna: pip install optuna")
        self.place = Path()
        self._args, self._sweep = args, sweep
        self._metric = ""
        self._trials: dict[str, int] = {}  # numbers, by the name of their experiment
        self._first: dict[str, int] = {}  # number of the first trial of each point
        self._study: Study | None = None
        self.ended = False  # over a mistake of the user's

    def open(self) -> Iterator[tuple[Experiment, Point]]:
        """Yield the points that were tried before, in order; ConfigError for a storage of another search."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            self._study = optuna.create_study(
                storage=f"sqlite:///{self.place}", study_name=self.place.stem, direction="maximize", load_if_exists=True
            )
            known = self._study.user_attrs.get(SPACE)
        except Exception as error:  # SQLAlchemy's, sqlite's and Optuna's own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"'{self.place}' is no storage of a search ({reason}); move it away") from error
        if known is None:
            self._study.set_user_attr(SPACE, self._space())
        elif known != self._space():
            raise ConfigError(f"'{self.place}' holds a search of another space: {known}; give this one its own --tag")
        for trial in self._study.get_trials(deepcopy=False):
            if set(trial.params) != set(self._distributions()):  # killed while it was drawn
                self._fail(trial)
            elif self._is_new(trial):
                yield self._planned(trial)

    def ask(self) -> tuple[Experiment, Point] | None:
        """Return a new point; None once there are enough, none was drawn, or a mistake of the user's has shown."""
        from optuna.samplers import TPESampler

        draws = 0
        while not self.ended and len(self._trials) < self._sweep.count:
            if draws == MOST_DRAWS:
                say(f"no new point in {MOST_DRAWS} draws: the search ends with {len(self._trials)} points")
                return None
            drawn, draws = len(self._study.get_trials(deepcopy=False)), draws + 1
            # the sampler's own state is lost with the process: made anew for each trial, it draws the same after a kill
            self._study.sampler = TPESampler(seed=SEED + drawn, constant_liar=True)
            number = self._study.ask(fixed_distributions=self._distributions()).number
            trial = self._study.get_trials(deepcopy=False)[number]
            if self._is_new(trial):
                return self._planned(trial)
        return None

    def tell(self, name: str, result: PointResult, exit_code: int) -> None:
        """Tell what a point reached; one that failed counts as tried.

        After a mistake of the user's (USER_ERROR_CODE) its trial stays open and no other point is asked for.
        """
        if exit_code == USER_ERROR_CODE:
            self.ended = True
            return
        trial = self._study.get_trials(deepcopy=False)[self._trials[name]]
        if result.why_not:
            self._fail(trial)
        elif not trial.state.is_finished():
            self._study.tell(trial.number, result.mean[self._metric])

    def _fail(self, trial: "FrozenTrial") -> None:
        from optuna.trial import TrialState

        if not trial.state.is_finished():
            self._study.tell(trial.number, state=TrialState.FAIL)

    def _is_new(self, trial: "FrozenTrial") -> bool:
        """Return whether no trial before has the same point; one that is not new is told what the first one reached."""
        words = json.dumps([trial.params.get(CONFIG), self._point(trial)])
        first = self._first.setdefault(words, trial.number)
        if first == trial.number:
            return True
        twin = self._study.get_trials(deepcopy=False)[first]
        if twin.value is None:
            self._fail(trial)
        elif not trial.state.is_finished():
            self._study.tell(trial.number, twin.value)
        return False

    def _point(self, trial: "FrozenTrial") -> Point:
        spans = {span.key: span for span in self._sweep.spans}
        return {
            key: value if isinstance(value, str) else spelt(rounded(value, spans[key]))
            for key, value in trial.params.items()
            if key != CONFIG
        }

    def _planned(self, trial: "FrozenTrial") -> tuple[Experiment, Point]:
        """Return the experiment and the point of a trial; ConfigError where its folders hold another one."""
        config, point = trial.params.get(CONFIG, self._args.configs[0]), self._point(trial)
        experiment, cfg = plan_one(self._args, config, self._sweep, point, len(self._trials) + 1)
        for seed in self._args.seeds:
            check_same_settings(experiment, seed, held_out=True)
        check_choice([(experiment, cfg)])
        self._metric = picked_by(experiment.model_name)[0]
        self._trials[experiment.name] = trial.number
        return experiment, point

    def _distributions(self) -> dict[str, "BaseDistribution"]:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        made: dict[str, Any] = {axis.key: CategoricalDistribution(axis.values) for axis in self._sweep.axes}
        for span in self._sweep.spans:
            kind = IntDistribution if span.whole else FloatDistribution
            made[span.key] = kind(span.low, span.high, log=span.log)
        if len(self._args.configs) > 1:
            made[CONFIG] = CategoricalDistribution(self._args.configs)
        return made

    def _space(self) -> str:
        """Return what is searched as text: keys with their ranges and choices, and the seeds of a point."""
        space: dict[str, Any] = {axis.key: list(axis.values) for axis in self._sweep.axes}
        space |= {span.key: [span.low, span.high, "log" if span.log else "linear"] for span in self._sweep.spans}
        configs = {CONFIG: self._args.configs} if len(self._args.configs) > 1 else {}
        return json.dumps(space | configs | {"--seeds": self._args.seeds})


def rounded(value: float, span: Span) -> float:
    """Return a drawn value with DIGITS significant digits, within its range; whole numbers stay as they are."""
    return value if span.whole else min(max(float(f"{value:.{DIGITS}g}"), float(span.low)), float(span.high))
