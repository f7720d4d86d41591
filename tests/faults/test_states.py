"""state_last.pth with anything wrong in it: one line that names file and entry, and nothing is changed by it."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from tests.commands import args_for
from tests.faults.mistakes import refusal
from tests.faults.states import Run, assert_same, contents, go_on, make_run, read_state, step, write_state
from utils.errors import ConfigError, DataError

pytestmark = [pytest.mark.fault("bad input: training states")]
OPTIMIZERS = ("Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop")
MODEL, MOMENTS, GROUP = "model", ("updater", "optimizer", "state"), ("updater", "optimizer", "param_groups", 0)
WEIGHT = "base.norm.weight"
RNG = ("rng", 0, "cpu")
YAML_WITHOUT_END = "MODEL: {A: &a [1, 1]}\nB: &b [*a, *a]\n" + "\n".join(
    f"C{level}: &c{level} [*{f'c{level - 1}' if level else 'b'}, *{f'c{level - 1}' if level else 'b'}]"
    for level in range(30)
)
ABSENT = object()


def changed(state: dict[str, Any], place: tuple, value: Any) -> None:
    """Set the entry at a path of keys; ABSENT deletes it, a function makes it from what stands there."""
    *path, last = place
    for key in path:
        state = state[key]
    if value is ABSENT:
        del state[last]
    else:
        state[last] = value(state[last]) if callable(value) else value


def nan(value: torch.Tensor) -> torch.Tensor:
    return torch.full_like(value, torch.nan)


WRONG: dict[str, tuple[tuple, Any, str]] = {  # what is wrong -> place, value, words of the refusal
    "no schema": (("schema",), ABSENT, "not a whole training state"),
    "schema of tomorrow": (("schema",), 3, "not a whole training state"),
    "schema True": (("schema",), True, "not a whole training state"),
    "stage of another system": (("stage",), "warm", "not a whole training state"),
    "stage a list": (("stage",), ["main"], "not a whole training state"),
    "epoch a text": (("epoch",), "2", "not a whole training state"),
    "epoch True": (("epoch",), True, "epoch is True"),
    "epoch 0": (("epoch",), 0, "epoch is 0, expected 1 to"),
    "epoch negative": (("epoch",), -1, "epoch is -1"),
    "epoch after the end": (("epoch",), 10**6, "epoch is 1000000"),
    "epoch a float": (("epoch",), 2.0, "not a whole training state"),
    "iteration negative": (("iteration",), -5, "iteration is -5"),
    "iteration a text": (("iteration",), "8", "not a whole training state"),
    "iteration huge": (("iteration",), 2**70, "iteration is"),
    "evaluated later": (("evaluated",), 3, "evaluated is 3, expected 0 to 2"),
    "best of other names": (("best",), {"map": 0.5}, "best is not an epoch with its mAP and Rank-1"),
    "best a text": (("best", "mAP"), "0.5", "best is not"),
    "best NaN": (("best", "mAP"), float("nan"), "best is an epoch or a score that cannot be"),
    "best of a later epoch": (("best", "epoch"), 9, "best is an epoch or a score"),
    "config none": (("config",), None, "not a whole training state"),
    "config no YAML": (("config",), "{{{", "not a whole training state"),
    "config a list": (("config",), "- 1", "not a whole training state"),
    "config without end": (("config",), YAML_WITHOUT_END, "not a whole training state"),
    "config of other types": (("config",), "SOLVER: {MAX_EPOCHS: [1]}", "was trained with other settings"),
    "fingerprint a number": (("data_fingerprint",), 1, "not a whole training state"),
    "model a list": ((MODEL,), [], "not a whole training state"),
    "model empty": ((MODEL,), {}, "model.base."),
    "weight missing": ((MODEL, WEIGHT), ABSENT, f"model.{WEIGHT} is missing"),
    "weight too many": ((MODEL, "base.other"), torch.ones(3), "model.base.other is none of this run's"),
    "weight of a number": ((MODEL, 3), torch.ones(3), "model.3 is none of this run's"),
    "weight no tensor": ((MODEL, WEIGHT), [1.0], f"model.{WEIGHT} is of type list"),
    "weight of another shape": ((MODEL, WEIGHT), torch.ones(25), f"model.{WEIGHT} is [25] float32, expected [24]"),
    "weight that broadcasts": ((MODEL, WEIGHT), torch.ones(1), f"model.{WEIGHT} is [1]"),
    "weight of another type": ((MODEL, WEIGHT), torch.ones(24).double(), "is [24] float64, expected [24] float32"),
    "weight of integers": ((MODEL, WEIGHT), torch.ones(24).long(), "is [24] int64"),
    "weight complex": ((MODEL, WEIGHT), torch.ones(24, dtype=torch.complex64), "is [24] complex64"),
    "weight NaN": ((MODEL, WEIGHT), nan, f"model.{WEIGHT} holds values that are not finite"),
    "weight sparse": ((MODEL, WEIGHT), torch.ones(24).to_sparse(), f"holds a sparse tensor (model.{WEIGHT})"),
    "weight meta": ((MODEL, WEIGHT), torch.ones(24, device="meta"), "a tensor of the meta device"),
    "count a float": ((MODEL, "bottleneck.num_batches_tracked"), torch.tensor(1.0), "is [] float32, expected [] int64"),
    "criterion a list": (("criterion",), [], "not a whole training state"),
    "criterion empty": (("criterion",), {}, "criterion.center.centers is missing"),
    "centres of other classes": (
        ("criterion", "center.centers"),
        torch.ones(6, 24),
        "criterion.center.centers is [6, 24]",
    ),
    "no updater": (("updater",), None, "not a whole training state"),
    "no optimizer": (("updater", "optimizer"), ABSENT, "updater.optimizer is missing"),
    "optimizer a list": (("updater", "optimizer"), [], "updater.optimizer is missing or no dict"),
    "no moments": (MOMENTS, ABSENT, "updater.optimizer is no state of an optimizer"),
    "moments a list": (MOMENTS, [], "updater.optimizer is no state of an optimizer"),
    "moments of no parameter": ((*MOMENTS, 999), {}, "updater.optimizer.state.999 is of no parameter"),
    "moments of a name": ((*MOMENTS, "0"), {}, "updater.optimizer.state.0 is of no parameter"),
    "moments no dict": ((*MOMENTS, 0), None, "updater.optimizer.state.0 is of no parameter"),
    "a moment missing": (
        (*MOMENTS, 0, "exp_avg"),
        ABSENT,
        "state.0 holds other moments than step, exp_avg, exp_avg_sq",
    ),
    "a moment too many": ((*MOMENTS, 0, "momentum"), torch.ones(3), "state.0 holds other moments"),
    "a moment of another shape": ((*MOMENTS, 0, "exp_avg"), lambda old: old[..., :1], "state.0.exp_avg is ["),
    "a moment of one value": ((*MOMENTS, 0, "exp_avg_sq"), torch.zeros(()), "state.0.exp_avg_sq is [] float32"),
    "a moment of another type": ((*MOMENTS, 0, "exp_avg"), torch.Tensor.half, "float16, expected"),
    "a moment no tensor": ((*MOMENTS, 0, "exp_avg"), "x", "state.0.exp_avg is of type str"),
    "a moment NaN": ((*MOMENTS, 0, "exp_avg"), nan, "state.0.exp_avg holds values that are not finite"),
    "a moment expanded": ((*MOMENTS, 0, "exp_avg"), torch.zeros(1).expand(2**20, 2**20), "would fill 4,096.0 GiB"),
    "step a number": ((*MOMENTS, 0, "step"), 1, "state.0.step is of type int"),
    "step of integers": ((*MOMENTS, 0, "step"), torch.tensor(1), "state.0.step is [] int64"),
    "step a vector": ((*MOMENTS, 0, "step"), torch.ones(2), "state.0.step is [2]"),
    "step negative": ((*MOMENTS, 0, "step"), torch.tensor(-1.0), "state.0.step is below 0"),
    "groups none": ((*GROUP[:-1],), ABSENT, "is no state of an optimizer"),
    "a group missing": (GROUP, ABSENT, "groups of parameters, this run has"),
    "a group no dict": (GROUP, 3, "param_groups.0 is not of this run's parameters"),
    "a parameter missing": ((*GROUP, "params"), lambda old: old[:-1], "param_groups.0 is not of this run's parameters"),
    "parameters of names": ((*GROUP, "params"), lambda old: [str(number) for number in old], "param_groups.0 is not"),
    "rate a text": ((*GROUP, "lr"), "0.1", "param_groups.0.lr is no learning rate"),
    "rate negative": ((*GROUP, "lr"), -0.1, "param_groups.0.lr is no learning rate"),
    "rate NaN": ((*GROUP, "lr"), float("nan"), "param_groups.0.lr is no learning rate"),
    "betas a text": ((*GROUP, "betas"), "0.9", "param_groups.0.betas is another than (0.9, 0.999)"),
    "upwards": ((*GROUP, "maximize"), True, "param_groups.0.maximize is another than False"),
    "other decay": ((*GROUP, "weight_decay"), 7.0, "param_groups.0.weight_decay is another than"),
    "no optimizer of centres": (("updater", "center_optimizer"), {}, "updater.center_optimizer is no state"),
    "no scaler": (("updater", "scaler"), ABSENT, "updater.scaler is missing"),
    "scaler a list": (("updater", "scaler"), [], "updater.scaler is missing or no dict"),
    "rng empty": (("rng",), [{}], "rng.cpu is no tensor"),
    "rng none": (("rng",), [None], "rng.cpu is no tensor"),
    "rng of floats": (RNG, lambda old: old.float(), "rng.cpu is no state of a random generator"),
    "rng cut": (RNG, lambda old: old[:100], "rng.cpu is no state of a random generator"),
    "rng of ones": (RNG, lambda old: torch.full_like(old, 255), "rng.cpu is no state of a random generator"),
    "rng of two processes": (("rng",), lambda old: old * 2, "was trained by 2 processes, now there are 1"),
    "an object": (("extra",), argparse.Namespace(), "(argparse.Namespace)"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a sound state; read only."""
    return write_state(tmp_path_factory.mktemp("sound")).parent


@pytest.fixture(scope="module")
def fresh(sound: Path) -> Run:
    """A run that has not gone on; what is refused leaves it so."""
    return make_run(sound)


@pytest.mark.parametrize("kind", WRONG)
def test_a_state_with_one_wrong_entry_is_refused_and_changes_nothing(sound, fresh, tmp_path, kind):
    place, value, words = WRONG[kind]
    state = read_state(sound / "state_last.pth")
    changed(state, place, value)
    torch.save(state, tmp_path / "state_last.pth")
    with pytest.raises((ConfigError, DataError)) as caught:
        go_on(tmp_path, run=fresh)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value, ConfigError) or str(tmp_path / "state_last.pth") in str(caught.value)


@pytest.mark.parametrize("name", [*OPTIMIZERS, "Rprop", "SGD"])
def test_a_sound_state_of_every_optimizer_goes_on_as_if_unbroken(tmp_path, name):
    opts = ("SOLVER.OPTIMIZER_NAME", name, "SOLVER.LAYER_DECAY", 0.9)
    write_state(tmp_path, *opts)
    _, unbroken = make_run(tmp_path, *opts)
    step(unbroken)
    resumed = go_on(tmp_path, *opts)
    step(unbroken)
    both = [{name: part for name, part in contents(stage).items() if name != "rng"} for stage in (unbroken, resumed)]
    assert_same(*both)


def test_options_that_a_state_lacks_or_has_of_another_machine_are_those_of_this_run(sound, tmp_path):
    state = read_state(sound / "state_last.pth")
    for group in state["updater"]["optimizer"]["param_groups"]:
        del group["decoupled_weight_decay"]  # of an older torch
        group |= {"fused": None, "foreach": True, "name": "x"}
    torch.save(state, tmp_path / "state_last.pth")
    group = go_on(tmp_path).updater.optimizer.param_groups[0]
    assert group["fused"] is True and group["foreach"] is None and group["name"] != "x"


def test_a_moment_that_no_step_made_may_be_missing(sound, tmp_path):
    state = read_state(sound / "state_last.pth")
    del state["updater"]["optimizer"]["state"][3]  # of a parameter that had no gradient yet
    torch.save(state, tmp_path / "state_last.pth")
    go_on(tmp_path)


@pytest.mark.parametrize("change", [{"epoch": -1}, {"rng": [{}]}], ids=str)
def test_the_training_command_ends_with_code_2_and_leaves_the_folder_alone(tiny_config, run_dir, capsys, change):
    train.main(args_for(tiny_config, "SOLVER.MAX_EPOCHS", 1))
    path = run_dir / "state_last.pth"
    torch.save(read_state(path) | change, path)
    before = path.read_bytes()
    assert str(path) in refusal(train.main, *args_for(tiny_config, "SOLVER.MAX_EPOCHS", 2), capsys=capsys)
    assert path.read_bytes() == before and not (run_dir / "transformer_2.pth").exists()
