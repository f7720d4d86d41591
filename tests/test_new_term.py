"""A term that nobody knew: its title and its weight, and its loss, are all that it takes to be seen everywhere."""

from pathlib import Path

import pytest
import torch
from yacs.config import CfgNode

import train
from configs import load_cfg, loss_weights, phases
from losses import transreid
from losses.criterion import Term
from model import ModelOutput
from solver.preview import schedule_table
from tests.commands import args_for
from tools.report import figures
from tools.study.ablation import describe_plan
from utils.run_folder import read_metrics

WEIGHT = 0.25


def length(output: ModelOutput, batch: dict, phase: phases.Phase) -> dict[str, torch.Tensor]:
    """Return the new term: the mean square of the global features."""
    return {"length": output.pre_bn[0].square().mean()}


@pytest.fixture
def new_term(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give TransReID the term `length`, as one line each of configs/ and losses/transreid.py would."""
    weights, terms = loss_weights.WEIGHTS["transformer"], transreid.make_terms

    def weights_with_length(cfg: CfgNode, epoch: int, stage: str) -> dict[str, float]:
        return weights(cfg, epoch, stage) | {"length": WEIGHT * epoch}

    def terms_with_length(cfg: CfgNode, num_classes: int, feat_dim: int) -> dict[str, Term]:
        return terms(cfg, num_classes, feat_dim) | {"length": length}

    monkeypatch.setitem(phases.TITLES, "length", "Length")
    monkeypatch.setitem(loss_weights.WEIGHTS, "transformer", weights_with_length)
    monkeypatch.setattr(transreid, "make_terms", terms_with_length)


def test_a_new_term_stands_in_preview_log_records_ablation_table_and_report(
    new_term: None, tiny_config: Path, run_dir: Path
):
    args = args_for(tiny_config, "SOLVER.MAX_EPOCHS", 2)
    assert train.main(args) == 0
    cfg = load_cfg(str(tiny_config), ["SOLVER.MAX_EPOCHS", "2"])
    log, records = (run_dir / "train_log.txt").read_text(), read_metrics(run_dir / "metrics.jsonl")
    assert f"Length {WEIGHT}->{2 * WEIGHT}" in schedule_table(cfg)
    assert f"Length {WEIGHT}" in log and ", length: " in log
    trained = [record for record in records if record["kind"] == "train"]
    assert {record["epoch"] for record in trained} == {1, 2}
    for record in trained:
        parts = record["id"] + record["triplet"] + WEIGHT * record["epoch"] * record["length"]
        assert record["length"] > 0 and record["loss"] == pytest.approx(parts, rel=1e-4)
    assert [one["weight_length"] for one in records if one["kind"] == "phase"] == [WEIGHT, 2 * WEIGHT]
    assert describe_plan(phases.PhasePlan(cfg), 5)["losses"] == "CE+Triplet+Length"
    assert "Length" in figures.training({0: records})
