"""The launcher trains, tests and reports CLIP-ReID's two stages; its --epochs are those of the last one."""

import json
from pathlib import Path

import pytest

import run_phased_loss
from tests.clip_reid_runs import STEPS1, STEPS2, records, write_yaml
from utils.checkpoint import read_provenance
from utils.test_folder import TestFolder, read_result


@pytest.mark.slow
def test_the_launcher_runs_both_stages_and_its_tables_name_their_losses(tiny_root: Path, tmp_path: Path, capfd):
    config, logs = write_yaml(tmp_path, tiny_root), tmp_path / "logs"
    flags = ["--seeds", "0", "--epochs", "1", "--save-every", "1", "--output-root", str(logs), "--tag", "two"]
    assert run_phased_loss.main(["--config", str(config), *flags]) == 0
    assert "CE+Triplet+I2T" in capfd.readouterr().out
    run = logs / "veri776_two_seed0_run"
    names = {"clip_reid_stage1_1.pth", "clip_reid_stage1_2.pth", "clip_reid_1.pth", "state_last.pth"}
    assert {path.name for path in run.glob("*.pth")} == names
    trained = [(record["stage"], record["epoch"]) for record in records(run, "train")]
    assert trained == [("stage1", epoch) for epoch in (1, 2) for _ in range(STEPS1)] + [("stage2", 1)] * STEPS2
    told = {name: read_provenance(run / name) for name in names - {"state_last.pth"}}
    assert {name: one.get("stage", "") for name, one in told.items()} == {
        name: "stage1" if "stage1" in name else "" for name in told
    }
    result = read_result(TestFolder(logs / "veri776_two_seed0_test" / "epoch_1"))
    assert result is not None and result["epoch"] == 1
    assert json.loads((logs / "veri776_two_summary.json").read_text())
    assert "stage1: I2T+T2I; stage2: CE+Triplet+I2T" in (logs / "veri776_two_summary.md").read_text()
    page = (logs / "veri776_two_report.html").read_text()
    assert all(word in page for word in ("Stage 1 of 2: stage1", "Stage 2 of 2: stage2", "I2T", "T2I"))
