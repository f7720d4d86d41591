"""The plan of losses, weights and K: what training, sampler, log and preview read of it."""

import pytest

from configs import get_cfg_defaults, loss_weights, phases, stages
from configs.phase_words import describe_losses
from configs.phases import TITLES, Phase, PhasePlan, active_losses, phase_tag, resolve
from tests.cfgs import cfg_with
from tests.configs.recipes import BRIGHT, CONDITIONAL, PHASED, SUPCON, TX, load, model_b_with
from utils.errors import ConfigError

MODEL_B = "VeRi/deit_transreid_stride_"
W1, W4 = "ce_triplet_tripletx_supcon_prebn_brightness", "A_ce_triplet_B_ce_tripletx_supcon_C_ce_triplet_supcon"


def plan_for(*opts: object) -> PhasePlan:
    return PhasePlan(cfg_with(*opts))


def phase_with(k: int = 4, routed: bool = False, **weights: float) -> Phase:
    return Phase(1, 0, "A", dict.fromkeys(("id", "triplet", "tripletx", "supcon"), 0.0) | weights, k, routed)


@pytest.mark.parametrize(
    ("sampler", "metric", "expected"),
    [
        ("softmax_triplet", "triplet", (0.7, 0.4)),
        ("softmax_triplet", "triplet_center", (0.7, 0.4)),
        ("softmax_triplet", "center", (0.7, 0.0)),
        ("softmax_triplet", "none", (0.7, 0.0)),
        ("softmax", "triplet", (0.7, 0.0)),
        ("random", "triplet", (0.7, 0.0)),
        ("triplet", "triplet", (0.0, 0.4)),
    ],
)
def test_sampler_and_metric_type_decide_which_losses_act(sampler, metric, expected):
    plan = plan_for(
        *("DATALOADER.SAMPLER", sampler, "MODEL.METRIC_LOSS_TYPE", metric),
        *("MODEL.ID_LOSS_WEIGHT", 0.7, "MODEL.TRIPLET_LOSS_WEIGHT", 0.4, "DATALOADER.NUM_INSTANCE", 8),
    )
    for epoch in (1, 60, 120):
        phase = plan.at(epoch)
        assert (phase.weights["id"], phase.weights["triplet"]) == expected
        assert phase.weights["tripletx"] == phase.weights["supcon"] == 0.0
        assert (phase.epoch, phase.num_instance, phase.routed) == (epoch, 8, False)


def test_epochs_count_from_one():
    with pytest.raises(ValueError, match="count from 1"):
        plan_for().at(0)


@pytest.mark.parametrize(
    ("name", "expected"), [("baseline", {4: 120}), (W1, {8: 120}), (W4, {4: 39, 8: 81}), ("ce_tripletx_k8", {8: 120})]
)
def test_k_of_model_bs_named_recipes(name, expected):
    plan = PhasePlan(load(MODEL_B + name))
    found = [plan.at(epoch).num_instance for epoch in range(1, 121)]
    assert found == sorted(found)  # W4: 4 first, then 8
    assert {k: found.count(k) for k in set(found)} == expected


def test_phases_are_named_by_letters_and_a_plan_without_phases_is_static():
    plan = PhasePlan(load(MODEL_B + W4))
    assert [plan.at(epoch).tag for epoch in (1, 39, 40, 79, 80, 120)] == list("AABBCC")
    assert PhasePlan(load(MODEL_B + W1)).at(50).tag == "static"
    assert [phase_tag(index) for index in (0, 25, 26)] == ["A", "Z", "P27"]


def test_segments_cover_every_epoch_once_and_end_where_phase_losses_or_k_change():
    plan = PhasePlan(load(MODEL_B + W4))
    assert [(first.epoch, last.epoch) for first, last in plan.segments()] == [(1, 39), (40, 79), (80, 120)]
    fade = SUPCON | PHASED | CONDITIONAL
    fade |= {"LOSS.PHASED.BOUNDARIES": [50], "LOSS.PHASED.W_SUP_SPEC": ["const:0.3", "linear:0.3->-0.3"]}
    plan = PhasePlan(model_b_with(fade))
    # the phase begins at 50, SupCon's weight reaches 0 half way between 50 and 120
    assert [(first.epoch, last.epoch) for first, last in plan.segments()] == [(1, 49), (50, 84), (85, 120)]
    retired = TX | PHASED | {"LOSS.PHASED.METRIC_SEQ": ["tripletx"], "LOSS.PHASED.TRIPLETX_END": 10}
    runs = list(PhasePlan(model_b_with(retired)).segments())
    assert [(first.epoch, last.epoch) for first, last in runs] == [(1, 9), (10, 29), (30, 59), (60, 120)]
    assert [(first.tag, first.epoch) for first, _ in runs] == [("A", 1), ("A", 10), ("B", 30), ("C", 60)]


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, "16x4"),
        ({"DATALOADER.NUM_INSTANCE": 8}, "8x8"),
        (TX | CONDITIONAL | {"SOLVER.IMS_PER_BATCH": 48, "DATALOADER.PHASED.K_WHEN_TRIPLETX": 6}, "8x6"),
        ({"DATALOADER.SAMPLER": "triplet"}, "16x4"),
    ],
)
def test_p_follows_from_the_batch_size_and_k(settings, shape):
    plan = PhasePlan(model_b_with(settings))
    assert plan.batch_shape(plan.at(1)) == shape


@pytest.mark.parametrize("sampler", ["softmax", "random"])
def test_without_identity_sampling_there_is_a_batch_size_only(sampler):
    plan = PhasePlan(model_b_with({"DATALOADER.SAMPLER": sampler, "SOLVER.IMS_PER_BATCH": 40}))
    shape = plan.batch_shape(plan.at(1))
    assert "40" in shape and "x" not in shape


def test_active_losses_are_those_with_weight_and_the_routing():
    assert active_losses(phase_with(id=1.0, supcon=0.1)) == ("id", "supcon")
    both = active_losses(phase_with(routed=True, triplet=1.0, tripletx=1.2))
    assert both == ("triplet", "tripletx", "routed")


@pytest.mark.parametrize(
    ("first", "last", "text"),
    [
        (phase_with(id=1.0, tripletx=1.2, supcon=0.3), None, "CE 1, TripletX 1.2, SupCon 0.3"),
        (phase_with(id=1.0, supcon=0.3), phase_with(id=1.0, supcon=0.155), "CE 1, SupCon 0.3->0.155"),
        (phase_with(supcon=0.3), phase_with(supcon=0.3), "SupCon 0.3"),
        (phase_with(triplet=0.5), None, "Triplet 0.5"),
        (phase_with(routed=True, triplet=1.0, tripletx=1.2), None, "Triplet 1 (bright), TripletX 1.2 (dark)"),
        (phase_with(), None, "none"),
    ],
)
def test_losses_are_described_with_their_weights_and_the_images_that_they_see(first, last, text):
    assert describe_losses(first, last) == text


def test_the_control_run_of_the_routing_routes_nothing():
    phase = PhasePlan(model_b_with(BRIGHT)).at(1)
    assert (phase.routed, active_losses(phase)) == (False, ("id", "triplet"))


def test_a_plan_is_refused_with_all_that_is_wrong_even_without_load_cfg():
    cfg = get_cfg_defaults()
    cfg.LOSS.PHASED.ENABLE = True
    cfg.LOSS.PHASED.BOUNDARIES = [60, 30]
    cfg.LOSS.PHASED.W_METRIC_SEQ = [-1.0]
    cfg.LOSS.PHASED.W_SUP_SPEC = ["cosine:0.3"]
    with pytest.raises(ConfigError) as caught:
        PhasePlan(cfg)
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines] == [
        *("LOSS.PHASED.BOUNDARIES", "LOSS.PHASED.W_METRIC_SEQ", "LOSS.PHASED.W_SUP_SPEC"),
    ]


def test_a_stage_that_the_system_does_not_have_has_no_plan():
    with pytest.raises(ConfigError, match="MODEL.NAME resnet50 has no stage 'mian'; its stages are main"):
        PhasePlan(get_cfg_defaults(), "mian")


def test_phases_count_the_epochs_of_the_last_stage_and_an_earlier_one_has_one_phase_and_no_identities(monkeypatch):
    asked = []

    def weights(cfg: object, epoch: int, stage: str) -> dict[str, float]:
        asked.append((epoch, stage))
        return {"id": 1.0, "triplet": 1.0}

    monkeypatch.setitem(stages.STAGES, "resnet50", ("prompt", "main"))
    monkeypatch.setitem(loss_weights.WEIGHTS, "resnet50", weights)
    opts = ("LOSS.PHASED.ENABLE", True, "LOSS.PHASED.BOUNDARIES", [3], "LOSS.PHASED.W_TERMS", ["id=const:1|const:0.5"])
    cfg = cfg_with(*opts, "SOLVER.MAX_EPOCHS", 5, "DATALOADER.SAMPLER", "softmax_triplet")
    found = {}
    for stage in ("prompt", "main", ""):
        plan = PhasePlan(cfg, stage)
        asked.clear()
        found[stage] = [(one.tag, one.index, one.weights["id"]) for one in map(plan.at, (2, 3))]
        assert asked == [(2, stage or "main"), (3, stage or "main")]
        assert plan.batch_shape(plan.at(1)) == ("shuffled 64" if stage == "prompt" else "4x16")
    assert found["prompt"] == [("static", 0, 1.0)] * 2
    assert found["main"] == found[""] == [("A", 0, 1.0), ("B", 1, 0.5)]
    assert resolve(cfg, 3) == resolve(cfg, 3, "main") != resolve(cfg, 3, "prompt")


def test_code_elsewhere_names_terms_that_tables_know():
    assert (phases.TRIPLET, phases.TRIPLETX, phases.SUPCON) == phases.PAIR_LOSSES == ("triplet", "tripletx", "supcon")
    of_images = {"id": "CE", "triplet": "Triplet", "tripletx": "TripletX", "supcon": "SupCon", "center": "Center"}
    of_texts = {"i2t": "I2T", "t2i": "T2I", "sdm": "SDM", "itc": "ITC", "cmpm": "CMPM", "mlm": "MLM"}
    of_pcb = {"spectral": "Spectral", "distill": "Distill"}
    of_sets = {"align": "Align", "norm": "Norm"}
    assert of_images | of_texts | of_pcb | of_sets == TITLES


def test_a_plan_has_the_batch_and_the_epochs_of_its_solver():
    plan = plan_for("SOLVER.MAX_EPOCHS", 7, "SOLVER.IMS_PER_BATCH", 32)
    assert (plan.max_epochs, plan.batch_size) == (7, 32)
    assert [(first.epoch, last.epoch) for first, last in plan.segments()] == [(1, 7)]
    for epoch in (0, -1):
        with pytest.raises(ValueError, match=f"epochs count from 1, got {epoch}"):
            plan.at(epoch)


def test_losses_that_begin_or_end_within_a_run_are_described_with_both_ends():
    text = describe_losses(phase_with(id=0.5, supcon=0.0), phase_with(id=0.0, supcon=0.25))
    assert text == "CE 0.5->0, SupCon 0->0.25"
    assert describe_losses(phase_with(id=1 / 3)) == "CE 0.3333"
