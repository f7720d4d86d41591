"""Phases, conditional PxK, routing and self-supervised training through train.py on a tiny archive."""

import re
import sys
from collections import Counter

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from configs import load_cfg
from configs.phases import Phase
from losses.criterion import Criterion
from model.outputs import ModelOutput
from solver.preview import schedule_table
from solver.update import Updater
from tests.commands import args_for
from tests.conftest import TINY_YAML
from utils.checkpoint import load_file
from utils.errors import ConfigError, DataError
from utils.run_folder import read_metrics

MODEL_B = ("LOSS.SUPCON.ENABLE", True, "LOSS.TRIPLETX.ENABLE", True, "DATALOADER.PHASED.ENABLE", True)
MODEL_B += ("DATALOADER.PHASED.K_WHEN_TRIPLETX", 4, "DATALOADER.PHASED.K_WHEN_SUPCON", 8)
MODEL_B += ("DATALOADER.PHASED.K_OTHER", 2)
A_B_C = (
    *(*MODEL_B, "LOSS.PHASED.ENABLE", True, "LOSS.PHASED.BOUNDARIES", [3, 5], "SOLVER.MAX_EPOCHS", 6),
    *("LOSS.PHASED.METRIC_SEQ", ["triplet", "tripletx", "triplet"], "LOSS.PHASED.W_METRIC_SEQ", [1.0, 1.5, 0.5]),
    *("LOSS.PHASED.W_SUP_SPEC", ["const:0.0", "linear:0.40->0.20", "const:0.1"], "SOLVER.CHECKPOINT_PERIOD", 0),
)
# epoch -> phase, weights of id, triplet, tripletx, supcon, and K, worked out by hand from A_B_C
PLAN = {
    1: ("A", 1, 1.0, 0, 0, 2),
    2: ("A", 1, 1.0, 0, 0, 2),
    3: ("B", 1, 0, 1.5, 0.4, 4),
    4: ("B", 1, 0, 1.5, 0.3, 4),
    5: ("C", 1, 0.5, 0, 0.1, 8),
    6: ("C", 1, 0.5, 0, 0.1, 8),
}
NAMES = ("id", "triplet", "tripletx", "supcon")


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[int]]]:
    """Filled with (epoch, images per identity) of every training batch."""
    seen = []
    original = Criterion.forward

    def spy(self, output: ModelOutput, batch: dict, phase: Phase) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        seen.append((phase.epoch, sorted(Counter(batch["pids"].tolist()).values())))
        return original(self, output, batch, phase)

    monkeypatch.setattr(Criterion, "forward", spy)
    return seen


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with one entry for each time that the data sets are read from disk."""
    seen = []
    module = sys.modules["datasets.make_dataloader"]  # the package has a function of that name
    original = module.make_datasets
    monkeypatch.setattr(module, "make_datasets", lambda cfg, names: seen.append(1) or original(cfg, names))
    return seen


def test_log_metrics_tensorboard_and_batches_follow_the_plan(tiny_config, run_dir, batches, scans):
    train.main(args_for(tiny_config, *A_B_C))
    records = {r["epoch"]: r for r in read_metrics(run_dir / "metrics.jsonl") if r["kind"] == "phase"}
    for epoch, (tag, *weights, k) in PLAN.items():
        assert records[epoch]["phase"] == tag and records[epoch]["K"] == k
        assert [records[epoch][f"weight_{name}"] for name in NAMES] == pytest.approx(weights)
        shapes = {tuple(counts) for at, counts in batches if at == epoch}
        assert shapes == {(k,) * (16 // k)}, f"epoch {epoch}"
        losses = {
            name
            for r in read_metrics(run_dir / "metrics.jsonl")
            if (r["kind"], r["epoch"]) == ("train", epoch)
            for name in r
        }
        assert losses & set(NAMES) == {name for name, weight in zip(NAMES, weights, strict=True) if weight}
    assert len(scans) == 1
    board = EventAccumulator(str(run_dir)).Reload()
    for position, name in enumerate(NAMES):
        values = [event.value for event in board.Scalars(f"phase/weight_{name}")]
        assert values == pytest.approx([PLAN[epoch][1 + position] for epoch in PLAN])
    assert [event.value for event in board.Scalars("phase/K")] == [PLAN[epoch][-1] for epoch in PLAN]
    log = (run_dir / "train_log.txt").read_text()
    assert re.findall(r"epoch (\d+), phase (.*?):", log) == [("1", "A"), ("3", "A -> B"), ("5", "B -> C")]
    assert re.findall(r"epoch (\d+): PxK (\S+) -> (\S+),", log) == [("3", "8x2", "4x4"), ("5", "4x4", "2x8")]


def test_a_run_that_goes_on_in_a_later_phase_logs_no_switch(tiny_config, run_dir, batches):
    plan = [*A_B_C, "LOSS.PHASED.BOUNDARIES", [2]]
    train.main(args_for(tiny_config, *plan, "SOLVER.MAX_EPOCHS", 3))
    before = len((run_dir / "train_log.txt").read_text())
    batches.clear()
    train.main(args_for(tiny_config, *plan, "SOLVER.MAX_EPOCHS", 4))
    log = (run_dir / "train_log.txt").read_text()[before:]
    assert "epoch 4, phase B:" in log and "PxK 8x2 ->" not in log
    assert {tuple(counts) for _, counts in batches} == {(4, 4, 4, 4)}


def test_the_centre_loss_is_part_of_the_schedule_that_is_shown(tiny_config, capsys):
    opts = ("MODEL.IF_WITH_CENTER", "yes", "SOLVER.CENTER_LOSS_WEIGHT", 0.01)
    train.main(args_for(tiny_config, "--show-schedule", *opts))
    assert "CE 1, Triplet 1, Center 0.01" in capsys.readouterr().out


def test_the_schedule_that_is_shown_is_the_one_that_is_trained(tiny_config, capsys):
    assert train.main(args_for(tiny_config, "--show-schedule", *A_B_C, "DATASETS.ROOT_DIR", "/nowhere")) == 0
    header, *rows = [re.split(r"\s{2,}", line) for line in capsys.readouterr().out.splitlines() if "note:" not in line]
    assert header == ["epochs", "phase", "losses and weights", "PxK", "learning rate"]
    assert [row[:4] for row in rows] == [
        ["1-2", "A", "CE 1, Triplet 1", "8x2"],
        ["3-4", "B", "CE 1, TripletX 1.5, SupCon 0.4->0.3", "4x4"],
        ["5-6", "C", "CE 1, Triplet 0.5, SupCon 0.1", "2x8"],
    ]


def test_the_learning_rate_that_is_shown_is_the_one_that_is_set(tiny_config, run_dir):
    train.main(args_for(tiny_config, *A_B_C))
    trained = {r["epoch"]: r["lr"] for r in read_metrics(run_dir / "metrics.jsonl") if r["kind"] == "phase"}
    shown = [line.split()[-1].split("->") for line in schedule_table(load_cfg(tiny_config, A_B_C)).splitlines()[1:]]
    assert [float(rate) for rate in shown[1]] == pytest.approx([trained[3], trained[4]], rel=5e-3)
    assert float(shown[0][0]) == pytest.approx(trained[1], rel=5e-3)
    assert float(shown[2][-1]) == pytest.approx(trained[6], rel=5e-3)


def test_nothing_is_written_or_read_for_the_schedule(tiny_config, run_dir, scans):
    train.main(args_for(tiny_config, "--show-schedule"))
    assert not run_dir.exists() and not scans


ROUTED = (*MODEL_B, "LOSS.BRIGHTNESS.ENABLE", True, "LOSS.BRIGHTNESS.THRESH", 0.35, "SOLVER.MAX_EPOCHS", 1)


@pytest.mark.parametrize(
    "opts",
    [
        (),
        ("LOSS.BRIGHTNESS.MODE", "soft", "LOSS.TRIPLETX.FEAT_SRC", "bnneck", "SOLVER.AMP", "bf16"),
        ("LOSS.BRIGHTNESS.SOURCE", "clean", "LOSS.SUPCON.DARK_GAMMA", 1.8, "LOSS.SUPCON.CAM_AWARE", False),
        ("LOSS.BRIGHTNESS.BRANCHES", "global", "MODEL.JPM", False, "LOSS.TRIPLET.FEAT_SRC", "bnneck"),
        ("MODEL.NAME", "resnet50", "MODEL.JPM", False, "MODEL.SIE_CAMERA", False, "MODEL.SIE_VIEW", False),
        ("LOSS.PHASED.ENABLE", True, "LOSS.PHASED.METRIC_SEQ", ["tripletx"], "LOSS.PHASED.W_METRIC_SEQ", [0.7]),
        ("MODEL.ID_LOSS_WEIGHT", 0.0),
    ],
)
def test_routing_works_with_every_other_part(tiny_config, run_dir, opts):
    train.main(args_for(tiny_config, *ROUTED, *opts))
    means = [r for r in read_metrics(run_dir / "metrics.jsonl") if r["kind"] == "train"][-1]
    assert 0 < means["dark"] < 1
    assert means["triplet"] > 0 and means["tripletx"] > 0 and means["supcon"] > 0


def test_dark_share_is_logged_while_nothing_is_routed(tiny_config, run_dir):
    train.main(args_for(tiny_config, *ROUTED, "LOSS.TRIPLETX.ENABLE", False))
    means = [r for r in read_metrics(run_dir / "metrics.jsonl") if r["kind"] == "train"][-1]
    assert 0 < means["dark"] < 1 and means["triplet"] > 0 and "tripletx" not in means
    assert (run_dir / "train_log.txt").read_text().count("nothing is routed") == 1


def test_soft_warmup_that_never_applies_is_said_once(tiny_config, run_dir):
    train.main(args_for(tiny_config, *A_B_C, "LOSS.TRIPLETX.WARMUP_EPOCHS", 3))
    assert (run_dir / "train_log.txt").read_text().count("SOFT_WARMUP never applies") == 1


def test_every_parameter_gets_a_gradient_in_every_phase(tiny_config, monkeypatch):
    lacking, step = [], Updater.step

    def spy(updater: Updater) -> None:
        learnt = [weight for group in updater.optimizer.param_groups for weight in group["params"]]
        lacking.append(sum(weight.grad is None for weight in learnt))
        step(updater)

    monkeypatch.setattr(Updater, "step", spy)
    opts = ("MODEL.JPM", True, "MODEL.ID_LOSS_WEIGHT", 0.0, "LOSS.BRIGHTNESS.ENABLE", True)
    train.main(args_for(tiny_config, *A_B_C, *opts, "LOSS.BRIGHTNESS.BRANCHES", "global"))
    assert lacking and not any(lacking)


SSL = ("MODEL.TRAINING_MODE", "self_supervised", "DATALOADER.SAMPLER", "random", "LOSS.SUPCON.ENABLE", True)


def test_self_supervised_training_pulls_the_two_views_of_an_image_together(tiny_config, run_dir):
    opts = ("SOLVER.MAX_EPOCHS", 12, "SOLVER.BASE_LR", 0.01, "MODEL.JPM", False, "SOLVER.CHECKPOINT_PERIOD", 0)
    train.main(args_for(tiny_config, *SSL, *opts))
    records = [r for r in read_metrics(run_dir / "metrics.jsonl") if r["kind"] == "train"]
    assert records[-1]["supcon"] < records[0]["supcon"] - 0.2
    assert not {"id", "triplet", "tripletx", "acc"} & set(records[-1])


def test_self_supervised_trunk_starts_a_supervised_run(tiny_config, tmp_path, run_dir, monkeypatch):
    train.main(args_for(tiny_config, *SSL, "MODEL.JPM", False, "MODEL.SIE_CAMERA", False, "MODEL.SIE_VIEW", False))
    pretrained = run_dir / "transformer_3.pth"
    started = {}
    monkeypatch.setattr(
        "processor.train_stages", lambda cfg, model, *rest: started.update(model.state_dict()), raising=True
    )
    opts = ("MODEL.PRETRAIN_CHOICE", "self", "MODEL.PRETRAIN_PATH", pretrained, "OUTPUT_DIR", tmp_path / "fine")
    train.main(args_for(tiny_config, *opts))
    saved = load_file(pretrained, "test")
    trunk = [name for name in saved if name.startswith("base.") and "fc" not in name.split(".")]
    assert len(trunk) > 20
    for name in trunk:
        assert torch.equal(saved[name], started[name]), name
    assert torch.equal(saved["base.blocks.1.mlp.fc1.weight"], started["b1.0.mlp.fc1.weight"])


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("MODEL.TRAINING_MODE", "self_supervised"), "set it to random"),
        (("DATALOADER.SAMPLER", "random", "MODEL.TRAINING_MODE", "self_supervised"), "set LOSS.SUPCON.ENABLE True"),
        ((*SSL, "LOSS.BRIGHTNESS.ENABLE", True), "there is no metric loss to route"),
        ((*SSL, "MODEL.JPM", True), "SupCon trains no local branch"),
        ((*SSL, "MODEL.JPM", False, "MODEL.IF_WITH_CENTER", "yes"), "the centre loss needs identities"),
        ((*A_B_C, "DATALOADER.PHASED.K_WHEN_TRIPLETX", 16), "leaves the metric losses of epoch 3 without a negative"),
        ((*A_B_C, "LOSS.PHASED.W_SUP_SPEC", ["linear:0.3>0"]), "'linear:<float>-><float>'"),
        ((*A_B_C, "LOSS.TRIPLETX.ENABLE", False), "set it True or write triplet"),
        ((*A_B_C, "DATALOADER.PHASED.K_WHEN_TRIPLETX", 3), "K_WHEN_TRIPLETX 3 (epoch 3)"),
    ],
)
def test_a_plan_that_cannot_be_trained_is_refused_before_anything_is_written(tiny_config, run_dir, opts, words):
    with pytest.raises(ConfigError) as caught:
        train.main(args_for(tiny_config, *opts))
    assert words in str(caught.value)
    assert not run_dir.exists()


def test_cameras_that_supcon_needs_are_asked_for(tmp_path, tiny_root):
    table = tmp_path / "table.csv"
    images = sorted((tiny_root / "VeRi" / "image_train").glob("*.jpg"))
    lines = [f"{path},{path.name[:4]},0,0,train" for path in images]
    lines += [f"{path},{path.name[:4]},{number % 2},0,{split}" for split in ("query", "gallery")
              for number, path in enumerate(images[:12], start=split == "gallery")]  # fmt: skip
    table.write_text("path,pid,camid,viewid,split\n" + "\n".join(lines))
    config = tmp_path / "one_camera.yml"
    config.write_text(TINY_YAML.format(root=tiny_root, output=tmp_path / "run"))
    opts = ("DATASETS.NAMES", "table", "DATASETS.TABLE", table, "MODEL.SIE_CAMERA", False, "MODEL.SIE_VIEW", False)
    with pytest.raises(DataError, match="seen by more than one camera.*LOSS.SUPCON.CAM_AWARE False"):
        train.main(args_for(config, *opts, "LOSS.SUPCON.ENABLE", True))
    cheap = ("LOSS.SUPCON.CAM_AWARE", False, "SOLVER.MAX_EPOCHS", 1)
    assert train.main(args_for(config, *opts, "LOSS.SUPCON.ENABLE", True, *cheap)) == 0
