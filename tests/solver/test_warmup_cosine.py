"""The schedule whose warm-up ends at its peak, where the cosine begins: by hand, and by the rule written out."""

import math

import pytest
import torch

from solver import create_scheduler
from solver.scheduler import Warmup, warmup_cosine_lr
from tests.cfgs import cfg_with
from tests.reference.slow_alignment import warmup_cosine

BASE, PEAKS = 1e-5, (1e-5, 5e-5)
ROUNDING = 1e-14  # relative; a few operations on float64, 1.1e-16 each
OPTS = ("SOLVER.SCHEDULER", "warmup_cosine", "SOLVER.MIN_LR_FACTOR", 0.01, "SOLVER.BASE_LR", BASE)


def rates(epochs: int, warmup: int, *opts: object, until: int | None = None) -> list[list[float]]:
    """The rates of each group from epoch 1 on."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "initial_lr": peak, "lr_scale": 1.0} for peak in PEAKS]
    cfg = cfg_with(*OPTS, "SOLVER.MAX_EPOCHS", epochs, "SOLVER.WARMUP_EPOCHS", warmup, *opts)
    scheduler = create_scheduler(cfg, torch.optim.SGD(groups, lr=BASE))
    return [scheduler.lr_at(epoch) for epoch in range(1, (until or epochs) + 1)]


def test_the_first_epochs_have_the_factors_by_hand():
    factors = [first / BASE for first, _ in rates(60, 5)]
    assert factors[:6] == pytest.approx([0.208, 0.406, 0.604, 0.802, 1.0, 1.0], abs=1e-12)
    middle = 5 + (60 - 5) / 2
    assert warmup_cosine_lr(middle + 1, 1.0, 60, 0.01, Warmup(5)) == pytest.approx(0.505, abs=1e-12)
    assert factors[59] == pytest.approx(0.01 + 0.99 * (1 + math.cos(math.pi * 54 / 55)) / 2, abs=1e-12)


@pytest.mark.parametrize(("epochs", "warmup"), [(150, 15), (60, 5), (7, 0), (9, 8), (5, 5), (4, 20)])
def test_every_rate_of_every_group_is_its_own_peak_times_the_rule(epochs, warmup):
    for passed, found in enumerate(rates(epochs, warmup)):
        factor = warmup_cosine(passed, warmup, epochs)
        assert found == pytest.approx([peak * factor for peak in PEAKS], rel=ROUNDING, abs=0)


def test_floors_are_the_keys_and_the_rate_stays_at_the_lower_one_after_the_last_epoch():
    found = [
        first / BASE for first, _ in rates(6, 2, "SOLVER.WARMUP_FACTOR", 0.5, "SOLVER.MIN_LR_FACTOR", 0.2, until=9)
    ]
    assert found == pytest.approx([warmup_cosine(t, 2, 6, 0.5, 0.2) for t in range(6)] + [0.2] * 3, rel=ROUNDING)


def test_a_constant_warmup_has_its_factor_throughout():
    found = [first / BASE for first, _ in rates(6, 3, "SOLVER.WARMUP_METHOD", "constant")]
    assert found[:4] == pytest.approx([0.01, 0.01, 0.01, 1.0], rel=ROUNDING)
