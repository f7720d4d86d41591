"""What is refused and what is said about keys of tests."""

from pathlib import Path

import pytest

from configs import find_notices, load_cfg
from configs.rules.test import num_branches
from utils.errors import ConfigError

CONFIGS = Path(__file__).parents[3] / "configs"
BASE = CONFIGS / "Market/vit_base.yml"  # one branch
JPM = CONFIGS / "Market/vit_transreid_stride.yml"  # a global and four local ones


def refusal_of(path: Path, *opts: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_cfg(path, opts)
    return str(caught.value)


def test_two_re_rankings_exclude_each_other():
    error = refusal_of(BASE, "TEST.RE_RANKING", True, "TEST.SPECTRAL.K", 50)
    assert "TEST.RE_RANKING True with TEST.SPECTRAL.K 50" in error and "or TEST.SPECTRAL.K 0" in error
    load_cfg(BASE, ("TEST.QE.K", 3, "TEST.SPECTRAL.K", 50))


@pytest.mark.parametrize(
    ("path", "weights", "said"),
    [
        (BASE, [1, 1], "has 2 weights, the embedding of this model has 1 branch (MODEL.NAME transformer)"),
        (
            JPM,
            [1, 1],
            "has 2 weights, the embedding of this model has 5 branches (MODEL.JPM True, MODEL.DEVIDE_LENGTH 4)",
        ),
        (JPM, [0, 0, 0, 0, 0], "leaves nothing of the embedding"),
        (BASE, [-1], "allowed: 0 to 1000000"),
    ],
)
def test_weights_that_fit_no_branches_are_refused(path, weights, said):
    assert said in refusal_of(path, "TEST.PART_WEIGHTS", weights)


def test_weights_that_fit_are_taken():
    assert load_cfg(JPM, ("TEST.PART_WEIGHTS", [1, 0, 0, 0.5, 0.5])).TEST.PART_WEIGHTS == (1, 0, 0, 0.5, 0.5)


@pytest.mark.parametrize(
    ("file", "opts", "count"),
    [
        ("Market/vit_base.yml", (), 1),
        ("Market/vit_base.yml", ("MODEL.USE_CLIP", True, "MODEL.CLIP_FUSION", "concat"), 2),
        ("Market/vit_transreid_stride.yml", (), 5),
        ("person_vit_clipreid.yml", (), 2),
        ("Synthetic/irra.yml", (), 1),
        ("Market/pcb_r50.yml", (), 6),
        ("Market/pcb_r50_global.yml", (), 7),
    ],
)
def test_the_number_of_branches_is_told_by_the_configuration(file, opts, count):
    cfg = load_cfg(next(CONFIGS.glob(f"**/{file}")), opts)
    assert num_branches(cfg) == count


def test_a_temperature_without_its_switch_is_said():
    assert "TEST.SPECTRAL.T 0.3 is not used: TEST.SPECTRAL.K 0 blurs nothing" in find_notices(
        load_cfg(BASE, ("TEST.SPECTRAL.T", 0.3))
    )


def test_another_rule_of_ap_is_refused():
    assert "TEST.AP got 'Trapezoid', allowed: standard, trapezoid; did you mean trapezoid?" in refusal_of(
        BASE, "TEST.AP", "Trapezoid"
    )
