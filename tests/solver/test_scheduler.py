"""The learning rate as a function of the epoch."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solver import create_scheduler
from solver.scheduler import EpochScheduler, Warmup, cosine_lr, multistep_lr
from tests.cfgs import cfg_with
from utils.errors import ConfigError

BASE, PEAKS = 0.008, (0.008, 0.016)


def make_optimizer(peaks: Sequence[float] = PEAKS, scale: float = 1.0) -> torch.optim.Optimizer:
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": peak * scale, "initial_lr": peak, "lr_scale": scale}
        for peak in peaks
    ]
    return torch.optim.SGD(groups, lr=BASE)


def make_scheduler(*opts: object, scale: float = 1.0) -> tuple[torch.optim.Optimizer, EpochScheduler]:
    cfg = cfg_with("SOLVER.BASE_LR", BASE, "SOLVER.MAX_EPOCHS", 120, *opts)
    optimizer = make_optimizer(scale=scale)
    return optimizer, create_scheduler(cfg, optimizer)


def slow_cosine(
    epoch: int,
    peak: float,
    method: str = "linear",
    warmup: int = 5,
    last: int = 120,
    start: float = 0.01,
    floor: float = 0.002,
) -> float:
    if epoch < warmup:
        slope = (peak - start * BASE) / warmup if method == "linear" else 0
        return start * BASE + epoch * slope
    if epoch < last:
        return floor * BASE + 0.5 * (peak - floor * BASE) * (1 + math.cos(math.pi * epoch / last))
    return floor * BASE


def slow_multistep(
    epoch: int,
    peak: float,
    method: str = "linear",
    warmup: int = 5,
    steps: Sequence[int] = (40, 70),
    gamma: float = 0.1,
    start: float = 0.01,
) -> float:
    rate = peak
    for step in steps:
        if epoch >= step:
            rate *= gamma
    if epoch < warmup:
        alpha = epoch / warmup
        rate *= start * (1 - alpha) + alpha if method == "linear" else start
    return rate


def test_cosine_golden_values():
    _, scheduler = make_scheduler()
    assert scheduler.lr_at(5)[0] == pytest.approx(0.0079658, abs=5e-8)
    assert scheduler.lr_at(1)[0] == pytest.approx(0.00008 + (0.008 - 0.00008) / 5)
    assert scheduler.lr_at(60)[0] == pytest.approx((0.008 + 0.000016) / 2)
    assert scheduler.lr_at(120) == scheduler.lr_at(500) == [pytest.approx(0.000016)] * 2


@pytest.mark.parametrize("method", ["linear", "constant"])
@pytest.mark.parametrize(("kind", "slow"), [("cosine", slow_cosine), ("multistep", slow_multistep)])
def test_table_of_all_epochs_matches_the_slow_formula(kind, slow, method):
    optimizer, scheduler = make_scheduler("SOLVER.SCHEDULER", kind, "SOLVER.WARMUP_METHOD", method)
    for epoch in range(1, 131):
        scheduler.step(epoch)
        expected = [slow(epoch, peak, method) for peak in PEAKS]
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected, rel=1e-12)
        assert scheduler.last_lr == [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize("kind", ["cosine", "multistep"])
def test_scale_multiplies_every_rate_and_with_it_the_floors(kind):
    _, full = make_scheduler("SOLVER.SCHEDULER", kind)
    optimizer, scaled = make_scheduler("SOLVER.SCHEDULER", kind, scale=1e-4)  # far below the cosine's floor 0.002
    assert scaled.last_lr == pytest.approx([1e-4 * rate for rate in full.last_lr])
    for epoch in range(1, 131):
        scaled.step(epoch)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
            [1e-4 * rate for rate in full.lr_at(epoch)], rel=1e-12
        )
    assert max(scaled.last_lr) < 1e-4 * max(PEAKS)


@pytest.mark.parametrize("kind", ["cosine", "multistep"])
def test_all_groups_start_at_the_warmup_factor_times_base_lr(kind):
    optimizer, scheduler = make_scheduler("SOLVER.SCHEDULER", kind)
    assert scheduler.last_lr == [pytest.approx(0.01 * BASE)] * 2
    assert [group["initial_lr"] for group in optimizer.param_groups] == list(PEAKS)


@given(epochs=st.lists(st.integers(1, 200), min_size=1, max_size=20))
def test_order_of_the_calls_does_not_matter(epochs):
    _, walked = make_scheduler()
    _, fresh = make_scheduler()
    for epoch in epochs:
        walked.step(epoch)
    fresh.step(epochs[-1])
    assert walked.last_lr == fresh.last_lr == walked.lr_at(epochs[-1])


def test_lr_at_changes_nothing():
    _, scheduler = make_scheduler()
    scheduler.step(7)
    before = scheduler.last_lr
    scheduler.lr_at(90)
    assert scheduler.last_lr == before


def test_loaded_optimizer_state_does_not_disturb_the_schedule():
    optimizer, scheduler = make_scheduler()
    scheduler.step(30)
    resumed, other = make_scheduler()
    resumed.load_state_dict(optimizer.state_dict())
    assert other.last_lr == scheduler.last_lr
    other.step(31)
    assert other.last_lr == scheduler.lr_at(31)


def test_no_warmup_starts_on_the_schedule():
    _, scheduler = make_scheduler("SOLVER.WARMUP_EPOCHS", 0)
    assert scheduler.lr_at(1) == pytest.approx([slow_cosine(1, peak, warmup=0) for peak in PEAKS])


def test_warmup_longer_than_the_run_never_reaches_the_cosine():
    _, scheduler = make_scheduler("SOLVER.WARMUP_EPOCHS", 10, "SOLVER.MAX_EPOCHS", 4)
    assert scheduler.lr_at(4)[0] == pytest.approx(0.00008 + 4 * (0.008 - 0.00008) / 10)


@given(
    epoch=st.integers(0, 300),
    warmup=st.integers(0, 20),
    factor=st.floats(0, 1),
    method=st.sampled_from(["linear", "constant"]),
)
def test_rates_stay_between_floor_and_peak(epoch, warmup, factor, method):
    start = Warmup(warmup, factor, method)
    cosine = cosine_lr(epoch, BASE, BASE, 120, 0.002, start)
    steps = multistep_lr(epoch, BASE, (40, 70), 0.1, start)
    assert min(0.002, factor) * BASE * (1 - 1e-12) <= cosine <= BASE * (1 + 1e-12)
    assert 0 <= steps <= BASE * (1 + 1e-12)


@pytest.mark.parametrize("epoch", [0, -3])
def test_epoch_below_one_is_refused(epoch):
    _, scheduler = make_scheduler()
    with pytest.raises(ValueError, match="from 1"):
        scheduler.step(epoch)


@pytest.mark.parametrize(
    ("opts", "key"),
    [
        (("SOLVER.SCHEDULER", "cosin"), "SOLVER.SCHEDULER got 'cosin', allowed: cosine, multistep"),
        (("SOLVER.WARMUP_METHOD", "exp"), "SOLVER.WARMUP_METHOD got 'exp', allowed: linear, constant"),
        (("SOLVER.WARMUP_FACTOR", 1.5), "SOLVER.WARMUP_FACTOR"),
        (("SOLVER.WARMUP_EPOCHS", -1), "SOLVER.WARMUP_EPOCHS"),
        (("SOLVER.MAX_EPOCHS", 0), "SOLVER.MAX_EPOCHS"),
        (("SOLVER.SCHEDULER", "multistep", "SOLVER.STEPS", (70, 40)), "SOLVER.STEPS"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_key(opts, key):
    with pytest.raises(ConfigError, match=key):
        make_scheduler(*opts)


@pytest.mark.parametrize("lost", ["initial_lr", "lr_scale"])
def test_group_without_its_peak_or_scale_is_refused(lost):
    group = {"params": [torch.nn.Parameter(torch.zeros(1))], "initial_lr": 0.1, "lr_scale": 1.0}
    del group[lost]
    with pytest.raises(ValueError, match="'initial_lr'.* and 'lr_scale'"):
        EpochScheduler(torch.optim.SGD([group], lr=0.1), lambda epoch, peak: peak, 0.1)
