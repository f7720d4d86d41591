"""A CLIP's weight file gives the features of the library that it comes from, whatever names it has."""

from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPConfig, CLIPModel

from model.weights.clip_names import openai_names
from tests.model.builds import save
from tests.model.clip_files import (
    custom_clip,
    features_of,
    hugging_face_clip,
    load_clip,
    naive_table,
    openai_clip,
    our_features,
    own_size,
)
from tests.model.clip_reids import RESNET, VIT, write_clip
from tests.tolerance import bounds, rounding
from utils.errors import DataError

TERMS = 3000  # numbers of about 1 added up in three blocks: rows of 32 and 128, and the norms
OPENAI_NUMBERS = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
Q_PROJ = "text_model.encoder.layers.1.self_attn.q_proj.weight"
State = dict[str, torch.Tensor]


def as_openai(clip: nn.Module) -> State:
    return clip.state_dict() | {name: torch.tensor(value) for name, value in OPENAI_NUMBERS.items()}


def with_old_constants(clip: nn.Module) -> State:
    """What transformers before 4.31 saved too."""
    rows = {"text": 77, "vision": 5}
    constants = {f"{tower}_model.embeddings.position_ids": torch.arange(n)[None] for tower, n in rows.items()}
    return clip.state_dict() | constants


FORMATS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], State]]] = {
    "OpenAI": (openai_clip, as_openai),
    "open_clip": (openai_clip, nn.Module.state_dict),
    "CustomTextCLIP": (custom_clip, nn.Module.state_dict),
    "Hugging Face": (hugging_face_clip, nn.Module.state_dict),
    "old Hugging Face": (hugging_face_clip, with_old_constants),
}


def token_table(clip: nn.Module) -> torch.Tensor:
    (table,) = (value for name, value in clip.state_dict().items() if name.endswith("token_embedding.weight"))
    return table


def assert_equal_features(got: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> None:
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **bounds(TERMS, theirs.abs().max().item()))


@pytest.fixture
def description(tmp_path: Path) -> str:
    return write_clip(tmp_path, VIT)


@pytest.mark.parametrize("kind", FORMATS)
def test_file_of_each_kind_gives_the_features_of_its_own_library(kind, description, tmp_path):
    make, saved = FORMATS[kind]
    clip = make()
    model = load_clip(description, save(saved(clip), tmp_path))
    assert_equal_features(our_features(model, token_table(clip)), features_of(clip))


def test_safetensors_hold_the_same(description, tmp_path):
    clip = hugging_face_clip()
    save_file({name: value.contiguous() for name, value in clip.state_dict().items()}, tmp_path / "a.safetensors")
    model = load_clip(description, tmp_path / "a.safetensors")
    assert_equal_features(our_features(model, token_table(clip)), features_of(clip))


def test_half_precision_file_of_openai_is_its_rounded_weights_in_float32(description, tmp_path):
    clip = openai_clip()
    half = {name: value.half() if value.is_floating_point() else value for name, value in as_openai(clip).items()}
    model = load_clip(description, save(half, tmp_path))
    clip.half().float()
    assert all(weight.dtype == torch.float32 for weight in model.parameters())
    assert_equal_features(our_features(model, token_table(clip)), features_of(clip))


@pytest.mark.parametrize("kind", FORMATS)
def test_baseline_takes_the_image_tower_alone(kind, description, tmp_path):
    make, saved = FORMATS[kind]
    clip = make()
    model = load_clip(description, save(saved(clip), tmp_path), "SOLVER.STAGES", ["main"])
    assert not model.has_text and not any(name.startswith("text") for name in model.state_dict())
    renamed = openai_names(saved(clip))
    for name, value in model.image_encoder.state_dict().items():
        assert torch.equal(value, renamed[f"visual.{name}"]), name


def test_file_of_clip_reid_gives_its_image_tower(description, tmp_path):
    clip = openai_clip()
    visual = {name: value for name, value in clip.state_dict().items() if name.startswith("visual.")}
    published = {name.replace("visual.", "image_encoder.", 1): value for name, value in visual.items()}
    path = save(published | {"classifier.weight": torch.ones(7, 32)}, tmp_path)
    model = load_clip(description, path, "SOLVER.STAGES", ["main"])
    for name, value in visual.items():
        assert torch.equal(model.image_encoder.state_dict()[name.removeprefix("visual.")], value), name
    with pytest.raises(DataError, match="positional_embedding .* is not in the file"):
        load_clip(description, path)  # both stages need a text tower


def test_398_names_of_hugging_face_are_the_302_of_openai_in_name_and_shape():
    with torch.device("meta"):
        theirs = CLIPModel(CLIPConfig(vision_config={"patch_size": 16})).state_dict()
        width, depth, heads, text = 768, 12, 64, {"width": 512, "heads": 8, "layers": 12}
        vision = {"image_size": 224, "patch_size": 16, "width": width, "layers": depth, "head_width": heads}
        ours = open_clip.CLIP(512, vision, text, quick_gelu=True).state_dict()
    assert (len(theirs), len(ours)) == (398, 302)
    found = openai_names(theirs)
    assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in ours.items()}


@pytest.mark.parametrize("size, grid", [((96, 32), (6, 2)), ((64, 128), (4, 8)), ((48, 48), (3, 3))])
def test_positions_of_a_vit_are_resized_bilinearly_without_antialias(size, grid, tmp_path):
    clip = openai_clip(image_size=64)
    description = write_clip(tmp_path, {**VIT, "image_size": 64})
    model = load_clip(description, save(clip.state_dict(), tmp_path), *own_size(size=size))
    table = clip.visual.positional_embedding.detach()
    expected = naive_table(table, grid)
    got = model.image_encoder.positional_embedding.detach()
    assert len(table) == 17 and got.shape == expected.shape
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=rounding(8) * table.abs().max().item())
    assert torch.equal(got[0], table[0])


def test_positions_of_a_resnet_are_resized_bilinearly_without_antialias(tmp_path):
    vision = {**RESNET, "image_size": 96}  # its own grid is 3 x 3
    torch.manual_seed(3)
    clip = open_clip.CLIP(24, vision, {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2})
    path = save(clip.state_dict(), tmp_path)
    model = load_clip(write_clip(tmp_path, vision), path, *own_size(size=(80, 32)))
    table = clip.visual.attnpool.positional_embedding.detach()
    expected = naive_table(table, (5, 2))
    got = model.image_encoder.attnpool.positional_embedding.detach()
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=rounding(8) * table.abs().max().item())
    for name, value in model.image_encoder.state_dict().items():
        if name != "attnpool.positional_embedding":
            assert torch.equal(value, clip.visual.state_dict()[name]), name


@pytest.mark.parametrize("vision, size", [(VIT, (32, 32)), (RESNET | {"image_size": 96}, (48, 48))])
def test_table_of_the_right_rows_stays_as_it_is(vision, size, tmp_path):
    torch.manual_seed(4)
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    state = open_clip.CLIP(24, vision, text, quick_gelu=True).state_dict()
    model = load_clip(write_clip(tmp_path, vision), save(state, tmp_path), *own_size(size=size))
    (name,) = (name for name in state if name.startswith("visual.") and name.endswith("positional_embedding"))
    assert torch.equal(model.image_encoder.state_dict()[name.removeprefix("visual.")], state[name])


def with_block(state: State, tower: str) -> State:
    """Add a block behind the last one of a tower."""
    last = max(int(name.split("resblocks.")[1].split(".")[0]) for name in state if name.startswith(tower))
    start, added = f"{tower}resblocks.{last}.", f"{tower}resblocks.{last + 1}."
    return state | {name.replace(start, added): value for name, value in state.items() if name.startswith(start)}


def without(state: State, name: str) -> State:
    return {key: value for key, value in state.items() if key != name}


BLOCKS = ("visual.transformer.", "transformer.")
DAMAGED: dict[str, tuple[Callable[[State], State], str]] = {
    "another width": (
        lambda state: state | {"visual.conv1.weight": torch.zeros(16, 3, 16, 16)},
        r"visual.conv1.weight is \[16, 3, 16, 16\] in the file, but \[32, 3, 16, 16\]",
    ),
    "another width of the text": (
        lambda state: state | {"ln_final.weight": torch.zeros(8)},
        r"ln_final.weight is \[8\] in the file, but \[16\]",
    ),
    "positions of another width": (
        lambda state: state | {"visual.positional_embedding": torch.zeros(5, 16)},
        "the position table is 16 wide in the file, but 32",
    ),
    "positions missing": (
        lambda state: without(state, "visual.positional_embedding"),
        "visual.positional_embedding is not a table in the file",
    ),
    "a norm missing": (
        lambda state: without(state, "visual.transformer.resblocks.1.ln_1.weight"),
        r"visual.transformer.resblocks.1.ln_1.weight \[32\] is not in the file",
    ),
    "tokens missing": (
        lambda state: without(state, "token_embedding.weight"),
        "token_embedding.weight .* is not in the file",
    ),
    "more blocks": (
        lambda state: with_block(state, BLOCKS[0]),
        r"visual.transformer.resblocks.3.* is in the file, but not in this CLIP",
    ),
    "more blocks of the text": (
        lambda state: with_block(state, BLOCKS[1]),
        r": transformer.resblocks.2.* is in the file, but not in this CLIP",
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_file_that_does_not_fit_is_refused_with_the_weight_and_the_keys(kind, description, tmp_path):
    change, words = DAMAGED[kind]
    path = save(change(openai_clip().state_dict()), tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        load_clip(description, path)
    text = str(caught.value)
    assert "\n" not in text and "MODEL.CLIP_LOCAL_PATH" in text and "MODEL.CLIP_BACKBONE decides it" in text


def test_a_third_that_hugging_face_lacks_is_missed(description, tmp_path):
    path = save(without(hugging_face_clip().state_dict(), Q_PROJ), tmp_path)
    with pytest.raises(DataError, match=r"transformer.resblocks.1.attn.in_proj_weight \[48, 16\] is not in the file"):
        load_clip(description, path)


def test_archive_with_code_is_refused_with_the_way_out(description, tmp_path):
    path = tmp_path / "ViT-B-16.pt"
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(path)
    with pytest.raises(DataError, match="MODEL.CLIP_LOCAL_PATH.*TorchScript archive.*save its weights alone"):
        load_clip(description, path)
