"""What a run folder knows of itself: the identity of its run, and what the run wrote into each checkpoint."""

import json
import os
from typing import NamedTuple

from utils.atomic import write_text_atomic
from utils.run_folder import RunFolder

RECORD_SCHEMA = 1  # of run.json


class RunRecord(NamedTuple):
    """The content of run.json. A new run in the same folder has another identity and no checkpoints."""

    run: str  # hexadecimal digits, drawn when the run began
    checkpoints: dict[str, str]  # SHA-256 by file name; one whose file was deleted stays
    config: str = ""  # the resolved configuration in YAML; a run of an older version has none


def new_identity() -> str:
    """Return an identity that no other run has; the random generators of training are not touched."""
    return os.urandom(16).hex()


def read_record(run: RunFolder) -> RunRecord | None:
    """Return the record of a run folder; None where it is absent (an older version's run) or damaged."""
    try:
        content = json.loads(run.record.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("schema") != RECORD_SCHEMA:
        return None
    identity, checkpoints, config = content.get("run"), content.get("checkpoints"), content.get("config", "")
    if not isinstance(identity, str) or not identity or not isinstance(config, str):
        return None
    if not isinstance(checkpoints, dict) or not all(isinstance(digest, str) for digest in checkpoints.values()):
        return None
    return RunRecord(identity, checkpoints, config)


def write_record(run: RunFolder, record: RunRecord) -> None:
    """Replace run.json whole."""
    write_text_atomic(run.record, json.dumps({"schema": RECORD_SCHEMA, **record._asdict()}, indent=2) + "\n")
