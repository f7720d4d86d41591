"""A small stand-in for Optuna: the calls that a search makes, with a storage that outlives the process, as SQLite does.

It draws at random from the seed of its sampler, so that what is asked of it can be told in advance.
"""

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tracking_stubs import module


class State:
    """One of TrialState's."""

    def __init__(self, name: str, finished: bool) -> None:
        self.name, self._finished = name, finished

    def is_finished(self) -> bool:
        return self._finished


RUNNING, COMPLETE, FAIL = State("RUNNING", False), State("COMPLETE", True), State("FAIL", True)


class FakeStudy:
    """Trials with number, params, state and value."""

    def __init__(self) -> None:
        self.user_attrs: dict[str, Any] = {}
        self.trials: list[SimpleNamespace] = []
        self.sampler: SimpleNamespace | None = None

    def set_user_attr(self, key: str, value: Any) -> None:
        self.user_attrs[key] = value

    def get_trials(self, deepcopy: bool = True) -> list[SimpleNamespace]:
        return list(self.trials)

    def ask(self, fixed_distributions: dict[str, Any]) -> SimpleNamespace:
        draws = random.Random(self.sampler.seed)
        params = {name: one(draws) for name, one in fixed_distributions.items()}
        trial = SimpleNamespace(number=len(self.trials), params=params, state=RUNNING, value=None)
        self.trials.append(trial)
        return trial

    def tell(self, trial: int, values: float | None = None, state: State | None = None) -> None:
        assert not self.trials[trial].state.is_finished() and (values is None) != (state is None)
        self.trials[trial].state, self.trials[trial].value = state or COMPLETE, values


def install_optuna(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeStudy]:
    """Put the stand-in in the place of the package; returns its studies by their storage."""
    studies: dict[str, FakeStudy] = {}

    def create_study(*, storage: str, study_name: str, direction: str, load_if_exists: bool) -> FakeStudy:
        assert direction == "maximize" and load_if_exists and storage.startswith("sqlite:////")
        return studies.setdefault(storage, FakeStudy())

    def number(low: float, high: float, log: bool = False) -> Any:
        if log:
            return lambda draws: math.exp(draws.uniform(math.log(low), math.log(high)))
        return lambda draws: draws.uniform(low, high)

    logging = SimpleNamespace(set_verbosity=lambda level: None, WARNING=30)
    module(monkeypatch, "optuna", {"create_study": create_study, "logging": logging})
    state = SimpleNamespace(RUNNING=RUNNING, COMPLETE=COMPLETE, FAIL=FAIL)
    module(monkeypatch, "optuna.trial", {"TrialState": state})
    sampler = {"TPESampler": lambda seed, constant_liar: SimpleNamespace(seed=seed)}
    module(monkeypatch, "optuna.samplers", sampler)
    distributions = {
        "FloatDistribution": number,
        "IntDistribution": lambda low, high, log=False: lambda draws: draws.randint(low, high),
        "CategoricalDistribution": lambda choices: lambda draws: draws.choice(choices),
    }
    module(monkeypatch, "optuna.distributions", distributions)
    return studies
