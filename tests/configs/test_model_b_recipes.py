"""Model B's recipes without CLIP against tables written by hand: what each sets beyond the defaults, and its plan."""

import re

import pytest

from configs import find_notices
from configs.phases import PhasePlan
from tests.configs.recipes import (
    RECIPE_FILES,
    ROOT,
    header,
    load,
    name_of,
    read_plan,
    resolve_recipe,
    transreid_defaults,
)
from tests.configs.test_recipes import CONSTANTS

PREFIX = "VeRi/deit_transreid_stride_"
# Model B's own defaults (with its data folder replaced by ours), where they differ from TransReID's
MODEL_B = CONSTANTS | {
    "MODEL.TRANSFORMER_TYPE": "deit_base_patch16_224_TransReID",
    "MODEL.STRIDE_SIZE": [12, 12],
    "MODEL.JPM": True,
    "MODEL.SHIFT_NUM": 8,
    "MODEL.SIE_CAMERA": True,
    "MODEL.SIE_VIEW": True,
    "INPUT.SIZE_TRAIN": [256, 256],
    "INPUT.SIZE_TEST": [256, 256],
    "INPUT.RE_PROB": 0.8,
    "DATASETS.NAMES": ("veri",),
    "SOLVER.BASE_LR": 0.01,
}

# The words of the table below
SETTINGS = {
    "pk8": {"DATALOADER.NUM_INSTANCE": 8},
    "conditional": {"DATALOADER.PHASED.ENABLE": True},
    "seed0": {"SOLVER.SEED": 0},
    "every3": {"SOLVER.CHECKPOINT_PERIOD": 3, "SOLVER.EVAL_PERIOD": 3},
    "smooth": {"MODEL.IF_LABELSMOOTH": "on"},
    "tri=0": {"MODEL.TRIPLET_LOSS_WEIGHT": 0.0},
    "tri@bnneck": {"LOSS.TRIPLET.FEAT_SRC": "bnneck"},
    "sup@bnneck": {"LOSS.SUPCON.ENABLE": True},
    "sup@pre_bn": {"LOSS.SUPCON.ENABLE": True, "LOSS.SUPCON.FEAT_SRC": "pre_bn"},
    "sup=.35": {"LOSS.SUPCON.W": 0.35},
    "sup=.4": {"LOSS.SUPCON.W": 0.4},
    "tx": {"LOSS.TRIPLETX.ENABLE": True},
    "tx=1.2": {"LOSS.TRIPLETX.W": 1.2},
    "warmup5": {"LOSS.TRIPLETX.WARMUP_EPOCHS": 5},
    "topk4": {"LOSS.TRIPLETX.K": 4},
    "topk8": {"LOSS.TRIPLETX.K": 8},
    "noL2": {"LOSS.TRIPLETX.NORM_FEAT": False},
    "bright": {"LOSS.BRIGHTNESS.ENABLE": True},
    "ssl": {
        "MODEL.TRAINING_MODE": "self_supervised",
        "MODEL.JPM": False,
        "MODEL.SIE_CAMERA": False,
        "MODEL.SIE_VIEW": False,
        "DATALOADER.SAMPLER": "random",
        "SOLVER.IMS_PER_BATCH": 96,
        "LOSS.SUPCON.CAM_AWARE": False,
    },
    "from_b3": {
        "MODEL.PRETRAIN_CHOICE": "self",
        "MODEL.PRETRAIN_PATH": "logs/veri776_b3_ssl_pretrain_seed0_run/transformer_120.pth",
    },
    "ABC": {
        "LOSS.PHASED.ENABLE": True,
        "LOSS.PHASED.BOUNDARIES": [40, 80],
        "LOSS.PHASED.METRIC_SEQ": ["triplet", "tripletx", "triplet"],
        "LOSS.PHASED.W_SUP_SPEC": ["const:0.0", "const:0.30", "const:0.30"],
        "LOSS.PHASED.TRIPLETX_END": 80,
    },
    "historic": {
        "LOSS.PHASED.ENABLE": True,
        "LOSS.PHASED.METRIC_SEQ": ["tripletx", "triplet", "triplet"],
        "LOSS.PHASED.W_METRIC_SEQ": [1.2, 1.0, 1.0],
    },
    "from50": {
        "LOSS.PHASED.ENABLE": True,
        "LOSS.PHASED.BOUNDARIES": [50],
        "LOSS.PHASED.METRIC_SEQ": ["triplet", "triplet"],
        "LOSS.PHASED.W_METRIC_SEQ": [1.0, 1.0],
    },
    "on_off": {"LOSS.PHASED.W_SUP_SPEC": ["const:0.30", "const:0.0"]},
    "off_on": {"LOSS.PHASED.W_SUP_SPEC": ["const:0.0", "const:0.30"]},
    "on_fade": {"LOSS.PHASED.W_SUP_SPEC": ["const:0.30", "linear:0.30->0.0"]},
}
ABC = "1-39 C1 T1 K4 | 40-79 C1 X1 S.3 K8 | 80-120 C1 T1 S.3 K8"
HISTORIC = "1-29 C1 X1.2 S.3 K4 | 30-59 C1 T1 S.3>.15 K4 | 60-120 C1 T1 K4"
ON_OFF = "1-49 C1 T1 S.3 K4 | 50-120 C1 T1 K4"
OFF_ON = "1-49 C1 T1 K4 | 50-120 C1 T1 S.3 K4"
FADE = "1-49 C1 T1 S.3 K4 | 50-119 C1 T1 S.3>0 K4 | 120-120 C1 T1 K4"

# recipe | what it sets beyond Model B's defaults | losses with weights and K by epoch (tests/configs/recipes.py)
TABLE = f"""
baseline                                              |                                    | 1-120 C1 T1 K4
b0_baseline                                           |                                    | 1-120 C1 T1 K4
ce_triplet                                            |                                    | 1-120 C1 T1 K4
ce_triplet_pk8                                        | pk8 every3                         | 1-120 C1 T1 K8
ce_triplet_bnneck                                     | tri@bnneck                         | 1-120 C1 T1 K4
ce_triplet_brightness                                 | bright                             | 1-120 C1 T1 K4
ce_triplet_supcon                                     | sup@bnneck                         | 1-120 C1 T1 S.3 K4
b1_supcon                                             | sup@bnneck                         | 1-120 C1 T1 S.3 K4
ce_triplet_prebn_supcon_bnneck                        | sup@bnneck                         | 1-120 C1 T1 S.3 K4
ce_triplet_prebn_supcon_prebn                         | sup@pre_bn                         | 1-120 C1 T1 S.3 K4
ce_triplet_prebn_supcon_w0.35_prebn                   | sup@pre_bn sup=.35                 | 1-120 C1 T1 S.35 K4
ce_triplet_prebn_supcon_w0.4_prebn                    | sup@pre_bn sup=.4                  | 1-120 C1 T1 S.4 K4
ce_triplet_bnneck_supcon_prebn                        | tri@bnneck sup@pre_bn              | 1-120 C1 T1 S.3 K4
ce_triplet_bnneck_supcon_w0.35_prebn                  | tri@bnneck sup@pre_bn sup=.35      | 1-120 C1 T1 S.35 K4
ce_triplet_pk8_prebn_supcon_prebn                     | sup@pre_bn pk8                     | 1-120 C1 T1 S.3 K8
ce_supcon                                             | tri=0 sup@bnneck                   | 1-120 C1 S.3 K4
ce_smooth_supcon_prebn                                | smooth tri=0 sup@pre_bn            | 1-120 C1 S.3 K4
ce_smooth_supcon_prebn_256                            | smooth tri=0 sup@pre_bn            | 1-120 C1 S.3 K4
ce_triplet_supcon_prebn_enable0to50                   | sup@pre_bn from50 on_off           | {ON_OFF}
ce_triplet_supcon_prebn_enable50to120                 | sup@pre_bn from50 off_on           | {OFF_ON}
ce_triplet_supcon_prebn_sched50to120                  | sup@pre_bn from50 on_fade          | {FADE}
ce_tripletx                                           | tx                                 | 1-120 C1 X1 K4
ce_tripletx_k8                                        | tx pk8                             | 1-120 C1 X1 K8
ce_tripletx_pk8                                       | tx pk8                             | 1-120 C1 X1 K8
ce_tripletx_topk4                                     | tx topk4                           | 1-120 C1 X1 K4
ce_tripletx_topk8                                     | tx topk8                           | 1-120 C1 X1 K4
ce_tripletx_topk8_pk8                                 | tx topk8 pk8                       | 1-120 C1 X1 K8
ce_tripletx_noL2                                      | tx noL2                            | 1-120 C1 X1 K4
ce_tripletx_noL2_k8                                   | tx noL2 pk8                        | 1-120 C1 X1 K8
ce_tripletx_noL2_topk8                                | tx noL2 topk8                      | 1-120 C1 X1 K4
ce_tripletx_supcon                                    | tri=0 tx sup@bnneck every3         | 1-120 C1 X1 S.3 K4
b2_supcon_tripletx                                    | tx sup@bnneck                      | 1-120 C1 X1 S.3 K4
ce_tripletx_supcon_prebn_k4                           | tx sup@pre_bn                      | 1-120 C1 X1 S.3 K4
ce_tripletx_supcon_prebn_k8                           | tx sup@pre_bn pk8                  | 1-120 C1 X1 S.3 K8
ce_tripletx_pk8_prebn_supcon_prebn                    | tx sup@pre_bn pk8                  | 1-120 C1 X1 S.3 K8
ce_triplet_tripletx_brightness                        | tx tx=1.2 bright                   | 1-120 C1 T1 X1.2 K4
ce_triplet_tripletx_brightness_test                   | tx tx=1.2 bright                   | 1-120 C1 T1 X1.2 K4
ce_triplet_tripletx                                   | tx tx=1.2 bright                   | 1-120 C1 T1 X1.2 K4
ce_triplet_tripletx_supcon_prebn_brightness | tx tx=1.2 bright sup@pre_bn conditional seed0 | 1-120 C1 T1 X1.2 S.3 K8
ce_triplet_tripletx_supcon_pre_bn_brightness | tx tx=1.2 bright sup@pre_bn conditional seed0 | 1-120 C1 T1 X1.2 S.3 K8
A_ce_triplet_B_ce_tripletx_supcon_C_ce_triplet_supcon | tx warmup5 sup@pre_bn conditional seed0 ABC   | {ABC}
phased_loss                                           | tx sup@bnneck historic             | {HISTORIC}
b2_phased_loss                                        | tx sup@bnneck historic             | {HISTORIC}
tripletx_to_triplet_supcon_decay                      | tx sup@bnneck historic             | {HISTORIC}
b3_ssl_pretrain                                       | ssl sup@pre_bn                     | 1-120 S.3 K4
b4_ssl_finetune                                       | from_b3                            | 1-120 C1 T1 K4
ssl_finetune                                          | from_b3                            | 1-120 C1 T1 K4
"""
ROWS = [[cell.strip() for cell in line.split("|", 2)] for line in TABLE.strip().splitlines()]
NAMES = [row[0] for row in ROWS]
PUBLISHED = {
    "ce_triplet_tripletx_supcon_prebn_brightness": "83.5 mAP / 97.6 Rank-1",  # W1
    "ce_triplet_tripletx_supcon_pre_bn_brightness": "83.5 mAP / 97.6 Rank-1",
    "ce_triplet_pk8_prebn_supcon_prebn": "83.3 mAP / 97.6 Rank-1",  # W2
    "ce_triplet_tripletx_brightness": "82.8 mAP / 97.6 Rank-1",  # W3
    "ce_triplet_tripletx": "82.8 mAP / 97.6 Rank-1",
    "A_ce_triplet_B_ce_tripletx_supcon_C_ce_triplet_supcon": "82.8 mAP / 97.1 Rank-1",  # W4
    **dict.fromkeys(("baseline", "b0_baseline", "ce_triplet"), "about 82.7 mAP / 97.3 Rank-1"),  # B0
}
NOTICES = {
    "ce_triplet_brightness": "TripletX is never active, so nothing is routed",
    "A_ce_triplet_B_ce_tripletx_supcon_C_ce_triplet_supcon": "SOFT_WARMUP never applies: TripletX starts at epoch 40",
}


def test_model_b_base_differs_from_the_defaults_exactly_as_its_table_says():
    assert resolve_recipe("VeRi/_model_b") == transreid_defaults() | MODEL_B


def test_model_b_baseline_is_transreids_veri_recipe():
    baseline, original = resolve_recipe(f"{PREFIX}baseline"), resolve_recipe("VeRi/deit_transreid_stride")
    assert {key for key in baseline if baseline[key] != original[key]} == {"OUTPUT_DIR"}


def test_every_recipe_of_model_b_without_clip_is_in_the_table_once():
    on_disk = [name for name in map(name_of, RECIPE_FILES) if name.startswith(PREFIX)]
    assert sorted(NAMES) == sorted(name.removeprefix(PREFIX) for name in on_disk if not load(name).MODEL.USE_CLIP)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_recipe_resolves_to_its_row_and_to_model_b_elsewhere(row):
    name, words, _ = row
    wanted = transreid_defaults() | MODEL_B
    for word in words.split():
        wanted |= SETTINGS[word]
    assert resolve_recipe(f"{PREFIX}{name}") == wanted | {"OUTPUT_DIR": f"logs/veri_deit_transreid_stride_{name}"}


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_losses_weights_and_k_of_every_epoch_are_the_rows(row):
    name, words, text = row
    plan, expected = PhasePlan(load(f"{PREFIX}{name}")), read_plan(text)
    assert list(expected) == list(range(1, plan.max_epochs + 1))
    for epoch, (weights, k) in expected.items():
        phase = plan.at(epoch)
        assert (phase.weights, phase.num_instance) == (pytest.approx(weights, abs=1e-12), k), f"epoch {epoch}"
        assert phase.routed == ("tx" in words.split() and "bright" in words.split())


@pytest.mark.parametrize("name", NAMES)
def test_header_gives_the_published_figure_with_its_caveat_or_says_that_there_is_none(name):
    words = header(ROOT / f"configs/{PREFIX}{name}.yml").replace("\n# ", " ")
    figure = re.search(r"Expected: (.*?) Hardware: ", words).group(1)
    if name in PUBLISHED:
        assert figure.startswith(f"{PUBLISHED[name]}; published")
        assert "one seed, best epoch on" in figure and "not reproduced here" in figure
    else:
        assert figure.startswith("no published figure")


@pytest.mark.parametrize("name", NAMES)
def test_only_the_control_run_and_the_late_tripletx_have_something_to_say(name):
    notices = find_notices(load(f"{PREFIX}{name}"))
    assert len(notices) == (name in NOTICES)
    assert all(NOTICES[name] in notice for notice in notices)


def test_the_feature_sources_reach_each_loss_on_its_own():
    cfg = load(f"{PREFIX}ce_triplet_bnneck_supcon_prebn").LOSS
    assert (cfg.TRIPLET.FEAT_SRC, cfg.SUPCON.FEAT_SRC, cfg.TRIPLETX.FEAT_SRC) == ("bnneck", "pre_bn", "pre_bn")
