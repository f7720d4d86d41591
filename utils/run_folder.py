"""The folder of one run: every file name in it, locked for one process, and its metrics recorded."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from utils.atomic import write_text_atomic
from utils.errors import ConfigError
from utils.file_lock import LockHeldError, hold

RECORD_KINDS = ("phase", "train", "eval", "val", "reference")  # val: on the held-out identities
PROBE_BYTES = 4096
NUMBERED = re.compile(r"(.+)_(\d+)")  # the stem of a checkpoint


class RunFolder(NamedTuple):
    """The files of one run; `prefix` is MODEL.NAME."""

    path: Path
    prefix: str

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "env.json"

    @property
    def log(self) -> Path:
        return self.path / "train_log.txt"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def state(self) -> Path:
        return self.path / "state_last.pth"

    @property
    def lock(self) -> Path:
        return self.path / "run.lock"

    def checkpoint(self, epoch: int, stage: str = "") -> Path:
        """Return the weights of a stage's epoch; "" is the last stage, whose files carry no stage in their names."""
        return self.path / f"{'_'.join(filter(None, (self.prefix, stage, str(epoch))))}.pth"

    def checkpoints(self, stage: str = "") -> dict[int, Path]:
        """Return the weights of a stage that lie in the folder, by epoch, ascending."""
        start = "_".join(filter(None, (self.prefix, stage)))
        pattern = re.compile(rf"{re.escape(start)}_(\d+)\.pth")
        found = {int(match[1]): path for path in self.path.glob("*.pth") if (match := pattern.fullmatch(path.name))}
        return dict(sorted(found.items()))


def open_run(folder: Path) -> RunFolder:
    """Return a run folder whose MODEL.NAME its config.yaml tells, or, where there is none, its checkpoints do."""
    names = sorted((match[1] for path in folder.glob("*.pth") if (match := NUMBERED.fullmatch(path.stem))), key=len)
    run = RunFolder(folder, names[0] if names else "")
    try:
        content = yaml.safe_load(run.config.read_text(encoding="utf-8"))
        return run._replace(prefix=str(content["MODEL"]["NAME"]))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return run


def epoch_of(weight: Path) -> int | None:
    """Return the epoch that a checkpoint's name ends with, None where it ends with none."""
    match = NUMBERED.fullmatch(weight.stem)
    return int(match[2]) if match else None


def make_folder(path: str, key: str) -> Path:
    """Create a folder for output, with parents; ConfigError naming `key` when that is not allowed."""
    if not path:
        raise ConfigError(f"{key} is empty; name the folder that takes the results, e.g. {key} logs/my_run")
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write_test_{os.getpid()}"
        probe.write_bytes(bytes(PROBE_BYTES))
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{key} '{path}': cannot write there ({error.strerror}); choose another folder") from error
    return folder


@contextmanager
def locked(run: RunFolder) -> Iterator[int | None]:
    """Keep other processes out of a run folder; yields the pid of a process that left its lock behind, or None.

    Raises ConfigError when the folder is in use.
    """
    try:
        with hold(run.lock) as left:
            yield int(left) if left.isdigit() else None
    except LockHeldError as holder:
        raise ConfigError(
            f"OUTPUT_DIR '{run.path}' is in use by process {holder}; wait for it, stop it, or choose another OUTPUT_DIR"
        ) from holder


class Position(NamedTuple):
    """How far a run has come: what a record may belong to."""

    epoch: int  # last whole one of the stage, 0 = none
    evaluated: int  # last epoch of the stage that was evaluated
    iteration: int  # over all stages
    stage: str = "main"
    stages: tuple[str, ...] = ("main",)  # all of the run's, in order; records name theirs where there are several

    def includes(self, record: dict[str, Any]) -> bool:
        """Return whether the run had come as far as `record`, one of metrics.jsonl."""
        stage, own = stage_of(record, self.stages), self.stages.index(self.stage)
        if stage not in self.stages or self.stages.index(stage) != own:
            return stage in self.stages[:own]
        kind = record["kind"]
        if kind == "reference":
            return self.epoch > 0
        return record["epoch"] <= (self.evaluated if kind in ("eval", "val") else self.epoch)


def stage_of(record: dict[str, Any], stages: Sequence[str]) -> str:
    """Return the stage of a record of metrics.jsonl; one that names none is of a run's only stage."""
    return record.get("stage", stages[-1])


def of_stage(records: Iterable[dict[str, Any]], stages: Sequence[str], stage: str) -> list[dict[str, Any]]:
    """Return those records of metrics.jsonl that are of one of the `stages`."""
    return [record for record in records if stage_of(record, stages) == stage]


class Recorder:
    """Appends records to metrics.jsonl and scalars to TensorBoard, all of the stage where the run stands.

    Opening drops what a killed run recorded after `position`, its last whole epoch and evaluation.
    """

    def __init__(self, run: RunFolder, position: Position) -> None:
        from torch.utils.tensorboard import SummaryWriter

        kept = [record for record in read_metrics(run.metrics) if position.includes(record)]
        several = len(position.stages) > 1
        self._stage = {"stage": position.stage} if several else {}
        self._prefix = f"{position.stage}/" if several and position.stage != position.stages[-1] else ""
        write_text_atomic(run.metrics, "".join(json.dumps(record) + "\n" for record in kept))
        self._stream = open(run.metrics, "a", encoding="utf-8")  # noqa: SIM115 - closed in close()
        self._board = SummaryWriter(str(run.path), purge_step=position.iteration + 1)

    def write(self, kind: str, epoch: int, iteration: int, values: dict[str, float | str]) -> None:
        """Record `values` under a `kind` of RECORD_KINDS; numbers also go to TensorBoard at `iteration`."""
        self._stream.write(
            json.dumps({"kind": kind, **self._stage, "epoch": epoch, "iteration": iteration, **values}) + "\n"
        )
        self._stream.flush()
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._board.add_scalar(f"{self._prefix}{kind}/{name}", value, iteration)

    def close(self) -> None:
        """Flush and close both files."""
        self._stream.close()
        self._board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the whole records of metrics.jsonl, with kind and epoch; any other line (cut short, say) is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and isinstance(record.get("epoch"), int) and record.get("kind") in RECORD_KINDS:
            records.append(record)
    return records
