"""What tests of a system's stage share: steps against formulas, steps of several processes, runs that break off."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from datasets.make_dataloader import ReIDData
from datasets.sampler import ShuffleSampler
from model import ModelOutput
from processor.resume import find_state
from processor.stage import Stage
from processor.step.gather import gather_batch
from processor.step.wrapping import wrap
from processor.train import train_stages
from utils.checkpoint import load_file

Tensors = dict[str, torch.Tensor]
FORMULAS = {"rtol": 1e-9, "atol": 1e-9}  # float64 in two orders of summing
RANKS = {"rtol": 1e-9, "atol": 1e-10}
ENDLESS = 10**9  # reads


def assert_formulas(stage: Stage, batch: dict, exact: Tensors, weights: Mapping[str, float], epoch: int = 1) -> None:
    """Assert that parts, total and gradients of a step in float64 are those of the `exact` terms, times `weights`."""
    total, parts = stage.criterion(stage.forward_batch(stage.model, batch), batch, stage.plan.at(epoch))
    assert list(parts) == list(exact)
    for name, value in exact.items():
        torch.testing.assert_close(parts[name], value.detach(), **FORMULAS)
    whole = sum(weights[name] * value for name, value in exact.items())
    torch.testing.assert_close(total, whole, **FORMULAS)
    learnt = list(stage.model.parameters())
    for got, expected in zip(torch.autograd.grad(total, learnt), torch.autograd.grad(whole, learnt), strict=True):
        torch.testing.assert_close(got, expected, **FORMULAS)


def share_of(batch: dict, rank: int, world_size: int) -> dict:
    """Return the rows of one of several processes, in dicts too; a number is that of all."""
    if isinstance(batch, dict):
        return {name: share_of(part, rank, world_size) for name, part in batch.items()}
    if isinstance(batch, int):
        return batch
    share = len(batch) // world_size
    return batch[rank * share : (rank + 1) * share]


def step_on_share(stage: Stage, own: dict, world_size: int, epoch: int = 1) -> tuple[Tensors, ModelOutput, dict]:
    """Return parts, readings, gradients and statistics of a step on a process's rows, and output and batch of all."""
    trained: nn.Module = wrap(stage.model.train(), torch.device("cpu"), world_size, sync_bn=True)
    output = stage.forward_batch(trained, own)
    assert stage.settings.gather
    output, whole = gather_batch(output, own)
    total, parts = stage.criterion(output, whole, stage.plan.at(epoch))
    found = parts | {"total": total.detach()} | stage.criterion.readings(output, whole, stage.plan.at(epoch))
    total.backward()
    found |= {name: weight.grad for name, weight in stage.model.named_parameters() if weight.requires_grad}
    return found | {name: value for name, value in stage.model.named_buffers() if "running" in name}, output, whole


def assert_ranks_alike(found: Tensors, expected: Tensors) -> None:
    """Assert that a process of several has what one alone has, in float64."""
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **RANKS, msg=lambda text, name=name: f"{name} {text}")


class Failing(list):
    """Samples of which, once `reads` of them are read, none can be read any more."""

    reads = ENDLESS

    def __getitem__(self, row: int) -> dict:
        self.reads -= 1
        if self.reads < 0:
            raise OSError("the disk is gone")
        return super().__getitem__(row)


def failing_data(cfg: CfgNode, samples: Sequence[dict], classes: int, reads: int = ENDLESS) -> ReIDData:
    """Return data of samples whose files last for so many reads."""
    rows = Failing(samples)
    rows.reads = reads
    sampler = ShuffleSampler([()] * len(rows), cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.SEED)
    loader = DataLoader(rows, cfg.SOLVER.IMS_PER_BATCH, sampler=sampler, generator=torch.Generator())
    test = type("Test", (), {"fingerprint": "of test"})()
    return ReIDData(loader, None, classes, 1, 1, {cfg.DATASETS.NAMES[0]: test}, None, "of samples")


def assert_a_broken_run_ends_alike(
    folder: Path,
    cfg_of: Callable[[Path], CfgNode],
    model_of: Callable[[CfgNode, int], nn.Module],
    data_of: Callable[[CfgNode, int], ReIDData],
    reads: int,
    finished: int,
) -> str:
    """Assert that a run which breaks off after `reads` samples and goes on ends bit by bit as one that does not.

    `finished` is the last epoch that it ends before. Every weight learns. Returns the metrics of the whole run.
    """
    ends = {}
    for name in ("whole", "broken"):
        (folder / name).mkdir()
        cfg, state = cfg_of(folder / name), None
        torch.manual_seed(11)
        if name == "broken":
            data = data_of(cfg, reads)
            with pytest.raises(OSError, match="the disk is gone"):
                train_stages(cfg, model_of(cfg, 3), data)
            state = find_state(cfg, data.fingerprint)
            assert state["epoch"] == finished
            torch.manual_seed(99)
        train_stages(cfg, model_of(cfg, 3 if state is None else 8), data_of(cfg, ENDLESS), state)
        epochs = range(1, cfg.SOLVER.MAX_EPOCHS + 1)
        ends[name] = [load_file(folder / name / f"{cfg.MODEL.NAME}_{epoch}.pth", "test") for epoch in epochs]
    for one, two in zip(*ends.values(), strict=True):
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    first, last = ends["whole"][0], ends["whole"][-1]
    assert all(not torch.equal(first[key], last[key]) for key in first)
    return (folder / "whole" / "metrics.jsonl").read_text()
