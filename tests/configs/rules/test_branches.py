"""What is refused and what is said about losses over branches."""

from pathlib import Path

import pytest

from configs import find_notices, load_cfg
from configs.phases import PhasePlan
from configs.rules.branches import LAYOUTS
from tests.model.builds import TINY_VIT, make_tiny
from tests.processor.pcb_stages import pcb_cfg, pcb_stage
from utils.errors import ConfigError

CONFIGS = Path(__file__).parents[3] / "configs"
PCB = """
MODEL: {NAME: pcb, PCB: {PARTS: 4}, PRETRAIN_CHOICE: none}
LOSS: {TRIPLET: {FEAT_SRC: bnneck}}
INPUT: {SIZE_TRAIN: [256, 128], SIZE_TEST: [256, 128]}
DATASETS: {NAMES: [market1501]}
DATALOADER: {SAMPLER: softmax_triplet, NUM_INSTANCE: 4}
"""
SPECTRAL = ("LOSS.SPECTRAL.W", 1.0)
DRAWS = ("LOSS.BRANCHES.DRAWS", 2)
VIEWS = "LOSS.TRIPLET.BRANCHES"
NO_GLOBAL, NO_PARTS = ("MODEL.PCB.GLOBAL_DIM", 0), ("MODEL.PCB.PARTS", 0)
NO_TRIPLET = ("MODEL.METRIC_LOSS_TYPE", "none")
BRIGHT = ("LOSS.BRIGHTNESS.ENABLE", True)
JPM, VIT, CLIP_REID, IRRA = (
    f"{name}.yml" for name in ("Market/vit_jpm", "Market/vit_base", "CLIP-ReID/person_vit_base", "RSTPReid/irra")
)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Four stripes and a global branch, in batches of P x 4."""
    path = tmp_path / "pcb.yml"
    path.write_text(PCB)
    return path


def refusal_of(path: Path, *opts: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_cfg(path, opts)
    return str(caught.value)


def notices_of(path: Path, *opts: object) -> list[str]:
    return find_notices(load_cfg(path, opts))


@pytest.mark.parametrize(
    "opts",
    [
        (),
        (*SPECTRAL, *DRAWS, VIEWS, "global+concat"),
        (*SPECTRAL, *NO_PARTS, *NO_TRIPLET),
        (*NO_GLOBAL, VIEWS, "concat"),
        (*DRAWS, "LOSS.BRANCHES.REDUCE", "mean"),
        ("MODEL.ID_LOSS_TYPE", "amsoftmax", "SOLVER.COSINE_MARGIN_WARMUP", 10),
        (*SPECTRAL, "LOSS.SPECTRAL.START_EPOCH", 40, "LOSS.SPECTRAL.T", 0.3, "LOSS.SPECTRAL.FEAT", "embedding"),
    ],
)
def test_sound_configurations_have_nothing_to_hear(recipe, opts):
    assert notices_of(recipe, *opts) == []


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (
            (*DRAWS, "LOSS.BRANCHES.REDUCE", "halves"),
            "LOSS.BRANCHES.DRAWS 2 leaves branches out, of whose halves LOSS.BRANCHES.REDUCE halves knows nothing; set "
            "REDUCE sum or mean, or DRAWS 0",
        ),
        ((VIEWS, "global", *NO_GLOBAL), "has no global branch; set each or concat"),
        ((VIEWS, "global+concat", *NO_GLOBAL), "has no global branch; set each or concat"),
        ((VIEWS, "concat", *NO_PARTS), "has no parts to concatenate; set each or global"),
        ((VIEWS, "concat", *BRIGHT), "images are routed in pairs of the same branch; set BRANCHES each"),
        ((*SPECTRAL, *NO_GLOBAL), "LOSS.SPECTRAL.W 1 transforms the features of the global branch, but MODEL.PCB.GLO"),
        (
            (*SPECTRAL, "DATALOADER.SAMPLER", "softmax"),
            "LOSS.SPECTRAL.W 1 needs several images of an identity in a batch, which DATALOADER.SAMPLER softmax draws",
        ),
        (
            (*SPECTRAL, *NO_TRIPLET, "DATALOADER.NUM_INSTANCE", 1),
            "DATALOADER.NUM_INSTANCE 1: LOSS.SPECTRAL.W 1 blends images of an identity in epoch 1; use at least 2",
        ),
        (("LOSS.SUPCON.ENABLE", True), "LOSS.SUPCON.ENABLE True: MODEL.NAME pcb has no projection head; set it False"),
        (("LOSS.SPECTRAL.T", 0), "LOSS.SPECTRAL.T got 0.0, allowed: 1e-06"),
        ((*SPECTRAL, "LOSS.SPECTRAL.FEAT", "pool"), "LOSS.SPECTRAL.FEAT got 'pool', allowed: pooled, embedding"),
        ((VIEWS, "parts"), "LOSS.TRIPLET.BRANCHES got 'parts', allowed: each, global, concat, global+concat"),
        (
            ("LOSS.PHASED.ENABLE", True, "LOSS.PHASED.W_TERMS", "('spectral=const:1',)"),
            "LOSS.PHASED.W_TERMS got the term 'spectral', allowed: id",
        ),
    ],
)
def test_mistakes_are_refused_with_the_way_out(recipe, opts, words):
    assert words in refusal_of(recipe, *opts)


@pytest.mark.parametrize(
    ("name", "opts", "words"),
    [
        (VIT, DRAWS, "LOSS.BRANCHES.REDUCE halves knows nothing"),
        (VIT, (VIEWS, "concat"), "has no parts to concatenate; set each or global"),
        (CLIP_REID, (VIEWS, "global"), "has branches that are no parts of an image; set each"),
        (IRRA, DRAWS, "MODEL.NAME irra has no branches of images to draw from; set it to 0"),
        (IRRA, (VIEWS, "global"), "LOSS.TRIPLET.BRANCHES global: not of MODEL.NAME irra"),
        *((name, SPECTRAL, "the spectral transform is that of MODEL.NAME pcb, got") for name in (JPM, CLIP_REID, IRRA)),
    ],
)
def test_other_systems_refuse_what_they_do_not_have(name, opts, words):
    assert words in refusal_of(CONFIGS / name, *opts)


@pytest.mark.parametrize("views", ["global", "concat", "global+concat"])
def test_jigsaw_branches_are_parts(views):
    assert load_cfg(CONFIGS / JPM, (VIEWS, views, *DRAWS, "LOSS.BRANCHES.REDUCE", "mean")).LOSS.BRANCHES.DRAWS == 2


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        ((*DRAWS, *NO_PARTS), "LOSS.BRANCHES.DRAWS 2 is not used: the model has one branch, which always stays"),
        ((VIEWS, "concat", *NO_TRIPLET), "LOSS.TRIPLET.BRANCHES concat is not used: no epoch gives the triplet loss a"),
        (("LOSS.TRIPLET.FEAT_SRC", "pre_bn"), "LOSS.TRIPLET.FEAT_SRC pre_bn: the published runs of part branches have"),
        (("LOSS.SPECTRAL.T", 0.3), "LOSS.SPECTRAL.T: not used, LOSS.SPECTRAL.W is 0"),
        (
            (*SPECTRAL, "LOSS.SPECTRAL.START_EPOCH", 101),
            "LOSS.SPECTRAL.W 1 never acts: no epoch up to 100 gives it a weight",
        ),
        (
            (*SPECTRAL, "DATALOADER.NUM_INSTANCE", 2),
            "DATALOADER.NUM_INSTANCE 2 with LOSS.SPECTRAL.W 1: the transform blends images of an identity; 4 or more",
        ),
        (("SOLVER.COSINE_MARGIN_WARMUP", 5), "SOLVER.COSINE_MARGIN_WARMUP 5 is not used: MODEL.ID_LOSS_TYPE softmax"),
        (
            ("MODEL.ID_LOSS_TYPE", "arcface", "SOLVER.COSINE_MARGIN_WARMUP", 100),
            "SOLVER.COSINE_MARGIN_WARMUP 100 covers all of SOLVER.MAX_EPOCHS 100: the margin never reaches",
        ),
    ],
)
def test_keys_without_effect_and_what_may_be_missed_are_told_in_one_line(recipe, opts, words):
    (told,) = notices_of(recipe, *opts)
    assert told.startswith(words)


def test_the_sampler_is_asked_only_of_the_epochs_in_which_features_are_transformed(recipe):
    later = ("DATALOADER.PHASED.ENABLE", True, "DATALOADER.PHASED.K_OTHER", 1, *NO_TRIPLET)
    assert "DATALOADER.PHASED.K_OTHER 1" in refusal_of(recipe, *SPECTRAL, *later, "LOSS.SPECTRAL.START_EPOCH", 90)
    assert load_cfg(recipe, (*SPECTRAL, *later, "LOSS.SPECTRAL.START_EPOCH", 101)).LOSS.SPECTRAL.W == 1


def test_the_layouts_are_those_of_the_models():
    for opts in ((), ("MODEL.PCB.GLOBAL_DIM", 0), ("MODEL.PCB.PARTS", 0)):
        layout, branches = LAYOUTS["pcb"](pcb_cfg(*opts)), pcb_stage(*opts).model.branches
        assert (layout.has_global, layout.parts) == ("global" in branches, len(branches) - ("global" in branches))
    for jpm in (True, False):
        opts = (*TINY_VIT, "MODEL.JPM", jpm)
        assert 1 + LAYOUTS["transformer"](pcb_cfg(*opts)).parts == len(make_tiny("MODEL.JPM", jpm).branches)


def test_the_plan_turns_at_the_start_epoch_wherever_it_lies():
    for start in (1, 2, 37, 99, 100):
        plan = PhasePlan(pcb_cfg(*SPECTRAL, "LOSS.SPECTRAL.START_EPOCH", start, "SOLVER.MAX_EPOCHS", 100))
        weights = [(segment.first.epoch, segment.first.weights["spectral"]) for segment in plan.segments()]
        assert weights == ([(1, 1.0)] if start == 1 else [(1, 0.0), (start, 1.0)])
        assert plan.at(start).weights["spectral"] == 1 and (start == 1 or plan.at(start - 1).weights["spectral"] == 0)
