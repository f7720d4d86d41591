"""A run that cannot learn does not end as if it had: it stops and says why, and what was learnt before stays."""

import logging
import re
from functools import partial

import pytest
import torch

import train
from configs.keys import KEYS
from configs.phases import Phase
from processor.epoch import train_epoch
from processor.learning import FirstEpoch, check_finite
from processor.stage import Stage
from processor.step.batch import prepare_batch
from processor.systems.transreid import batch_settings
from solver import create_scheduler
from solver.update import Updater
from tests.commands import args_for, run
from tests.model.builds import make_cfg
from tests.processor.test_sync_free import AUGMENT, CPU, PLAIN, make_batches, make_stage
from utils.checkpoint import load_file
from utils.errors import RunError

pytestmark = pytest.mark.fault("a run that cannot learn")

CANNOT_LEARN = {
    "no learning rate": (("SOLVER.BASE_LR", 1e-45), "weights moved by .* raise SOLVER.BASE_LR"),
    "a rate that float32 rounds away": (("SOLVER.BASE_LR", 1e-12), "weights moved by .* raise SOLVER.BASE_LR"),
    "gradients clipped to nothing": (("SOLVER.GRAD_CLIP", 1e-300), "no gradient .* SOLVER.GRAD_CLIP"),
    "weight decay alone moves the weights": (("SOLVER.GRAD_CLIP", 1e-15, "SOLVER.WEIGHT_DECAY", 0.1), "no gradient"),
    "squares of gradients overflow": (("MODEL.ID_LOSS_WEIGHT", 1e30), "optimizer's exp_avg_sq of .* is not finite"),
    "an infinite norm": (("MODEL.ID_LOSS_WEIGHT", 1e38, "SOLVER.GRAD_CLIP", 1.0), "no gradient reached"),
}


@pytest.mark.parametrize("fault", CANNOT_LEARN)
def test_a_first_epoch_that_taught_nothing_ends_the_run(tiny_config, run_dir, capsys, monkeypatch, fault):
    opts, words = CANNOT_LEARN[fault]
    weight = KEYS["MODEL.ID_LOSS_WEIGHT"]._replace(high=1e39)  # whatever else makes gradients so large
    monkeypatch.setitem(KEYS, "MODEL.ID_LOSS_WEIGHT", weight)
    assert run(train.main, *args_for(tiny_config, "SOLVER.MAX_EPOCHS", 1, *opts)) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert re.search(words, line), line
    assert not (run_dir / "state_last.pth").exists() and not [*run_dir.glob("*.pth")]


SLOW_BUT_SOUND = {
    "a warm-up from 0": ("SOLVER.WARMUP_FACTOR", 0.0, "SOLVER.WARMUP_EPOCHS", 5),
    "a warm-up at a millionth": ("SOLVER.WARMUP_FACTOR", 1e-6, "SOLVER.WARMUP_METHOD", "constant"),
    "one update an epoch": ("SOLVER.ACCUM_STEPS", 1000),
    "a frozen trunk": ("MODEL.FREEZE_BLOCKS", 1),
    "a slow SGD": ("SOLVER.OPTIMIZER_NAME", "SGD", "SOLVER.BASE_LR", 1e-5),
}


@pytest.mark.parametrize("kind", SLOW_BUT_SOUND)
def test_a_sound_first_epoch_may_be_slow(tiny_config, run_dir, kind):
    assert run(train.main, *args_for(tiny_config, "SOLVER.MAX_EPOCHS", 1, *SLOW_BUT_SOUND[kind])) == 0
    assert (run_dir / "state_last.pth").is_file()


def small_stage(*opts: object, scaler: torch.amp.GradScaler | None = None) -> Stage:
    """Return a stage on the CPU that one can train an epoch of three batches; its learning rate is constant."""
    cfg = make_cfg("MODEL.DEVICE", "cpu", *opts)
    stage = make_stage(CPU, *opts)
    stage.scheduler = create_scheduler(cfg, stage.optimizer)
    if scaler is not None:
        stage.updater = Updater(stage.optimizer, None, scaler)
    stage.loader = make_batches(5)
    stage.prepare = partial(prepare_batch, device=CPU, transform=AUGMENT, settings=batch_settings(cfg))
    return stage


def train_one(stage: Stage, epoch: int = 1) -> None:
    stage.scheduler.step(epoch)
    train_epoch(stage, stage.model, Phase(epoch, 0, "static", PLAIN, 2, False), lambda *_: None)


def test_a_rate_of_0_is_said_and_the_next_epoch_decides(caplog):
    stage = small_stage()
    first = FirstEpoch(stage)
    for group in stage.optimizer.param_groups:
        group["initial_lr"], group["lr"] = 0.01, 0.0
    stage.scheduler.step = lambda epoch: None
    train_one(stage)
    assert not first.check(1) and "learning rate is 0" in caplog.text
    for group in stage.optimizer.param_groups:
        group["lr"] = 0.01
    train_one(stage, 2)
    assert first.check(2) and stage.updater.watch is None


def test_fp16_that_finds_no_scale_is_said_and_ends_where_gradients_overflow_unscaled(caplog):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126)
    stage = small_stage(scaler=scaler)
    first = FirstEpoch(stage)
    train_one(stage)
    assert scaler.get_scale() < 2.0**122, "this test needs steps that are skipped"
    assert not first.check(1) and "fp16 gradients overflow at a loss scale" in caplog.text
    scaler.update(0.5)
    first._restart()
    for weight in filter(lambda weight: weight.requires_grad, stage.model.parameters()):
        weight.register_hook(lambda grad: grad * torch.inf)
    train_one(stage, 2)
    with pytest.raises(RunError, match="epoch 2: fp16 gradients overflow .* SOLVER.AMP bf16 or off"):
        first.check(2)


def test_a_constant_loss_and_unreached_weights_are_told(caplog):
    caplog.set_level(logging.INFO)
    stage = small_stage()
    first, criterion = FirstEpoch(stage), stage.criterion.forward
    stage.criterion.forward = lambda output, batch, phase: constant(criterion(output, batch, phase))
    train_one(stage)
    assert first.check(1)
    assert "the loss was exactly 2 in all 5 steps" in caplog.text


def constant(result: tuple) -> tuple:
    total, parts = result
    return total - total.detach() + 2.0, parts


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_optimizer_state_that_is_not_finite_never_replaces_the_last_good_state(tiny_config, run_dir, value):
    train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 1))
    with pytest.MonkeyPatch.context() as patch:
        step = Updater.step

        def ruin(self: Updater) -> None:
            step(self)
            next(iter(self.optimizer.state.values()))["exp_avg"].view(-1)[0] = value

        patch.setattr(Updater, "step", ruin)
        patch.setattr("processor.train.share_buffers", lambda model: None)
        patch.setattr("processor.step.meter.Meter.read", lambda self, epoch: dict.fromkeys(self.names, 0.0))
        with pytest.raises(RunError, match="epoch 2: .* not finite .* last good state is kept"):
            train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 2))
    state = load_file(run_dir / "state_last.pth", "test")
    assert state["epoch"] == 1
    values = [tensor for entry in state["updater"]["optimizer"]["state"].values() for tensor in entry.values()]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in values)


def test_what_is_not_finite_is_named():
    stage = small_stage()
    train_one(stage)
    check_finite(stage, 1)
    weight = stage.model.base.cls_token
    stage.optimizer.state[weight]["momentum_buffer"][..., 0] = torch.nan
    with pytest.raises(RunError, match="epoch 1: the optimizer's momentum_buffer of base.cls_token is not finite"):
        check_finite(stage, 1)


def test_watching_changes_no_bit():
    weights = []
    for watched in (False, True):
        torch.manual_seed(0)
        stage = small_stage("SOLVER.GRAD_CLIP", 1.0)
        first = FirstEpoch(stage) if watched else None
        torch.manual_seed(1)
        train_one(stage)
        assert first is None or first.check(1)
        weights.append(stage.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
