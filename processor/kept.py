"""The checkpoints that a run keeps: each recorded with what it holds, and none taken for one that it is not."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from processor.provenance import describe_run, read_run
from processor.run import Run
from utils.checkpoint import read_weights, save_weights
from utils.digest import sha256_of
from utils.errors import ConfigError, DataError
from utils.run_folder import EMA, RunFolder
from utils.run_record import RunRecord, new_identity, read_record, write_record

logger = logging.getLogger(__name__)


def begin_record(folder: RunFolder, stages: Sequence[str], state: dict[str, Any] | None, config: str) -> str:
    """Return the identity of the run that begins (`state` None) or goes on in a folder, and have run.json tell it.

    `config` is the resolved configuration in YAML, for run.json. A run that goes on has the identity of its state; one
    of an older version, which had none, gets one here. Where run.json is lost or of another run, the checkpoints that
    say they are of this run and can be read are recorded anew.
    """
    if state is None:
        identity = new_identity()
        write_record(folder, RunRecord(identity, {}, config))
        return identity
    record, own = read_record(folder), state.get("run")
    identity = own if isinstance(own, str) and own else record.run if record else new_identity()
    if record is None or record.run != identity:
        write_record(folder, RunRecord(identity, _adopted(folder, stages, identity), config))
    return identity


def _adopted(folder: RunFolder, stages: Sequence[str], identity: str) -> dict[str, str]:
    found = [(stage, *item) for stage in ("", EMA, *stages[:-1]) for item in folder.checkpoints(stage).items()]
    problems = {path: _what_is_wrong(path, epoch, stage, identity) for stage, epoch, path in found}
    return {path.name: sha256_of(path) for path, problem in problems.items() if problem is None}


def _what_is_wrong(path: Path, epoch: int, stage: str, identity: str) -> str | None:
    """Return why a file is no checkpoint of this epoch and run, None when it is one; all of it is read."""
    try:
        read_weights(path, "checkpoint")
        provenance = read_run(path)
    except (ConfigError, DataError) as error:
        return str(error)
    if provenance is None:
        return "it does not tell of which epoch and run it is"
    if (provenance["epoch"], provenance.get("stage", "")) != (epoch, stage):
        of = f" of stage {provenance['stage']}" if "stage" in provenance else ""
        return f"it is that of epoch {provenance['epoch']}{of}"
    return None if provenance.get("run", identity) == identity else "it is that of another run"


def keep_checkpoint(run: Run, model: nn.Module, stage: str) -> None:
    """Write the weights of the epoch just finished and record what they are; RunError when the disk refuses.

    `stage` is what the name of the file tells: "" for the last one, EMA for averaged weights.
    """
    epoch = run.progress["epoch"]
    path = run.folder.checkpoint(epoch, stage)
    save_weights(model.state_dict(), path, describe_run(run.cfg, epoch, run.data, stage, run.progress["run"]))
    _record(run, path)


def _record(run: Run, path: Path) -> None:
    identity, record = run.progress["run"], read_record(run.folder)
    before = record.checkpoints if record is not None and record.run == identity else {}
    write_record(run.folder, RunRecord(identity, before | {path.name: sha256_of(path)}, run.cfg.dump()))


def heal_checkpoint(run: Run, model: nn.Module, stage: str) -> None:
    """Write the checkpoint of the epoch where a run goes on, unless the file there is just that one.

    Anything else, also a damaged file or another epoch's, is replaced, for the state holds these weights. Arguments as
    in `keep_checkpoint`.
    """
    path = run.folder.checkpoint(run.progress["epoch"], stage)
    if path.is_file():
        record = read_record(run.folder)
        if record is not None and record.checkpoints.get(path.name) == sha256_of(path):
            return
        wrong = _what_is_wrong(path, run.progress["epoch"], stage, run.progress["run"])
        if wrong is None and not _holds(path, model):
            wrong = "it holds other weights than the state"
        if wrong is None:  # the run was killed before it recorded this file
            _record(run, path)
            return
        logger.warning(
            "'%s' is not the checkpoint of epoch %d of this run (%s); it is written anew from '%s'",
            *(path, run.progress["epoch"], wrong, run.folder.state),
        )
    keep_checkpoint(run, model, stage)


def _holds(path: Path, model: nn.Module) -> bool:
    """Return whether a checkpoint holds the weights of the model, bit for bit."""
    weights, own = read_weights(path, "checkpoint"), model.state_dict()
    return weights.keys() == own.keys() and all(torch.equal(weights[name], own[name].cpu()) for name in own)
