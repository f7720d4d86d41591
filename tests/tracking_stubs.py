"""Small stand-ins for wandb and mlflow: the calls that a run makes, with their arguments, and what is kept of them.

They outlive a run, as the services do, so that a run that goes on meets what it had sent.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class Killed(BaseException):
    """The process ends here."""


class FakeWandb:
    """What is kept of W&B's runs, by id: rows, summary, artifacts, what they were begun with."""

    def __init__(self) -> None:
        self.runs: dict[str, SimpleNamespace] = {}
        self.offline = False
        self.refuses = ""  # what init says
        self.before_log: Callable[[int], None] = lambda step: None
        self.after_log: Callable[[int], None] = lambda step: None
        self.open = 0
        self.dead = False

    def init(self, *, id: str, dir: str, resume: str, allow_val_change: bool, settings: object, **begun: Any) -> Any:
        if self.refuses:
            raise RuntimeError(self.refuses)
        assert begun.keys() == {"project", "name", "group", "tags", "config"}
        assert resume == "allow" and allow_val_change and all(1 <= len(tag) <= 64 for tag in begun["tags"])
        assert Path(dir).is_dir() and len(id) <= 64
        kept = self.runs.setdefault(
            id, SimpleNamespace(rows=[], summary={}, artifacts={}, begun=begun, codes=[], parts={})
        )
        part = Path(dir) / "wandb" / f"offline-run-{len(kept.parts)}"
        if self.offline:
            part.mkdir(parents=True)
            kept.parts[part] = []
        self.open += 1
        start = kept.rows[-1][0] + 1 if kept.rows else 0
        run = SimpleNamespace(id=id, url=f"https://x/{id}", offline=self.offline, starting_step=start)
        run.dir, run.summary = str(part / "files"), kept.summary
        run.log, run.finish = partial(self._log, kept, part), partial(self._finish, kept)
        run.log_artifact = lambda artifact: kept.artifacts.update({artifact.name: artifact.files})
        return run

    def _log(self, kept: SimpleNamespace, part: Path, data: dict[str, float], step: int) -> None:
        assert all(isinstance(value, (int, float)) for value in data.values())
        self.before_log(step)
        if self.offline:
            kept.parts[part].append((step, dict(data)))
        elif not kept.rows or step > kept.rows[-1][0]:  # the service drops what is older
            kept.rows.append((step, dict(data)))
        self.after_log(step)

    def _finish(self, kept: SimpleNamespace, exit_code: int) -> None:
        if self.dead:  # nothing more runs in a process that was killed
            raise Killed
        kept.codes.append(exit_code)
        self.open -= 1

    def synced(self) -> list[tuple[int, dict[str, float]]]:
        """The rows of the only run that the service has, or would have once its folders are sent."""
        (kept,) = self.runs.values()
        return kept.rows + [row for part, rows in kept.parts.items() if part.is_dir() for row in rows]

    def settings(self, *, console: str, silent: bool) -> SimpleNamespace:
        return SimpleNamespace(console=console, silent=silent)

    def artifact(self, name: str, type: str) -> SimpleNamespace:
        files: list[str] = []
        return SimpleNamespace(name=name, files=files, add_file=files.append)


class FakeMlflow:
    """What is kept of MLflow's runs, by id: metrics as (name, value, step), parameters, tags, artifacts, status."""

    def __init__(self) -> None:
        self.runs: dict[str, SimpleNamespace] = {}
        self.experiments: list[str] = []
        self.refuses = ""  # what set_experiment says
        self.before_metric: Callable[[str, int], None] = lambda name, step: None

    def set_experiment(self, name: str) -> SimpleNamespace:
        if self.refuses:
            raise RuntimeError(self.refuses)
        self.experiments += [name] if name not in self.experiments else []
        return SimpleNamespace(experiment_id=str(self.experiments.index(name)))

    def search_runs(self, experiment_ids: list[str], filter_string: str = "") -> list[SimpleNamespace]:
        field, _, value = filter_string.partition(" = ")
        tag = field.removeprefix("tags.`").removesuffix("`")
        found = [one for one in self.runs.values() if one.tags.get(tag) == value.strip("'")]
        return [one.run for one in found if one.experiment in experiment_ids]

    def create_run(self, experiment_id: str, tags: dict[str, str], run_name: str) -> SimpleNamespace:
        id = f"run{len(self.runs)}"
        kept = SimpleNamespace(
            experiment=experiment_id, tags=tags, name=run_name, metrics=[], params={}, artifacts={}, status="RUNNING"
        )
        kept.run = SimpleNamespace(info=SimpleNamespace(run_id=id), data=SimpleNamespace(params=kept.params))
        self.runs[id] = kept
        return kept.run

    def get_run(self, run_id: str) -> SimpleNamespace:
        return self.runs[run_id].run

    def update_run(self, run_id: str, status: str) -> None:
        self.runs[run_id].status = status

    def set_terminated(self, run_id: str, status: str) -> None:
        self.runs[run_id].status = status

    def get_metric_history(self, run_id: str, key: str) -> list[SimpleNamespace]:
        return [one for one in self.runs[run_id].metrics if one.key == key]

    def log_batch(
        self, run_id: str, metrics: Sequence[SimpleNamespace] = (), params: Sequence[SimpleNamespace] = ()
    ) -> None:
        assert len(params) <= 100
        for param in params:  # the store refuses another value
            assert self.runs[run_id].params.setdefault(param.key, param.value) == param.value
        for metric in metrics:  # one after the other: a kill leaves half a row
            self.before_metric(metric.key, metric.step)
            self.runs[run_id].metrics.append(metric)

    def log_metric(self, run_id: str, key: str, value: float, step: int) -> None:
        self.runs[run_id].metrics.append(SimpleNamespace(key=key, value=value, timestamp=0, step=step))

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self.runs[run_id].artifacts[artifact_file] = text

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str) -> None:
        self.runs[run_id].artifacts[f"{artifact_path}/{Path(local_path).name}"] = Path(local_path).read_text()


def module(monkeypatch: pytest.MonkeyPatch, name: str, content: Mapping[str, Any]) -> None:
    """Let `import name` give a module of this content."""
    made = ModuleType(name)
    made.__spec__ = ModuleSpec(name, None, origin="a stub")
    made.__dict__.update(content)
    monkeypatch.setitem(sys.modules, name, made)


def install_wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    """Put a FakeWandb in the place of the package."""
    fake = FakeWandb()
    module(monkeypatch, "wandb", {"init": fake.init, "Settings": fake.settings, "Artifact": fake.artifact})
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return fake


def install_mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMlflow:
    """Put a FakeMlflow in the place of the package."""
    fake = FakeMlflow()

    def metric(key: str, value: float, timestamp: int, step: int) -> SimpleNamespace:
        return SimpleNamespace(key=key, value=value, timestamp=timestamp, step=step)

    def param(key: str, value: str) -> SimpleNamespace:
        return SimpleNamespace(key=key, value=value)

    content = {"MlflowClient": lambda: fake, "set_experiment": fake.set_experiment, "get_tracking_uri": lambda: "x"}
    module(monkeypatch, "mlflow", content)
    module(monkeypatch, "mlflow.entities", {"Metric": metric, "Param": param})
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return fake
