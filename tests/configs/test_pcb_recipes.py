"""The recipes of PCB: what each trains written by hand, published rows and rates, the twins on synthetic persons."""

import json
import re

import pytest
import torch

from configs import find_notices, get_cfg_defaults
from configs.phases import PhasePlan
from solver.scheduler import create_scheduler
from tests.configs.recipes import RECIPE_FILES, ROOT, flat, header, load, name_of, resolve_recipe

FOLDER = "OUTPUT_DIR"
SHARED = {  # by all on a ResNet: what differs from the defaults
    "MODEL.NAME": "pcb",
    "MODEL.METRIC_LOSS_TYPE": "none",
    "MODEL.IF_LABELSMOOTH": "off",
    "INPUT.RE_PROB": 0.0,
    "INPUT.PADDING": 0,
    "DATASETS.ROOT_DIR": "data",
    "LOSS.BRANCHES.REDUCE": "sum",
    "SOLVER.OPTIMIZER_NAME": "SGD",
    "SOLVER.SCHEDULER": "multistep",
    "SOLVER.MAX_EPOCHS": 120,
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.NEW_LR_FACTOR": 10.0,
    "SOLVER.WARMUP_FACTOR": 0.0,
    "SOLVER.WARMUP_EPOCHS": 20,
    "SOLVER.STEPS": (61, 101),
    "SOLVER.CHECKPOINT_PERIOD": 120,
    "SOLVER.EVAL_PERIOD": 120,
    "SOLVER.LOG_PERIOD": 50,
    "TEST.IMS_PER_BATCH": 256,
    "TEST.BRANCHES": True,
}
AUGMENTED = {
    "INPUT.RE_PROB": 0.6,
    "INPUT.RE_AREA": [0.02, 0.1],
    "INPUT.RE_VALUE": "black",
    "INPUT.PADDING": 10,
}
PXK = {"DATALOADER.SAMPLER": "softmax_triplet"}
WITH_GLOBAL = AUGMENTED | {"MODEL.PCB.OWN_STAGE4": True, "MODEL.PCB.DROPOUT": 0.0, "MODEL.PCB.GLOBAL_ERASE": 0.3}
SINGLE = {
    **(AUGMENTED | PXK),
    **{"MODEL.PCB.PARTS": 0, "MODEL.PCB.GLOBAL_POOL": "avg", "MODEL.PCB.DROPOUT": 0.0, "TEST.BRANCHES": False},
    **{"INPUT.SIZE_TRAIN": [256, 128], "INPUT.SIZE_TEST": [256, 128]},
    **{"DATALOADER.NUM_INSTANCE": 4, "SOLVER.IMS_PER_BATCH": 32},
}
SPECTRAL = {"LOSS.SPECTRAL.W": 1.0}
MARKET = {  # recipe -> what it adds to SHARED
    "pcb_r50": {"MODEL.PCB.GLOBAL_DIM": 0},
    "pcb_r50_global": WITH_GLOBAL,
    "pcb_r50_global_tri": WITH_GLOBAL
    | PXK
    | {
        "MODEL.METRIC_LOSS_TYPE": "triplet",
        "LOSS.BRANCHES.DRAWS": 6,
        "LOSS.TRIPLET.BRANCHES": "global+concat",
        "LOSS.TRIPLET.FEAT_SRC": "bnneck",
        "DATALOADER.NUM_INSTANCE": 2,
        "SOLVER.MARGIN": 0.16,
    },
    "r50_256": SINGLE,
    "r50_256_spectral": SINGLE
    | SPECTRAL
    | {
        "MODEL.PRETRAIN_CHOICE": "finetune",
        "MODEL.PRETRAIN_PATH": "logs/market1501_r50_256_seed0_run/pcb_120.pth",
        "LOSS.SPECTRAL.T": 0.3,
        "LOSS.SPECTRAL.FEAT": "embedding",
    },
    "r50_256_spectral_paper": SINGLE
    | SPECTRAL
    | {
        "MODEL.ID_LOSS_TYPE": "amsoftmax",
        "MODEL.PCB.GLOBAL_DIM": 512,
        "INPUT.RE_PROB": 0.5,
        "INPUT.RE_AREA": [0.02, 0.4],
        "INPUT.RE_VALUE": "noise",
        "INPUT.PADDING": 0,
        "DATALOADER.NUM_INSTANCE": 8,
        "SOLVER.IMS_PER_BATCH": 128,
        "SOLVER.MAX_EPOCHS": 140,
        "SOLVER.BASE_LR": 0.1,
        "SOLVER.NEW_LR_FACTOR": 1.0,
        "SOLVER.WARMUP_FACTOR": 0.01,
        "SOLVER.STEPS": (80, 100),
        "SOLVER.COSINE_MARGIN": 0.3,
        "SOLVER.COSINE_SCALE": 15.0,
        "SOLVER.CHECKPOINT_PERIOD": 140,
        "SOLVER.EVAL_PERIOD": 140,
    },
    "r101_256": SINGLE | {"MODEL.PCB.TRUNK": "resnet101"},
    "r50_256_distill": SINGLE | {"DISTILL.TEACHER_RUN": "logs/market1501_r101_256_seed0_run"},
}
PUBLISHED = {  # mAP / Rank-1, rounded; trapezoid AP
    "pcb_r50": "75.6 mAP / 92.1 Rank-1",
    "pcb_r50_global": "81.8 mAP / 94.0 Rank-1",
    "pcb_r50_global_tri": "83.6 mAP / 94.1 Rank-1",
    "r50_256": "82.0 mAP / 93.1 Rank-1",
    "r50_256_spectral": "82.7 mAP / 94.5 Rank-1",
    "r50_256_distill": "83.1 mAP / 94.3 Rank-1",
}
ONE_BRANCH = {
    "MODEL.TRIPLET_LOSS_WEIGHT": 1.0,
    "MODEL.PCB.PARTS": 0,
    "MODEL.PCB.PART_DIM": 256,
    "MODEL.PCB.GLOBAL_DIM": 240,
    "LOSS.TRIPLET.BRANCHES": "global",
    "TEST.BRANCHES": False,
}
TWINS = {  # recipe -> what it changes in Synthetic/pcb
    "Synthetic/pcb_global": ONE_BRANCH,
    "Synthetic/pcb_rb": {"LOSS.BRANCHES.DRAWS": 4},
    "Synthetic/pcb_spectral": SPECTRAL,
    "Synthetic/pcb_teacher": {
        "MODEL.PCB.PART_DIM": 96,
        "MODEL.PCB.GLOBAL_DIM": 96,
        "MODEL.PCB.OWN_STAGE4": True,
        "SOLVER.MAX_EPOCHS": 30,
    },
    "Synthetic/pcb_distill": {"DISTILL.TEACHER_RUN": "logs/synthetic_persons_pcb_teacher_seed0_run"},
    "Market/tiny_cnn": {"DATASETS.NAMES": ("market1501",), "SOLVER.MAX_EPOCHS": 50},
    "VeRi/tiny_cnn": ONE_BRANCH
    | {
        "DATASETS.NAMES": ("veri",),
        "INPUT.SIZE_TRAIN": [64, 64],
        "INPUT.SIZE_TEST": [64, 64],
        "SOLVER.MAX_EPOCHS": 55,
    },
}
OURS = ["Synthetic/pcb", *TWINS, *(f"Market/{name}" for name in MARKET)]


def test_every_recipe_of_pcb_is_in_a_table():
    assert sorted(OURS) == sorted(name_of(path) for path in RECIPE_FILES if load(name_of(path)).MODEL.NAME == "pcb")


@pytest.mark.parametrize("name", MARKET)
def test_a_recipe_on_a_resnet_resolves_to_the_table_and_to_the_defaults_elsewhere(name):
    wanted = flat(get_cfg_defaults()) | SHARED | MARKET[name] | {FOLDER: f"logs/market_{name}"}
    assert resolve_recipe(f"Market/{name}") == wanted


@pytest.mark.parametrize("name", TWINS)
def test_a_small_recipe_changes_exactly_what_the_table_says(name):
    wanted = resolve_recipe("Synthetic/pcb") | TWINS[name] | {FOLDER: "logs/" + name.lower().replace("/", "_")}
    assert resolve_recipe(name) == wanted


def test_the_small_recipe_trains_as_announced():
    cfg = load("Synthetic/pcb")
    pcb = cfg.MODEL.PCB
    assert (pcb.TRUNK, pcb.PARTS, pcb.PART_DIM, pcb.GLOBAL_DIM, pcb.DROPOUT) == ("tiny", 4, 48, 48, 0.0)
    assert cfg.DATASETS.NAMES == ("synthetic_persons",) and cfg.INPUT.SIZE_TRAIN == cfg.INPUT.SIZE_TEST == [64, 32]
    assert (cfg.INPUT.PADDING, cfg.INPUT.PROB, cfg.INPUT.RE_PROB) == (4, 0.5, 0.0)
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE) == (64, 4)
    solver = cfg.SOLVER
    assert (solver.OPTIMIZER_NAME, solver.BASE_LR, solver.WEIGHT_DECAY, solver.MAX_EPOCHS) == ("AdamW", 2e-3, 0.05, 20)
    assert (solver.WARMUP_EPOCHS, solver.SCHEDULER, cfg.LOSS.BRANCHES.REDUCE) == (4, "cosine", "mean")
    assert cfg.MODEL.NO_MARGIN and cfg.MODEL.IF_LABELSMOOTH == "on" and cfg.MODEL.PRETRAIN_CHOICE == "none"


def test_a_recipe_and_its_baseline_have_embeddings_of_one_width():
    widths = {
        name: load(name).MODEL.PCB.GLOBAL_DIM + load(name).MODEL.PCB.PARTS * load(name).MODEL.PCB.PART_DIM
        for name in ("Synthetic/pcb", "Synthetic/pcb_global")
    }
    assert set(widths.values()) == {240}


@pytest.mark.parametrize("name", OURS)
def test_no_recipe_sets_what_nothing_reads(name):
    assert find_notices(load(name)) == []


def rates_of(name: str) -> list[float]:
    """Return the rate of the trunk at each epoch."""
    cfg = load(name)
    group = {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": cfg.SOLVER.BASE_LR, "lr_scale": 1.0}
    optimizer = torch.optim.SGD([group | {"initial_lr": cfg.SOLVER.BASE_LR}])
    scheduler = create_scheduler(cfg, optimizer)
    rates = []
    for epoch in range(1, cfg.SOLVER.MAX_EPOCHS + 1):
        scheduler.step(epoch)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize("name", [name for name in MARKET if name != "r50_256_spectral_paper"])
def test_each_epoch_has_the_published_learning_rate(name):
    rates = rates_of(f"Market/{name}")
    at = {1: 5e-4, 2: 1e-3, 10: 5e-3, 20: 0.01, 60: 0.01, 61: 1e-3, 100: 1e-3, 101: 1e-4, 120: 1e-4}
    assert {epoch: rates[epoch - 1] for epoch in at} == pytest.approx(at) and len(rates) == 120


def test_the_authors_of_the_spectral_transform_warm_up_from_a_hundredth_and_fall_twice():
    rates = rates_of("Market/r50_256_spectral_paper")
    at = {20: 0.1, 79: 0.1, 80: 0.01, 99: 0.01, 100: 1e-3, 140: 1e-3}
    assert {epoch: rates[epoch - 1] for epoch in at} == pytest.approx(at) and len(rates) == 140
    assert rates[0] == pytest.approx(0.1 * (0.01 * 19 + 1) / 20)


@pytest.mark.parametrize("name", OURS)
def test_a_recipe_says_what_is_published_by_which_ap_or_what_our_runs_kept(name):
    text = " ".join(header(next(path for path in RECIPE_FILES if name_of(path) == name)).replace("#", " ").split())
    folder, _, own = name.partition("/")
    if folder == "Market" and own in PUBLISHED:
        assert f"Expected: {PUBLISHED[own]}" in text and "trapezoid AP, one run), not reproduced here" in text
        assert "TEST.AP trapezoid" in text
    elif folder == "Market" and own in MARKET:
        assert "no figure known to us" in text and "not reproduced here" in text
    elif (kept := ROOT / f"docs/results/pcb_synthetic/{own}.json").is_file() and folder == "Synthetic":
        assert f"Expected: {figures(json.loads(kept.read_text()))} at epoch " in text
    elif (kept := ROOT / f"docs/results/small_sets/{folder.lower()}_{own}.json").is_file():
        assert f"Expected: {figures(json.loads(kept.read_text()))} on the emoji set in {folder} layout" in text
    else:
        assert "Expected: not measured." in text


def figures(summary: dict) -> str:
    """Return what a header says of the last epoch of a launch: mAP, with its sd over several seeds, and Rank-1."""
    mean_ap, rank1 = (100 * summary["mean"]["last"][name] for name in ("mAP", "Rank-1"))
    if len(summary["seeds"]) == 1:
        return f"{mean_ap:.1f} mAP / {rank1:.1f} Rank-1"
    return f"{mean_ap:.2f} +- {100 * summary['std']['last']['mAP']:.2f} mAP / {rank1:.1f} Rank-1"


def test_fine_tuning_begins_with_the_last_checkpoint_of_the_run_that_it_names():
    cfg, first = load("Market/r50_256_spectral"), load("Market/r50_256")
    run = f"logs/{first.DATASETS.NAMES[0]}_r50_256_seed0_run"  # as the launcher names it
    assert f"{run}/{first.MODEL.NAME}_{first.SOLVER.MAX_EPOCHS}.pth" == cfg.MODEL.PRETRAIN_PATH


@pytest.mark.parametrize(("name", "count"), [("Market/pcb_r50_global_tri", 7), ("Synthetic/pcb_rb", 5)])
def test_headers_of_random_branches_tell_how_many_learn_on_average(name, count):
    draws = load(name).LOSS.BRANCHES.DRAWS
    # each stays with probability (1 - 1/m)^n; all are dropped only by n >= m draws, then one stays
    kept = count * (1 - 1 / count) ** draws
    assert draws == count - 1
    path = next(path for path in RECIPE_FILES if name_of(path) == name)
    told = re.search(r"branches ([\d.]+|two) on\s+(?:# )?average", header(path))[1]
    assert float({"two": "2"}.get(told, told)) == pytest.approx(kept, abs=0.06)


def test_the_terms_of_each_recipe_are_those_that_it_names():
    for name in OURS:
        weights = {term for term, weight in PhasePlan(load(name)).at(5).weights.items() if weight}
        wanted = {"id"} | ({"triplet"} if load(name).MODEL.METRIC_LOSS_TYPE == "triplet" else set())
        wanted |= {"spectral"} if "spectral" in name else set()
        assert weights == wanted | ({"distill"} if "distill" in name else set()), name
