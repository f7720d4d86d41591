"""A whole criterion on a small batch, and its comparison with the slow loop of tests/reference."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from yacs.config import CfgNode

from configs.phases import PhasePlan
from losses import make_loss
from tests.cfgs import cfg_with
from tests.losses.batches import random_features
from tests.reference import slow_model_b

CLASSES, WIDTH = 3, 4
PIDS = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
CAMIDS = [0, 0, 1, 2, 0, 0, 2, 2, 1, 1, 0]
BRIGHTNESS = [0.1, 0.3, 0.2, 0.6, 0.34, 0.05, 0.8, 0.5, 0.9, 0.5, 0.7]  # dark: 0, 0, 0, 1, 1; bright: 0, 1, 1, 2, 2, 2
TRIPLETX = ("LOSS.TRIPLETX.ENABLE", True)
ROUTING = {
    "off": (),
    "hard": (*TRIPLETX, "LOSS.BRIGHTNESS.ENABLE", True),
    "soft": (*TRIPLETX, "LOSS.BRIGHTNESS.ENABLE", True, "LOSS.BRIGHTNESS.MODE", "soft"),
}
SUPCON = ("LOSS.SUPCON.ENABLE", True)
GLOBAL_ONLY = ("LOSS.BRIGHTNESS.BRANCHES", "global")
PHASED = (
    *TRIPLETX,
    *SUPCON,
    *("LOSS.PHASED.ENABLE", True, "LOSS.PHASED.BOUNDARIES", [10, 20, 30, 40]),
    *("LOSS.PHASED.METRIC_SEQ", ["triplet", "tripletx", "none", "tripletx", "tripletx"]),
    *("LOSS.PHASED.W_METRIC_SEQ", [0.9, 1.2, 1.0, 0.0, 1.1], "LOSS.PHASED.TRIPLETX_END", 50),
    *("LOSS.PHASED.W_SUP_SPEC", ["const:0", "linear:0.3->0.1", "const:0.2", "const:0.4", "const:0"]),
)


class Output(NamedTuple):
    logits: list[torch.Tensor]
    pre_bn: list[torch.Tensor]
    bnneck: list[torch.Tensor]
    projection: torch.Tensor | None

    def tensors(self) -> list[torch.Tensor]:
        return [*self.logits, *self.pre_bn, *self.bnneck, *([] if self.projection is None else [self.projection])]


def make_output(
    branches: int = 5, count: int = 11, dtype: torch.dtype = torch.float64, projection: bool = True
) -> Output:
    def draw(kind: int, branch: int, width: int) -> torch.Tensor:
        return random_features(count, width, seed=100 * kind + branch).to(dtype).requires_grad_()

    lists = [[draw(kind, b, CLASSES if kind == 0 else WIDTH) for b in range(branches)] for kind in range(3)]
    return Output(*lists, draw(3, 0, 6) if projection else None)


def make_batch(
    brightness: Sequence[float] = BRIGHTNESS, pids: Sequence[int] = PIDS, camids: Sequence[int] = CAMIDS
) -> dict:
    return {
        "pids": torch.tensor(pids),
        "camids": torch.tensor(camids),
        "brightness": torch.tensor(brightness, dtype=torch.float64),
    }


def criterion_cfg(*opts: object) -> CfgNode:
    """Return a configuration with a triplet term, 60 epochs long."""
    base = ("DATALOADER.SAMPLER", "softmax_triplet", "SOLVER.MAX_EPOCHS", 60, "MODEL.TRIPLET_LOSS_WEIGHT", 0.8)
    return cfg_with(*base, *opts)


def evaluate(
    cfg: CfgNode, epoch: int = 1, output: Output | None = None, batch: dict | None = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor], Output]:
    """Return (total, parts, output) of the run's own criterion."""
    output = output or make_output()
    total, parts = make_loss(cfg, CLASSES, WIDTH)(output, batch or make_batch(), PhasePlan(cfg).at(epoch))
    return total, parts, output


def check(cfg: CfgNode, epoch: int = 1, output: Output | None = None, batch: dict | None = None) -> dict[str, float]:
    """Total, parts and all gradients are those of the slow loop; return the parts as numbers."""
    total, parts, output = evaluate(cfg, epoch, output, batch)
    phase = PhasePlan(cfg).at(epoch)
    slow_total, slow_parts = slow_model_b.criterion(output, batch or make_batch(), phase, cfg)
    assert parts.keys() == slow_parts.keys()
    for name, part in parts.items():
        assert part.item() == pytest.approx(slow_parts[name].item(), abs=1e-9), name
        assert not part.requires_grad
    assert total.item() == pytest.approx(slow_total.item(), abs=1e-9)
    weighted = sum(phase.weights[name] * part.item() for name, part in parts.items())
    assert total.item() == pytest.approx(weighted, abs=1e-12)
    for got, expected in zip(gradients(total, output), gradients(slow_total, output), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-8)
    return {name: part.item() for name, part in parts.items()}


def gradients(total: torch.Tensor, output: Output) -> list[torch.Tensor]:
    tensors = output.tensors()
    found = torch.autograd.grad(total, tensors, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(tensors, found, strict=True)]


def branch_gradients(total: torch.Tensor, branches: list[torch.Tensor]) -> list[bool]:
    return [bool(g is not None and g.any()) for g in torch.autograd.grad(total, branches, allow_unused=True)]
