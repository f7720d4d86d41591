"""The folder of one run: every file name in it, locked for one process, and its metrics recorded."""

import json
import logging
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from utils.atomic import is_full, write_text_atomic, writing
from utils.board import Board
from utils.checksum import sealed, unsealed
from utils.errors import ConfigError, RunError
from utils.file_lock import locked as lock_file
from utils.paths import user_path, what_is_at
from utils.test_folder import EPOCH
from utils.yaml_text import plain_tree

EVALUATED = ("eval", "val", "ema")
# val: on the held-out identities; trains, fit: what a stage trains, and has reached before epoch 1 and by epoch;
# ema: what eval or val is, of the averaged weights
RECORD_KINDS = ("phase", "train", *EVALUATED, "reference", "trains", "fit")
HELD_OUT = "held_out"
EMA = "ema"  # stands where an earlier stage's name does, in names of files and in what they tell of themselves
PROBE_BYTES = 4096
NUMBERED = re.compile(rf"(.+)_{EPOCH}")  # the stem of a checkpoint

logger = logging.getLogger(__name__)


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

    @property
    def tracking(self) -> Path:
        """How far other places have been sent the figures, see `processor.tracking`."""
        return self.path / "tracking.json"

    @property
    def record(self) -> Path:
        """The identity of the run and its checkpoints, see `utils.run_record`."""
        return self.path / "run.json"

    def checkpoint(self, epoch: int, stage: str = "") -> Path:
        """Return the weights of a stage's epoch; "" is the last stage, whose files carry no stage in their names."""
        return self.path / f"{'_'.join(filter(None, (self.prefix, stage, str(epoch))))}.pth"

    def ema(self, epoch: int) -> Path:
        """Return the averaged weights of an epoch of the last stage."""
        return self.checkpoint(epoch, EMA)

    def held_out(self, epoch: int) -> Path:
        """Return what each held-out query reached at an epoch, see `utils.test_folder.read_table`."""
        return self.path / f"{HELD_OUT}_{epoch}.npz"

    def checkpoints(self, stage: str = "") -> dict[int, Path]:
        """Return the weights of a stage that lie in the folder, by epoch, ascending."""
        start = "_".join(filter(None, (self.prefix, stage)))
        pattern = re.compile(rf"{re.escape(start)}_{EPOCH}\.pth")
        found = {int(match[1]): path for path in self.path.glob("*.pth") if (match := pattern.fullmatch(path.name))}
        return dict(sorted(found.items()))


def open_run(folder: Path) -> RunFolder:
    """Return a run folder whose MODEL.NAME its config.yaml tells, or, where there is none, its checkpoints do."""
    names = sorted((match[1] for path in folder.glob("*.pth") if (match := NUMBERED.fullmatch(path.stem))), key=len)
    run = RunFolder(folder, names[0] if names else "")
    try:
        content = plain_tree(run.config.read_text(encoding="utf-8", errors="replace"))
        return run._replace(prefix=str(content["MODEL"]["NAME"]))
    except (OSError, KeyError, TypeError):
        return run


def epoch_of(weight: Path) -> int | None:
    """Return the epoch that a checkpoint's name ends with, None where it ends with none."""
    match = NUMBERED.fullmatch(weight.stem)
    return int(match[2]) if match else None


def make_folder(path: str, key: str) -> Path:
    """Create a folder for output, with parents.

    Raises ConfigError naming `key` when that is not allowed, RunError when the disk is full.
    """
    if not path:
        raise ConfigError(f"{key} is empty; name the folder that takes the results, e.g. {key} logs/my_run")
    folder = user_path(path, key)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{key} '{path}' is {what_is_at(folder) or 'a file'}, not a folder; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write_test_{os.getpid()}"
        try:
            probe.write_bytes(bytes(PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        kind, way_out = (RunError, "make room, or choose") if is_full(error) else (ConfigError, "choose")
        raise kind(f"{key} '{path}': cannot write there ({error.strerror}); {way_out} another folder") from error
    return folder


def check_files(run: RunFolder) -> None:
    """Raise ConfigError where something else than a file stands in the place of one of a run's files."""
    files = (run.config, run.environment, run.log, run.metrics, run.state, run.lock, run.record, run.tracking)
    check_places((*files, *sorted(run.path.glob("*.pth"))), "run")


def make_place(path: str, flag: str) -> Path:
    """Return the path of a file to write whose folder exists; ConfigError naming `flag` where no file can stand."""
    place = Path(path)
    make_folder(str(place.parent), flag)
    kind = what_is_at(place) if place.exists() else ""
    if kind:
        raise ConfigError(f"{flag} '{path}' is {kind}; name the file to write")
    return place


def check_places(files: Iterable[Path], owner: str) -> None:
    """Raise ConfigError where something else than a file stands in the place of one of the owner's files."""
    for path in files:
        kind = what_is_at(path) if path.exists() else ""
        if kind:
            raise ConfigError(f"'{path}' is {kind}, and belongs to a file of the {owner}; move it away")


def locked(run: RunFolder) -> AbstractContextManager[int | None]:
    """Keep other processes out of a run folder; gives the pid of a process that was killed in there, or None.

    Raises ConfigError when the folder is in use, and where the lock cannot be written.
    """
    return lock_file(run.lock, f"OUTPUT_DIR '{run.path}'")


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
        if kind == "reference" or record["epoch"] == 0:
            return self.epoch > 0
        return record["epoch"] <= (self.evaluated if kind in EVALUATED else self.epoch)


def stage_of(record: dict[str, Any], stages: Sequence[str]) -> str:
    """Return the stage of a record of metrics.jsonl; one that names none is of a run's only stage."""
    return record.get("stage", stages[-1])


def of_stage(records: Iterable[dict[str, Any]], stages: Sequence[str], stage: str) -> list[dict[str, Any]]:
    """Return the records of metrics.jsonl that are of `stage`, one of the run's `stages`."""
    return [record for record in records if stage_of(record, stages) == stage]


class Recorder:
    """Appends records to metrics.jsonl and scalars to TensorBoard, all of the stage where the run stands.

    Opening drops what a killed run recorded after `position`, its last whole epoch and evaluation. The records are
    results: RunError where the disk refuses one, and the same command repeats the epoch. TensorBoard is a comfort,
    and left out without `curves`.
    """

    def __init__(self, run: RunFolder, position: Position, curves: bool = True) -> None:
        kept = [record for record in read_metrics(run.metrics) if position.includes(record)]
        several = len(position.stages) > 1
        self._stage = {"stage": position.stage} if several else {}
        self._prefix = f"{position.stage}/" if several and position.stage != position.stages[-1] else ""
        write_text_atomic(run.metrics, "".join(f"{sealed(record)}\n" for record in kept))
        self._file = run.metrics
        with writing(self._file):
            self._stream = open(self._file, "a", encoding="utf-8")  # noqa: SIM115 - closed in close()
        self._board = Board(run.path, position.iteration + 1) if curves else None

    def write(self, kind: str, epoch: int, iteration: int, values: dict[str, float | str]) -> None:
        """Record `values` under a `kind` of RECORD_KINDS; numbers also go to TensorBoard at `iteration`."""
        record = {"kind": kind, **self._stage, "epoch": epoch, "iteration": iteration, **values}
        with writing(self._file):
            self._stream.write(f"{sealed(record)}\n")
            self._stream.flush()
        numbers = {name: value for name, value in values.items() if isinstance(value, (int, float))}
        if self._board is not None:
            self._board.add({f"{self._prefix}{kind}/{name}": value for name, value in numbers.items()}, iteration)

    def close(self) -> None:
        """Close both files."""
        with suppress(OSError):  # of a record that was refused, which `write` told
            self._stream.close()
        if self._board is not None:
            self._board.close()


def read_environment(path: Path) -> dict[str, Any]:
    """Return what env.json of a run says; {} where it is absent or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError):  # brackets too deep in brackets
        return {}
    return content if isinstance(content, dict) else {}


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the whole records of metrics.jsonl, with kind and epoch, without checksums; other lines are left out.

    A last line that a kill cut short is nothing to speak of; of any other damage a warning tells.
    """
    if not path.is_file():
        return []
    records = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        record = _record_of(line.rstrip("\n"))
        if record is not None:
            records.append(record)
        elif line.endswith("\n"):
            logger.warning("%s:%d: a damaged record is left out", path, number)
    return records


def _record_of(line: str) -> dict[str, Any] | None:
    """Return the record of a line; None for a damaged one, or one that is none."""
    try:
        record = unsealed(line)
    except ValueError:
        return None
    return record if type(record.get("epoch")) is int and record.get("kind") in RECORD_KINDS else None
