"""Schedules whose curve begins where the warm-up ends, against IRRA's rules written out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configs import find_notices, load_cfg
from configs.keys.solver import AFTER_WARMUP
from configs.own_values import own_value
from solver import EpochScheduler, create_scheduler
from solver.preview import schedule_table
from solver.scheduler import AfterWarmup, Warmup
from tests.cfgs import cfg_with
from utils.errors import ConfigError

BASE, PEAKS, EPOCHS, LONG = 1e-5, (1e-5, 2e-5, 5e-5), 60, 5
IRRA = ("SOLVER.BASE_LR", BASE, "SOLVER.MAX_EPOCHS", EPOCHS, "SOLVER.WARMUP_FACTOR", 0.1, "SOLVER.STEPS", (20, 50))
BASELINE = "configs/VeRi/vit_base.yml"
ROUNDING = 1e-14  # relative; a few operations on float64, 1.1e-16 each


def slow_rate(curve: str, epoch: int, peak: float, constant: bool = False, target: float = 0.0) -> float:
    """The published rules for `epoch` from 1, one branch each."""
    passed = epoch - 1
    if passed < LONG:
        return peak * (0.1 if constant else [0.10, 0.28, 0.46, 0.64, 0.82][passed])
    ratio = (passed - LONG) / (EPOCHS - LONG)
    if curve == "cosine":
        return target + (peak - target) * (1 + math.cos(math.pi * ratio)) / 2
    if curve == "step":
        return peak * (1 if passed < 20 else 0.1 if passed < 50 else 0.1 * 0.1)
    if curve == "linear":
        return peak * (1 - ratio)
    if curve == "exp":
        return peak * 0.9**ratio
    return target + (peak - target) * (1 - ratio) ** 0.9


def make_scheduler(*opts: object) -> tuple[torch.optim.Optimizer, EpochScheduler]:
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": peak, "initial_lr": peak, "lr_scale": 1.0}
        for peak in PEAKS
    ]
    optimizer = torch.optim.SGD(groups, lr=BASE)
    return optimizer, create_scheduler(cfg_with(*IRRA, *opts), optimizer)


@pytest.mark.parametrize("target", [0.0, 1e-6])
@pytest.mark.parametrize("method", ["linear", "constant"])
@pytest.mark.parametrize("schedule", AFTER_WARMUP)
def test_every_rate_of_every_epoch_is_that_of_the_published_rules(schedule, method, target):
    opts = ("SOLVER.SCHEDULER", schedule, "SOLVER.WARMUP_METHOD", method, "SOLVER.TARGET_LR", target)
    optimizer, scheduler = make_scheduler(*opts)
    for epoch in range(1, EPOCHS + 1):
        scheduler.step(epoch)
        curve = schedule.removeprefix("after_warmup_")
        expected = [slow_rate(curve, epoch, peak, method == "constant", target) for peak in PEAKS]
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected, rel=ROUNDING, abs=0), epoch


def test_the_cosine_has_the_values_of_the_published_runs():
    _, scheduler = make_scheduler("SOLVER.SCHEDULER", "after_warmup_cosine")
    rates = {epoch: scheduler.lr_at(epoch)[0] for epoch in (1, 6, 31, 60)}
    assert rates[1] == pytest.approx(1.0e-6, rel=1e-12, abs=0) and rates[6] == pytest.approx(1.0e-5, rel=1e-12, abs=0)
    assert rates[31] == pytest.approx(5.7116e-6, abs=5e-11) and rates[60] == pytest.approx(8.154e-9, abs=5e-13)


@pytest.mark.parametrize("schedule", AFTER_WARMUP)
def test_no_curve_rises_after_the_warmup(schedule):
    _, scheduler = make_scheduler("SOLVER.SCHEDULER", schedule, "SOLVER.POWER", 0.7)
    rates = [scheduler.lr_at(epoch)[0] for epoch in range(LONG + 1, EPOCHS + 1)]
    assert rates[0] == BASE and rates == sorted(rates, reverse=True) and rates[-1] < BASE


@pytest.mark.parametrize(
    ("schedule", "last"),
    [("cosine", 1e-6), ("step", 1e-7), ("linear", 0.0), ("exp", 0.9e-5), ("poly", 1e-6)],
)
def test_past_the_last_epoch_the_curve_stays_at_its_end(schedule, last):
    opts = ("SOLVER.SCHEDULER", f"after_warmup_{schedule}", "SOLVER.TARGET_LR", 1e-6)
    _, scheduler = make_scheduler(*opts)
    ends = [scheduler.lr_at(epoch)[0] for epoch in (EPOCHS + 1, EPOCHS + 40)]
    assert ends == pytest.approx([last] * 2, rel=1e-12, abs=0)


@given(
    epoch=st.integers(1, 300),
    warmup=st.integers(0, 80),
    max_epochs=st.integers(1, 60),
    curve=st.sampled_from(AFTER_WARMUP),
    peak=st.floats(1e-9, 1),
)
def test_a_rate_lies_between_zero_and_its_peak_whatever_the_length_of_the_warmup(
    epoch, warmup, max_epochs, curve, peak
):
    schedule = AfterWarmup(curve, max_epochs, Warmup(warmup, 0.1), power=0.9, steps=(20, 50))
    assert 0 <= schedule(epoch, peak) <= peak * (1 + ROUNDING)
    assert epoch > warmup or schedule(epoch, peak) < peak


def test_the_scale_of_a_layer_multiplies_the_target_too():
    schedule = AfterWarmup("after_warmup_cosine", 10, Warmup(2, 0.1), target_lr=1e-3)
    group = {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.05, "initial_lr": 0.1, "lr_scale": 0.5}
    scheduler = EpochScheduler(torch.optim.SGD([group], lr=0.1), schedule, 0.01)
    for epoch in range(1, 13):
        assert scheduler.lr_at(epoch) == [0.5 * schedule(epoch, 0.1)]
    assert scheduler.lr_at(11) == [pytest.approx(0.5e-3)]


def test_an_unknown_curve_is_refused():
    with pytest.raises(ValueError, match="'after_warmup_sine' is none of after_warmup_cosine, "):
        AfterWarmup("after_warmup_sine", 10, Warmup())(7, 0.1)


def test_the_systems_own_schedule_is_irras_for_irra_alone():
    names = ("irra", "transformer", "resnet50", "clip_reid")
    owns = [own_value(cfg_with("MODEL.NAME", name), "SOLVER.SCHEDULER") for name in names]
    assert owns == ["after_warmup_cosine", "cosine", "cosine", "multistep"]


def test_the_preview_shows_first_highest_and_last_rate():
    cfg = load_cfg(BASELINE, (*IRRA, "SOLVER.SCHEDULER", "after_warmup_cosine"))
    line = schedule_table(cfg).splitlines()[1]
    assert line.split()[0] == f"1-{EPOCHS}" and line.split()[-1] == "1.00e-06->1.00e-05->8.15e-09"


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("SOLVER.SCHEDULER", "after_warmup_step", "SOLVER.STEPS", (50, 20)), "SOLVER.STEPS got .*ascending epochs"),
        (
            ("SOLVER.SCHEDULER", "after_warmup_cosine", "SOLVER.TARGET_LR", 2e-5),
            "SOLVER.TARGET_LR 2e-05 is above SOLVER.BASE_LR 1e-05, so after_warmup_cosine would rise",
        ),
        (("SOLVER.SCHEDULER", "after_warmup_poly", "SOLVER.TARGET_LR", 1.0), "SOLVER.TARGET_LR 1 is above"),
        (("SOLVER.SCHEDULER", "after_warmup_exp", "SOLVER.POWER", 1.5), "SOLVER.POWER 1.5: .*would rise"),
        (("SOLVER.SCHEDULER", "after_warmup_poly", "SOLVER.POWER", 0.0), "SOLVER.POWER got 0.0, allowed: 0.001 to"),
        (("SOLVER.BETAS", [0.9, 1.0]), r"SOLVER.BETAS got \[0.9, 1.0\], allowed: 0 to 0.9999999"),
        (("SOLVER.BETAS", [0.9]), r"SOLVER.BETAS got \[0.9\], expected 2 numbers"),
        (("SOLVER.ADAM_EPS", 0.0), "SOLVER.ADAM_EPS got 0.0, allowed: 1e-16 to 1"),
        (("SOLVER.NEW_LR_FACTOR", -1.0), "SOLVER.NEW_LR_FACTOR got -1.0, allowed: 0 to 10000"),
    ],
)
def test_a_setting_that_cannot_work_is_one_error_that_names_it(opts, words):
    with pytest.raises(ConfigError, match=words) as caught:
        load_cfg(BASELINE, (*IRRA, *opts))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "opts",
    [
        ("SOLVER.SCHEDULER", "cosine", "SOLVER.TARGET_LR", 1.0),
        ("SOLVER.SCHEDULER", "after_warmup_linear", "SOLVER.TARGET_LR", 1.0),
        ("SOLVER.SCHEDULER", "after_warmup_poly", "SOLVER.POWER", 2.0),
        ("SOLVER.SCHEDULER", "after_warmup_cosine", "SOLVER.TARGET_LR", BASE),
    ],
)
def test_a_number_that_a_schedule_does_not_rise_by_is_no_error(opts):
    load_cfg(BASELINE, (*IRRA, *opts))


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("SOLVER.TARGET_LR", 1e-7), "SOLVER.TARGET_LR 1e-07 is not used: SOLVER.SCHEDULER cosine does not fall to it"),
        (
            ("SOLVER.POWER", 0.5, "SOLVER.SCHEDULER", "after_warmup_cosine"),
            "SOLVER.POWER 0.5 is not used: SOLVER.SCHEDULER after_warmup_cosine has none",
        ),
        (
            ("SOLVER.MIN_LR_FACTOR", 0.1, "SOLVER.SCHEDULER", "after_warmup_poly"),
            "SOLVER.MIN_LR_FACTOR 0.1 is not used: SOLVER.SCHEDULER after_warmup_poly knows SOLVER.TARGET_LR",
        ),
        (
            ("SOLVER.ADAM_EPS", 1e-3, "SOLVER.OPTIMIZER_NAME", "SGD"),
            "SOLVER.ADAM_EPS 0.001 is not used: SOLVER.OPTIMIZER_NAME SGD has none",
        ),
        (
            ("SOLVER.LARGE_FC_LR", True, "SOLVER.NEW_LR_FACTOR", 5.0),
            "SOLVER.LARGE_FC_LR True is not used: SOLVER.NEW_LR_FACTOR 5 decides",
        ),
        (
            ("INPUT.RE_AREA", [0.02, 0.4], "INPUT.RE_PROB", 0.0),
            "INPUT.RE_AREA [0.02, 0.4] is not used: INPUT.RE_PROB 0 erases nothing",
        ),
    ],
)
def test_a_number_that_nothing_reads_is_said(opts, words):
    assert find_notices(load_cfg(BASELINE, opts)).count(words) == 1


@pytest.mark.parametrize(
    "opts",
    [
        ("SOLVER.TARGET_LR", 1e-7, "SOLVER.SCHEDULER", "after_warmup_cosine"),
        ("SOLVER.POWER", 0.5, "SOLVER.TARGET_LR", 1e-7, "SOLVER.SCHEDULER", "after_warmup_poly"),
        ("SOLVER.ADAM_EPS", 1e-3, "SOLVER.BETAS", [0.8, 0.9], "SOLVER.OPTIMIZER_NAME", "AdamW"),
        ("SOLVER.LARGE_FC_LR", True, "SOLVER.FC_LR_FACTOR", 3.0),
        ("INPUT.RE_AREA", [0.02, 0.4], "INPUT.RE_VALUE", "black"),
    ],
)
def test_numbers_that_act_need_no_word(opts):
    assert find_notices(load_cfg(BASELINE, opts)) == []
