"""Weights of IRRA: CLIPs of all formats, the original's checkpoints and ours; what loads, what is refused."""

import json
import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from model import make_model
from processor.trained import load_trained, told_by
from tests.model.builds import images, make_tiny, save
from tests.model.clip_files import (
    EMBED,
    OWN_SIZE,
    custom_clip,
    features_of,
    hugging_face_clip,
    openai_clip,
    own_size,
    tokens,
)
from tests.model.clip_reids import TEXT, VIT, assert_near, write_clip
from tests.model.clips import redraw
from tests.model.irras import CLASSES, captions, irra_cfg
from tests.model.refusal import refuse
from tests.reference.slow_clip_reid import resize_positions
from tests.reference.slow_irra import longer_table
from tests.tolerance import bounds
from utils.errors import ConfigError, DataError

TERMS = 3000  # as in three blocks of rows of 32 and 128 numbers
TOWERS = "base_model."
IMAGE_TABLE, TEXT_TABLE = "base_model.visual.positional_embedding", "base_model.positional_embedding"
OTHERS = 11  # identities of the published file
ITC = ("LOSS.TEXT.NAMES", ["itc"])
State = dict[str, torch.Tensor]


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """The description of the tiny CLIP."""
    return write_clip(tmp_path, VIT)


def build(clip: str, *opts: object, seed: int = 41) -> nn.Module:
    """Return a model as a user gets it; a later pair of `opts` wins."""
    torch.manual_seed(seed)
    return make_model(irra_cfg(clip, *own_size(*opts)), CLASSES, 1, 1)


@pytest.fixture
def published() -> State:
    """A state dict of the original for OTHERS identities, its names and shapes written out by hand."""
    torch.manual_seed(31)
    state = {TOWERS + name: value for name, value in openai_clip(seed=31).state_dict().items() if name != "logit_scale"}
    state |= {f"cross_attn.{name}": value for name, value in attention(EMBED).items()}
    for block in range(2):
        name = f"cross_modal_transformer.resblocks.{block}."
        state |= {f"{name}attn.{part}": value for part, value in attention(EMBED).items()}
        state |= linear(f"{name}mlp.c_fc", 4 * EMBED, EMBED) | linear(f"{name}mlp.c_proj", EMBED, 4 * EMBED)
        state |= linear(f"{name}ln_1", EMBED) | linear(f"{name}ln_2", EMBED)
    for norm in ("ln_pre_t", "ln_pre_i", "ln_post", "mlm_head.ln"):
        state |= linear(norm, EMBED)
    state |= linear("mlm_head.dense", EMBED, EMBED) | linear("mlm_head.fc", TEXT["vocab_size"], EMBED)
    return state | linear("classifier", OTHERS, EMBED)


def linear(name: str, *shape: int) -> State:
    return {f"{name}.weight": torch.randn(*shape), f"{name}.bias": torch.randn(shape[0])}


def attention(width: int) -> State:
    own = {"in_proj_weight": torch.randn(3 * width, width), "in_proj_bias": torch.randn(3 * width)}
    return own | linear("out_proj", width, width)


@torch.no_grad()
def features(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    model.eval()
    return model.encode_image(images(size=OWN_SIZE)), model.encode_text(tokens())


def assert_same(got: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> None:
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **bounds(TERMS, theirs.abs().max().item()))


@pytest.mark.parametrize("make_clip", [openai_clip, custom_clip, hugging_face_clip])
def test_both_towers_of_a_clip_of_any_format_embed_as_its_library_does(make_clip, clip, tmp_path):
    theirs = make_clip()
    path = save(theirs.state_dict(), tmp_path)
    model = build(clip, "MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.CLIP_LOCAL_PATH", path)
    assert_same(features(model), features_of(theirs))


@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize("container", [True, False], ids=["dictionary", "bare"])
def test_published_file_in_float16_gives_the_features_of_its_towers(clip, published, tmp_path, wrapper, container):
    half = {wrapper + name: value.half() for name, value in published.items()}
    content = {"model": half, "optimizer": {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": []}}
    content |= {"scheduler": {"milestones": (20, 50), "last_epoch": 7}, "num_epoch": 60, "iteration": 99, "epoch": 7}
    model = build(clip)
    report = model.load_param(save(content if container else half, tmp_path))
    whole = openai_clip()
    named = {name.removeprefix(TOWERS): value.half().float() for name, value in published.items()}
    whole.load_state_dict({name: named[name] for name in whole.state_dict() if name in named}, strict=False)
    assert_same(features(model), features_of(whole))
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert set(report.misshaped) == {"classifier.weight", "classifier.bias"} and not report.missing + report.surplus
    assert set(report.matched) | set(report.misshaped) == set(published) == set(model.state_dict())
    ours = model.state_dict()
    assert all(torch.equal(ours[name], published[name].half().float()) for name in report.matched)


def test_parts_that_no_loss_needs_are_told_and_left_aside(clip, published, tmp_path):
    report = build(clip, *ITC).load_param(save(published, tmp_path))
    assert set(report.surplus) == {name for name in published if not name.startswith(TOWERS)}
    towers = {name: value for name, value in published.items() if name.startswith(TOWERS)}
    report = build(clip).load_param(save(towers, tmp_path))
    assert set(report.missing) == set(published) - set(towers) and not report.surplus
    deeper = build(clip, "MODEL.CMT_DEPTH", 1).load_param(save(published, tmp_path))
    assert deeper.surplus and all(name.startswith("cross_modal_transformer.resblocks.1.") for name in deeper.surplus)


def test_our_checkpoint_comes_back_bit_by_bit(tmp_path, clip):
    model = redraw(build(clip))
    report = (again := build(clip, seed=7)).load_param(save(model.state_dict(), tmp_path))
    assert not (report.missing + report.surplus) and not report.misshaped
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


def test_identities_are_told_by_the_classifier_of_a_file_alone(clip, published, tmp_path):
    weight, recipe = Path(save({"model": published, "epoch": 7}, tmp_path, "best.pth")), tmp_path / "irra.yml"
    recipe.write_text(
        f"MODEL: {{NAME: irra, CLIP_BACKBONE: {clip}, CLIP_PRETRAIN: '', DEVICE: cpu, CMT_DEPTH: 2}}\n"
        "INPUT: {SIZE_TRAIN: [32, 32], SIZE_TEST: [32, 32]}\nDATASETS: {NAMES: [RSTPReid], ROOT_DIR: nowhere}\n"
    )
    trained = load_trained(weight, recipe)
    assert trained.model.num_class == OTHERS and trained.provenance is None
    assert torch.equal(trained.model.classifier.weight, published["classifier.weight"])
    assert told_by(trained.cfg, weight).counts.num_class == OTHERS


@pytest.mark.parametrize("size", [(48, 32), (32, 80)])
def test_image_positions_of_a_clip_are_bilinear_between_pixel_centres(clip, tmp_path, size):
    theirs = openai_clip()
    path = save(theirs.state_dict(), tmp_path)
    pair = ("MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.CLIP_LOCAL_PATH", path)
    model = build(clip, *pair, *own_size(size=size))
    grid = (size[0] // 16, size[1] // 16)
    expected = resize_positions(theirs.visual.positional_embedding.detach().double(), grid)
    assert_near(model.get_parameter(IMAGE_TABLE), expected)


@pytest.mark.parametrize("length", [20, 77, 100])
def test_captions_of_another_length_have_first_rows_or_interpolated_ones(clip, published, tmp_path, length, caplog):
    theirs = openai_clip()
    pair = ("MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.CLIP_LOCAL_PATH", save(theirs.state_dict(), tmp_path))
    model = build(clip, *pair, "INPUT.TEXT.LENGTH", length)
    assert_near(model.get_parameter(TEXT_TABLE), longer_table(theirs.positional_embedding.detach().double(), length))
    assert ("INPUT.TEXT.LENGTH" in caplog.text) == (length != 77)
    caplog.clear()
    model.load_param(save(published, tmp_path))
    assert_near(model.get_parameter(TEXT_TABLE), longer_table(published[TEXT_TABLE].double(), length))
    assert (f"{length} rows in place of 77, for INPUT.TEXT.LENGTH" in caplog.text) == (length != 77)
    if length > 77:
        assert model.encode_text(captions((90,), length)).isfinite().all()


def test_checkpoint_of_another_grid_or_depth_is_refused(clip, published, tmp_path):
    words = r"base_model.visual.positional_embedding is \[5, 32\] in the file, but \[7, 32\] .*INPUT.SIZE_TEST"
    refuse(build(clip, *own_size(size=(48, 32))), published, tmp_path, words)
    for tower, layer in (("base_model.visual.", 2), ("base_model.", 1)):
        start = f"{tower}transformer.resblocks."
        block = {
            name.replace(f"{start}{layer}.", f"{start}{layer + 1}."): value
            for name, value in published.items()
            if name.startswith(f"{start}{layer}.")
        }
        words = f"{start}{layer + 1}.*is in the file, but not in this model; MODEL.CLIP_BACKBONE"
        refuse(build(clip), published | block, tmp_path, words)
    del published["base_model.ln_final.bias"]
    refuse(build(clip), published, tmp_path, r"base_model.ln_final.bias \[16\] is not in the file; MODEL.CLIP_BACKBONE")


def test_checkpoints_of_other_systems_are_refused_by_their_names(clip, tmp_path):
    model = build(clip)
    refuse(model, make_tiny().state_dict(), tmp_path, "is a checkpoint of TransReID .*set MODEL.NAME transformer")
    theirs = openai_clip().state_dict()
    named = {name.replace("visual.", "image_encoder."): value for name, value in theirs.items()}
    refuse(model, named, tmp_path, "is a checkpoint of CLIP-ReID .*set MODEL.NAME clip_reid")
    for state in (theirs, hugging_face_clip().state_dict()):
        refuse(model, state, tmp_path, "is a CLIP, which MODEL.CLIP_LOCAL_PATH takes")


@pytest.mark.parametrize(("choice", "everything"), [("self", False), ("finetune", True)])
def test_first_weights_from_another_run(clip, published, tmp_path, choice, everything, caplog):
    caplog.set_level(logging.INFO)
    pair = ("MODEL.PRETRAIN_CHOICE", choice, "MODEL.PRETRAIN_PATH", save(published, tmp_path))
    model, fresh = build(clip, *pair, *own_size(size=(48, 32))), build(clip, *own_size(size=(48, 32)))
    table = resize_positions(published[IMAGE_TABLE].double(), (3, 2))
    assert_near(model.get_parameter(IMAGE_TABLE), table)
    assert "resized from 5 to 7 rows, for another INPUT.SIZE_TRAIN" in caplog.text
    for name, value in model.state_dict().items():
        if name != IMAGE_TABLE:
            is_theirs = name.startswith(TOWERS) or (everything and not name.startswith("classifier"))
            assert torch.equal(value, (published if is_theirs else fresh.state_dict())[name]), name


def test_first_weights_of_a_file_that_is_no_irra_are_refused(clip, tmp_path):
    path = save(make_tiny().state_dict(), tmp_path)
    with pytest.raises(DataError, match="MODEL.PRETRAIN_PATH .* is a checkpoint of TransReID"):
        build(clip, "MODEL.PRETRAIN_CHOICE", "self", "MODEL.PRETRAIN_PATH", path)


def test_random_where_neither_tag_nor_file_is_named(clip):
    opts = ("MODEL.PRETRAIN_CHOICE", "imagenet")
    first, same, other = build(clip, *opts), build(clip, *opts), build(clip, *opts, seed=42)
    table = "base_model.token_embedding.weight"
    assert torch.equal(first.get_parameter(table), same.get_parameter(table))
    assert not torch.equal(first.get_parameter(table), other.get_parameter(table))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (None, "describes no text tower .text_cfg., which MODEL.NAME irra cannot do without"),
        ({"hf_model_name": "some/bert"}, "its text tower is not CLIP's own .hf_model_name."),
        ({"vocab_size": 1000}, "a vocabulary of 1,000, CLIP's tokenizer has 49,408 tokens"),
        ({"pool_type": "last"}, "the pool_type of its text_cfg"),
        ({"no_causal_mask": True}, "the no_causal_mask of its text_cfg"),
        ({"proj_type": "none", "width": EMBED}, "the proj_type of its text_cfg"),
    ],
)
def test_text_tower_that_is_not_openai_s_is_refused(tmp_path, change, words):
    path = Path(write_clip(tmp_path, VIT))
    description = json.loads(path.read_text())
    if change is None:
        del description["text_cfg"]
    else:
        description["text_cfg"] |= change
    path.write_text(json.dumps(description))
    with pytest.raises(ConfigError, match=words):
        build(str(path))


def test_resnet_of_a_description_is_refused(tmp_path):
    tower = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64}
    with pytest.raises(ConfigError, match="MODEL.CLIP_BACKBONE names a ResNet"):
        build(write_clip(tmp_path, tower))
