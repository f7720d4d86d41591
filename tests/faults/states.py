"""A tiny training state, and a run that goes on from it by one step."""

import copy
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from model import make_model
from processor.resume import find_state, restore_model, restore_state, save_state
from processor.stage import Stage
from processor.systems import make_stage
from tests.model.builds import TINY_VIT, make_cfg
from utils.background import Background
from utils.distributed import Ranks

Run = tuple[CfgNode, Stage]
FINGERPRINT = "0123abcd"
ALONE = Ranks(0, 1, 0)
PROGRESS = {"epoch": 2, "iteration": 8, "evaluated": 2, "best": {"epoch": 1, "mAP": 0.5, "Rank-1": 0.6}}
CENTERS = ("MODEL.METRIC_LOSS_TYPE", "triplet_center", "MODEL.VIT.DEPTH", 1, "SOLVER.AMP", "off", "TEST.AMP", "off")


def make_run(folder: Path, *opts: object) -> Run:
    """Return a configuration and its only stage on a fresh model, with centres and without data."""
    common = ("OUTPUT_DIR", str(folder), "SOLVER.OPTIMIZER_NAME", "AdamW", "MODEL.DEVICE", "cpu")
    cfg = make_cfg(*TINY_VIT, *CENTERS, *common, *opts)
    torch.manual_seed(0)
    return cfg, make_stage(cfg, "main", make_model(cfg, 5, 0, 0, pretrained=False))


def step(stage: Stage) -> None:
    """Let both optimizers step by gradients of no special value."""
    updater = stage.updater
    for optimizer in (updater.optimizer, updater.center_optimizer):
        for group in optimizer.param_groups if optimizer else ():
            for parameter in group["params"]:
                parameter.grad = torch.full_like(parameter, 0.01)
        if optimizer:
            optimizer.step()


def write_state(folder: Path, *opts: object) -> Path:
    """Write the state after some steps of a run in a folder and return its path."""
    cfg, stage = make_run(folder, *opts)
    step(stage)
    background = Background()
    save_state(cfg, stage, ALONE, {**PROGRESS, "device": "cpu", "data_fingerprint": FINGERPRINT}, background)
    background.close()
    return folder / "state_last.pth"


def read_state(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def go_on(folder: Path, *opts: object, run: Run | None = None) -> Stage:
    """Continue a run, a fresh one where none is given, from the state in a folder as train.py does, and step once."""
    cfg, stage = run or make_run(folder, *opts)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = str(folder)
    untouched = contents(stage)
    state = find_state(cfg, FINGERPRINT)
    try:
        restore_model(state, stage.model)
    except ValueError:
        assert_same(untouched, contents(stage))
        raise
    untouched = contents(stage)
    try:
        restore_state(state, stage, ALONE)
    except ValueError:
        assert_same(untouched, contents(stage))
        raise
    step(stage)
    return stage


def contents(stage: Stage) -> dict[str, Any]:
    """Return a copy of all that a state is put into."""
    parts = {"model": stage.model, "criterion": stage.criterion, "updater": stage.updater}
    return {**{name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}, "rng": torch.get_rng_state()}


def assert_same(one: Any, two: Any) -> None:
    """Assert that two trees hold equal values."""
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_same(one[key], two[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two)
        for left, right in zip(one, two, strict=True):
            assert_same(left, right)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    else:
        assert one == two
