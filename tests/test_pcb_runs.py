"""Whole runs of part branches with draws, transformed features and a margin that warms up."""

from pathlib import Path

import pytest
import torch

import train
from configs import load_cfg
from solver.preview import schedule_table
from tests.commands import args_for
from utils.run_folder import read_metrics

RECIPE = """
MODEL:
  NAME: pcb
  PCB: {{TRUNK: tiny, PARTS: 2, PART_DIM: 6, GLOBAL_DIM: 8}}
  PRETRAIN_CHOICE: none
  ID_LOSS_TYPE: amsoftmax
  DEVICE: cpu
LOSS:
  BRANCHES: {{DRAWS: 2}}
  TRIPLET: {{BRANCHES: global+concat, FEAT_SRC: bnneck}}
  SPECTRAL: {{W: 0.5, START_EPOCH: 2}}
INPUT: {{SIZE_TRAIN: [32, 32], SIZE_TEST: [32, 32], PADDING: 2}}
DATASETS: {{NAMES: veri, ROOT_DIR: {root}}}
DATALOADER: {{SAMPLER: softmax_triplet, NUM_INSTANCE: 4, NUM_WORKERS: 0}}
SOLVER:
  SCHEDULER: multistep
  COSINE_MARGIN_WARMUP: 2
  WARMUP_EPOCHS: 0
  IMS_PER_BATCH: 16
  CHECKPOINT_PERIOD: 1
  EVAL_PERIOD: 0
  LOG_PERIOD: 1
  AMP: 'off'
TEST: {{AMP: 'off'}}
OUTPUT_DIR: {output}
"""


def trained(folder: Path, root: Path, *last_epochs: int) -> Path:
    """Train to each of the epochs in turn, and return the run's folder."""
    folder.mkdir()
    config = folder / "pcb.yml"
    config.write_text(RECIPE.format(root=root, output=folder / "run"))
    for epoch in last_epochs:
        assert train.main(args_for(config, "SOLVER.MAX_EPOCHS", epoch)) == 0
        torch.manual_seed(17)  # what lies between two starts does not matter
    return folder / "run"


@pytest.fixture(scope="module")
def whole(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs without a break."""
    return trained(tmp_path_factory.mktemp("whole") / "a", tiny_root, 3)


def losses_of(folder: Path) -> list[tuple]:
    records = [record for record in read_metrics(folder / "metrics.jsonl") if record["kind"] == "train"]
    return [(record["iteration"], record["id"], record["triplet"], record.get("spectral")) for record in records]


def test_a_run_that_goes_on_draws_and_learns_bit_by_bit_what_an_unbroken_one_does(whole, tiny_root, tmp_path):
    resumed = trained(tmp_path / "b", tiny_root, 1, 3)
    assert losses_of(resumed) == losses_of(whole)
    for epoch in (1, 2, 3):
        one, two = (torch.load(folder / f"pcb_{epoch}.pth", weights_only=True) for folder in (whole, resumed))
        assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_records_log_and_preview_name_the_transformed_features(whole):
    records = read_metrics(whole / "metrics.jsonl")
    steps = [record for record in records if record["kind"] == "train"]
    assert {record["epoch"] for record in steps if "spectral" in record} == {2, 3}
    assert all(0 <= record["mean_acc"] <= 1 and "acc" not in record for record in steps)
    assert [record["weight_spectral"] for record in records if record["kind"] == "phase"] == [0, 0.5, 0.5]
    log = (whole / "train_log.txt").read_text()
    assert "Acc: " in log and "Spectral 0.5" in log and ", spectral: " in log
    table = schedule_table(load_cfg(whole.parent / "pcb.yml", ["SOLVER.MAX_EPOCHS", 3]))
    assert "Spectral 0.5" in table
