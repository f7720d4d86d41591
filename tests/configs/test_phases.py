"""Losses, weights, routing and K per epoch: hand-computed values, and a slow resolver on random configurations."""

from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from configs.loss_weights import center_weight, metric_kind, supcon_across_cameras
from configs.phases import active_losses, phase_tag, resolve
from configs.weight_spec import parse_weight_spec
from tests.cfgs import cfg_with
from tests.configs.recipes import BRIGHT, CONDITIONAL, PHASED, SUPCON, TX, flat, model_b_with, opts_of
from tests.reference import slow_schedule

W4 = TX | SUPCON | PHASED | CONDITIONAL
W4 |= {"LOSS.PHASED.BOUNDARIES": [40, 80], "LOSS.PHASED.METRIC_SEQ": ["triplet", "tripletx", "triplet"]}


def weights_at(settings: dict[str, Any], epoch: int) -> dict[str, float]:
    """The weights that are not 0."""
    return {name: weight for name, weight in resolve(model_b_with(settings), epoch).weights.items() if weight}


# ---- phases and weights ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("epoch", "index"), [(1, 0), (39, 0), (40, 1), (79, 1), (80, 2), (120, 2), (121, 2)])
def test_a_phase_begins_at_its_boundary(epoch, index):
    assert resolve(model_b_with(W4), epoch).index == index
    assert resolve(model_b_with(W4 | {"LOSS.PHASED.ENABLE": False}), epoch).index == 0


@pytest.mark.parametrize(
    ("boundaries", "specs", "values"),
    [
        (
            *([30, 60], ["const:0.30", "linear:0.30->0.15", "const:0.0"]),
            {1: 0.3, 29: 0.3, 30: 0.3, 31: 0.295, 45: 0.225, 59: 0.155, 60: 0.0, 120: 0.0},
        ),
        (
            *([40, 80], ["const:0.0", "const:0.30", "linear:0.30->0.0"]),
            {39: 0.0, 40: 0.3, 79: 0.3, 80: 0.3, 100: 0.15, 119: 0.0075, 120: 0.0},
        ),
        ([40, 80], ["linear:0->0.4"], {1: 0.01, 20: 0.2, 39: 0.39, 40: 0.0, 60: 0.2, 80: 0.0, 110: 0.3}),
        ([50], ["const:0.1", "linear:0.2->-0.2"], {49: 0.1, 50: 0.2, 85: 0.0, 100: 0.0}),
        ([], ["linear:0.24->0.12"], {1: 0.239, 60: 0.18, 120: 0.12}),
        ([120], ["const:0.1", "linear:0.3->0.1"], {119: 0.1, 120: 0.3}),
    ],
)
def test_supcon_weight_follows_its_specification(boundaries, specs, values):
    cfg = model_b_with(SUPCON | PHASED | {"LOSS.PHASED.BOUNDARIES": boundaries, "LOSS.PHASED.W_SUP_SPEC": specs})
    assert {epoch: resolve(cfg, epoch).weights["supcon"] for epoch in values} == pytest.approx(values, abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("const", {1: 0.4, 60: 0.4, 120: 0.4}),
        ("linear", {1: 0.4, 39: 0.4, 40: 0.4, 60: 0.3, 100: 0.1, 120: 0.0}),
        ("exp", {1: 0.4, 39: 0.4, 40: 0.4, 41: 0.4 * 0.951229424500714, 60: 0.4 * 0.36787944117144233}),
    ],
)
def test_without_a_specification_supcon_decays_from_w0(kind, values):
    cfg = model_b_with(
        SUPCON
        | PHASED
        | {"LOSS.PHASED.W_SUP_SPEC": [], "LOSS.SUPCON.W0": 0.4, "LOSS.SUPCON.W": 0.9, "LOSS.SUPCON.DECAY_TYPE": kind}
        | {"LOSS.SUPCON.DECAY_START": 40, "LOSS.SUPCON.DECAY_END": 120}
    )
    assert {epoch: resolve(cfg, epoch).weights["supcon"] for epoch in values} == pytest.approx(values, abs=1e-12)


def test_a_specification_wins_over_the_decay_keys_and_both_need_phases():
    decay = {"LOSS.SUPCON.DECAY_TYPE": "linear", "LOSS.SUPCON.DECAY_START": 0, "LOSS.SUPCON.DECAY_END": 1}
    assert weights_at(SUPCON | PHASED | decay | {"LOSS.PHASED.W_SUP_SPEC": ["const:0.30"]}, 50)["supcon"] == 0.3
    assert weights_at(SUPCON | decay | {"LOSS.SUPCON.W": 0.7}, 50)["supcon"] == 0.7


@pytest.mark.parametrize("specs", [["const:0.30"], []])
def test_a_supcon_that_is_not_enabled_has_no_weight_whatever_the_phases_say(specs):
    assert weights_at(PHASED | {"LOSS.PHASED.W_SUP_SPEC": specs}, 10) == {"id": 1.0, "triplet": 1.0}


@pytest.mark.parametrize(
    ("spec", "weights"),
    [
        ("const:0.30", (0.3, 0.3)),
        ("  CONST : .3 ", (0.3, 0.3)),
        ("Linear:1e-1 -> 2", (0.1, 2.0)),
        ("linear: 0.30->-0.5", (0.3, -0.5)),
    ],
)
def test_case_and_spaces_of_a_specification_do_not_matter(spec, weights):
    assert parse_weight_spec(spec) == weights


# ---- the metric loss ------------------------------------------------------------------------------------------------


def test_the_last_entry_of_a_list_serves_all_later_phases():
    short = {"LOSS.PHASED.METRIC_SEQ": ["tripletx", "triplet"], "LOSS.PHASED.W_METRIC_SEQ": [1.5]}
    settings = W4 | short | {"LOSS.PHASED.W_SUP_SPEC": ["const:0.0", "const:0.2"]}
    assert weights_at(settings, 1) == {"id": 1.0, "tripletx": 1.5}
    assert weights_at(settings, 40) == weights_at(settings, 80) == {"id": 1.0, "triplet": 1.5, "supcon": 0.2}


@pytest.mark.parametrize(
    ("end", "kinds"), [(-1, "TXXT"), (0, "TTTT"), (40, "TTTT"), (60, "TXTT"), (79, "TXTT"), (80, "TXXT"), (200, "TXXT")]
)
def test_tripletx_becomes_the_triplet_loss_once_it_is_retired(end, kinds):
    settings = W4 | {"LOSS.PHASED.TRIPLETX_END": end, "LOSS.PHASED.W_METRIC_SEQ": [1.0, 0.5, 2.0]}
    found = [weights_at(settings, epoch) for epoch in (39, 40, 79, 80)]
    assert "".join("X" if "tripletx" in weights else "T" for weights in found) == kinds
    assert [weights.get("tripletx", weights.get("triplet")) for weights in found] == [1.0, 0.5, 0.5, 2.0]


def test_tripletx_end_means_nothing_without_phases():
    settings = TX | CONDITIONAL | {"LOSS.PHASED.TRIPLETX_END": 30}
    for epoch in (1, 30, 120):  # the original dropped K to 4 at epoch 30 and kept the loss
        assert weights_at(settings, epoch) == {"id": 1.0, "tripletx": 1.0}
        assert resolve(model_b_with(settings), epoch).num_instance == 8


@pytest.mark.parametrize("phased", [{}, PHASED])
def test_only_one_metric_loss_acts_and_a_phase_has_its_own_weight(phased):
    own = {"MODEL.TRIPLET_LOSS_WEIGHT": 0.6, "LOSS.TRIPLETX.W": 1.2, "LOSS.PHASED.W_METRIC_SEQ": [0.9]}
    tx = {"LOSS.PHASED.METRIC_SEQ": ["tripletx"]}
    assert weights_at(phased | own, 1)["triplet"] == (0.9 if phased else 0.6)
    assert weights_at(TX | phased | own | tx, 1) == {"id": 1.0, "tripletx": 0.9 if phased else 1.2}


def test_a_weight_of_zero_in_a_phase_stays_zero():
    settings = W4 | SUPCON | {"LOSS.PHASED.W_METRIC_SEQ": [1.0, 0.0], "LOSS.PHASED.W_SUP_SPEC": ["const:0.0"]}
    assert weights_at(settings, 40) == weights_at(settings, 80) == {"id": 1.0}
    assert resolve(model_b_with(settings), 40).num_instance == 4  # TripletX without weight does not ask for its K


def test_a_phase_without_metric_loss_keeps_the_others():
    settings = W4 | {"LOSS.PHASED.METRIC_SEQ": ["none"], "LOSS.PHASED.W_SUP_SPEC": ["const:0.3"]}
    assert weights_at(settings, 40) == {"id": 1.0, "supcon": 0.3}
    assert resolve(model_b_with(settings), 40).num_instance == 8


@pytest.mark.parametrize("key", ["DATALOADER.SAMPLER", "MODEL.METRIC_LOSS_TYPE"])
@pytest.mark.parametrize("phased", [{}, PHASED | {"LOSS.PHASED.METRIC_SEQ": ["tripletx"]}])
def test_without_pxk_batches_or_metric_type_there_is_no_metric_loss(key, phased):
    for value in {"DATALOADER.SAMPLER": ("softmax", "random"), "MODEL.METRIC_LOSS_TYPE": ("center", "none")}[key]:
        cfg = model_b_with(TX | BRIGHT | phased | {key: value})
        assert [name for name, weight in resolve(cfg, 5).weights.items() if weight and name != "center"] == ["id"]
        assert not resolve(cfg, 5).routed


def test_self_supervised_training_knows_supcon_alone():
    mode = {"MODEL.TRAINING_MODE": "self_supervised", "DATALOADER.SAMPLER": "random", "MODEL.JPM": False}
    assert weights_at(TX | SUPCON | mode, 1) == {"supcon": 0.3}
    phases = {"LOSS.PHASED.METRIC_SEQ": ["tripletx"], "LOSS.PHASED.W_SUP_SPEC": ["linear:0.3->0.1"]}
    assert weights_at(TX | SUPCON | PHASED | mode | phases, 15) == {"supcon": pytest.approx(0.2)}


# ---- routing --------------------------------------------------------------------------------------------------------


def test_images_are_routed_exactly_while_tripletx_is_the_metric_loss():
    assert not resolve(model_b_with(BRIGHT), 1).routed
    assert not resolve(model_b_with(TX), 1).routed
    cfg = model_b_with(W4 | BRIGHT | {"LOSS.PHASED.TRIPLETX_END": 60})
    assert [epoch for epoch in range(1, 121) if resolve(cfg, epoch).routed] == list(range(40, 60))


def test_both_metric_losses_have_weight_while_routed():
    weights = {"MODEL.TRIPLET_LOSS_WEIGHT": 0.6, "LOSS.TRIPLETX.W": 1.2}
    assert weights_at(TX | BRIGHT | weights, 1) == {"id": 1.0, "triplet": 0.6, "tripletx": 1.2}
    phase = W4 | BRIGHT | weights | {"LOSS.PHASED.W_METRIC_SEQ": [1.0, 0.9, 1.0]}
    assert weights_at(phase, 40) == {"id": 1.0, "triplet": 0.9, "tripletx": 0.9, "supcon": pytest.approx(0.3)}


# ---- K --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "k"),
    [
        ({}, 4),
        (SUPCON, 8),
        (TX, 2),
        (TX | SUPCON, 2),
        (TX | SUPCON | {"LOSS.TRIPLETX.W": 0.0}, 8),
        (SUPCON | {"LOSS.SUPCON.W": 0.0}, 4),
        (TX | BRIGHT, 2),
        (SUPCON | BRIGHT, 8),
    ],
)
def test_k_follows_the_losses_with_weight(settings, k):
    own = {"DATALOADER.PHASED.K_WHEN_TRIPLETX": 2, "DATALOADER.NUM_INSTANCE": 16}
    assert resolve(model_b_with(settings | CONDITIONAL | own), 1).num_instance == k
    assert resolve(model_b_with(settings | own), 1).num_instance == 16


# ---- against a slow resolver ----------------------------------------------------------------------------------------

few = st.sampled_from([0.0, 0.3, 1.0, 1.2])
numbers = st.sampled_from(["0", "0.30", "1e-1", "-0.2"])
epochs = st.integers(1, 30)
RANDOM_CONFIGS = st.fixed_dictionaries(
    {
        "MODEL.TRAINING_MODE": st.sampled_from(["supervised", "supervised", "self_supervised"]),
        "MODEL.METRIC_LOSS_TYPE": st.sampled_from(["triplet", "triplet_center", "center", "none"]),
        "MODEL.ID_LOSS_WEIGHT": few,
        "MODEL.TRIPLET_LOSS_WEIGHT": few,
        "DATALOADER.SAMPLER": st.sampled_from(["softmax_triplet", "triplet", "softmax", "random"]),
        "DATALOADER.PHASED.ENABLE": st.booleans(),
        "LOSS.TRIPLETX.ENABLE": st.booleans(),
        "LOSS.TRIPLETX.W": few,
        "LOSS.SUPCON.ENABLE": st.booleans(),
        "LOSS.SUPCON.W": few,
        "LOSS.SUPCON.W0": few,
        "LOSS.SUPCON.DECAY_TYPE": st.sampled_from(["linear", "const", "exp"]),
        "LOSS.SUPCON.DECAY_START": st.integers(0, 20),
        "LOSS.SUPCON.DECAY_END": st.integers(0, 40),
        "LOSS.PHASED.ENABLE": st.booleans(),
        "LOSS.PHASED.BOUNDARIES": st.lists(epochs, unique=True, max_size=4).map(sorted),
        "LOSS.PHASED.METRIC_SEQ": st.lists(st.sampled_from(["triplet", "tripletx", "none"]), min_size=1, max_size=5),
        "LOSS.PHASED.W_METRIC_SEQ": st.lists(few, min_size=1, max_size=5),
        "LOSS.PHASED.W_SUP_SPEC": st.lists(
            st.one_of(
                numbers.map("const:{}".format), st.tuples(numbers, numbers).map(lambda xy: f"linear:{xy[0]}->{xy[1]}")
            ),
            max_size=5,
        ),
        "LOSS.PHASED.TRIPLETX_END": st.integers(-1, 30),
        "LOSS.BRIGHTNESS.ENABLE": st.booleans(),
        "SOLVER.MAX_EPOCHS": epochs,
    }
)


@hypothesis.settings(deadline=None)
@hypothesis.given(RANDOM_CONFIGS)
def test_every_epoch_of_a_random_configuration_is_what_the_slow_resolver_says(choices):
    cfg = cfg_with(*opts_of(choices))
    values = flat(cfg)
    for epoch in range(1, cfg.SOLVER.MAX_EPOCHS + 2):
        phase = resolve(cfg, epoch)
        slow = slow_schedule.rules_at(values, epoch)
        phase.weights.pop("center", None)  # no phase moves it
        if any(0 < abs(weight) < 1e-12 for weight in (*phase.weights.values(), *slow.weights.values())):
            continue  # rounding decides whether a ramp is at 0 there
        assert (phase.index, phase.num_instance, phase.routed) == (slow.phase, slow.k, slow.routed)
        assert phase.weights == pytest.approx(slow.weights, abs=1e-12)
        assert values[phase.k_key] == phase.num_instance


# ---- keys that no phase moves, and terms that have no keys of their own ---------------------------------------------


@pytest.mark.parametrize(
    ("asked", "metric", "weight", "expected"),
    [
        ("no", "triplet", 0.3, 0.0),
        ("yes", "triplet", 0.3, 0.3),
        ("no", "triplet_center", 0.3, 0.3),
        ("no", "center", 0.3, 0.3),
        ("yes", "center", 0.0, 0.0),
    ],
)
def test_the_centre_loss_has_its_weight_where_either_key_asks_for_it(asked, metric, weight, expected):
    keys = ("MODEL.IF_WITH_CENTER", asked, "MODEL.METRIC_LOSS_TYPE", metric, "SOLVER.CENTER_LOSS_WEIGHT", weight)
    cfg = cfg_with(*keys)
    assert center_weight(cfg) == expected and isinstance(center_weight(cfg), float)
    weights = resolve(cfg, 1).weights
    assert ("center" in weights) == (expected > 0) and weights.get("center", 0.0) == expected


@pytest.mark.parametrize("aware", [True, False])
@pytest.mark.parametrize("rule", ["class", "class+camera"])
@pytest.mark.parametrize("mode", ["supervised", "self_supervised"])
def test_supcon_looks_across_cameras_by_either_key_but_never_for_views(aware, rule, mode):
    cfg = cfg_with("LOSS.SUPCON.CAM_AWARE", aware, "LOSS.SUPCON.POS_RULE", rule, "MODEL.TRAINING_MODE", mode)
    assert supcon_across_cameras(cfg) == ((aware or rule == "class+camera") and mode == "supervised")


def test_terms_without_keys_follow_their_specs_while_phases_are_on():
    terms = {"LOSS.PHASED.W_TERMS": ["id=const:0.4|linear:1.0->0.5"], "LOSS.PHASED.BOUNDARIES": [41]}
    cfg = model_b_with(PHASED | terms)
    found = {epoch: resolve(cfg, epoch).weights["id"] for epoch in (1, 40, 41, 81, 120)}
    assert found == pytest.approx({1: 0.4, 40: 0.4, 41: 1.0, 81: 1 - 0.5 * 40 / 79, 120: 0.5})
    assert resolve(model_b_with(terms), 41).weights["id"] == 1.0


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({}, "triplet"),
        (TX, "tripletx"),
        ({"DATALOADER.SAMPLER": "softmax"}, "none"),
        ({"MODEL.METRIC_LOSS_TYPE": "center"}, "none"),
        (PHASED | {"LOSS.PHASED.METRIC_SEQ": ["none", "triplet"]}, "none"),
    ],
)
def test_the_metric_loss_has_a_name(settings, kind):
    assert metric_kind(model_b_with(settings), 1) == kind


def test_a_phase_knows_its_epoch_its_tag_and_the_key_of_its_k():
    static, phased = resolve(model_b_with(), 7), resolve(model_b_with(W4), 40)
    assert (static.epoch, static.tag, static.k_key) == (7, "static", "DATALOADER.NUM_INSTANCE")
    assert (phased.epoch, phased.tag, phased.k_key) == (40, "B", "DATALOADER.PHASED.K_WHEN_TRIPLETX")
    assert resolve(model_b_with(SUPCON | CONDITIONAL), 1).k_key == "DATALOADER.PHASED.K_WHEN_SUPCON"
    assert resolve(model_b_with(CONDITIONAL), 1).k_key == "DATALOADER.PHASED.K_OTHER"


def test_letters_run_out_after_26_phases():
    tags = [phase_tag(index) for index in range(28)]
    assert "".join(tags[:26]) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ" and tags[26:] == ["P27", "P28"]


def test_a_term_with_any_weight_is_active_and_one_of_zero_is_not():
    phase = resolve(model_b_with(SUPCON | {"LOSS.SUPCON.W": 1e-9, "MODEL.ID_LOSS_WEIGHT": 0.0}), 1)
    assert active_losses(phase) == ("triplet", "supcon") and phase.k_key == "DATALOADER.NUM_INSTANCE"
