"""The record of a run in MLflow. The run there is found by a tag with the identity of ours."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from processor.tracking.about import PROJECT, About
from processor.tracking.rows import Row

WAY_OUT = "see MLFLOW_TRACKING_URI, e.g. MLFLOW_TRACKING_URI=sqlite:///mlflow.db"
IDENTITY = "reid.run"  # the tag
EPOCH = "epoch"  # the figure that closes a row: where it is there, the row is whole
MOST_PARAMS = 100  # that MLflow takes at once
MOST_LETTERS = 6000  # of a parameter


class MlflowRecord:
    """One run of MLflow; MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and its other variables count."""

    def __init__(self, about: About) -> None:
        """Begin the record, or go on with the one of this run; raises whatever mlflow does."""
        import mlflow
        from mlflow import MlflowClient

        experiment = mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT)
        self.client = MlflowClient()
        found = self.client.search_runs([experiment.experiment_id], f"tags.`{IDENTITY}` = '{about.run}'")
        if found:
            self.id = found[0].info.run_id
            self.client.update_run(self.id, status="RUNNING")
        else:
            tags = {IDENTITY: about.run, **about.names}
            made = self.client.create_run(experiment.experiment_id, tags=tags, run_name=about.name)
            self.id = made.info.run_id
        self._tell_config(about)
        self.place = f"run {self.id} in {mlflow.get_tracking_uri()}"
        steps = [one.step for one in self.client.get_metric_history(self.id, EPOCH)] if found else []
        self.sent = max(steps, default=-1)  # last step that was there, -1 for none
        self._may_be_half = bool(found)

    def _tell_config(self, about: About) -> None:
        """Log the configuration; a parameter that is there already cannot change, so it stays."""
        from mlflow.entities import Param

        there = self.client.get_run(self.id).data.params
        params = [Param(key, str(value)[:MOST_LETTERS]) for key, value in about.config.items() if key not in there]
        for start in range(0, len(params), MOST_PARAMS):
            self.client.log_batch(self.id, params=params[start : start + MOST_PARAMS])
        self.client.log_text(self.id, about.text, "config.yaml")

    def send(self, row: Row) -> None:
        """Add the figures of one epoch; what a killed process had added of it already is not added again."""
        from mlflow.entities import Metric

        values = {**row.values, EPOCH: float(row.step)}
        if self._may_be_half:
            values = {name: value for name, value in values.items() if not self._has(name, row.step)}
        self._may_be_half = True  # until the server says that it has all
        now = int(1000 * time.time())
        self.client.log_batch(self.id, metrics=[Metric(name, value, now, row.step) for name, value in values.items()])
        self._may_be_half = False
        self.sent = row.step

    def _has(self, name: str, step: int) -> bool:
        return any(one.step == step for one in self.client.get_metric_history(self.id, name))

    def add_test(self, values: Mapping[str, float], epoch: int, is_last: bool, report: Path | None) -> None:
        """Add the figures of a test as test/... at its epoch, unless they are there, and keep its report."""
        for name, value in values.items():
            history = self.client.get_metric_history(self.id, f"test/{name}")
            if (epoch, value) not in [(one.step, one.value) for one in history]:
                self.client.log_metric(self.id, f"test/{name}", value, step=epoch)
        if report is not None:
            self.client.log_artifact(self.id, str(report), f"test/epoch_{epoch}")

    def close(self, failed: bool) -> None:
        """Say how this part of the record ended."""
        self.client.set_terminated(self.id, "FAILED" if failed else "FINISHED")
