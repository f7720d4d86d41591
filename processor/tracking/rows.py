"""From the lines of metrics.jsonl to one row of figures for each epoch; pure."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from utils.run_folder import stage_of

FIRST = 0  # step of what was measured before training
PLACES = ("kind", "stage", "epoch", "iteration")  # of a record: where it belongs, no figures


class Row(NamedTuple):
    """The figures of one epoch by name, e.g. train/loss; `step` counts the epochs of all stages, from 1."""

    step: int
    values: dict[str, float]


def epoch_rows(records: Iterable[Mapping[str, Any]], stages: Mapping[str, int]) -> list[Row]:
    """Return the rows of a run's records, by step; readings of an epoch's training are means over its log lines.

    `stages` are the epochs of each stage, in order. Names of an earlier stage begin with it. What was measured before
    epoch 1 has the step FIRST; in later stages, where the step is taken, it is left out.
    """
    names, offsets, done = list(stages), {}, 0
    for name, epochs in stages.items():
        offsets[name], done = done, done + epochs
    found: dict[int, dict[str, list[float]]] = {}
    for record in records:
        stage = stage_of(record, names)
        if stage not in offsets or (record["epoch"] == 0 and offsets[stage]):
            continue
        start = "" if stage == names[-1] else f"{stage}/"
        kind = f"{record['kind']}/{record['name']}" if record["kind"] == "reference" else record["kind"]
        row = found.setdefault(record["epoch"] + offsets[stage], {})
        for name, value in record.items():
            if name not in PLACES and isinstance(value, (int, float)) and not isinstance(value, bool):
                row.setdefault(f"{start}{kind}/{name}", []).append(value)
    rows = []
    for step, columns in sorted(found.items()):
        # of what is recorded once an epoch the last line counts: the first may be of a killed run
        values = {name: sum(v) / len(v) if "train/" in name else v[-1] for name, v in columns.items()}
        rows.append(Row(step, values))
    return rows
