"""The strong baselines on a ResNet-50 against a table written by hand from Luo et al., CVPRW 2019, and its schedule."""

import pytest
import torch

from configs import find_notices, get_cfg_defaults
from configs.phases import PhasePlan
from solver.scheduler import create_scheduler
from tests.configs.recipes import RECIPE_FILES, ROOT, flat, header, load, name_of, resolve_recipe

PEOPLE = {"INPUT.SIZE_TRAIN": [256, 128], "INPUT.SIZE_TEST": [256, 128]}
VEHICLES = {"INPUT.SIZE_TRAIN": [256, 256], "INPUT.SIZE_TEST": [256, 256], "DATASETS.NAMES": ("veri",)}
NAMES, TESTS = "DATASETS.NAMES", "DATASETS.TESTS"
UNFLIPPED = {"INPUT.PROB": 0.0}  # a mirrored flank is another animal's
CENTER = {"MODEL.IF_WITH_CENTER": "yes"}
RECIPES = {
    "Market/resnet50": PEOPLE,
    "Market/resnet50_center": PEOPLE | CENTER,
    "VeRi/resnet50": VEHICLES,
    "VeRi/resnet50_center": VEHICLES | CENTER,
    "CUHK03-NP/resnet50_labelled": PEOPLE | {NAMES: ("cuhk03_labelled",)},
    "CUHK03-NP/resnet50_detected": PEOPLE | {NAMES: ("cuhk03_detected",)},
    "VERI-Wild/resnet50": VEHICLES
    | {NAMES: ("veri_wild_3000",), TESTS: ("veri_wild_3000", "veri_wild_5000", "veri_wild_10000")},
    "Occluded-REID/resnet50": PEOPLE | {TESTS: ("occluded_reid",)},
    "P-DukeMTMC/resnet50": PEOPLE | {NAMES: ("p_dukemtmc",)},
    "Partial-REID/resnet50": PEOPLE | {TESTS: ("partial_reid", "partial_reid_occluded")},
    "LaST/resnet50": PEOPLE | {NAMES: ("last",)},
    "PRAI-1581/resnet50": PEOPLE | {NAMES: ("prai1581",)},
    "ATRW/resnet50": UNFLIPPED | {NAMES: ("atrw",), "INPUT.SIZE_TRAIN": [128, 256], "INPUT.SIZE_TEST": [128, 256]},
    "MARS/resnet50": PEOPLE | {NAMES: ("mars",)},
    "iLIDS-VID/resnet50": PEOPLE | {NAMES: ("ilids_vid",)},
    "Wildlife/resnet50": VEHICLES | UNFLIPPED | {NAMES: ("wildlife",), "DATASETS.WILDLIFE": "data/metadata.csv"},
}
SHARED = {  # what differs from the defaults
    "INPUT.FILTER_TRAIN": "bilinear",
    "INPUT.RE_AREA": [0.02, 0.4],
    "INPUT.RE_VALUE": "raw_mean",
    "DATASETS.ROOT_DIR": "data",
    "DATALOADER.SAMPLER": "softmax_triplet",
    "DATALOADER.NUM_INSTANCE": 4,
    "SOLVER.SCHEDULER": "multistep",
    "SOLVER.MAX_EPOCHS": 120,
    "SOLVER.BASE_LR": 3.5e-4,
    "SOLVER.WARMUP_EPOCHS": 10,
    "SOLVER.CHECKPOINT_PERIOD": 120,
    "SOLVER.EVAL_PERIOD": 120,
    "SOLVER.LOG_PERIOD": 50,
    "TEST.IMS_PER_BATCH": 256,
}
TRICKS = {  # which are defaults, and so stand in no file
    "MODEL.LAST_STRIDE": 1,
    "MODEL.NECK": "bnneck",
    "MODEL.IF_LABELSMOOTH": "on",
    "MODEL.METRIC_LOSS_TYPE": "triplet",
    "MODEL.NO_MARGIN": False,
    "LOSS.LABEL_SMOOTH_EPS": 0.1,
    "LOSS.TRIPLET.FEAT_SRC": "pre_bn",
    "INPUT.PROB": 0.5,
    "INPUT.RE_PROB": 0.5,
    "INPUT.RE_ASPECT": 0.3,
    "INPUT.PADDING": 10,
    "SOLVER.OPTIMIZER_NAME": "Adam",
    "SOLVER.WEIGHT_DECAY": 5e-4,
    "SOLVER.WEIGHT_DECAY_BIAS": 5e-4,
    "SOLVER.BIAS_LR_FACTOR": 1.0,
    "SOLVER.IMS_PER_BATCH": 64,
    "SOLVER.MARGIN": 0.3,
    "SOLVER.STEPS": (40, 70),
    "SOLVER.GAMMA": 0.1,
    "SOLVER.CENTER_LR": 0.5,
    "SOLVER.CENTER_LOSS_WEIGHT": 5e-4,
    "TEST.NECK_FEAT": "after",
    "TEST.FEAT_NORM": "yes",
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_resolves_to_the_table_and_to_the_defaults_elsewhere(name):
    resolved = resolve_recipe(name)
    folder = {"OUTPUT_DIR": "logs/" + name.lower().replace("/", "_")}
    own = {"LOSS.BRANCHES.REDUCE": "halves"}  # '' in the defaults
    assert resolved == flat(get_cfg_defaults()) | own | SHARED | RECIPES[name] | folder
    assert {key: resolved[key] for key in TRICKS} == TRICKS | {
        key: value for key, value in RECIPES[name].items() if key in TRICKS
    }


def test_every_strong_baseline_is_in_the_table():
    """The student of a teacher has TransReID's schedule, and is none."""
    found = {name_of(path) for path in RECIPE_FILES if path.stem.startswith("resnet50")}
    assert found - {"VeRi/resnet50_distill"} == set(RECIPES)


def test_the_rate_rises_for_ten_epochs_and_falls_to_a_tenth_twice():
    cfg = load("Market/resnet50")
    group = {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": cfg.SOLVER.BASE_LR, "lr_scale": 1.0}
    optimizer = torch.optim.Adam([group | {"initial_lr": cfg.SOLVER.BASE_LR}])
    scheduler, rates = create_scheduler(cfg, optimizer), {}
    for epoch in range(1, 121):
        scheduler.step(epoch)
        rates[epoch] = optimizer.param_groups[0]["lr"]
    assert [rates[epoch] for epoch in (10, 39, 40, 69, 70, 120)] == pytest.approx(
        [3.5e-4, 3.5e-4, 3.5e-5, 3.5e-5, 3.5e-6, 3.5e-6]
    )
    warm = [rates[epoch] for epoch in range(1, 11)]
    assert warm == sorted(warm) and warm[0] < 0.2 * warm[-1]


@pytest.mark.parametrize("name", RECIPES)
def test_the_centre_loss_weighs_what_the_paper_says_and_only_in_its_own_recipe(name):
    weights = PhasePlan(load(name)).at(1).weights
    wanted = {"id": 1.0, "triplet": 1.0, "tripletx": 0.0, "supcon": 0.0}
    assert weights == wanted | ({"center": 5e-4} if name.endswith("_center") else {})


@pytest.mark.parametrize("name", RECIPES)
def test_no_recipe_sets_what_nothing_reads_and_each_says_that_it_was_not_measured(name):
    assert find_notices(load(name)) == []
    text = " ".join(header(ROOT / "configs" / f"{name}.yml").replace("#", " ").split())
    assert "Expected: not measured; " in text
    assert "not reproduced here" in text or "no figure known to us" in text
