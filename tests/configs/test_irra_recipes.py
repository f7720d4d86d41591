"""The recipes of IRRA: the authors' reference command written by hand, the twins of each, the published figures."""

import json
import re

import pytest

from configs import find_notices
from configs.phases import PhasePlan
from datasets.synthetic.plan import plan_identities, plan_shots
from datasets.synthetic_text import take_captioned
from datasets.tokens import tokenize
from tests.configs.recipes import RECIPE_FILES, ROOT, header, load, name_of, resolve_recipe

COMMAND = {  # options of the command, and what the code it starts sets; all else is not the recipe's to say
    "MODEL.NAME": "irra",
    "MODEL.CLIP_BACKBONE": "ViT-B-16-quickgelu",
    "MODEL.CLIP_PRETRAIN": "openai",
    "MODEL.STRIDE_SIZE": [16, 16],
    "MODEL.CMT_DEPTH": 4,
    "MODEL.CMT_MASK_PADDING": False,
    "INPUT.SIZE_TRAIN": [384, 128],
    "INPUT.SIZE_TEST": [384, 128],
    "INPUT.PIXEL_MEAN": [0.48145466, 0.4578275, 0.40821073],
    "INPUT.PIXEL_STD": [0.26862954, 0.26130258, 0.27577711],
    "INPUT.FILTER_TRAIN": "bilinear",
    "INPUT.FILTER_TEST": "bilinear",
    "INPUT.PROB": 0.5,
    "INPUT.PADDING": 10,
    "INPUT.RE_PROB": 0.5,
    "INPUT.RE_AREA": [0.02, 0.4],
    "INPUT.RE_VALUE": "raw_mean",
    "INPUT.TEXT.LENGTH": 77,
    "INPUT.TEXT.MASK_RATE": 0.15,
    "INPUT.TEXT.MASK_SHARE": 0.8,
    "INPUT.TEXT.KEEP_SHARE": 0.1,
    "INPUT.TEXT.MASK_CAPTION": True,
    "LOSS.TEXT.TEMPERATURE": 0.02,
    "LOSS.TEXT.SOFT_LABEL": 1.0,
    "DATASETS.EVAL_SPLIT": "test",
    "DATALOADER.SAMPLER": "softmax",
    "SOLVER.IMS_PER_BATCH": 64,
    "SOLVER.OPTIMIZER_NAME": "Adam",
    "SOLVER.BASE_LR": 1e-5,
    "SOLVER.ADAM_EPS": 1e-3,
    "SOLVER.BETAS": [0.9, 0.999],
    "SOLVER.BIAS_LR_FACTOR": 2.0,
    "SOLVER.NEW_LR_FACTOR": 5.0,
    "SOLVER.WEIGHT_DECAY": 4e-5,
    "SOLVER.WEIGHT_DECAY_BIAS": 0.0,
    "SOLVER.MAX_EPOCHS": 60,
    "SOLVER.SCHEDULER": "after_warmup_cosine",
    "SOLVER.WARMUP_EPOCHS": 5,
    "SOLVER.WARMUP_FACTOR": 0.1,
    "SOLVER.WARMUP_METHOD": "linear",
    "SOLVER.TARGET_LR": 0.0,
    "SOLVER.GRAD_CLIP": 0.0,
    "SOLVER.EVAL_PERIOD": 1,
    "TEST.IMS_PER_BATCH": 512,
}
FIGURES = {  # Rank-1, 5, 10, mAP, mINP
    "CUHK-PEDES/irra": "73.38 89.93 93.71 66.13 50.24",
    "CUHK-PEDES/clip_itc": "68.19 86.47 91.47 61.12 44.86",
    "ICFG-PEDES/irra": "63.46 80.24 85.82 38.05 7.92",
    "ICFG-PEDES/clip_itc": "56.74 75.72 82.26 31.84 5.03",
    "RSTPReid/irra": "60.20 81.30 88.20 47.17 25.28",
    "RSTPReid/clip_itc": "54.05 80.70 88.00 43.41 22.31",
}
SETS = ("CUHK-PEDES", "ICFG-PEDES", "RSTPReid")
SMALL = ("Synthetic/irra", "Synthetic/irra_no_mlm", "Synthetic/irra_sdm", "Synthetic/irra_itc")
MASKED, NAMES, FOLDER = "INPUT.TEXT.MASK_CAPTION", "LOSS.TEXT.NAMES", "OUTPUT_DIR"


def differences(name: str, other: str) -> dict:
    """Return {key: value of the first} of what two recipes do not share, but for their run folders."""
    values, others = resolve_recipe(name), resolve_recipe(other)
    return {key: value for key, value in values.items() if value != others[key] and key != FOLDER}


def test_each_data_set_has_the_three_recipes():
    on_disk = {name_of(path) for path in RECIPE_FILES if load(name_of(path)).MODEL.NAME == "irra"}
    assert on_disk == {f"{name}/{kind}" for name in SETS for kind in ("irra", "irra_clean", "clip_itc")} | {*SMALL}


@pytest.mark.parametrize("name", SETS)
def test_a_recipe_is_the_reference_command_and_trains_on_its_data_set(name):
    values = resolve_recipe(f"{name}/irra")
    found = {key: list(values[key]) if isinstance(values[key], tuple) else values[key] for key in COMMAND}
    assert found == COMMAND
    assert (tuple(values["DATASETS.NAMES"]), set(values[NAMES])) == ((name,), {"sdm", "id", "mlm"})
    assert PhasePlan(load(f"{name}/irra")).at(60).weights == {"id": 1.0, "sdm": 1.0, "mlm": 1.0}


@pytest.mark.parametrize("name", SETS)
def test_the_twins_of_a_recipe_differ_by_what_their_names_say(name):
    assert differences(f"{name}/irra_clean", f"{name}/irra") == {MASKED: False}
    itc = differences(f"{name}/clip_itc", f"{name}/irra")
    assert {key: value if key == MASKED else list(value) for key, value in itc.items()} == {
        MASKED: False,
        NAMES: ["itc"],
    }


@pytest.mark.parametrize("name", FIGURES)
def test_a_header_gives_the_published_figure_and_its_source(name):
    words = " ".join(header(ROOT / f"configs/{name}.yml").replace("#", " ").split())
    figure = re.search(r"Expected: (.*?): published (.*?) Hardware: ", words)
    assert re.findall(r"\d+\.\d+", figure.group(1)) == FIGURES[name].split()
    assert "github.com/anosorae/IRRA" in words and "best on test" in figure.group(2)
    assert "not reproduced here" in figure.group(2)


@pytest.mark.parametrize("name", SETS)
def test_a_recipe_without_a_published_figure_says_so(name):
    words = " ".join(header(ROOT / f"configs/{name}/irra_clean.yml").replace("#", " ").split())
    assert "Expected: no published figure" in words and "Not run here." in words


@pytest.mark.parametrize("name", [name_of(path) for path in RECIPE_FILES if load(name_of(path)).MODEL.NAME == "irra"])
def test_a_recipe_sets_nothing_that_is_not_read(name):
    assert find_notices(load(name)) == []


def test_the_small_twins_differ_in_their_losses_alone():
    without = differences("Synthetic/irra_no_mlm", "Synthetic/irra")
    assert set(without) == {NAMES, "MODEL.CMT_DEPTH"}  # a cross encoder that is not there has no depth
    assert list(without[NAMES]) == ["sdm", "id"]
    sdm = differences("Synthetic/irra_sdm", "Synthetic/irra_no_mlm")
    assert {key: list(value) for key, value in sdm.items()} == {NAMES: ["sdm"]}


def test_the_small_contrast_knows_no_identities_in_its_batches_either():
    itc = differences("Synthetic/irra_itc", "Synthetic/irra_no_mlm")
    assert (set(itc), list(itc[NAMES])) == ({NAMES, "DATALOADER.SAMPLER"}, ["itc"])
    assert itc["DATALOADER.SAMPLER"] == "softmax"


def test_the_small_recipes_cut_no_sentence():
    length = load("Synthetic/irra").INPUT.TEXT.LENGTH
    for identity in plan_identities(0, 160, 70, 20)[:12]:
        for _, _, captions in take_captioned(identity, plan_shots(0, identity)[:4], 0):
            for caption in captions:
                assert (tokenize(caption) > 0).sum() < length


def test_the_small_clip_reads_captions_of_the_recipes_length():
    described = json.loads((ROOT / "configs/Synthetic/tiny_irra.json").read_text())
    assert described["text_cfg"]["context_length"] == load("Synthetic/irra").INPUT.TEXT.LENGTH
    assert described["vision_cfg"]["image_size"] == load("Synthetic/irra").INPUT.SIZE_TRAIN[0]
