"""CLIP's towers against the libraries they come from, and the images that they see."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from torchvision.transforms.functional import normalize

from model.backbones.clip import Normalisation, Renormalise
from model.backbones.clip_sources import hf_tower, open_clip_tower
from model.weights.clip_towers import resize_positions
from tests.model import clips
from tests.model.builds import images, save
from tests.model.clips import FROZEN, HF_WIDTH, OPEN_CLIP_WIDTH, build
from tests.tolerance import bounds

ROOT = Path(__file__).parents[2]
TERMS = 1000  # numbers added up one after the other: 192 pixels, up to 400 numbers in each of two blocks
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
SIZES = [(32, 32), (48, 48), (48, 24), (16, 64)]  # the towers' own, larger, other shapes; the last has 16 patches too


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_open_clip_tower_is_open_clips_image_encoder(size, sources):
    import open_clip

    tower = open_clip_tower(sources.json, "", sources.weights, size).eval()
    whole = clips.make_open_clip(image_size=size).eval()
    if size != (16, 64):
        open_clip.load_checkpoint(whole, sources.weights)
    else:  # open_clip keeps a table of as many patches although their grid changed
        state = torch.load(sources.weights, weights_only=True)
        table = state["visual.positional_embedding"][None]
        state["visual.positional_embedding"] = resample_abs_pos_embed(table, [2, 8], [4, 4])[0]
        whole.load_state_dict(state)
    batch = images(3, size)
    assert tower.info.feat_dim == OPEN_CLIP_WIDTH and tower(batch).shape == (3, OPEN_CLIP_WIDTH)
    torch.testing.assert_close(tower(batch), whole.encode_image(batch), **bounds(TERMS))


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_hf_tower_is_the_pooled_output_of_transformers_vision_model(size, sources):
    tower = hf_tower("", sources.hf, size).eval()
    vision = clips.make_hf().vision_model
    batch = images(3, size)
    expected = vision(batch, interpolate_pos_encoding=True).pooler_output
    assert tower.info.feat_dim == HF_WIDTH and tower(batch).shape == (3, HF_WIDTH)
    torch.testing.assert_close(tower(batch), expected, **bounds(TERMS))
    assert tower.encoder.layers[0].self_attn.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("wrapped", [False, True])
def test_hf_names_do_not_depend_on_the_version_of_transformers(wrapped, sources, monkeypatch):
    import transformers

    library = transformers.CLIPVisionModel

    def version(config: object) -> torch.nn.Module:
        vision = library(config)
        vision = dict(vision.named_children()).get("vision_model", vision)
        return torch.nn.ModuleDict({"vision_model": vision}) if wrapped else vision  # transformers 4 wraps it

    monkeypatch.setattr(transformers, "CLIPVisionModel", version)
    parts = {name.split(".")[0] for name in hf_tower("", sources.hf, (32, 32)).state_dict()}
    assert parts == {"embeddings", "pre_layrnorm", "encoder", "post_layernorm"}


@pytest.mark.parametrize("antialias", [False, True])
def test_positions_are_resized_as_the_libraries_do(antialias):
    table, tower = torch.randn(1 + 9, 5), SimpleNamespace(grid=(4, 2), antialias=antialias)
    resized = resize_positions(table, tower)
    image = table[1:].t().reshape(1, 5, 3, 3)
    expected = F.interpolate(image, (4, 2), mode="bicubic", align_corners=False, antialias=antialias)
    assert torch.equal(resized[0], table[0])
    for row in range(4):
        for column in range(2):
            torch.testing.assert_close(resized[1 + 2 * row + column], expected[0, :, row, column], **bounds(16))
    assert torch.equal(resize_positions(table, SimpleNamespace(grid=(3, 3))), table)
    assert resize_positions(table.half(), tower).dtype == torch.float16


def test_constant_positions_stay_constant_on_any_grid():
    table = torch.cat([torch.zeros(1, 2), torch.ones(16, 2)])
    for grid in ((2, 8), (7, 3), (4, 4)):
        resized = resize_positions(table, SimpleNamespace(grid=grid, antialias=True))
        torch.testing.assert_close(resized[1:], torch.ones(grid[0] * grid[1], 2), **bounds(16))


@pytest.mark.parametrize("pixel", [IMAGENET, Normalisation((0.5, 0.5, 0.5), (0.5, 0.25, 1.0))])
def test_renormalised_images_are_those_normalised_for_clip_at_once(pixel):
    original = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    ours = Renormalise(pixel, OPENAI, (6, 5), "bicubic")(normalize(original, pixel.mean, pixel.std))
    torch.testing.assert_close(ours, normalize(original, OPENAI.mean, OPENAI.std), **bounds(9))


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_images_are_resized_without_moving_or_smoothing(mode):
    original = torch.rand(2, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    ours = Renormalise(IMAGENET, OPENAI, (4, 9), mode)(normalize(original, IMAGENET.mean, IMAGENET.std))
    resized = F.interpolate(original, size=(4, 9), mode=mode, align_corners=False)
    torch.testing.assert_close(ours, normalize(resized, OPENAI.mean, OPENAI.std), **bounds(25))


def test_renormalisation_is_in_no_checkpoint():
    assert not Renormalise(IMAGENET, OPENAI, (4, 4), "bicubic").state_dict()


@pytest.mark.parametrize(("variant", "mode"), [("minimal", "bicubic"), ("hf", "bilinear")])
def test_model_undoes_its_own_normalisation_for_the_tower_and_resizes_as_its_library_does(variant, mode, sources):
    pixel = ("INPUT.PIXEL_MEAN", [0.1, 0.2, 0.3], "INPUT.PIXEL_STD", [0.5, 0.6, 0.7])
    model, seen = build(sources, variant, *pixel, "MODEL.CLIP_INPUT_SIZE", (16, 32)).eval(), []
    model.clip_model.register_forward_pre_hook(lambda tower, inputs: seen.extend(inputs))
    original = torch.rand(2, 3, 32, 24)
    expected = F.interpolate(normalize(original, *OPENAI), (16, 32), mode=mode, align_corners=False)
    model.clip_features(normalize(original, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]))
    torch.testing.assert_close(seen, [expected], **bounds(25))


def test_tower_is_normalised_as_its_own_source_says(sources, tmp_path, caplog):
    assert open_clip_tower(sources.json, "", "", (32, 32)).info.normalisation == OPENAI
    with torch.device("meta"):
        siglip = open_clip_tower("ViT-B-16-SigLIP", "webli", "", (224, 224), weights=False)
    assert siglip.info.normalisation == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    with caplog.at_level(logging.WARNING):
        assert hf_tower("", sources.hf, (32, 32)).info.normalisation == OPENAI
    words = "has no preprocessor_config.json: CLIP's images are normalised as OpenAI's, Normalisation(mean=(0.48145466,"
    assert words in caplog.text
    folder = shutil.copytree(sources.hf, tmp_path / "hf")
    own = {"image_processor_type": "CLIPImageProcessor", "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(own))
    normalisation = hf_tower("", str(folder), (32, 32)).info.normalisation
    assert normalisation == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize(("name", "own"), [("ViT-L-14-336", 336), ("ViT-B-16", 224)])
def test_another_size_than_open_clips_is_a_warning(name, own, caplog):
    with torch.device("meta"):
        open_clip_tower(name, "", "", (own, own))
        assert not caplog.records
        open_clip_tower(name, "", "", (448, 224))
    words = f"MODEL.CLIP_INPUT_SIZE is [448, 224], but {name} is made for images of [{own}, {own}]"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("WARNING", words)]


def test_activation_is_the_one_that_the_tags_weights_were_trained_with():
    def activations(tag: str) -> set[str]:
        tower = open_clip_tower("ViT-B-32", tag, "", (32, 32), weights=False)
        return {type(block.mlp.gelu).__name__ for block in tower.visual.transformer.resblocks}

    with torch.device("meta"):
        assert activations("openai") == {"QuickGELU"} and activations("laion2b_s34b_b79k") == {"GELU"}


def test_tower_that_returns_patches_too_gives_its_image_feature(tmp_path):
    path = clips.write_description(
        tmp_path / "coca.json", attentional_pool=True, output_tokens=True, attn_pooler_heads=2
    )
    assert open_clip_tower(path, "", "", (32, 24))(images(2)).shape == (2, OPEN_CLIP_WIDTH)


def test_weight_file_wins_over_the_tag_and_may_hold_half_precision(sources, tmp_path):
    state = {name: value.half() for name, value in torch.load(sources.weights, weights_only=True).items()}
    path = save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path, "half.bin")
    tower = open_clip_tower(sources.json, "laion2b_s34b_b88k", path, (32, 32))
    assert tower.visual.conv1.weight.dtype == torch.float32
    assert torch.equal(tower.visual.conv1.weight, state["visual.conv1.weight"].float())


def test_pickled_weights_of_a_folder_serve_where_there_are_no_safetensors(sources, tmp_path):
    folder = clips.write_hf(tmp_path / "hf", weights=False)
    torch.save(clips.make_hf().state_dict(), folder / "pytorch_model.bin")
    ours, theirs = hf_tower("", str(folder), (32, 24)), hf_tower("", sources.hf, (32, 24))
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


def test_transformers_builds_beside_our_own_datasets_package(sources):
    import datasets

    assert Path(datasets.__file__).is_relative_to(ROOT)
    build(sources, "hf", *FROZEN)


def test_neither_library_is_imported_without_use_clip():
    code = (
        "import sys\nfrom tests.model.builds import make_tiny\nimport configs\n"
        "import model.families.clip_fusion\nmake_tiny()\n"
        "print([name for name in ('open_clip', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
