"""Losses of sets of modalities: their weights at an epoch, how plans show them, and mistakes in their keys."""

import pytest
from yacs.config import CfgNode

from configs.phase_words import describe_losses
from configs.phases import TITLES, PhasePlan
from configs.rules.training import find_loss_problems, find_solver_problems
from solver.preview import schedule_table
from tests.cfgs import cfg_with
from tests.reference.slow_alignment import align_weight
from tools.study.ablation import describe_plan


def cfg_of(*opts: object) -> CfgNode:
    return cfg_with("MODEL.NAME", "multimodal", "SOLVER.MAX_EPOCHS", 40, *opts)


def with_align(w: float, start: int, ramp: int) -> CfgNode:
    return cfg_of("LOSS.ALIGN.W", w, "LOSS.ALIGN.START", start, "LOSS.ALIGN.RAMP", ramp)


def test_the_alignment_rises_as_the_defaults_say():
    plan = PhasePlan(cfg_of())
    weights = {epoch: plan.at(epoch).weights["align"] for epoch in (1, 5, 6, 15, 24, 25, 40)}
    expected = {1: 0.0, 5: 0.0, 6: 0.005, 15: 0.05, 24: 0.095, 25: 0.1, 40: 0.1}
    assert weights == pytest.approx(expected, rel=1e-12, abs=0)


@pytest.mark.parametrize(
    ("w", "start", "ramp"), [(0.1, 6, 20), (1.0, 1, 1), (0.5, 1, 10), (2.0, 40, 5), (0.3, 7, 1), (0.0, 3, 4)]
)
def test_the_weight_of_every_epoch_is_the_rule(w, start, ramp):
    plan = PhasePlan(with_align(w, start, ramp))
    for epoch in range(1, 41):
        assert plan.at(epoch).weights["align"] == pytest.approx(align_weight(epoch, w, start, ramp), rel=1e-12, abs=0)


def test_a_plan_has_the_terms_of_sets_beside_those_of_images():
    weights = PhasePlan(cfg_of("LOSS.FEAT_NORM.W", 0.01, "MODEL.ID_LOSS_WEIGHT", 0.5)).at(1).weights
    assert weights == {"id": 0.5, "triplet": 0.0, "tripletx": 0.0, "supcon": 0.0, "align": 0.0, "norm": 0.01}
    pairs = ("DATALOADER.SAMPLER", "softmax_triplet", "DATALOADER.NUM_INSTANCE", 4, "LOSS.TRIPLETX.ENABLE", True)
    found = PhasePlan(cfg_of(*pairs, "LOSS.SUPCON.ENABLE", True)).at(6).weights
    assert found["tripletx"] > 0 and found["supcon"] > 0 and found["triplet"] == 0


def test_a_run_of_epochs_begins_where_the_alignment_does_and_shows_its_rise():
    plan = PhasePlan(cfg_of())
    segments = [(first.epoch, last.epoch, describe_losses(first, last)) for first, last in plan.segments()]
    assert segments == [(1, 5, "CE 1, Norm 0.002"), (6, 40, "CE 1, Align 0.005->0.1, Norm 0.002")]
    assert "Align 0.005->0.1" in schedule_table(cfg_of())
    assert [(first.epoch, last.epoch) for first, last in PhasePlan(with_align(0.1, 1, 1)).segments()] == [(1, 40)]
    assert describe_plan(plan, 40)["losses"] == "CE+Align+Norm"


def test_phases_give_the_terms_weights_of_their_own():
    phased = ("LOSS.PHASED.ENABLE", True, "LOSS.PHASED.BOUNDARIES", [11])
    plan = PhasePlan(cfg_of(*phased, "LOSS.PHASED.W_TERMS", ["align=const:0.5|const:0", "norm=const:1"]))
    assert [plan.at(epoch).weights["align"] for epoch in (1, 10, 11)] == [0.5, 0.5, 0.0]
    assert plan.at(3).weights["norm"] == 1.0
    assert [(first.epoch, last.epoch) for first, last in plan.segments()] == [(1, 10), (11, 40)]


def test_both_terms_have_titles():
    assert (TITLES["align"], TITLES["norm"]) == ("Align", "Norm")


def test_epochs_before_the_alignment_without_any_loss_are_one_error_that_names_its_start():
    opts = ("MODEL.ID_LOSS_WEIGHT", 0.0, "LOSS.FEAT_NORM.W", 0.0)
    ((keys, text),) = find_loss_problems(cfg_of(*opts))
    assert text.startswith("no loss is left in epoch 1, 2, 3, ...: ") and "LOSS.ALIGN.START 6" in text
    assert {"LOSS.ALIGN.W", "LOSS.ALIGN.START", "MODEL.ID_LOSS_WEIGHT"} <= set(keys)
    assert not list(find_loss_problems(cfg_of(*opts, "LOSS.ALIGN.START", 1)))


def test_two_limits_of_the_gradient_are_refused():
    for name in ("multimodal", "resnet50"):
        cfg = cfg_with("MODEL.NAME", name, "SOLVER.GRAD_CLIP", 1.0, "SOLVER.GRAD_CLIP_QUANTILE", 0.7)
        ((keys, text),) = find_solver_problems(cfg)
        assert keys == ("SOLVER.GRAD_CLIP", "SOLVER.GRAD_CLIP_QUANTILE")
        assert text == (
            "SOLVER.GRAD_CLIP 1 and SOLVER.GRAD_CLIP_QUANTILE 0.7 both limit the norm of the gradient; set one of them "
            "to 0"
        )
    for key in ("GRAD_CLIP", "GRAD_CLIP_QUANTILE"):
        assert not list(find_solver_problems(cfg_with(f"SOLVER.{key}", 0.5)))
