"""train.py for real on a tiny archive: the run folder, killing and continuing, several processes."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml

import train
from processor.step.clock import READINGS
from tests.commands import KILLED_AT_A_STEP, args_for
from tests.conftest import write_tiny_veri
from utils.checkpoint import load_file
from utils.errors import ConfigError, DataError, RunError
from utils.run_folder import read_metrics

ROOT = Path(__file__).parents[1]


def weights_of(folder: Path, epoch: int = 3) -> dict[str, torch.Tensor]:
    return load_file(folder / f"transformer_{epoch}.pth", "test")


def assert_equal_weights(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


def test_a_run_leaves_a_complete_folder(tiny_config, run_dir, capsys):
    assert train.main(args_for(tiny_config, "SOLVER.EVAL_PERIOD", 2, "TEST.REFERENCE", True)) == 0
    names = {path.name for path in run_dir.iterdir()}
    assert {"config.yaml", "env.json", "train_log.txt", "metrics.jsonl", "state_last.pth"} <= names
    assert {f"transformer_{epoch}.pth" for epoch in (1, 2, 3)} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["SOLVER"]["MAX_EPOCHS"] == 3
    environment = json.loads((run_dir / "env.json").read_text())
    assert environment["torch"] == torch.__version__ and len(environment["data_fingerprint"]) == 16
    records = read_metrics(run_dir / "metrics.jsonl")
    assert [r["name"] for r in records if r["kind"] == "reference"] == ["raw_pixels", "untrained"]
    assert [r["epoch"] for r in records if r["kind"] == "eval"] == [2, 3]
    assert {r["epoch"] for r in records if r["kind"] == "train"} == {1, 2, 3}
    log = (run_dir / "train_log.txt").read_text()
    assert "Epoch[3] Iteration[" in log and "Validation Results - Epoch: 2" in log and "mAP: " in log
    assert "data sets" in log and "configuration" in log
    state = load_file(run_dir / "state_last.pth", "test")
    assert state["epoch"] == 3 and set(state["best"]) == {"epoch", "mAP", "Rank-1"}


def test_a_run_learns_more_than_it_knew(tiny_config, run_dir):
    train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 15, "SOLVER.BASE_LR", 0.01, "INPUT.RE_PROB", 0))
    records = [r for r in read_metrics(run_dir / "metrics.jsonl") if r["kind"] == "train"]
    assert records[-1]["loss"] < 0.8 * records[0]["loss"]
    assert records[-1]["acc"] > 0.5 > 1.5 * records[0]["acc"]


@pytest.mark.parametrize(
    "opts",
    [
        ["MODEL.ID_LOSS_TYPE", "arcface"],
        ["MODEL.ID_LOSS_TYPE", "circle", "MODEL.JPM", "False", "MODEL.IF_LABELSMOOTH", "on"],
        ["DATALOADER.SAMPLER", "softmax", "SOLVER.OPTIMIZER_NAME", "SGD", "SOLVER.SCHEDULER", "multistep"],
        ["DATALOADER.SAMPLER", "triplet", "MODEL.NO_MARGIN", "False", "LOSS.TRIPLET.HARD_FACTOR", "0.1"],
        ["SOLVER.AMP", "bf16", "SOLVER.GRAD_CLIP", "1.0", "MODEL.METRIC_LOSS_TYPE", "triplet_center"],
        ["DATALOADER.NUM_WORKERS", "2", "TEST.NECK_FEAT", "after", "TEST.RE_RANKING", "True"],
        [
            *("MODEL.NAME", "resnet50", "MODEL.JPM", "False", "MODEL.SIE_CAMERA", "False", "MODEL.SIE_VIEW", "False"),
            *("SOLVER.EVAL_PERIOD", "1", "MODEL.NECK", "no"),
        ],
        ["MODEL.TRANSFORMER_TYPE", "timm/vit_tiny_patch16_224", "MODEL.VIT.MLP_RATIO", "2"],
    ],
)
def test_every_kind_of_experiment_trains(tiny_config, run_dir, opts):
    assert train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 1, *opts)) == 0
    losses = [record["loss"] for record in read_metrics(run_dir / "metrics.jsonl") if record["kind"] == "train"]
    assert losses and all(loss > 0 for loss in losses)
    assert list(run_dir.glob("*_1.pth"))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny_config, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train.main(args_for(tiny_config, "OUTPUT_DIR", tmp_path / name, "SOLVER.SEED", seed))
    assert_equal_weights(weights_of(tmp_path / "a"), weights_of(tmp_path / "b"))
    one, other = (weights_of(tmp_path / name)["base.pos_embed"] for name in "ac")
    assert not torch.equal(one, other)


MODEL_B = (
    *("LOSS.SUPCON.ENABLE", True, "LOSS.TRIPLETX.ENABLE", True, "LOSS.BRIGHTNESS.ENABLE", True),
    *("LOSS.PHASED.ENABLE", True, "LOSS.PHASED.BOUNDARIES", [2], "LOSS.PHASED.METRIC_SEQ", ["triplet", "tripletx"]),
    *("DATALOADER.PHASED.ENABLE", True, "DATALOADER.PHASED.K_WHEN_TRIPLETX", 4),
    *("DATALOADER.PHASED.K_WHEN_SUPCON", 2, "DATALOADER.NUM_WORKERS", 1),
)
SELF_SUPERVISED = (
    *("MODEL.TRAINING_MODE", "self_supervised", "DATALOADER.SAMPLER", "random", "LOSS.SUPCON.ENABLE", True),
    *("MODEL.JPM", False),
)


@pytest.mark.parametrize(
    "extra",
    [
        (),
        ("MODEL.IF_WITH_CENTER", "yes", "SOLVER.ACCUM_STEPS", 2, "MODEL.DROP_OUT", 0.1, "SOLVER.EMA", 0.9),
        pytest.param(MODEL_B, marks=pytest.mark.slow),
        pytest.param(SELF_SUPERVISED, marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_in_mid_epoch_continues_to_the_very_same_weights(tiny_config, tmp_path, run_dir, extra):
    unbroken = tmp_path / "unbroken"
    train.main(args_for(tiny_config, "OUTPUT_DIR", unbroken, *extra))
    steps_per_epoch = sum(r["kind"] == "train" for r in read_metrics(unbroken / "metrics.jsonl")) and _steps(
        unbroken, extra
    )
    kill_at = steps_per_epoch + max(1, steps_per_epoch // 2)  # in the middle of epoch 2
    command = [sys.executable, "-c", KILLED_AT_A_STEP.format(before=""), str(kill_at), *args_for(tiny_config, *extra)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert load_file(run_dir / "state_last.pth", "test")["epoch"] == 1
    assert not (run_dir / "transformer_3.pth").exists()
    train.main(args_for(tiny_config, *extra))
    assert_equal_weights(weights_of(unbroken), weights_of(run_dir))
    if "SOLVER.EMA" in extra:
        assert_equal_weights(*(load_file(folder / "transformer_ema_3.pth", "test") for folder in (unbroken, run_dir)))
    assert _timeless(read_metrics(run_dir / "metrics.jsonl")) == _timeless(read_metrics(unbroken / "metrics.jsonl"))
    assert "taking over the lock" in (run_dir / "train_log.txt").read_text()


def _steps(folder: Path, extra: Sequence[object]) -> int:
    """Return the optimizer steps of an epoch, from the iterations that the log counts."""
    iterations = max(r["iteration"] for r in read_metrics(folder / "metrics.jsonl") if r["epoch"] == 1)
    return -(-iterations // 2) if "SOLVER.ACCUM_STEPS" in extra else iterations


def test_the_log_and_the_records_say_how_fast_it_goes_and_what_holds_it_up(tiny_config, run_dir, monkeypatch):
    monkeypatch.setattr("processor.step.speed.MAX_DATA_SHARE", 0.0)
    monkeypatch.setattr("processor.step.speed.JUDGED_STEPS", 1)
    train.main(args_for(tiny_config, "SOLVER.PEAK_TFLOPS", 0.05, "SOLVER.MAX_EPOCHS", 2))
    log = (run_dir / "train_log.txt").read_text()
    speed = r"data \d+\.\d{3} s, step \d+\.\d{3} s, \d+ images/s, MFU \d+\.\d %, [\d,]+ MiB"
    assert len(re.findall(rf"Epoch\[\d\] Iteration\[\d+/\d+\] Loss: .*, {speed}\n", log)) >= 2
    assert len(re.findall(rf"Epoch \d done in .* s \({speed}\), about", log)) == 2
    assert len(re.findall(r"WARNING: loading the images takes \d+ % of the time", log)) == 1
    assert "raise DATALOADER.NUM_WORKERS (0 now, this machine has" in log
    records = [record for record in read_metrics(run_dir / "metrics.jsonl") if record["kind"] == "train"]
    for record in records:
        assert record.keys() >= set(READINGS)
        assert record["data_share"] == pytest.approx(record["data_time"] / record["step_time"])
    work = re.search(r"a training step takes (\S+) GFLOP an image; MFU is relative to 0.05 TFLOP/s", log)
    expected = records[-1]["images_per_s"] * float(work[1]) * 1e9 / 0.05e12
    assert records[-1]["mfu"] == pytest.approx(expected, rel=1e-3)


def _timeless(records: list[dict]) -> list[dict]:
    return [{key: value for key, value in record.items() if key not in READINGS} for record in records]


def test_a_finished_run_has_nothing_to_do_and_a_larger_max_epochs_goes_on(tiny_config, run_dir):
    train.main(args_for(tiny_config))
    before = (run_dir / "transformer_3.pth").stat().st_mtime_ns
    train.main(args_for(tiny_config))
    assert (run_dir / "transformer_3.pth").stat().st_mtime_ns == before
    assert "nothing to do" in (run_dir / "train_log.txt").read_text()
    train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 4, "SOLVER.LOG_PERIOD", 1, "MODEL.PRETRAIN_CHOICE", "resume"))
    assert (run_dir / "transformer_4.pth").exists()
    assert {r["epoch"] for r in read_metrics(run_dir / "metrics.jsonl")} == {1, 2, 3, 4}


def test_growing_max_epochs_says_that_the_schedule_moves(tiny_config, run_dir):
    train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 1))
    assert "SOLVER.MAX_EPOCHS 1 ->" not in (run_dir / "train_log.txt").read_text()
    train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 2))
    assert "SOLVER.MAX_EPOCHS 1 -> 2: the cosine learning rate" in (run_dir / "train_log.txt").read_text()


def test_a_run_stopped_before_its_first_checkpoint_is_written_goes_on(tiny_config, tmp_path, run_dir, monkeypatch):
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    train.main(args_for(tiny_config, "OUTPUT_DIR", tmp_path / "unbroken"))
    with monkeypatch.context() as patch:
        patch.setattr("processor.kept.save_weights", stop)
        with pytest.raises(KeyboardInterrupt):
            train.main(args_for(tiny_config))
    assert not list(run_dir.glob("transformer_*.pth"))
    train.main(args_for(tiny_config))
    for epoch in (1, 2, 3):
        assert_equal_weights(weights_of(tmp_path / "unbroken", epoch), weights_of(run_dir, epoch))


def test_a_changed_configuration_is_refused_with_the_keys(tiny_config):
    train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 1))
    with pytest.raises(ConfigError, match=r"MODEL.SIE_COE 0.1 -> 1.0; SOLVER.BASE_LR 0.002 -> 0.1; set them back"):
        train.main(args_for(tiny_config, "SOLVER.BASE_LR", 0.1, "MODEL.SIE_COE", 1))


def test_a_smaller_max_epochs_is_refused(tiny_config):
    train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 2))
    with pytest.raises(ConfigError, match="SOLVER.MAX_EPOCHS 2 -> 1"):
        train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 1))


def test_other_data_are_refused(tiny_config, tmp_path):
    train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 1))
    other = write_tiny_veri(tmp_path / "other", train_ids=9)
    with pytest.raises(DataError, match="trained on other data"):
        train.main(args_for(tiny_config, "DATASETS.ROOT_DIR", other, "SOLVER.MAX_EPOCHS", 2))


def test_weights_that_the_last_step_ruined_are_never_saved(tiny_config, run_dir):
    train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 1))
    good = load_file(run_dir / "state_last.pth", "test")

    def ruin(self) -> None:
        with torch.no_grad():
            self.optimizer.param_groups[0]["params"][0].fill_(float("inf"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("solver.update.Updater.step", ruin)
        patch.setattr("processor.step.meter.Meter.read", lambda self, epoch: dict.fromkeys(self.names, 0.0))
        with pytest.raises(RunError, match="epoch 2: the weight .* is not finite after the last step"):
            train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 2))
    assert load_file(run_dir / "state_last.pth", "test")["epoch"] == 1
    assert not (run_dir / "transformer_2.pth").exists()
    assert_equal_weights(load_file(run_dir / "state_last.pth", "test")["model"], good["model"])


def test_a_run_that_failed_in_its_evaluation_keeps_the_epoch_and_repeats_the_evaluation(tiny_config, run_dir):
    def fail(*_: object) -> None:
        raise DataError("a test image does not decode")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("processor.periodic.embed_test", fail)
        with pytest.raises(DataError):
            train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 1, "SOLVER.EVAL_PERIOD", 1))
    assert (run_dir / "transformer_1.pth").exists()
    train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 1, "SOLVER.EVAL_PERIOD", 1))
    assert [r["epoch"] for r in read_metrics(run_dir / "metrics.jsonl") if r["kind"] == "eval"] == [1]
    assert load_file(run_dir / "state_last.pth", "test")["best"]["epoch"] == 1


def test_another_start_is_another_training(tiny_config, tmp_path, run_dir):
    train.main(args_for(tiny_config, "OUTPUT_DIR", tmp_path / "first", "SOLVER.MAX_EPOCHS", 1))
    train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 1))
    weights = tmp_path / "first" / "transformer_1.pth"
    with pytest.raises(ConfigError, match="MODEL.PRETRAIN_CHOICE none -> finetune"):
        train.main(args_for(tiny_config, "MODEL.PRETRAIN_CHOICE", "finetune", "MODEL.PRETRAIN_PATH", weights))


def test_checkpoints_without_their_state_are_not_mixed_with_a_new_run(tiny_config, run_dir):
    train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 1))
    (run_dir / "state_last.pth").unlink()
    with pytest.raises(ConfigError, match="holds 1 checkpoints .transformer_1.pth, .* but no state_last.pth"):
        train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 1))


@pytest.mark.parametrize("damage", ["cut", "key", "weight"])
def test_a_damaged_state_is_one_line_that_says_what_to_do(tiny_config, run_dir, damage):
    train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 1))
    path = run_dir / "state_last.pth"
    state = load_file(path, "test")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        del (state if damage == "key" else state["model"])["updater" if damage == "key" else "base.cls_token"]
        torch.save(state, path)
    with pytest.raises(DataError) as caught:
        train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 2))
    assert "train anew in another OUTPUT_DIR" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        *({"schema": 3}, {"stage": ["main"]}, {"epoch": "1"}, {"config": "{{{"}, {"config": "- 1"}, {"config": None}),
        *({"updater": None}, {"updater": {"optimizer": None}}, {"rng": [{}]}, {"rng": [None]}, {"model": {}}),
    ],
    ids=str,
)
def test_a_state_that_is_whole_but_holds_something_else_is_one_line_too(tiny_config, run_dir, change):
    train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 1))
    path = run_dir / "state_last.pth"
    torch.save(load_file(path, "test") | change, path)
    with pytest.raises(DataError, match="train anew in another OUTPUT_DIR") as caught:
        train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 2))
    assert "\n" not in str(caught.value)


def test_a_deleted_last_checkpoint_is_written_again(tiny_config, run_dir):
    train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 1))
    weights = weights_of(run_dir, 1)
    (run_dir / "transformer_1.pth").unlink()
    train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 1))
    assert_equal_weights(weights, weights_of(run_dir, 1))


def test_resume_without_a_state_is_refused(tiny_config):
    with pytest.raises(ConfigError, match="resume finds no"):
        train.main(args_for(tiny_config, "MODEL.PRETRAIN_CHOICE", "resume"))


def test_torchrun_starts_processes_that_train_and_evaluate_together(tiny_config, run_dir):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "train.py"]
    options = ("MODEL.DIST_TRAIN", True, "SOLVER.MAX_EPOCHS", 2, "SOLVER.EVAL_PERIOD", 1, "DATASETS.VAL_IDS", 0.25)
    options += ("SOLVER.IMS_PER_BATCH", 8, "DATALOADER.NUM_WORKERS", 1)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*command, *args_for(tiny_config, *options)], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert (run_dir / "transformer_2.pth").exists()
    assert [r["epoch"] for r in read_metrics(run_dir / "metrics.jsonl") if r["kind"] == "val"] == [1, 2]
    assert len(load_file(run_dir / "state_last.pth", "test")["rng"]) == 2
    assert result.stdout.count("held out to pick the epoch by") == 1
