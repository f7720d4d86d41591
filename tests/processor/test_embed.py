"""Embeddings of a loader's images: flip, normalisation, side labels that are told or not."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from configs import load_cfg
from datasets import make_dataloader
from datasets.make_dataloader import make_transforms
from datasets.transforms import BatchTransform
from model import make_model
from processor.embed import embed, embed_batch
from tests.tolerance import bounds, rounding
from utils.errors import ConfigError

TERMS = 1000  # numbers added up one after the other: 192 pixels, 350 numbers in each of two blocks


@pytest.fixture(scope="module")
def model_of(tiny_root, tmp_path_factory):
    """make(*opts) returns (cfg, random model, data) of the tiny experiment."""
    from tests.conftest import TINY_YAML

    path = tmp_path_factory.mktemp("embed") / "tiny.yml"
    path.write_text(TINY_YAML.format(root=tiny_root, output="unused"))

    def make(*opts):
        cfg = load_cfg(path, opts)
        torch.manual_seed(0)
        data = make_dataloader(cfg)
        model = make_model(cfg, data.num_classes, data.camera_num, data.view_num)
        torch.nn.init.normal_(model.base.sie_embed)  # so that labels matter
        return cfg, model.eval(), data

    return make


def by_hand(model, data, mirror=False):
    """Return the embeddings of the test images one by one, decoded and normalised here."""
    feat = []
    for sample in data.val_loader.dataset.samples:
        with Image.open(sample.path) as image:
            pixels = np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float64)
        pixels = pixels[:, ::-1] if mirror else pixels
        pixels = torch.tensor(((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1).copy(), dtype=torch.float32)
        with torch.no_grad():
            feat.append(model(pixels[None], torch.tensor([sample.camid]), torch.tensor([sample.viewid]))[0])
    return torch.stack(feat)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("norm", ["yes", "no"])
def test_embeddings_are_those_of_single_images_with_the_mirror_averaged_before_normalising(model_of, flip, norm):
    half = ("INPUT.PIXEL_MEAN", "0.5", "INPUT.PIXEL_STD", "0.5")
    cfg, model, data = model_of("TEST.FLIP", flip, "TEST.FEAT_NORM", norm, *half)
    expected = by_hand(model, data)
    if flip:
        expected = (expected + by_hand(model, data, mirror=True)) / 2
    embedded = embed(cfg, model, data.val_loader)
    torch.testing.assert_close(embedded.feat, F.normalize(expected) if norm == "yes" else expected, **bounds(TERMS))
    assert embedded.feat.dtype == torch.float32 and embedded.luma.shape == (len(expected),)


def test_brightness_is_the_mean_luma_of_the_resized_image(model_of):
    cfg, model, data = model_of()
    with Image.open(data.val_loader.dataset.samples[3].path) as image:
        red, green, blue = np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)).mean((0, 1))
    luma = (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255
    assert embed(cfg, model, data.val_loader).luma[3] == pytest.approx(luma, abs=rounding(32 * 32))


@pytest.mark.parametrize("flip", [False, True])
def test_without_autocast_features_are_bit_for_bit_those_of_the_plain_model(model_of, flip):
    cfg, model, data = model_of("TEST.AMP", "off", "TEST.FLIP", flip, "TEST.FEAT_NORM", "no")
    _, transform = make_transforms(cfg)
    parts = []
    with torch.inference_mode():
        for batch in data.val_loader:
            sides = [transform(batch["images"]), transform(batch["images"].flip(3))][: 1 + flip]
            parts.append(sum(model(pixels, batch["camids"], batch["viewids"]) for pixels in sides) / len(sides))
    embedded = embed(cfg, model, data.val_loader)
    assert torch.equal(embedded.feat, torch.cat(parts)) and embedded.precision == "float32"


def test_embeddings_of_bfloat16_are_near_and_of_unit_length_in_float32(model_of, caplog):
    cfg, model, data = model_of("TEST.AMP", "off")
    plain = embed(cfg, model, data.val_loader)
    caplog.set_level("INFO")
    cfg, _, _ = model_of("TEST.AMP", "bf16")
    embedded = embed(cfg, model, data.val_loader)
    assert embedded.feat.dtype == torch.float32 and embedded.precision == "bfloat16"
    assert not torch.equal(embedded.feat, plain.feat)
    assert F.cosine_similarity(embedded.feat, plain.feat).min() > 0.999
    torch.testing.assert_close(
        embedded.feat.norm(dim=1), torch.ones(len(plain.feat)), rtol=0, atol=rounding(plain.feat.shape[1])
    )
    np.testing.assert_array_equal(embedded.luma, plain.luma)
    assert f"{len(plain.feat)} images embedded in bfloat16 on cpu" in caplog.text


@pytest.mark.parametrize("flip", [False, True])
def test_features_in_half_floats_become_float32_before_the_mirror_image_is_averaged(flip):
    class Model(torch.nn.Module):
        def forward(self, pixels, **labels):
            return pixels[:, :, 0, 0].bfloat16()

    images = torch.randint(256, (3, 3, 4, 5), dtype=torch.uint8)
    pixels = BatchTransform([0.5] * 3, [0.5] * 3)(images)
    feat = embed_batch(Model(), images, None, None, lambda _: pixels, flip, torch.bfloat16)
    expected = sum(pixels[:, :, 0, column].bfloat16().float() for column in (0, -1)[: 1 + flip]) / (1 + flip)
    assert feat.dtype == torch.float32 and torch.equal(feat, expected)


def test_the_precision_of_training_does_not_reach_the_embeddings(model_of):
    plain, trained_in_bf16 = (
        embed(cfg, model, data.val_loader).feat
        for cfg, model, data in (model_of("TEST.AMP", "off"), model_of("TEST.AMP", "off", "SOLVER.AMP", "bf16"))
    )
    assert torch.equal(plain, trained_in_bf16)


def test_fp16_is_refused_where_the_device_has_none(model_of):
    cfg, model, data = model_of("TEST.AMP", "fp16")
    with pytest.raises(ConfigError, match="TEST.AMP fp16 needs a CUDA device, this run is on cpu"):
        embed(cfg, model, data.val_loader)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_features_move_to_the_cpu_where_a_gpu_has_no_room(model_of, monkeypatch):
    cfg, model, data = model_of("TEST.AMP", "off")
    model = model.cuda()
    there = embed(cfg, model, data.val_loader).feat
    assert there.is_cuda
    monkeypatch.setattr("processor.embed.COPIES", 10**12)
    here = embed(cfg, model, data.val_loader).feat
    assert not here.is_cuda and torch.equal(there.cpu(), here)
