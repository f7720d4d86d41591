"""Checkpoints of CLIP-ReID, ours and published ones: what loads, what is said, what is refused."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from model import make_model
from tests.model.builds import images, make_tiny, save
from tests.model.clip_files import EMBED, OWN_SIZE, naive_table, openai_clip, own_size
from tests.model.clip_reids import CLASSES, TEXT, VIT, clip_reid_cfg, make_clip_reid, write_clip
from tests.model.refusal import refuse
from tests.tolerance import bounds, rounding
from utils.errors import DataError

TERMS = 3000  # as in three blocks of rows of 32 and 128 numbers
OTHERS = 11  # identities of the published file
TWO_STAGES, BASELINE, STAGE2 = (("SOLVER.STAGES", stages) for stages in (["stage1", "stage2"], ["main"], ["stage2"]))
BEFORE = ("TEST.NECK_FEAT", "before")
SIDE = ("MODEL.SIE_CAMERA", True)
TOWER, CTX = "image_encoder.", "prompt_learner.cls_ctx"
State = dict[str, torch.Tensor]


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """The description of the tiny CLIP."""
    return write_clip(tmp_path, VIT)


@pytest.fixture
def published() -> State:
    """A file of the two-stage original for OTHERS identities, its names and shapes written out by hand."""
    state: State = {}
    torch.manual_seed(31)
    for name, value in openai_clip(seed=31).state_dict().items():
        if name.startswith("visual."):
            state[TOWER + name.removeprefix("visual.")] = value
        elif name not in ("token_embedding.weight", "logit_scale"):
            state[f"text_encoder.{name}"] = value
    for neck, classifier, width in (
        ("bottleneck", "classifier", VIT["width"]),
        ("bottleneck_proj", "classifier_proj", EMBED),
    ):
        state |= {f"{neck}.{part}": torch.rand(width) for part in ("weight", "bias", "running_mean", "running_var")}
        state |= {f"{neck}.num_batches_tracked": torch.tensor(7), f"{classifier}.weight": torch.randn(OTHERS, width)}
    for part, shape in {"cls_ctx": (OTHERS, 4), "token_prefix": (1, 5), "token_suffix": (1, 68)}.items():
        state[f"prompt_learner.{part}"] = torch.randn(*shape, TEXT["width"])
    return state


@torch.no_grad()
def embedding_by_open_clip(state: State, side: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Return f ++ f_p of a file by open_clip's own tower; `side` [W] is added to the class token of all images."""
    visual = openai_clip().visual
    visual.load_state_dict({name.removeprefix(TOWER): value for name, value in state.items() if name.startswith(TOWER)})
    visual.class_embedding += side
    normed = []
    hook = visual.ln_post.register_forward_hook(lambda module, given, result: normed.append(result))
    projected = visual(images(size=OWN_SIZE))
    hook.remove()
    return torch.cat([normed[0][:, 0], projected], dim=1)


@torch.no_grad()
def embed(model: nn.Module) -> torch.Tensor:
    return model.eval()(images(size=OWN_SIZE))


def build(clip: str, *opts: object, seed: int = 41, counts: tuple[int, int, int] = (CLASSES, 0, 0)) -> nn.Module:
    """Return a model as a user gets it; a later pair of `opts` wins."""
    torch.manual_seed(seed)
    return make_model(clip_reid_cfg(clip, *TWO_STAGES, *BEFORE, *own_size(*opts)), *counts)


def pretrained(choice: str, path: str) -> tuple[object, ...]:
    return ("MODEL.PRETRAIN_CHOICE", choice, "MODEL.PRETRAIN_PATH", path)


def assert_from(model: nn.Module, state: State, *prefixes: str) -> None:
    found = [name for name in model.state_dict() if name.startswith(prefixes)]
    assert found and all(torch.equal(model.state_dict()[name], state[name]) for name in found)


@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize("stages", [TWO_STAGES, BASELINE], ids=["two stages", "baseline"])
def test_published_file_of_other_identities_gives_the_embedding_of_its_tower(
    stages, wrapper, clip, published, tmp_path, caplog
):
    model = build(clip, *stages)
    report = model.load_param(save({wrapper + name: value for name, value in published.items()}, tmp_path))
    expected = embedding_by_open_clip(published)
    torch.testing.assert_close(embed(model), expected, **bounds(TERMS, expected.abs().max().item()))
    of_identities = {"classifier.weight": 32, "classifier_proj.weight": 24}
    assert {name: ours for name, (_, ours) in report.misshaped.items() if name != CTX} == {
        name: (CLASSES, width) for name, width in of_identities.items()
    }
    assert (CTX in report.misshaped) == (stages is TWO_STAGES)
    (record,) = (record for record in caplog.records if "weights matched" in record.getMessage())
    assert record.levelno == logging.WARNING and "classifier.weight [11, 32] for [6, 32]" in record.getMessage()


def test_embedding_behind_the_necks_has_their_statistics(clip, published, tmp_path):
    model = build(clip, "TEST.NECK_FEAT", "after")
    model.load_param(save(published, tmp_path))
    plain, parts = embedding_by_open_clip(published), []
    for neck, feature in (("bottleneck", plain[:, :32]), ("bottleneck_proj", plain[:, 32:])):
        mean, var, weight, bias = (
            published[f"{neck}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
        )
        parts.append((feature - mean) / (var + 1e-5).sqrt() * weight + bias)
    expected = torch.cat(parts, dim=1)
    torch.testing.assert_close(embed(model), expected, **bounds(TERMS, expected.abs().max().item()))


def test_necks_must_be_there_where_the_embedding_is_behind_them(clip, published, tmp_path):
    del published["bottleneck_proj.running_var"]
    words = r"bottleneck_proj.running_var \[24\] is not in the file; TEST.NECK_FEAT after asks for it"
    refuse(build(clip, "TEST.NECK_FEAT", "after"), published, tmp_path, words)
    build(clip).load_param(save(published, tmp_path))


def test_file_of_another_grid_is_refused_with_the_keys_that_decide_it(clip, published, tmp_path):
    words = (
        r"image_encoder.positional_embedding is \[5, 32\] in the file, but \[7, 32\] in this model; INPUT.SIZE_TEST .*"
        "MODEL.STRIDE_SIZE decide it"
    )
    refuse(build(clip, *own_size(size=(48, 32))), published, tmp_path, words)
    overlapping = build(clip, "MODEL.STRIDE_SIZE", [8, 8])
    refuse(overlapping, published, tmp_path, r"is \[5, 32\] in the file, but \[10, 32\].*INPUT.SIZE_TEST.*STRIDE_SIZE")


def test_side_information_that_is_off_here_is_missed_by_a_warning(clip, published, tmp_path, caplog):
    model = build(clip)
    report = model.load_param(save(published | {"cv_embed": torch.randn(6, 32)}, tmp_path))
    (warning,) = report.warnings
    assert "trained with side information, which is off here" in warning and "MODEL.SIE_CAMERA" in warning
    assert warning in caplog.text


def test_side_information_of_other_cameras_or_none_is_refused(clip, published, tmp_path):
    model = build(clip, *SIDE, counts=(CLASSES, 3, 0))
    words = r"cv_embed is \[6, 32\] in the file, but \[3, 32\] in this model; the data gives 3 cameras x 0 views"
    refuse(model, published | {"cv_embed": torch.randn(6, 32)}, tmp_path, words)
    refuse(model, published, tmp_path, r"cv_embed \[3, 32\] is not in the file; .*MODEL.SIE_CAMERA")


def test_side_information_of_the_same_cameras_loads_and_unknown_ones_get_their_mean(clip, published, tmp_path):
    published["cv_embed"] = torch.randn(3, 32, generator=torch.Generator().manual_seed(5))
    model = build(clip, *SIDE, "MODEL.SIE_COE", 0.5, counts=(CLASSES, 3, 0))
    model.load_param(save(published, tmp_path))
    expected = embedding_by_open_clip(published, 0.5 * published["cv_embed"].mean(0))
    torch.testing.assert_close(embed(model), expected, **bounds(TERMS, expected.abs().max().item()))
    expected = embedding_by_open_clip(published, 0.5 * published["cv_embed"][2])
    with torch.no_grad():
        got = model(images(size=OWN_SIZE), cam_label=torch.full((3,), 2))
    torch.testing.assert_close(got, expected, **bounds(TERMS, expected.abs().max().item()))


def test_checkpoint_of_transreid_is_refused_and_the_reverse(clip, published, tmp_path):
    words = "is a checkpoint of TransReID .*set MODEL.NAME transformer"
    refuse(build(clip), make_tiny().state_dict(), tmp_path, words)
    theirs = {name.replace(TOWER, "base_model.visual."): value for name, value in published.items()}
    theirs = {name: value for name, value in theirs.items() if name.startswith("base_model.")}
    refuse(build(clip), theirs, tmp_path, "is a checkpoint of IRRA .*set MODEL.NAME irra")
    stripes = {"base.conv1.weight": torch.zeros(1), "reduction.part1.weight": torch.zeros(1)}
    refuse(build(clip), stripes, tmp_path, "is a checkpoint of PCB .*set MODEL.NAME pcb")
    refuse(make_tiny(), published, tmp_path, "none of its weights fits this model")


def test_deeper_tower_is_refused(clip, published, tmp_path):
    block = {
        name.replace("resblocks.2.", "resblocks.3."): value
        for name, value in published.items()
        if name.startswith(f"{TOWER}transformer.resblocks.2.")
    }
    words = r"image_encoder.transformer.resblocks.3.* is in the file, but not in this model; MODEL.NAME.*CLIP_BACKBONE"
    refuse(build(clip), published | block, tmp_path, words)


def test_shallower_tower_is_refused(clip, published, tmp_path):
    for name in [name for name in published if "resblocks.2." in name]:
        del published[name]
    words = r"image_encoder.transformer.resblocks.2.* is not in the file; MODEL.NAME.*CLIP_BACKBONE, decides it"
    refuse(build(clip), published, tmp_path, words)


@pytest.mark.parametrize("theirs, ours", [(BASELINE, TWO_STAGES), (TWO_STAGES, BASELINE)])
def test_file_with_text_fits_a_model_without_and_the_reverse(theirs, ours, clip, tmp_path, caplog):
    trained = make_clip_reid(clip_reid_cfg(clip, *theirs, *BEFORE, *own_size()))
    with caplog.at_level(logging.INFO):
        report = (model := build(clip, *ours)).load_param(save(trained.state_dict(), tmp_path))
    of_text = report.surplus if ours is BASELINE else report.missing
    assert of_text and all(name.startswith(("text_encoder.", "prompt_learner.")) for name in of_text)
    assert not (report.missing if ours is BASELINE else report.surplus) and not report.misshaped
    assert f"{len(of_text)} {'surplus' if ours is BASELINE else 'missing'}" in caplog.text
    assert torch.equal(embed(model), embed(trained))


def test_own_checkpoint_survives_the_round_trip(clip, tmp_path):
    cfg = clip_reid_cfg(clip, *TWO_STAGES, *SIDE, *own_size())
    trained = make_clip_reid(cfg, cameras=3)
    model = make_model(cfg, CLASSES, 3, 0)
    report = model.load_param(save(trained.state_dict(), tmp_path))
    assert not (report.missing or report.surplus or report.misshaped or report.warnings)
    assert torch.equal(embed(model), embed(trained)) and torch.equal(model.prototypes(), trained.prototypes())


def test_none_is_random_and_imagenet_is_the_clip(clip, tmp_path):
    source = openai_clip(seed=51).state_dict()
    options = ("MODEL.CLIP_LOCAL_PATH", save(source, tmp_path), "MODEL.PRETRAIN_CHOICE")
    one, two = (build(clip, *options, "none", seed=seed) for seed in (1, 2))
    assert not torch.equal(one.image_encoder.conv1.weight, two.image_encoder.conv1.weight)
    model = build(clip, *options, "imagenet")
    for name, value in source.items():
        name = name.replace("visual.", TOWER) if name.startswith("visual.") else f"text_encoder.{name}"
        if name not in ("text_encoder.token_embedding.weight", "text_encoder.logit_scale"):
            assert torch.equal(model.state_dict()[name], value), name
    words = source["token_embedding.weight"][[49406, 320, 1125, 539, 320]]
    assert torch.equal(model.prompt_learner.token_prefix[0], words)
    assert torch.equal(build(clip, *options, "none", seed=1).image_encoder.conv1.weight, one.image_encoder.conv1.weight)


def test_imagenet_without_a_file_and_a_tag_is_random_which_is_logged(clip, caplog):
    with caplog.at_level(logging.INFO):
        build(clip, "MODEL.PRETRAIN_CHOICE", "imagenet")
    assert "its weights are random, MODEL.CLIP_LOCAL_PATH and MODEL.CLIP_PRETRAIN are empty" in caplog.text


def test_self_takes_towers_and_sentence_and_nothing_of_the_identities(clip, published, tmp_path):
    model = build(clip, *pretrained("self", save(published, tmp_path)))
    assert_from(model, published, TOWER, "text_encoder.", "prompt_learner.token_")
    assert torch.equal(model.bottleneck.weight, torch.ones(32)) and model.classifier.weight.std() < 0.01
    assert model.prompt_learner.cls_ctx.shape == (CLASSES, 4, 16)


def test_finetune_takes_all_that_fits(clip, published, tmp_path, caplog):
    path = save(published, tmp_path)
    same = build(clip, *pretrained("finetune", path), counts=(OTHERS, 0, 0))
    assert_from(same, published, "")
    other = build(clip, *pretrained("finetune", path))
    assert_from(other, published, TOWER, "text_encoder.", "prompt_learner.token_", "bottleneck")
    assert other.classifier.weight.std() < 0.01 and "prompt_learner.cls_ctx [11, 4, 16] for [6, 4, 16]" in caplog.text


@pytest.mark.parametrize("choice", ["self", "finetune"])
def test_pretraining_on_another_grid_resizes_its_positions_which_is_said(choice, clip, published, tmp_path, caplog):
    opts = (*own_size(size=(64, 48)), *pretrained(choice, save(published, tmp_path)))
    model = build(clip, *opts)
    table = published[f"{TOWER}positional_embedding"]
    got, expected = model.image_encoder.positional_embedding.detach(), naive_table(table, (4, 3))
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=rounding(8) * table.abs().max().item())
    assert "image_encoder.positional_embedding: resized from 5 to 13 rows, for another INPUT.SIZE_TRAIN" in caplog.text


REFUSED = {
    "prompts of other identities": (
        {},
        (*STAGE2, "MODEL.PRETRAIN_CHOICE", "finetune"),
        r"has prompts \[11, 4, 16\], SOLVER.STAGES \['stage2'\] needs those of this training set, \[6, 4, 16\]",
    ),
    "another number of tokens": (
        {},
        ("MODEL.PROMPT_TOKENS", 5, "MODEL.PRETRAIN_CHOICE", "self"),
        r"its prompt_learner.token_suffix is missing or of another shape.*with its MODEL.PROMPT",
    ),
    "no text tower": (
        {"text_encoder.text_projection": None},
        ("MODEL.PRETRAIN_CHOICE", "self"),
        r"its text_encoder.text_projection is missing .* set SOLVER.STAGES \['main'\]",
    ),
    "a deeper text tower": (
        {"text_encoder.transformer.resblocks.2.ln_1.weight": torch.ones(16)},
        ("MODEL.PRETRAIN_CHOICE", "self"),
        "text_encoder.transformer.resblocks.2.ln_1.weight is in the file, but not in this model",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_the_stages_need_of_the_text_side_must_fit(kind, clip, published, tmp_path):
    changes, opts, words = REFUSED[kind]
    state = {name: value for name, value in (published | changes).items() if value is not None}
    with pytest.raises(DataError, match=words) as caught:
        build(clip, *opts, "MODEL.PRETRAIN_PATH", save(state, tmp_path))
    assert "\n" not in str(caught.value) and "MODEL.PRETRAIN_PATH" in str(caught.value)


def test_baseline_file_starts_a_baseline(clip, published, tmp_path):
    state = {name: value for name, value in published.items() if not name.startswith(("text_", "prompt_"))}
    model = build(clip, *BASELINE, *pretrained("finetune", save(state, tmp_path)), counts=(OTHERS, 0, 0))
    assert_from(model, state, "")
