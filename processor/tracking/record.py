"""The records of a run in the places of LOGGER: opened once a process, sent whole epochs, never the same one twice."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from yacs.config import CfgNode

from configs.keys.test import MLFLOW, WANDB
from configs.stages import solver_of, stages_of
from processor.provenance import run_of
from processor.tracking import mlflow_record, wandb_record
from processor.tracking.about import about_run
from processor.tracking.mlflow_record import MlflowRecord
from processor.tracking.rows import epoch_rows
from processor.tracking.wandb_record import WandbRecord
from utils.errors import ConfigError
from utils.run_folder import EMA, RunFolder, epoch_of, read_metrics
from utils.run_record import read_record
from utils.test_folder import METRICS, TestFolder, read_result

logger = logging.getLogger(__name__)

Record = WandbRecord | MlflowRecord
RECORDS = {WANDB: (WandbRecord, wandb_record.WAY_OUT), MLFLOW: (MlflowRecord, mlflow_record.WAY_OUT)}


class Tracking:
    """The records of one run. What they are sent stands in metrics.jsonl, so that nothing is lost where one fails."""

    def __init__(self, folder: RunFolder, stages: Mapping[str, int], records: dict[str, Record]) -> None:
        self._folder, self._stages, self._records = folder, stages, records
        self._failed: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._records)

    def send(self, stage: str, epoch: int, final: bool = False) -> None:
        """Send the epochs up to `epoch` of a stage that were not sent yet; their state is on the disk.

        What a place refuses is told once and tried again at the `final` call.
        """
        names = list(self._stages)
        last = epoch + sum(self._stages[name] for name in names[: names.index(stage)])
        tried = [name for name in self._records if final or name not in self._failed]
        rows = epoch_rows(read_metrics(self._folder.metrics), self._stages) if tried else []
        for name in tried:
            try:
                for row in [row for row in rows if self._records[name].sent < row.step <= last]:
                    self._records[name].send(row)
            except Exception as error:  # of a network, a server, a disk
                self._tell_failure(name, error)

    def close(self, failed: bool) -> None:
        """End the records: the run has ended, or `failed`."""
        for name, record in self._records.items():
            try:
                record.close(failed)
            except Exception as error:
                self._tell_failure(name, error)

    def _tell_failure(self, name: str, error: Exception) -> None:
        if name not in self._failed:
            logger.warning(
                "LOGGER %s refuses figures (%s); training goes on, metrics.jsonl has them all, and what is missing "
                "there is sent at the end or by the same command",
                *(name, _first_line(error)),
            )
        self._failed.add(name)


@contextmanager
def tracked(cfg: CfgNode, identity: str) -> Iterator[Tracking]:
    """Open the records of a run in rank 0, and close them with the block; `identity` is "" in the other ranks.

    Raises ConfigError that says what to do where one cannot be opened.
    """
    folder, stages = run_of(cfg), stages_of(cfg)
    tracking = Tracking(folder, stages, _open(cfg, folder, identity) if identity else {})
    try:
        yield tracking
    except BaseException:
        tracking.close(failed=True)
        raise
    tracking.close(failed=False)


def _open(cfg: CfgNode, folder: RunFolder, identity: str) -> dict[str, Record]:
    records: dict[str, Record] = {}
    for name in cfg.LOGGER:
        if name not in RECORDS:
            continue
        make, way_out = RECORDS[name]
        try:
            records[name] = make(about_run(cfg, folder, identity))
        except Exception as error:  # wandb and mlflow have classes of their own
            raise ConfigError(f"LOGGER {name}: no record can be opened ({_first_line(error)}); {way_out}") from error
        logger.info("LOGGER %s: %s", name, records[name].place)
    return records


def track_test(cfg: CfgNode, weight: Path, test: TestFolder) -> None:
    """Add the figures and the report of a test to the records of the run that trained its checkpoint.

    Nothing happens where LOGGER names none, or the checkpoint lies in no run folder; what a place refuses is a warning.
    """
    folder, result = RunFolder(weight.resolve().parent, cfg.MODEL.NAME), read_result(test)
    record, epoch = read_record(folder), epoch_of(weight)
    if not any(name in RECORDS for name in cfg.LOGGER) or record is None or epoch is None or result is None:
        return
    of = f"{EMA}/" if weight == folder.ema(epoch) else ""
    values = {f"{of}{name}": result[name] for name in METRICS}
    for other, metrics in result.get("tests", {}).items():
        values |= {f"{of}{other}/{name}": metrics[name] for name in METRICS}
    is_last = epoch == solver_of(cfg).MAX_EPOCHS
    try:
        for one in _open(cfg, folder, record.run).values():
            one.add_test(values, epoch, is_last, test.report if test.report.is_file() else None)
            one.close(failed=False)
    except Exception as error:
        logger.warning("LOGGER: the test is not in its run's record: %s", _first_line(error))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
