"""CLIP-ReID's towers, prompts and head against the formulas in float64."""

from pathlib import Path

import open_clip
import pytest
import torch
from torch import nn

from model import make_model
from model.backbones.clip_levels import resized
from model.outputs import ModelOutput
from tests.model.builds import images, save
from tests.model.clip_reids import (
    CLASSES,
    EMBED,
    HEADS,
    RESNET,
    RESNET_HEADS,
    SIZE,
    TEXT,
    TEXT_HEADS,
    VIT,
    assert_near,
    clip_reid_cfg,
    in_float64,
    make_clip_reid,
    write_clip,
)
from tests.model.clips import redraw
from tests.reference import slow_clip_reid as slow

COE = 1.5
CAMERAS, VIEWS = 3, 2
CAMIDS, VIEWIDS = [2, -1, 0, 1, -1], [0, 1, -1, 1, -1]  # -1 = unknown
SIDES = {"no side": (0, 0), "cameras": (CAMERAS, 0), "views": (0, VIEWS), "cameras and views": (CAMERAS, VIEWS)}
BEFORE, AFTER = ("TEST.NECK_FEAT", "before"), ("TEST.NECK_FEAT", "after")
BATCH = 5


def make_vit(folder: Path, *opts: object, stride: int = 16, quick: bool = True, sides: tuple = (0, 0)) -> nn.Module:
    """Return a tiny ViT with these cameras and views as side information."""
    flags = ("MODEL.SIE_CAMERA", sides[0] > 0, "MODEL.SIE_VIEW", sides[1] > 0, "MODEL.SIE_COE", COE)
    path = write_clip(folder, VIT, quick)
    cfg = clip_reid_cfg(path, *flags, "MODEL.STRIDE_SIZE", [stride, stride], *opts)
    return make_clip_reid(cfg, CAMERAS, VIEWS)


def make_resnet(folder: Path, *opts: object) -> nn.Module:
    """Return a tiny ModifiedResNet."""
    return make_clip_reid(clip_reid_cfg(write_clip(folder, RESNET), *opts))


def side_of(state: slow.State, sides: tuple[int, int], known: bool = True) -> torch.Tensor | None:
    """Return what the class tokens of the batch carry, [5, W]; unless `known`, all labels are unknown."""
    if sides == (0, 0):
        return None
    camids, viewids = (CAMIDS, VIEWIDS) if known else ([-1] * BATCH, [-1] * BATCH)
    rows = [slow.side_row(state["cv_embed"], *sides, *labels) for labels in zip(camids, viewids, strict=True)]
    return COE * torch.stack(rows)


def train_output(model: nn.Module, batch: torch.Tensor) -> ModelOutput:
    """Return what the model gives in training mode."""
    return model.train()(batch, cam_label=torch.tensor(CAMIDS), view_label=torch.tensor(VIEWIDS))


def assert_outputs(output: ModelOutput, state: slow.State, levels: slow.Levels) -> None:
    """All that training sees is what the formulas give."""
    assert_near(output.extra["last"], levels.last, "last")
    for name, got, exact in (
        ("before the necks", output.pre_bn, levels[1:]),
        ("after the necks", output.bnneck, slow.necks(state, levels, training=True)),
        ("scores", output.logits, slow.scores(state, levels)),
    ):
        assert len(got) == 2
        for value, expected in zip(got, exact, strict=True):
            assert_near(value, expected, name)


@pytest.mark.parametrize("stride", [16, 12])
@pytest.mark.parametrize("sides", SIDES.values(), ids=SIDES)
def test_embedding_of_a_vit_is_the_formula_s(tmp_path, stride, sides):
    model, batch = make_vit(tmp_path, *BEFORE, stride=stride, sides=sides), images(BATCH, SIZE)
    state = in_float64(model)
    with torch.no_grad():
        labelled = model(batch, cam_label=torch.tensor(CAMIDS), view_label=torch.tensor(VIEWIDS))
        unknown = model(batch)
    for got, known in ((labelled, True), (unknown, False)):
        levels = slow.vit(state, batch.double(), (stride, stride), HEADS, side=side_of(state, sides, known))
        assert got.shape == (BATCH, VIT["width"] + EMBED)
        assert_near(got, slow.embedding(state, levels, "before"))


@pytest.mark.parametrize("stride", [(16, 12), (9, 16)])
def test_the_stride_has_two_axes(tmp_path, stride):
    model = make_vit(tmp_path, *BEFORE, "MODEL.STRIDE_SIZE", list(stride))
    batch, state = images(2, SIZE), in_float64(model)
    with torch.no_grad():
        assert_near(model(batch), slow.embedding(state, slow.vit(state, batch.double(), stride, HEADS), "before"))


@pytest.mark.parametrize("sides", SIDES.values(), ids=SIDES)
def test_training_output_of_a_vit_is_the_formula_s(tmp_path, sides):
    model, batch = make_vit(tmp_path, stride=12, sides=sides), images(BATCH, SIZE)
    state = in_float64(model)
    levels = slow.vit(state, batch.double(), (12, 12), HEADS, side=side_of(state, sides))
    assert_outputs(train_output(model, batch), state, levels)


@pytest.mark.parametrize("quick", [True, False])
def test_the_description_decides_the_activation_of_both_towers(tmp_path, quick):
    model, batch = make_vit(tmp_path, quick=quick), images(2, SIZE)
    state = in_float64(model)
    right, wrong = (slow.quick_gelu, slow.gelu)[:: 1 if quick else -1]
    with torch.no_grad():
        image, text = model.encode_image(batch), model.encode_text(torch.tensor([1, 4]))
    assert_near(image, slow.vit(state, batch.double(), (16, 16), HEADS, right).projected)
    assert_near(text, slow.texts(state, [1, 4], TEXT_HEADS, activation=right))
    for got, other in (
        (image, slow.vit(state, batch.double(), (16, 16), HEADS, wrong).projected),
        (text, slow.texts(state, [1, 4], TEXT_HEADS, activation=wrong)),
    ):
        assert (got.double() - other).norm() > 1e-3 * other.norm()


def test_encode_image_leaves_side_information_out(tmp_path):
    model, batch = make_vit(tmp_path, sides=(CAMERAS, VIEWS)), images(2, SIZE)
    with torch.no_grad():
        got = model.encode_image(batch)
    assert_near(got, slow.vit(in_float64(model), batch.double(), (16, 16), HEADS).projected)


@pytest.mark.parametrize("opts", [BEFORE, AFTER], ids=["before", "after"])
def test_embedding_of_a_resnet_is_the_formula_s(tmp_path, opts):
    model, batch = make_resnet(tmp_path, *opts), images(3, SIZE)
    state = in_float64(model)
    with torch.no_grad():
        got = model(batch)
    assert_near(got, slow.embedding(state, slow.resnet(state, batch.double(), RESNET_HEADS), opts[1]))


def test_embedding_of_a_vit_after_the_necks_is_the_formula_s(tmp_path):
    model, batch = make_vit(tmp_path, *AFTER), images(3, SIZE)
    state = in_float64(model)
    with torch.no_grad():
        got = model(batch)
    assert_near(got, slow.embedding(state, slow.vit(state, batch.double(), (16, 16), HEADS), "after"))


def test_training_output_of_a_resnet_is_the_formula_s(tmp_path):
    model, batch = make_resnet(tmp_path), images(BATCH, SIZE)
    state = in_float64(model)
    levels = slow.resnet(state, batch.double(), RESNET_HEADS, training=True)
    output = train_output(model, batch)
    assert output.pre_bn[0].shape == (BATCH, 32 * RESNET["width"]) and output.pre_bn[1].shape == (BATCH, EMBED)
    assert output.extra["last"].shape == (BATCH, 16 * RESNET["width"])
    assert_outputs(output, state, levels)


@pytest.mark.parametrize("make", [make_vit, make_resnet])
def test_texts_of_twelve_positions_are_those_of_all_seventy_seven(tmp_path, make):
    model = make(tmp_path)
    labels = [3, 0, 3, 5]
    with torch.no_grad():
        got = model.encode_text(torch.tensor(labels))
    assert model.text_encoder.length(model.prompt_learner.end) == 12
    assert_near(got, slow.texts(in_float64(model), labels, TEXT_HEADS))
    assert torch.equal(got[0], got[2])


def test_prototypes_are_the_texts_of_all_identities_without_a_gradient(tmp_path):
    model = make_vit(tmp_path)
    prototypes = model.prototypes()
    assert not prototypes.requires_grad
    assert_near(prototypes, slow.texts(in_float64(model), range(CLASSES), TEXT_HEADS))


@pytest.mark.parametrize(
    "opts, tokens",
    [
        (("DATASETS.NAMES", ("market1501",)), [320, 1125, 539, 320, None, 2533, 269]),
        (("DATASETS.NAMES", ("veri",)), [320, 1125, 539, 320, None, 5299, 269]),
        (("DATASETS.NAMES", ("VehicleID",)), [320, 1125, 539, 320, None, 5299, 269]),
        (("MODEL.PROMPT", "{} person"), [None, 2533]),
    ],
)
@pytest.mark.parametrize("count", [1, 4])
def test_the_prompt_is_made_of_the_tokens_of_clip(tmp_path, monkeypatch, opts, tokens, count):
    cfg = clip_reid_cfg(write_clip(tmp_path, VIT), *opts, "MODEL.PROMPT_TOKENS", count)
    embeddings = []

    class Seen(open_clip.CLIP):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)
            embeddings.append(self.token_embedding.weight.detach().clone())

    monkeypatch.setattr(open_clip, "CLIP", Seen)
    prompts = make_model(cfg, CLASSES, 0, 0).prompt_learner
    (rows,) = embeddings
    place = tokens.index(None)
    before, after = [49406, *tokens[:place]], [*tokens[place + 1 :], 49407]
    end = len(before) + count + len(after) - 1
    assert prompts.end == end
    assert torch.equal(prompts.token_prefix[0], rows[before])
    assert torch.equal(prompts.token_suffix[0], rows[after + [0] * (77 - end - 1)])
    assert prompts.cls_ctx.shape == (CLASSES, count, 16)
    sentences = prompts(torch.tensor([2]))
    assert sentences.shape == (1, 77, 16)
    assert torch.equal(sentences[0, len(before) : len(before) + count], prompts.cls_ctx[2])


def test_first_values_of_head_and_prompts_are_the_published_ones(tmp_path):
    torch.manual_seed(0)
    model = make_model(clip_reid_cfg(write_clip(tmp_path, VIT)), 400, 0, 0)
    for neck in (model.bottleneck, model.bottleneck_proj):
        assert bool((neck.weight == 1).all()) and bool((neck.bias == 0).all())
    for weight, std in ((model.classifier.weight, 1e-3), (model.classifier_proj.weight, 1e-3)):
        assert weight.std().item() == pytest.approx(std, rel=0.05)
    assert model.classifier.bias is None and model.classifier_proj.bias is None
    assert model.prompt_learner.cls_ctx.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("make", [make_vit, make_resnet])
def test_a_gradient_reaches_every_weight_but_the_biases_of_the_necks_and_the_text(tmp_path, make):
    model = make(tmp_path)
    sum(logits.square().sum() for logits in train_output(model, images(BATCH, SIZE)).logits).backward()
    without = {name for name, weight in model.named_parameters() if weight.grad is None}
    text = {name for name, _ in model.named_parameters() if name.startswith(("text_encoder.", "prompt_learner."))}
    assert without == text | {"bottleneck.bias", "bottleneck_proj.bias"}


@pytest.mark.parametrize("grid", [(16, 8), (21, 10), (5, 3), (7, 7), (14, 14), (28, 7)])
@pytest.mark.parametrize("side", [7, 14])
def test_a_position_table_is_resized_between_the_centres_of_its_places(side, grid):
    table = torch.randn(1 + side * side, 6, generator=torch.Generator().manual_seed(0))
    got = resized(table, grid)
    assert torch.equal(got[0], table[0])
    assert_near(got, slow.resize_positions(table.double(), grid))
    if side * side == grid[0] * grid[1]:
        assert torch.equal(got, table)


@pytest.mark.parametrize("stride", [16, 12])
def test_weights_of_a_clip_come_in_with_their_positions_resized(tmp_path, stride):
    torch.manual_seed(3)
    clip = redraw(open_clip.CLIP(EMBED, {**VIT, "image_size": 64}, TEXT))  # 4 x 4 patches
    state = dict(clip.state_dict())
    weights = save(state, tmp_path)
    opts = (
        "MODEL.PRETRAIN_CHOICE",
        "imagenet",
        "MODEL.CLIP_LOCAL_PATH",
        weights,
        "MODEL.STRIDE_SIZE",
        [stride, stride],
    )
    model = make_model(clip_reid_cfg(write_clip(tmp_path, VIT), *opts), CLASSES, 0, 0)
    grid = tuple((pixels - 16) // stride + 1 for pixels in SIZE)
    own = model.state_dict()
    for name, value in state.items():
        if name == "visual.positional_embedding":
            assert_near(own["image_encoder.positional_embedding"], slow.resize_positions(value.double(), grid))
        elif name.startswith("visual."):
            assert torch.equal(own[name.replace("visual.", "image_encoder.", 1)], value), name
        elif name not in ("token_embedding.weight", "logit_scale"):
            assert torch.equal(own[f"text_encoder.{name}"], value), name
    sentence = [49406, 320, 1125, 539, 320]
    assert torch.equal(own["prompt_learner.token_prefix"][0], state["token_embedding.weight"][sentence])
