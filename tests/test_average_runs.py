"""Training with SOLVER.EMA for real: the weights that are trained, the averaged ones, and their figures."""

import json
from pathlib import Path

import pytest
import torch

import test as tester
import train
from processor.provenance import read_run
from tests.commands import args_for
from utils.checkpoint import read_weights
from utils.run_folder import RunFolder, read_metrics
from utils.run_record import read_record


@pytest.fixture(scope="module")
def averaged(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The folder of `trained_run`'s training with averaged weights beside it."""
    folder = tmp_path_factory.mktemp("averaged") / "run"
    config = trained_run.parent / "tiny.yml"
    opts = ("SOLVER.MAX_EPOCHS", 2, "SOLVER.EVAL_PERIOD", 1, "SOLVER.EMA", 0.9)
    assert train.main(args_for(config, *opts, "OUTPUT_DIR", folder)) == 0
    return RunFolder(folder, "transformer")


def test_the_weights_that_are_trained_are_those_of_a_training_without(trained_run, averaged):
    plain = RunFolder(trained_run, "transformer")
    assert [*averaged.checkpoints()] == [*plain.checkpoints()] == [1, 2]
    for epoch, path in averaged.checkpoints().items():
        one, two = read_weights(path, "test"), read_weights(plain.checkpoint(epoch), "test")
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_averaged_weights_are_kept_in_files_of_their_own_that_the_run_records(averaged):
    record = read_record(averaged)
    for epoch in (1, 2):
        path = averaged.ema(epoch)
        told = read_run(path)
        assert (told["stage"], told["epoch"], told["run"]) == ("ema", epoch, record.run)
        assert path.name in record.checkpoints
        kept, trained = read_weights(path, "test"), read_weights(averaged.checkpoint(epoch), "test")
        assert kept.keys() == trained.keys()
        assert any(not torch.equal(kept[name], trained[name]) for name in kept)


def test_they_are_evaluated_beside_the_others_and_a_test_of_their_file_says_the_same(averaged, tmp_path, capsys):
    records = read_metrics(averaged.metrics)
    by_kind = {kind: [record for record in records if record["kind"] == kind] for kind in ("eval", "ema")}
    assert [record["epoch"] for record in by_kind["ema"]] == [record["epoch"] for record in by_kind["eval"]] == [1, 2]
    assert "Validation Results of the averaged weights - Epoch: 2" in averaged.log.read_text()
    words = args_for(averaged.config, "TEST.WEIGHT", averaged.ema(2), "OUTPUT_DIR", tmp_path / "test")
    assert tester.main(words) == 0
    result = json.loads((tmp_path / "test" / "summary.json").read_text())
    assert result["mAP"] == pytest.approx(by_kind["ema"][-1]["mAP"], abs=1e-12) and result["stage"] == "ema"
