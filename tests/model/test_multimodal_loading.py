"""Weights of the model of several modalities: CLIPs of all formats, our checkpoints; what loads, what is refused."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from model import make_model
from tests.model.builds import images, make_tiny, save
from tests.model.clip_files import (
    OWN_SIZE,
    custom_clip,
    features_of,
    hugging_face_clip,
    openai_clip,
    own_size,
    tokens,
)
from tests.model.clip_reids import VIT, assert_near, write_clip
from tests.model.clips import redraw
from tests.model.irras import irra_cfg
from tests.model.multimodals import ALL, CLASSES, OF_IMAGES, multimodal_cfg
from tests.model.refusal import refuse
from tests.reference.slow_clip_reid import resize_positions
from tests.reference.slow_irra import longer_table
from tests.tolerance import bounds
from utils.errors import DataError

TERMS = 3000  # as in three blocks of rows of 32 and 128 numbers
TEXT_TABLE = "text.positional_embedding"
SEMANTIC = ("MODEL.MULTIMODAL.SEMANTIC", True)
TWO = ("MODEL.MULTIMODAL.MODALITIES", ("vis", "nir"))
OTHERS = 11  # identities of another training set


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """The description of the tiny CLIP."""
    return write_clip(tmp_path, VIT)


def build(clip: str, *opts: object, seed: int = 41, classes: int = CLASSES) -> nn.Module:
    """Return a model as a user gets it; a later pair of `opts` wins."""
    torch.manual_seed(seed)
    return make_model(multimodal_cfg(clip, *own_size(*opts)), classes, 1, 1)


def trained(clip: str, *opts: object, classes: int = CLASSES) -> nn.Module:
    """Return a model whose weights and statistics are not the first ones."""
    model = redraw(build(clip, *opts, seed=7, classes=classes))
    with torch.no_grad():
        model.bottleneck.running_mean.normal_()
        model.bottleneck.running_var.uniform_(0.5, 1.5)
    return model


@torch.no_grad()
def embeddings(model: nn.Module) -> list[torch.Tensor]:
    given = {name: images(size=OWN_SIZE, seed=seed) for seed, name in enumerate(OF_IMAGES) if name in model.modalities}
    given |= {"text": tokens()} if "text" in model.modalities else {}
    model.eval()
    return [model.embed({name: x}) for name, x in given.items()]


@pytest.mark.parametrize("make_clip", [openai_clip, custom_clip, hugging_face_clip])
def test_clip_of_any_format_starts_every_modality(make_clip, clip, tmp_path):
    theirs = make_clip()
    path = save(theirs.state_dict(), tmp_path)
    model = build(clip, "MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.CLIP_LOCAL_PATH", path).eval()
    image, text = features_of(theirs)
    with torch.no_grad():
        for name in OF_IMAGES:
            got = model.encode(name, images(size=OWN_SIZE))
            torch.testing.assert_close(got, image, **bounds(TERMS, image.abs().max().item()))
        torch.testing.assert_close(model.encode("text", tokens()), text, **bounds(TERMS, text.abs().max().item()))


@pytest.mark.parametrize("size", [(48, 32), (32, 80)])
def test_positions_of_every_modality_are_the_clips_on_the_grid(clip, tmp_path, size):
    theirs = openai_clip()
    path = save(theirs.state_dict(), tmp_path)
    pair = ("MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.CLIP_LOCAL_PATH", path)
    model = build(clip, *pair, *own_size(size=size))
    expected = resize_positions(theirs.visual.positional_embedding.detach().double(), (size[0] // 16, size[1] // 16))
    for name in OF_IMAGES:
        assert_near(model.get_parameter(f"vision.tokenizers.{name}.positional_embedding"), expected)


@pytest.mark.parametrize("opts", [(), SEMANTIC, TWO])
def test_our_checkpoint_comes_back_bit_by_bit(tmp_path, clip, opts):
    model, again = trained(clip, *opts), build(clip, *opts)
    report = again.load_param(save(model.state_dict(), tmp_path))
    assert not (report.missing + report.surplus + report.warnings) and not report.misshaped
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


def test_a_model_of_fewer_modalities_takes_its_part_of_a_file(tmp_path, clip, caplog):
    caplog.set_level(logging.INFO)
    whole, part = trained(clip, classes=OTHERS), build(clip, *TWO)
    report = part.load_param(save(whole.state_dict(), tmp_path))
    assert not (report.missing + report.surplus) and set(report.misshaped) == {"classifier.weight"}
    assert "weights of the file are of modalities that this model does not read: ignored" in caplog.text
    for got, expected in zip(embeddings(part), embeddings(whole)[:2], strict=True):
        assert torch.equal(got, expected)


def test_a_model_of_more_modalities_is_not_in_a_file(tmp_path, clip):
    state = trained(clip, *TWO).state_dict()
    words = r"vision.tokenizers.sk.*is not in the file; MODEL.CLIP_BACKBONE and MODEL.MULTIMODAL.MODALITIES, which has"
    refuse(build(clip, "MODEL.MULTIMODAL.MODALITIES", ("vis", "nir", "sk")), state, tmp_path, words)


def test_a_file_of_other_settings_is_refused_with_the_keys(tmp_path, clip):
    state = trained(clip).state_dict()
    words = r"vision.tokenizers.vis.positional_embedding is \[5, 32\] in the file, but \[7, 32\] .*INPUT.SIZE_TEST"
    refuse(build(clip, *own_size(size=(48, 32))), state, tmp_path, words)
    refuse(build(clip, "MODEL.MULTIMODAL.RANK", 2), state, tmp_path, r"lora_a.*MODEL.MULTIMODAL.RANK")
    refuse(build(clip, *SEMANTIC), state, tmp_path, "semantic.value.weight .*MODEL.MULTIMODAL.SEMANTIC True asks")
    refuse(build(clip, "MODEL.MULTIMODAL.MLP_RATIO", 1.0), state, tmp_path, "fusion.mlp.1.*MODEL.MULTIMODAL.MLP_RATIO")
    model = build(clip)
    block = {n.replace("vision.blocks.2.", "vision.blocks.3."): v for n, v in state.items() if "vision.blocks.2." in n}
    words = "vision.blocks.3.* is in the file, but not in this model; .*MODEL.CLIP_BACKBONE"
    refuse(model, state | block, tmp_path, words)
    for name in ("bottleneck.running_mean", "fusion.attn.in_proj_bias", "text.ln_final.bias", "vision.proj"):
        lacking = {other: value for other, value in state.items() if other != name}
        refuse(model, lacking, tmp_path, f"{name} .*is not in the file")


def test_a_semantic_head_that_is_left_out_is_told(tmp_path, clip):
    report = build(clip).load_param(save(trained(clip, *SEMANTIC).state_dict(), tmp_path))
    assert report.warnings == (
        "the checkpoint was trained with a semantic head, so its embedding differs; set MODEL.MULTIMODAL.SEMANTIC True",
    )


@pytest.mark.parametrize("length", [20, 100])
def test_captions_of_another_length_have_first_rows_or_interpolated_ones(clip, tmp_path, length, caplog):
    state = trained(clip).state_dict()
    model = build(clip, "INPUT.TEXT.LENGTH", length)
    model.load_param(save(state, tmp_path))
    assert_near(model.get_parameter(TEXT_TABLE), longer_table(state[TEXT_TABLE].double(), length))
    assert f"{TEXT_TABLE}: {length} rows in place of 77, for INPUT.TEXT.LENGTH" in caplog.text


@pytest.mark.parametrize(
    "names",
    [
        ("clip_encoder.vision_layers.0.attn.q_proj.shared_linear.weight", "bn_neck.bn.weight"),
        ("clip_encoder.patch_embeds.rgb.proj.weight", "null_tokens.ir"),
        ("feature_fusion.attn.in_proj_weight", "bn_neck.classifier.weight"),
    ],
)
def test_checkpoints_of_the_original_code_are_refused_with_the_reason(clip, tmp_path, names):
    state = {name: torch.zeros(4) for name in names}
    words = "is a checkpoint of PRCV2025REID .*cannot give the same embedding.*train anew from CLIP's own weights"
    refuse(build(clip), state, tmp_path, words)
    with pytest.raises(DataError, match=f"MODEL.PRETRAIN_PATH .*{words}"):
        build(clip, "MODEL.PRETRAIN_CHOICE", "finetune", "MODEL.PRETRAIN_PATH", save(state, tmp_path))


def test_checkpoints_of_other_systems_are_refused_by_their_names(clip, tmp_path):
    model = build(clip)
    refuse(model, make_tiny().state_dict(), tmp_path, "is a checkpoint of TransReID .*set MODEL.NAME transformer")
    irra = make_model(irra_cfg(clip, *own_size()), CLASSES, 1, 1)
    refuse(model, irra.state_dict(), tmp_path, "is a checkpoint of IRRA .*set MODEL.NAME irra")
    refuse(irra, model.state_dict(), tmp_path, "is a checkpoint of several modalities .*set MODEL.NAME multimodal")
    words = "a checkpoint of several modalities, which MODEL.NAME multimodal takes"
    refuse(make_tiny(), model.state_dict(), tmp_path, words)
    for state in (openai_clip().state_dict(), hugging_face_clip().state_dict()):
        refuse(model, state, tmp_path, "is a CLIP, which MODEL.CLIP_LOCAL_PATH takes")


@pytest.mark.parametrize(("choice", "everything"), [("self", False), ("finetune", True)])
def test_first_weights_from_another_run(clip, tmp_path, choice, everything, caplog):
    caplog.set_level(logging.INFO)
    source = trained(clip, *SEMANTIC, classes=OTHERS)
    pair = ("MODEL.PRETRAIN_CHOICE", choice, "MODEL.PRETRAIN_PATH", save(source.state_dict(), tmp_path), *SEMANTIC)
    model, fresh = build(clip, *pair, *own_size(size=(48, 32))), build(clip, *SEMANTIC, *own_size(size=(48, 32)))
    theirs = source.state_dict()
    tables = {f"vision.tokenizers.{name}.positional_embedding" for name in OF_IMAGES}
    for name, value in model.state_dict().items():
        if name in tables:
            assert_near(value, resize_positions(theirs[name].double(), (3, 2)))
            continue
        is_theirs = name.startswith(("vision.", "text.")) or (everything and not name.startswith("classifier"))
        assert torch.equal(value, (theirs if is_theirs else fresh.state_dict())[name]), name
    assert "resized from 5 to 7 rows, for another INPUT.SIZE_TRAIN" in caplog.text


def test_frozen_towers_start_from_a_run_too(clip, tmp_path):
    source = trained(clip)
    pair = ("MODEL.PRETRAIN_CHOICE", "self", "MODEL.PRETRAIN_PATH", save(source.state_dict(), tmp_path))
    model = build(clip, *pair, "MODEL.MULTIMODAL.FREEZE_SHARED", True)
    weight = "vision.blocks.0.q.weight"
    assert torch.equal(model.get_parameter(weight), source.get_parameter(weight))
    assert not model.get_parameter(weight).requires_grad and model.modalities == ALL
