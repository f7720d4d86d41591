"""Schedules that cannot be trained, each with the one line that it gets, and what a sound one has to say."""

from typing import Any

import pytest

from configs import find_notices, load_cfg
from configs.phases import find_schedule_problems
from configs.weight_spec import GRAMMAR
from tests.cfgs import cfg_with
from tests.configs.recipes import BRIGHT, CONDITIONAL, MODEL_B_FILE, PHASED, SUPCON, TX, model_b_with, opts_of
from utils.errors import ConfigError

LATE = TX | PHASED | CONDITIONAL  # TripletX in epochs 40 to 79 only
LATE |= {"LOSS.PHASED.BOUNDARIES": [40, 80], "LOSS.PHASED.METRIC_SEQ": ["triplet", "tripletx", "triplet"]}


def error_of(settings: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        model_b_with(settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def notices_of(settings: dict[str, Any]) -> list[str]:
    return find_notices(model_b_with(settings))


BAD_SPECS = ["", "0.3", "const", "const:", "const:x", "const:nan", "const:inf", "const:1e999", "const:1.2.3"]
BAD_SPECS += [
    "const:0.3->0.1",
    "linear:0.3",
    "linear:0.3->",
    "linear:->0.1",
    "linear:0.3-0.1",
    "cosine:0.3->0",
    "const 1",
]


@pytest.mark.parametrize("spec", BAD_SPECS)
def test_any_other_specification_is_an_error_that_quotes_it_and_the_grammar(spec):
    message = error_of(PHASED | {"LOSS.PHASED.W_SUP_SPEC": ["const:0.1", spec]})
    assert message == f"command line: LOSS.PHASED.W_SUP_SPEC got '{spec}', expected {GRAMMAR}"
    assert "const:<float>" in GRAMMAR and "linear:<float>-><float>" in GRAMMAR


def test_a_wrong_specification_in_a_file_is_reported_with_its_line_and_quotes_are_optional(tmp_path):
    path = tmp_path / "x.yml"
    head = f"_BASE_: {MODEL_B_FILE}\nLOSS:\n  PHASED:\n    ENABLE: True\n    W_SUP_SPEC: "
    path.write_text(f"{head}[const:0.30, linear:0.30->0.15]\n")
    assert load_cfg(path).LOSS.PHASED.W_SUP_SPEC == ["const:0.30", "linear:0.30->0.15"]
    path.write_text(f"{head}[const:0.30, 'linear:0.30']\n")
    with pytest.raises(ConfigError) as caught:
        load_cfg(path)
    assert str(caught.value) == f"{path}:5: LOSS.PHASED.W_SUP_SPEC got 'linear:0.30', expected {GRAMMAR}"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"LOSS.PHASED.METRIC_SEQ": ["tripletx"]}, "asks for tripletx, but LOSS.TRIPLETX.ENABLE is False"),
        ({"LOSS.PHASED.METRIC_SEQ": ["tripletX"]}, "allowed: triplet, tripletx, none; did you mean tripletx?"),
        ({"LOSS.PHASED.METRIC_SEQ": []}, "LOSS.PHASED.METRIC_SEQ is empty; give one entry for each phase"),
        ({"LOSS.PHASED.W_METRIC_SEQ": []}, "LOSS.PHASED.W_METRIC_SEQ is empty; give one entry for each phase"),
        ({"LOSS.PHASED.W_METRIC_SEQ": [1.0, -0.1]}, "LOSS.PHASED.W_METRIC_SEQ got [1.0, -0.1], allowed: 0 to"),
        ({"LOSS.PHASED.BOUNDARIES": [60, 30]}, "got [60, 30], expected ascending epochs"),
        ({"LOSS.PHASED.BOUNDARIES": [30, 30]}, "got [30, 30], expected ascending epochs"),
        ({"LOSS.PHASED.BOUNDARIES": [0, 30]}, "got [0, 30], expected ascending epochs"),
        ({"LOSS.PHASED.BOUNDARIES": [30.5]}, "expected a list of numbers"),
        ({"LOSS.PHASED.TRIPLETX_END": -2}, "LOSS.PHASED.TRIPLETX_END got -2, allowed: -1 to 100000"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(settings, words):
    assert words in error_of(PHASED | settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"LOSS.PHASED.METRIC_SEQ": ["tripletx"]},
        {"LOSS.PHASED.BOUNDARIES": [60, 30]},
        {"LOSS.PHASED.W_SUP_SPEC": ["cosine:0.3"]},
    ],
)
def test_a_plan_that_is_off_is_not_checked(settings):
    model_b_with(settings)


def test_an_epoch_without_any_loss_is_refused_and_named():
    settings = {"MODEL.ID_LOSS_WEIGHT": 0.0, "LOSS.PHASED.METRIC_SEQ": ["triplet", "none"]}
    specs = {"LOSS.PHASED.BOUNDARIES": [118], "LOSS.PHASED.W_SUP_SPEC": ["const:0.3", "linear:0.3->0.0"]}
    assert "no loss is left in epoch 118, 119, 120: " in error_of(PHASED | settings | specs)
    assert "no loss is left in epoch 120: " in error_of(SUPCON | PHASED | settings | specs)


def test_boosting_dark_images_needs_brightness():
    boost = SUPCON | {"LOSS.SUPCON.DARK_GAMMA": 1.8}
    assert "set it, or DARK_GAMMA 1.0" in error_of(boost)
    model_b_with(boost | BRIGHT)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            SUPCON | BRIGHT | {"DATALOADER.SAMPLER": "random"},
            "LOSS.BRIGHTNESS.ENABLE: there is no metric loss to route; set it False",
        ),
        (SUPCON, "DATALOADER.SAMPLER softmax_triplet cannot serve; set it to random"),
        ({"DATALOADER.SAMPLER": "random"}, "trains with SupCon alone; set LOSS.SUPCON.ENABLE True"),
        (SUPCON | {"DATALOADER.SAMPLER": "random", "LOSS.SUPCON.W": 0.0}, "no loss is left in epoch 1, 2, 3, ..."),
    ],
)
def test_self_supervised_training_needs_supcon_and_a_sampler_without_identities(settings, words):
    assert words in error_of({"MODEL.TRAINING_MODE": "self_supervised", "MODEL.JPM": False} | settings)


def test_only_a_k_that_is_reached_must_divide_the_batch():
    other = {"DATALOADER.PHASED.K_WHEN_TRIPLETX": 7}
    model_b_with(SUPCON | CONDITIONAL | other)
    model_b_with(TX | other)
    assert error_of(TX | CONDITIONAL | other) == (
        "command line: SOLVER.IMS_PER_BATCH 64 is not a multiple of DATALOADER.PHASED.K_WHEN_TRIPLETX 7 (epoch 1); "
        "K may be 2, 4, 8, 16, 32, 64"
    )
    assert "(epoch 40)" in error_of(LATE | other)
    model_b_with(LATE | other | {"LOSS.PHASED.TRIPLETX_END": 40})  # retired before it begins
    model_b_with(SUPCON | CONDITIONAL | {"DATALOADER.SAMPLER": "softmax", "DATALOADER.PHASED.K_WHEN_SUPCON": 7})


def test_a_k_of_one_is_refused_where_a_loss_needs_positives():
    assert "K_OTHER 1 leaves the metric losses of epoch 1" in error_of(CONDITIONAL | {"DATALOADER.PHASED.K_OTHER": 1})
    model_b_with(CONDITIONAL | {"DATALOADER.PHASED.K_OTHER": 1, "MODEL.TRIPLET_LOSS_WEIGHT": 0.0})


@pytest.mark.parametrize(
    ("settings", "notice"),
    [
        (
            PHASED | {"LOSS.PHASED.BOUNDARIES": [50], "LOSS.PHASED.METRIC_SEQ": ["triplet", "none", "triplet"]},
            "LOSS.PHASED.METRIC_SEQ has 3 entries for 2 phases; the last ones never act",
        ),
        (
            PHASED | {"LOSS.PHASED.BOUNDARIES": [30, 121]},
            "LOSS.PHASED.BOUNDARIES [121] lie past SOLVER.MAX_EPOCHS 120: those phases never begin",
        ),
        (
            TX | PHASED | {"LOSS.PHASED.METRIC_SEQ": ["triplet", "tripletx"]},
            "LOSS.TRIPLETX.SOFT_WARMUP never applies: TripletX starts at epoch 30, and WARMUP_EPOCHS 10 counts from "
            "epoch 1 of the run",
        ),
        (TX | PHASED, "LOSS.TRIPLETX.ENABLE is True, but no epoch gives TripletX a weight"),
        (
            SUPCON | PHASED | {"LOSS.PHASED.W_SUP_SPEC": ["const:0.0"]},
            "LOSS.SUPCON.ENABLE is True, but no epoch gives SupCon a weight",
        ),
        (
            BRIGHT,
            "LOSS.BRIGHTNESS.ENABLE: TripletX is never active, so nothing is routed; the dark share is logged",
        ),
    ],
)
def test_a_switch_without_effect_is_said(settings, notice):
    assert notice in notices_of(settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        TX | SUPCON | BRIGHT | CONDITIONAL,
        SUPCON | PHASED,
        TX | {"LOSS.TRIPLETX.WARMUP_EPOCHS": 2},
        TX | {"LOSS.TRIPLETX.WARMUP_EPOCHS": 1, "LOSS.TRIPLETX.SOFT_WARMUP": False},
        TX | PHASED | BRIGHT | {"LOSS.PHASED.METRIC_SEQ": ["tripletx"], "LOSS.PHASED.TRIPLETX_END": 2},
    ],
)
def test_a_schedule_that_acts_as_it_reads_says_nothing(settings):
    assert notices_of(settings) == []


def test_a_warm_up_of_one_epoch_never_applies_for_its_last_epoch_is_the_one_before():
    assert any("SOFT_WARMUP never applies" in text for text in notices_of(TX | {"LOSS.TRIPLETX.WARMUP_EPOCHS": 1}))


def test_a_term_that_is_weighed_twice_is_refused():
    twice = PHASED | {"LOSS.PHASED.W_TERMS": ["id=const:1", "id=const:2"]}
    assert "LOSS.PHASED.W_TERMS names 'id' twice" in error_of(twice)


def test_more_specs_of_a_term_than_phases_are_said():
    surplus = PHASED | {"LOSS.PHASED.BOUNDARIES": [50], "LOSS.PHASED.W_TERMS": ["id=const:1|const:0.5|const:0.2"]}
    assert "LOSS.PHASED.W_TERMS id has 3 entries for 2 phases; the last ones never act" in notices_of(surplus)


def problems_of(settings: dict[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    pxk = {"DATALOADER.SAMPLER": "softmax_triplet", "SOLVER.MAX_EPOCHS": 20}
    return list(find_schedule_problems(cfg_with(*opts_of(pxk | settings))))


DECAY = {"LOSS.SUPCON.DECAY_TYPE": "linear", "LOSS.SUPCON.DECAY_START": 40, "LOSS.SUPCON.DECAY_END": 40}


@pytest.mark.parametrize(
    ("settings", "keys", "words"),
    [
        ({"LOSS.PHASED.BOUNDARIES": [3, 3]}, "LOSS.PHASED.BOUNDARIES", "got [3, 3], expected ascending epochs"),
        (
            {"LOSS.PHASED.METRIC_SEQ": [], "LOSS.PHASED.W_TERMS": ["id=const:1"]},
            "LOSS.PHASED.METRIC_SEQ",
            "METRIC_SEQ is empty; give one entry",
        ),
        ({"LOSS.PHASED.W_METRIC_SEQ": []}, "LOSS.PHASED.W_METRIC_SEQ", "W_METRIC_SEQ is empty; give one entry"),
        (
            {"LOSS.PHASED.METRIC_SEQ": ["tripletx"]},
            "LOSS.TRIPLETX.ENABLE LOSS.PHASED.METRIC_SEQ",
            "METRIC_SEQ ['tripletx'] asks for tripletx, but LOSS.TRIPLETX.ENABLE is False; set it True or write",
        ),
        (
            {"LOSS.PHASED.W_METRIC_SEQ": [1.0, float("inf")]},
            "LOSS.PHASED.W_METRIC_SEQ",
            "W_METRIC_SEQ got inf, expected weights of at least 0",
        ),
        ({"LOSS.PHASED.W_METRIC_SEQ": [float("nan")]}, "LOSS.PHASED.W_METRIC_SEQ", "W_METRIC_SEQ got nan, expected"),
        (DECAY, "LOSS.SUPCON.DECAY_START LOSS.SUPCON.DECAY_END", "DECAY_START 40 is not before DECAY_END 40"),
        ({"LOSS.PHASED.W_SUP_SPEC": ["const:1", "const"]}, "LOSS.PHASED.W_SUP_SPEC", "got 'const', expected"),
        (
            {"LOSS.PHASED.W_TERMS": ["triplet=const:1"]},
            "LOSS.PHASED.W_TERMS",
            "W_TERMS got the term 'triplet', allowed: id",
        ),
    ],
)
def test_each_mistake_of_a_plan_is_said_once_with_the_keys_that_it_concerns(settings, keys, words):
    ((found, text),) = problems_of(PHASED | {"LOSS.PHASED.W_SUP_SPEC": []} | settings)
    assert found == tuple(keys.split()) and words in text


@pytest.mark.parametrize(
    "settings",
    [
        {"LOSS.PHASED.BOUNDARIES": [1]},
        {"LOSS.PHASED.BOUNDARIES": []},
        {"LOSS.PHASED.W_METRIC_SEQ": [0.0]},
        DECAY | {"LOSS.SUPCON.DECAY_END": 41},
        DECAY | {"LOSS.SUPCON.DECAY_TYPE": "exp"},
        DECAY | {"LOSS.PHASED.W_SUP_SPEC": ["const:0.3"]},
        {"LOSS.PHASED.W_TERMS": ["id=const:1|linear:1->0"]},
        {"LOSS.PHASED.METRIC_SEQ": ["tripletx"], "LOSS.TRIPLETX.ENABLE": True},
    ],
)
def test_a_plan_at_the_edge_of_what_is_allowed_is_allowed(settings):
    assert problems_of(PHASED | {"LOSS.PHASED.W_SUP_SPEC": []} | settings) == []


@pytest.mark.parametrize(
    ("batch", "k", "keys", "words"),
    [
        (96, 5, "SOLVER.IMS_PER_BATCH DATALOADER.NUM_INSTANCE", "K may be 2, 3, 4, 6, 8, 12, 16, 24, ..."),
        (24, 5, "SOLVER.IMS_PER_BATCH DATALOADER.NUM_INSTANCE", "K may be 2, 3, 4, 6, 8, 12, 24"),
        (30, 4, "SOLVER.IMS_PER_BATCH DATALOADER.NUM_INSTANCE", "30 is not a multiple of DATALOADER.NUM_INSTANCE 4"),
        (
            8,
            1,
            "DATALOADER.NUM_INSTANCE",
            "DATALOADER.NUM_INSTANCE 1 leaves the metric losses of epoch 1 without a pos",
        ),
        (
            4,
            4,
            "SOLVER.IMS_PER_BATCH DATALOADER.NUM_INSTANCE",
            "epoch 1 without a negative; use at least 8 or a smaller",
        ),
    ],
)
def test_a_k_that_does_not_fit_the_batch_is_said_once_with_its_keys(batch, k, keys, words):
    ((found, text),) = problems_of({"SOLVER.IMS_PER_BATCH": batch, "DATALOADER.NUM_INSTANCE": k})
    assert found == tuple(keys.split()) and words in text
    assert text.endswith(words) or not words.startswith("K may")


@pytest.mark.parametrize(("batch", "k"), [(4, 2), (8, 2), (8, 4), (96, 48)])
def test_two_identities_of_two_images_are_enough(batch, k):
    assert problems_of({"SOLVER.IMS_PER_BATCH": batch, "DATALOADER.NUM_INSTANCE": k}) == []


def test_a_k_needs_pairs_only_where_a_loss_of_pairs_has_weight():
    alone = {"SOLVER.IMS_PER_BATCH": 4, "MODEL.TRIPLET_LOSS_WEIGHT": 0.0}
    for k in (1, 4):
        assert problems_of(alone | {"DATALOADER.NUM_INSTANCE": k}) == []
        assert len(problems_of(alone | SUPCON | {"DATALOADER.NUM_INSTANCE": k})) == 1
    assert problems_of({"DATALOADER.SAMPLER": "random", "SOLVER.IMS_PER_BATCH": 5}) == []


def test_each_k_of_a_plan_is_looked_at_and_said_once():
    later = TX | SUPCON | PHASED | CONDITIONAL | {"SOLVER.IMS_PER_BATCH": 12}
    later |= {"LOSS.PHASED.BOUNDARIES": [5, 10], "LOSS.PHASED.METRIC_SEQ": ["triplet", "tripletx", "none"]}
    later |= {"LOSS.PHASED.W_SUP_SPEC": ["const:0", "const:0", "const:0.5"]}
    ks = {"K_OTHER": 5, "K_WHEN_TRIPLETX": 7, "K_WHEN_SUPCON": 9}
    found = problems_of(later | {f"DATALOADER.PHASED.{name}": k for name, k in ks.items()})
    assert [(keys[1].rpartition(".")[2], text.partition("(")[2].partition(")")[0]) for keys, text in found] == [
        ("K_OTHER", "epoch 1"),
        ("K_WHEN_TRIPLETX", "epoch 5"),
        ("K_WHEN_SUPCON", "epoch 10"),
    ]
    last = {"LOSS.PHASED.BOUNDARIES": [20], "LOSS.PHASED.METRIC_SEQ": ["triplet", "tripletx"]}
    assert len(problems_of(later | last | {"DATALOADER.PHASED.K_WHEN_TRIPLETX": 7})) == 1  # in the last epoch alone
