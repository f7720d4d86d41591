"""The recipes of several modalities: the published hyperparameters written by hand, and what each variant changes."""

import json
import re

import pytest

from configs import find_notices
from configs.phases import PhasePlan
from datasets.synthetic.modal.plan import plan_numbered, plan_photos
from datasets.synthetic_text import take_captioned
from datasets.tokens import tokenize
from tests.configs.recipes import RECIPE_FILES, ROOT, header, load, name_of, resolve_recipe

PUBLISHED = {  # of PRCV2025REID, where that is no defect; sizes and pixels of ReID5o
    "MODEL.NAME": "multimodal",
    "MODEL.CLIP_BACKBONE": "ViT-B-16-quickgelu",
    "MODEL.CLIP_PRETRAIN": "openai",
    "MODEL.STRIDE_SIZE": [16, 16],
    "MODEL.DROP_PATH": 0.15,
    "MODEL.METRIC_LOSS_TYPE": "none",
    "MODEL.MULTIMODAL.MODALITIES": ["vis", "nir", "sk", "cp", "text"],
    "MODEL.MULTIMODAL.RANK": 4,
    "MODEL.MULTIMODAL.ALPHA": 1.0,
    "MODEL.MULTIMODAL.SEMANTIC": False,
    "MODEL.MULTIMODAL.HEADS": 8,
    "MODEL.MULTIMODAL.MLP_RATIO": 2.0,
    "MODEL.MULTIMODAL.DROPOUT": 0.1,
    "MODEL.MULTIMODAL.HEAD_DROPOUT": 0.5,
    "MODEL.MULTIMODAL.FREEZE_TEXT": False,
    "MODEL.MULTIMODAL.FREEZE_SHARED": False,
    "MODEL.MULTIMODAL.MODALITY_DROPOUT": 0.15,
    "INPUT.SIZE_TRAIN": [384, 128],
    "INPUT.SIZE_TEST": [384, 128],
    "INPUT.PIXEL_MEAN": [0.48145466, 0.4578275, 0.40821073],
    "INPUT.PIXEL_STD": [0.26862954, 0.26130258, 0.27577711],
    "INPUT.PROB": 0.5,
    "INPUT.PADDING": 10,
    "INPUT.RE_PROB": 0.5,
    "INPUT.JITTER": [0.0, 0.0, 0.0, 0.0],
    "INPUT.TEXT.LENGTH": 77,
    "INPUT.TEXT.MASK_RATE": 0.15,
    "INPUT.TEXT.MASK_SHARE": 0.8,
    "INPUT.TEXT.KEEP_SHARE": 0.1,
    "INPUT.TEXT.MASK_CAPTION": True,
    "LOSS.LABEL_SMOOTH_EPS": 0.05,
    "LOSS.ALIGN.W": 0.1,
    "LOSS.ALIGN.T": 0.1,
    "LOSS.ALIGN.START": 6,
    "LOSS.ALIGN.RAMP": 20,
    "LOSS.ALIGN.FORM": "ce",
    "LOSS.FEAT_NORM.W": 2e-3,
    "LOSS.FEAT_NORM.TARGET": 10.0,
    "LOSS.FEAT_NORM.BAND": 3.0,
    "DATALOADER.SAMPLER": "softmax_triplet",
    "DATALOADER.NUM_INSTANCE": 4,
    "SOLVER.IMS_PER_BATCH": 32,
    "SOLVER.OPTIMIZER_NAME": "AdamW",
    "SOLVER.SEED": 42,
    "SOLVER.BASE_LR": 1e-5,
    "SOLVER.NEW_LR_FACTOR": 5.0,
    "SOLVER.BIAS_LR_FACTOR": 1.0,
    "SOLVER.WEIGHT_DECAY": 1e-4,
    "SOLVER.WEIGHT_DECAY_BIAS": 1e-4,
    "SOLVER.MAX_EPOCHS": 150,
    "SOLVER.SCHEDULER": "warmup_cosine",
    "SOLVER.WARMUP_EPOCHS": 15,
    "SOLVER.WARMUP_FACTOR": 0.01,
    "SOLVER.MIN_LR_FACTOR": 0.01,
    "SOLVER.GRAD_CLIP": 0.0,
    "SOLVER.GRAD_CLIP_QUANTILE": 0.7,
    "TEST.MISSING": True,
}
MODALITIES, CAPTIONS = "MODEL.MULTIMODAL.MODALITIES", "INPUT.TEXT.MASK_CAPTION"
PAIRS = {  # of two modalities: what they change beside MODALITIES
    "ORBench/vis_text": {"TEST.MISSING": False},
    **{f"ORBench/vis_{name}": {"TEST.MISSING": False, CAPTIONS: False} for name in ("nir", "sk", "cp")},
    "Synthetic/multimodal_vis_text": {"TEST.MISSING": False},
}
VARIANTS = {  # of multimodal.yml in the same folder
    "ORBench/multimodal_semantic": {"MODEL.MULTIMODAL.SEMANTIC": True},
    "ORBench/multimodal_frozen": {"MODEL.MULTIMODAL.FREEZE_SHARED": True},
    "Synthetic/multimodal_semantic": {"MODEL.MULTIMODAL.SEMANTIC": True},
    "Synthetic/multimodal_noalign": {
        "LOSS.ALIGN.W": 0.0,
        "LOSS.ALIGN.T": 0.1,  # the defaults, as nothing reads them
        "LOSS.ALIGN.START": 6,
        "LOSS.ALIGN.RAMP": 20,
    },
}
OWN_SMALL = "Synthetic/multimodal"
OF_RECIPES = [name for name in map(name_of, RECIPE_FILES) if name.split("/")[0] in ("ORBench", "Synthetic")]
OWN = [name for name in OF_RECIPES if load(name).MODEL.NAME == "multimodal"]


def listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def differences(name: str, other: str) -> dict:
    """Return {key: value of the first} of what two recipes do not share, but for their run folders."""
    values, others = resolve_recipe(name), resolve_recipe(other)
    return {key: listed(value) for key, value in values.items() if value != others[key] and key != "OUTPUT_DIR"}


def test_these_are_the_recipes():
    both = ("ORBench/multimodal", "Synthetic/multimodal", "ORBench/reid5o_losses")
    assert sorted(OWN) == sorted((*both, *VARIANTS, *PAIRS))


def test_the_recipe_of_orbench_has_the_published_hyperparameters():
    values = resolve_recipe("ORBench/multimodal")
    assert {key: listed(values[key]) for key in PUBLISHED} == PUBLISHED
    assert listed(values["DATASETS.NAMES"]) == ["orbench"]


def test_the_alignment_of_orbench_starts_in_epoch_6_and_is_whole_from_epoch_25_on():
    plan = PhasePlan(load("ORBench/multimodal"))
    weights = {epoch: plan.at(epoch).weights["align"] for epoch in (5, 6, 15, 25, 150)}
    assert weights == pytest.approx({5: 0, 6: 0.005, 15: 0.05, 25: 0.1, 150: 0.1})


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_differs_by_what_its_name_says(name):
    assert differences(name, f"{name.split('/')[0]}/multimodal") == VARIANTS[name]


@pytest.mark.parametrize("name", PAIRS)
def test_a_recipe_of_two_modalities_reads_these_and_asks_for_nothing_that_they_lack(name):
    found = differences(name, f"{name.split('/')[0]}/multimodal")
    assert found.pop(MODALITIES) == ["vis", name.rpartition("_")[2]]
    assert found == PAIRS[name]


def test_the_losses_of_reid5o_are_four_groups_of_sdm_at_scale_50_from_the_first_epoch():
    cfg = load("ORBench/reid5o_losses")
    assert ("kl", pytest.approx(50)) == (cfg.LOSS.ALIGN.FORM, 1 / cfg.LOSS.ALIGN.T)
    weights = PhasePlan(cfg).at(1).weights  # the term is the mean of the four groups, so 4 adds them up
    assert (weights["id"], weights["align"], weights["norm"]) == (1.0, 4.0, 0.0)
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_EPOCHS, cfg.DATALOADER.SAMPLER) == (64, 60, "softmax")


@pytest.mark.parametrize("name", OWN)
def test_a_header_says_what_our_runs_kept_or_that_nothing_was_measured(name):
    words = " ".join(header(ROOT / f"configs/{name}.yml").replace("#", " ").split())
    kept = ROOT / f"docs/results/multimodal_synthetic/{name.partition('/')[2]}.json"
    assert "Run: python run_phased_loss.py --config" in words
    if name.startswith("Synthetic/") and kept.is_file():
        summary = json.loads(kept.read_text())
        mean, sd = (100 * summary[key]["last"]["mAP"] for key in ("mean", "std"))
        figure = f"{mean:.2f} +- {sd:.2f} mAP" if len(summary["seeds"]) > 1 else f"{mean:.1f} mAP"
        groups = ", ".join(f"{100 * group['mean']['mAP']:.1f}" for group in summary.get("groups", {}).values())
        assert f"Expected: {figure} over all sets at epoch {summary['epochs']}" in words
        assert not groups or f"; MM-1 to 4 {groups} (our run" in words
    else:
        assert "Expected: not measured" in words


@pytest.mark.parametrize("name", ["multimodal", "reid5o_losses"])
def test_figures_of_others_in_a_header_name_their_source(name):
    words = " ".join(header(ROOT / f"configs/ORBench/{name}.yml").replace("#", " ").split())
    assert re.findall(r"\d\d\.\d\d(?= |/)", words) == ["60.29", "75.76", "83.58", "87.06"]
    assert "ReID5o" in words and "re-trained January 2026" in words


@pytest.mark.parametrize("name", OWN)
def test_a_recipe_sets_nothing_that_is_not_read(name):
    assert find_notices(load(name)) == []


def test_the_small_clip_reads_the_images_and_captions_of_its_recipe():
    described, cfg = json.loads((ROOT / "configs/Synthetic/tiny_multimodal.json").read_text()), load(OWN_SMALL)
    assert described["text_cfg"]["context_length"] == cfg.INPUT.TEXT.LENGTH
    assert [described["vision_cfg"]["image_size"]] * 2 == list(cfg.INPUT.SIZE_TRAIN)
    assert described["quick_gelu"] and described["embed_dim"] % cfg.MODEL.MULTIMODAL.HEADS == 0


def test_the_small_recipe_cuts_hardly_a_sentence():
    length, counts = load(OWN_SMALL).INPUT.TEXT.LENGTH, []
    for _, identity in plan_numbered(0, 180, 70)[:12]:
        for _, _, (caption, *_) in take_captioned(identity, plan_photos(0, identity)[0][:4], 0):
            counts.append(int((tokenize(caption, length + 1) > 0).sum()))
    assert sum(count > length for count in counts) <= 0.05 * len(counts)
