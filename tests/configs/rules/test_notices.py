"""Settings without effect are said, and only those."""

from pathlib import Path

import pytest

from configs import find_notices, load_cfg

BASELINE = Path(__file__).parents[3] / "configs" / "VeRi" / "deit_transreid_stride_baseline.yml"
PHASED = ("LOSS.PHASED.ENABLE", True, "LOSS.SUPCON.ENABLE", True)
SSL = ("MODEL.TRAINING_MODE", "self_supervised", "DATALOADER.SAMPLER", "random", "MODEL.JPM", False)
SSL += ("LOSS.SUPCON.ENABLE", True)
ROUTED = ("LOSS.TRIPLETX.ENABLE", True, "LOSS.BRIGHTNESS.ENABLE", True)


def notices(*opts: object) -> list[str]:
    return find_notices(load_cfg(BASELINE, opts))


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (
            (*PHASED, "MODEL.TRIPLET_LOSS_WEIGHT", 0.5),
            "TRIPLET_LOSS_WEIGHT 0.5 is not used: LOSS.PHASED.W_METRIC",
        ),
        ((*PHASED, "LOSS.SUPCON.W", 0.4), "LOSS.SUPCON.W 0.4 is not used: LOSS.PHASED.W_SUP_SPEC decides"),
        ((*PHASED, "LOSS.SUPCON.W0", 0.4), "LOSS.SUPCON.W0 0.4 is not used: LOSS.PHASED.W_SUP_SPEC decides"),
        ((*PHASED, "LOSS.PHASED.BOUNDARIES", [1, 60]), "phase A has no epoch"),
        ((*PHASED, "MODEL.METRIC_LOSS_TYPE", "none"), "METRIC_SEQ is not used: MODEL.METRIC_LOSS_TYPE is none"),
        ((*ROUTED, "LOSS.BRIGHTNESS.K", 0.1), "LOSS.BRIGHTNESS.K 0.1 is not used"),
        (
            ("MODEL.RESIDUAL", "amp", "SOLVER.AMP", "off", "TEST.AMP", "off"),
            "MODEL.RESIDUAL amp is not used: SOLVER.AMP",
        ),
        (("TEST.QE.ALPHA", 3.0), "TEST.QE.ALPHA 3.0 is not used: TEST.QE.K 0"),
        (("TEST.RERANK.K1", 20), "TEST.RERANK.K1 20 is not used: TEST.RE_RANKING is False"),
        (("DATASETS.VAL_IDS", 0.1, "SOLVER.EVAL_PERIOD", 7), "EVAL_PERIOD 7) and kept (SOLVER.CHECKPOINT_PERIOD"),
        (("DATALOADER.SAMPLER", "softmax"), "the triplet loss is off"),
        (("DATALOADER.SAMPLER", "softmax", "LOSS.SUPCON.ENABLE", True), "positives only by chance"),
        (("DATALOADER.SAMPLER", "random", "DATALOADER.PHASED.ENABLE", True), "DATALOADER.PHASED.ENABLE is not used"),
        (("MODEL.IF_WITH_CENTER", "yes", "SOLVER.CENTER_LOSS_WEIGHT", 0.0), "the centre loss is off"),
        (("SOLVER.NEW_LR_FACTOR", 0.0), "SOLVER.NEW_LR_FACTOR 0: what is no trunk"),
        (("SOLVER.LARGE_FC_LR", True, "SOLVER.FC_LR_FACTOR", 0.0), "SOLVER.FC_LR_FACTOR 0: classifiers keep"),
        (("SOLVER.BIAS_LR_FACTOR", 0.0), "SOLVER.BIAS_LR_FACTOR 0: biases keep"),
        (SSL, "MODEL.SIE_* True"),
        ((*SSL, "DATALOADER.PHASED.ENABLE", True), "DATALOADER.PHASED.ENABLE is not used"),
        (
            ("LOSS.SUPCON.ENABLE", True, "LOSS.SUPCON.CAM_AWARE", False, "LOSS.SUPCON.POS_RULE", "class+camera"),
            "CAM_AWARE False is not used",
        ),
    ],
)
def test_a_setting_without_effect_is_said_once(opts, words):
    assert [words in notice for notice in notices(*opts)].count(True) == 1


@pytest.mark.parametrize(
    "opts",
    [
        (),
        PHASED,
        (*PHASED, "LOSS.PHASED.W_SUP_SPEC", [], "LOSS.SUPCON.W0", 0.4),
        (*ROUTED, "LOSS.BRIGHTNESS.MODE", "soft", "LOSS.BRIGHTNESS.K", 0.1),
        (*SSL, "MODEL.SIE_CAMERA", False, "MODEL.SIE_VIEW", False),
        ("LOSS.SUPCON.ENABLE", True, "LOSS.SUPCON.W", 0.4),
        ("SOLVER.LARGE_FC_LR", False, "SOLVER.FC_LR_FACTOR", 0.0),
    ],
)
def test_settings_that_act_need_no_word(opts):
    assert notices(*opts) == []
