"""Embeddings of a loader's images: flip, normalisation, side labels that are told or not."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from configs import load_cfg
from datasets import make_dataloader
from model import make_model
from processor.embed import embed


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
    torch.testing.assert_close(embedded.feat, F.normalize(expected) if norm == "yes" else expected, rtol=0, atol=2e-5)
    assert embedded.feat.dtype == torch.float32 and embedded.luma.shape == (len(expected),)


def test_brightness_is_the_mean_luma_of_the_resized_image(model_of):
    cfg, model, data = model_of()
    with Image.open(data.val_loader.dataset.samples[3].path) as image:
        red, green, blue = np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)).mean((0, 1))
    luma = (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255
    assert embed(cfg, model, data.val_loader).luma[3] == pytest.approx(luma, abs=1e-6)
