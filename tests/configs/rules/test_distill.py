"""What is refused and what is said about configurations with a teacher, and where its term acts."""

from pathlib import Path

import pytest

from configs import find_notices, load_cfg
from configs.compare import find_differences
from configs.keys.distill import KEYS
from configs.phases import PhasePlan
from utils.errors import ConfigError
from utils.yaml_text import plain_tree

CONFIGS = Path(__file__).parents[3] / "configs"
MARKET, IRRA = CONFIGS / "Market/vit_base.yml", CONFIGS / "CUHK-PEDES/irra.yml"
STAGES = CONFIGS / "CLIP-ReID/person_vit_clipreid.yml"
RUN, WEIGHT = ("DISTILL.TEACHER_RUN", "logs/teacher"), ("DISTILL.TEACHER_WEIGHT", "teacher.pth")
SSL = ("MODEL.TRAINING_MODE", "self_supervised", "DATALOADER.SAMPLER", "random", "LOSS.SUPCON.ENABLE", True)


def notices_of(*opts: object) -> set[str]:
    """Return what is said with these options and not without them."""
    return set(find_notices(load_cfg(MARKET, opts))) - set(find_notices(load_cfg(MARKET)))


@pytest.mark.parametrize("opts", [RUN, WEIGHT, (*WEIGHT, "DISTILL.TEACHER_CONFIG", "teacher.yml")])
def test_a_teacher_alone_is_sound_and_says_nothing(opts):
    assert notices_of(*opts) == set()


@pytest.mark.parametrize(
    ("path", "opts", "words"),
    [
        (MARKET, (*RUN, *WEIGHT), "DISTILL.TEACHER_RUN 'logs/teacher' and DISTILL.TEACHER_WEIGHT 'teacher.pth' name a"),
        (MARKET, (*RUN, "DISTILL.TEACHER_CONFIG", "t.yml"), "and DISTILL.TEACHER_CONFIG 't.yml' name a teacher each"),
        (MARKET, ("DISTILL.TEACHER_CONFIG", "t.yml"), "DISTILL.TEACHER_CONFIG 't.yml' without DISTILL.TEACHER_WEIGHT"),
        (IRRA, RUN, "DISTILL.TEACHER_RUN: MODEL.NAME irra learns from captions"),
        (MARKET, (*WEIGHT, *SSL), "DISTILL.TEACHER_WEIGHT: MODEL.TRAINING_MODE self_supervised trains with SupCon"),
        (STAGES, (*RUN, "SOLVER.STAGES", "['stage1']"), "SOLVER.STAGES ['stage1'] has no stage on images"),
        (MARKET, (*RUN, "OUTPUT_DIR", "./logs/teacher/"), "a run cannot teach itself"),
        (MARKET, (*RUN, "DISTILL.W_LOGIT", 0), "so nothing of the teacher is learnt; set one above 0, or no teacher"),
        (
            MARKET,
            (*RUN, "DISTILL.W_RELATION", 1, "SOLVER.IMS_PER_BATCH", 2, "DATALOADER.SAMPLER", "softmax"),
            "SOLVER.IMS_PER_BATCH 2 has too few; use at least 3",
        ),
        (MARKET, (*RUN, "DISTILL.T", 0), "DISTILL.T got 0.0, allowed: 0.01 to 1000"),
        (MARKET, (*RUN, "DISTILL.W_FEAT", -1), "DISTILL.W_FEAT got -1.0, allowed: 0 to 1000000"),
        (MARKET, ("DISTILL.TEACHER", "x"), "unknown key DISTILL.TEACHER"),
    ],
)
def test_what_cannot_be_meant_is_refused(path, opts, words):
    with pytest.raises(ConfigError) as caught:
        load_cfg(path, opts)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("opts", "said"),
    [
        (("DISTILL.T", 2), "DISTILL.T: not used, DISTILL.TEACHER_RUN and TEACHER_WEIGHT name no teacher"),
        ((*RUN, "DISTILL.T_RELATION", 0.2), "DISTILL.T_RELATION: not used, DISTILL.W_RELATION is 0"),
        (
            (*RUN, "DISTILL.W_LOGIT", 0, "DISTILL.W_FEAT", 1, "DISTILL.T", 2, "DISTILL.SYMMETRIC", True),
            "DISTILL.T, DISTILL.SYMMETRIC: not used, DISTILL.W_LOGIT is 0",
        ),
    ],
)
def test_keys_without_effect_are_told(opts, said):
    assert notices_of(*opts) == {said}


def test_the_term_has_weight_1_in_every_stage_on_images_and_none_without_a_teacher():
    plans = [PhasePlan(load_cfg(STAGES, RUN), stage) for stage in ("stage1", "stage2")]
    assert [plan.at(1).weights.get("distill") for plan in plans] == [None, 1.0]
    assert PhasePlan(load_cfg(MARKET, WEIGHT)).at(120).weights["distill"] == 1.0
    assert "distill" not in PhasePlan(load_cfg(MARKET)).at(1).weights


def test_phases_may_change_its_weight():
    phases = ("LOSS.PHASED.ENABLE", True, "LOSS.PHASED.BOUNDARIES", "[61]", "LOSS.PHASED.METRIC_SEQ", "['triplet']")
    terms = ("LOSS.PHASED.W_TERMS", "['distill=const:2.0|linear:1.0->0.0']")
    plan = PhasePlan(load_cfg(MARKET, (*RUN, *phases, *terms)))
    assert [plan.at(epoch).weights["distill"] for epoch in (1, 60, 91, 120)] == [2.0, 2.0, pytest.approx(29 / 59), 0.0]


def test_another_teacher_or_weight_is_another_training():
    now = {"DISTILL.TEACHER_RUN": "elsewhere", "DISTILL.SYMMETRIC": True} | dict.fromkeys(
        ("DISTILL.W_LOGIT", "DISTILL.T", "DISTILL.W_FEAT", "DISTILL.W_RELATION", "DISTILL.T_RELATION"), 3.0
    )
    saved, changed = (load_cfg(MARKET, opts) for opts in (RUN, [word for pair in now.items() for word in pair]))
    differing = find_differences(plain_tree(saved.dump()), plain_tree(changed.dump()))
    assert {line.split()[0] for line in differing} == set(now)
    assert set(now) == set(KEYS) - {"DISTILL.TEACHER_WEIGHT", "DISTILL.TEACHER_CONFIG"}
