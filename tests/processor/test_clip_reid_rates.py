"""Learning rate, weight decay and frozen state of every weight in every stage of CLIP-ReID."""

import pytest
import torch

from model import make_model
from processor import make_stage
from tests.cfgs import cfg_with
from tests.processor.clip_reid_stages import DECAY, STAGE1, STAGE2, make_parts, rates_of, solver_keys
from tests.reference import slow_clip_reid as slow

CTX = "prompt_learner.cls_ctx"
FROZEN = {"bottleneck.bias", "bottleneck_proj.bias"}
LARGE_FC = 2.0
PERSON_VIT = (
    *("SOLVER.STAGE1.BASE_LR", 3.5e-4, "SOLVER.STAGE1.WARMUP_LR_INIT", 1e-5, "SOLVER.STAGE1.LR_MIN", 1e-6),
    *("SOLVER.STAGE1.WARMUP_EPOCHS", 5, "SOLVER.STAGE1.MAX_EPOCHS", 120, "SOLVER.STAGE1.WEIGHT_DECAY", 1e-4),
    *("SOLVER.STAGE2.BASE_LR", 5e-6, "SOLVER.STAGE2.WARMUP_FACTOR", 0.1, "SOLVER.STAGE2.WARMUP_ITERS", 10),
    *("SOLVER.STAGE2.STEPS", [30, 50], "SOLVER.STAGE2.GAMMA", 0.1, "SOLVER.STAGE2.MAX_EPOCHS", 60),
    *("SOLVER.STAGE2.WEIGHT_DECAY", 1e-4, "SOLVER.STAGE2.WEIGHT_DECAY_BIAS", 2e-4, "SOLVER.STAGE2.BIAS_LR_FACTOR", 2.0),
)


def expected_rates(names: list[str], large_fc: bool) -> dict[str, tuple[float, float]]:
    """Return {name: (learning rate, decay)} of what a stage on images trains, name by name."""
    expected = {}
    for name in names:
        if name.startswith(("text_encoder.", "prompt_learner.")) or name in FROZEN:
            continue
        rate, decay = STAGE2["BASE_LR"], DECAY["WEIGHT_DECAY"]
        if "bias" in name:
            rate, decay = rate * DECAY["BIAS_LR_FACTOR"], DECAY["WEIGHT_DECAY_BIAS"]
        if large_fc and "classifier" in name:
            rate = STAGE2["BASE_LR"] * LARGE_FC
        expected[name] = (rate, decay)
    return expected


def assert_rates(found: dict[str, tuple[float, float]], expected: dict[str, tuple[float, float]]) -> None:
    """Both have the same weights, each with its rate and decay."""
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-12), name


@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("stage_name", ["stage2", "main"])
@pytest.mark.parametrize("large_fc", [False, True])
def test_every_weight_of_a_stage_on_images(tmp_path, kind, stage_name, large_fc):
    cfg, model = make_parts(tmp_path, stage_name, *solver_keys(stage_name, LARGE_FC_LR=large_fc), kind=kind)
    stage = make_stage(cfg, stage_name, model)
    names = [name for name, _ in model.named_parameters()]
    assert ("cv_embed" in names) == (kind == "vit") and (CTX in names) == (stage_name == "stage2")
    expected = expected_rates(names, large_fc)
    assert_rates(rates_of(stage), expected)
    assert {name for name, weight in model.named_parameters() if weight.requires_grad} == set(expected)


def test_the_rates_of_stage_two_are_not_those_of_solver(tmp_path):
    """The rate of large classifiers is twice that of stage 2 too."""
    others = ("SOLVER.BASE_LR", 77.0, "SOLVER.WEIGHT_DECAY", 0.7, "SOLVER.BIAS_LR_FACTOR", 9.0)
    cfg, model = make_parts(tmp_path, "stage2", *solver_keys("stage2", LARGE_FC_LR=True), *others)
    rates = rates_of(make_stage(cfg, "stage2", model))
    assert_rates(rates, expected_rates([name for name, _ in model.named_parameters()], large_fc=True))


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_stage_one_trains_the_prompts_alone(tmp_path, kind):
    cfg, model = make_parts(tmp_path, "stage1", *solver_keys("stage1"), "SOLVER.LARGE_FC_LR", True, kind=kind)
    stage = make_stage(cfg, "stage1", model)
    assert_rates(rates_of(stage), {CTX: (STAGE1["BASE_LR"], 0.02)})
    assert [name for name, weight in model.named_parameters() if weight.requires_grad] == [CTX]


def test_stage_two_after_stage_one_trains_the_tower_again(tmp_path):
    cfg, model = make_parts(tmp_path, "stage1", *solver_keys("stage1"), *solver_keys("stage2"))
    make_stage(cfg, "stage1", model)
    rates = rates_of(make_stage(cfg, "stage2", model))
    assert_rates(rates, expected_rates([name for name, _ in model.named_parameters()], large_fc=False))


@pytest.mark.parametrize("stages, stage_name", [(["stage1", "stage2"], "stage2"), (["main"], "main")])
def test_vit_b16_trains_156_tensors_of_which_74_are_biases(stages, stage_name):
    cfg = cfg_with(
        *("MODEL.NAME", "ViT-B-16", "MODEL.PRETRAIN_CHOICE", "none", "SOLVER.STAGES", stages, "SOLVER.AMP", "off"),
        *("INPUT.SIZE_TRAIN", [256, 128], "INPUT.SIZE_TEST", [256, 128], "TEST.AMP", "off"),
        *PERSON_VIT,
    )
    with torch.device("meta"):
        model = make_model(cfg, 751, 0, 0)
        rates = rates_of(make_stage(cfg, stage_name, model))
    head = [name for name in rates if not name.startswith("image_encoder.")]
    assert sorted(head) == [
        "bottleneck.weight",
        "bottleneck_proj.weight",
        "classifier.weight",
        "classifier_proj.weight",
    ]
    assert len(rates) - len(head) == 152
    assert sum("bias" in name for name in rates) == 74
    if stage_name == "stage2":
        for name, values in rates.items():
            assert values == pytest.approx((1e-5, 2e-4) if "bias" in name else (5e-6, 1e-4), rel=1e-12), name


def test_the_published_rates_of_the_person_vit(tmp_path):
    cfg, model = make_parts(tmp_path, "stage1", *PERSON_VIT)
    prompts = make_stage(cfg, "stage1", model).scheduler
    assert prompts.lr_at(1) == pytest.approx([7.8e-5], rel=1e-12) and prompts.lr_at(120) == [1e-6]
    for epoch in range(1, 125):
        expected = slow.prompt_rate(epoch, 3.5e-4, 1e-5, 1e-6, 5, 120)
        assert prompts.lr_at(epoch) == pytest.approx([expected], rel=1e-12), epoch
    stage = make_stage(cfg, "stage2", model)
    peaks = [group["initial_lr"] for group in stage.optimizer.param_groups]
    assert sorted(peaks) == pytest.approx([5e-6, 1e-5])
    for epoch, rate in ((1, 9.5e-7), (10, 5e-6), (29, 5e-6), (30, 5e-7), (49, 5e-7), (50, 5e-8), (60, 5e-8)):
        expected = [rate * peak / 5e-6 for peak in peaks]
        assert stage.scheduler.lr_at(epoch) == pytest.approx(expected, rel=1e-12), epoch
    for epoch in range(1, 61):
        expected = [slow.image_rate(epoch, peak, 0.1, 10, [30, 50], 0.1) for peak in peaks]
        assert stage.scheduler.lr_at(epoch) == pytest.approx(expected, rel=1e-12), epoch


@pytest.mark.parametrize("stage_name", ["stage2", "main"])
def test_a_constant_warm_up_keeps_its_factor(tmp_path, stage_name):
    cfg, model = make_parts(tmp_path, stage_name, *solver_keys(stage_name, WARMUP_METHOD="constant", WARMUP_ITERS=3))
    scheduler = make_stage(cfg, stage_name, model).scheduler
    assert [scheduler.lr_at(epoch)[0] for epoch in (1, 2, 3)] == pytest.approx([3e-4, 3e-4, 3e-3 * 0.2])


def test_without_iterations_the_baseline_warms_up_over_its_epochs(tmp_path):
    keys = solver_keys("main", WARMUP_ITERS=0, WARMUP_EPOCHS=2)
    cfg, model = make_parts(tmp_path, "main", *keys)
    assert make_stage(cfg, "main", model).scheduler.lr_at(1)[0] == pytest.approx(3e-3 * (0.1 * 0.5 + 0.5))


@pytest.mark.parametrize("stage_name", ["stage1", "stage2", "main"])
def test_sgd_has_the_momentum_of_the_stage(tmp_path, stage_name):
    cfg, model = make_parts(tmp_path, stage_name, *solver_keys(stage_name, "SGD", MOMENTUM=0.6))
    optimizer = make_stage(cfg, stage_name, model).optimizer
    assert isinstance(optimizer, torch.optim.SGD)
    assert {group["momentum"] for group in optimizer.param_groups} == {0.6}
