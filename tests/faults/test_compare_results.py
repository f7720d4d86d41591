"""tools.compare never compares what is damaged, of another epoch than asked for, or of another run than its folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.commands import run
from tests.faults.mistakes import refusal
from tests.reference.slow_statistics import table_of
from tools import compare
from utils.run_folder import RunFolder
from utils.run_record import RunRecord, write_record
from utils.test_folder import METRICS

SHA = {5: "5a" * 32, 10: "10" * 32}


def write_test(folder: Path, epoch: int, **more: object) -> None:
    folder.mkdir(parents=True)
    np.savez(folder / "per_query.npz", **table_of(np.linspace(0.2, 0.9, 40), np.repeat(np.arange(20), 2)))
    content = dict.fromkeys(METRICS, 0.5) | {"epoch": epoch, "run": "0f", "weight_sha256": SHA[epoch], **more}
    (folder / "summary.json").write_text(json.dumps(content))


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Two experiments of one seed with epochs 5 and 10, the first with its run folder."""
    for name in "ab":
        for epoch in SHA:
            write_test(tmp_path / f"{name}_seed0_test" / f"epoch_{epoch}", epoch)
    (tmp_path / "a_seed0_run").mkdir()
    record = RunRecord("0f", {f"transformer_{epoch}.pth": digest for epoch, digest in SHA.items()})
    write_record(RunFolder(tmp_path / "a_seed0_run", "transformer"), record)
    return tmp_path


def test_whole_results_of_their_run_are_compared(logs):
    assert run(compare.main, logs / "a", logs / "b", "--epoch", 5) == 0
    assert run(compare.main, logs / "a_seed0_test" / "epoch_5", logs / "b", "--epoch", 5) == 0


def test_epochs_that_are_not_there_are_refused(logs, capsys, tally):
    one = logs / "a_seed0_test" / "epoch_5"
    shutil.rmtree(logs / "b_seed0_test" / "epoch_5")
    shutil.copytree(one, logs / "by_hand")
    rows = ((logs / "a", logs / "b", 7), (logs / "a", logs / "b", 5), (one, logs / "b", 10), (one, logs / "a", 7))
    rows += ((logs / "by_hand", logs / "a", 10), (logs / "b", one, 10), (logs / "a", logs / "b", -1))
    errors = [refusal(compare.main, *words, "--epoch", epoch, capsys=capsys) for *words, epoch in rows]
    tally("damaged results: epochs", len(rows), len(errors))
    assert all("epoch" in error for error in errors)


def change(folder: Path, **more: object) -> None:
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "another run": lambda folder: change(folder, run="ee"),
    "another checkpoint": lambda folder: change(folder, weight_sha256=SHA[5]),
    "no checkpoint": lambda folder: change(folder, weight_sha256=None),
    "another epoch's result": lambda folder: change(folder, epoch=5),
    "another test's queries": lambda folder: change(folder, files={"per_query.npz": "00" * 32}),
    "settings of no kind": lambda folder: change(folder, settings=["TEST.FLIP"]),
    "summary cut": lambda folder: (folder / "summary.json").write_text('{"mAP": 0.'),
    "summary nested": lambda folder: (folder / "summary.json").write_text("[" * 100_000),
    "no summary": lambda folder: (folder / "summary.json").unlink(),
    "queries cut": lambda folder: (folder / "per_query.npz").write_bytes(b"PK\x03\x04"),
    "queries of one array": lambda folder: np.save(open(folder / "per_query.npz", "wb"), np.zeros(3)),  # noqa: SIM115
    "queries without APs": lambda folder: np.savez(folder / "per_query.npz", pid=np.zeros(3)),
    "queries of words": lambda folder: np.savez(
        folder / "per_query.npz", **(table_of([0.5], [1]) | {"ap": np.array(["x"])})
    ),
    "unequal columns": lambda folder: np.savez(
        folder / "per_query.npz", **(table_of([0.5], [1]) | {"ap": np.zeros(2)})
    ),
    "a folder": lambda folder: ((folder / "per_query.npz").unlink(), (folder / "per_query.npz").mkdir()),
}


def test_what_is_damaged_or_of_another_run_is_one_error(logs, capsys, tally):
    held = []
    whole = logs / "a_seed0_test" / "epoch_10"
    shutil.copytree(whole, logs / "kept")
    for damage in DAMAGES.values():
        damage(whole)
        held.append(str(whole) in refusal(compare.main, logs / "a", logs / "b", capsys=capsys))
        shutil.rmtree(whole)
        shutil.copytree(logs / "kept", whole)
    tally("damaged results: files of a test", len(held), sum(held))
    assert all(held) and run(compare.main, logs / "a", logs / "b") == 0
