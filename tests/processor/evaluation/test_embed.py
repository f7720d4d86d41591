"""Embeddings of a loader's images: flip, normalisation, side labels that are told or not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from configs import get_cfg_defaults, load_cfg
from datasets import ReIDData, make_dataloader
from datasets.make_transforms import make_transforms
from datasets.sampler import ShardSampler
from datasets.transforms import BatchTransform
from model import make_model
from processor.evaluation.embed import Embedded, Embedding, embed, embed_batch, make_embedding, mean_direction
from tests.ranks import run_in_group
from tests.tolerance import bounds, rounding
from utils.distributed import num_processes, own_rank
from utils.errors import ConfigError

TERMS = 1000  # numbers added up one after the other: 192 pixels, 350 numbers in each of two blocks


@pytest.fixture(scope="module")
def model_of(
    tiny_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[CfgNode, torch.nn.Module, ReIDData]]:
    """make(*opts) returns (cfg, random model, data) of the tiny experiment."""
    from tests.conftest import TINY_YAML

    path = tmp_path_factory.mktemp("embed") / "tiny.yml"
    path.write_text(TINY_YAML.format(root=tiny_root, output="unused"))

    def make(*opts: object) -> tuple[CfgNode, torch.nn.Module, ReIDData]:
        cfg = load_cfg(path, opts)
        torch.manual_seed(0)
        data = make_dataloader(cfg)
        model = make_model(cfg, data.num_classes, data.camera_num, data.view_num)
        torch.nn.init.normal_(model.base.sie_embed)  # so that labels matter
        return cfg, model.eval(), data

    return make


def embed_test(cfg: CfgNode, model: nn.Module, data: ReIDData) -> Embedded:
    """Embed the test set as it is tested."""
    return embed(model, data.test.loaders, make_embedding(cfg, next(model.parameters()).device))


def by_hand(model: nn.Module, data: ReIDData, mirror: bool = False) -> torch.Tensor:
    """Return the embeddings of the test images one by one, decoded and normalised here."""
    feat = []
    for sample in data.test.loaders[0].dataset.samples:
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
    embedded = embed_test(cfg, model, data)
    torch.testing.assert_close(embedded.feat, F.normalize(expected) if norm == "yes" else expected, **bounds(TERMS))
    assert embedded.feat.dtype == torch.float32 and embedded.luma.shape == (len(expected),)


def test_brightness_is_the_mean_luma_of_the_resized_image(model_of):
    cfg, model, data = model_of()
    with Image.open(data.test.loaders[0].dataset.samples[3].path) as image:
        red, green, blue = np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)).mean((0, 1))
    luma = (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255
    assert embed_test(cfg, model, data).luma[3] == pytest.approx(luma, abs=rounding(32 * 32))


@pytest.mark.parametrize("flip", [False, True])
def test_without_autocast_features_are_bit_for_bit_those_of_the_plain_model(model_of, flip):
    cfg, model, data = model_of("TEST.AMP", "off", "TEST.FLIP", flip, "TEST.FEAT_NORM", "no")
    _, transform = make_transforms(cfg)
    parts = []
    with torch.inference_mode():
        for batch in data.val_loader:
            sides = [transform(batch["images"]), transform(batch["images"].flip(3))][: 1 + flip]
            parts.append(sum(model(pixels, batch["camids"], batch["viewids"]) for pixels in sides) / len(sides))
    embedded = embed_test(cfg, model, data)
    assert torch.equal(embedded.feat, torch.cat(parts)) and embedded.precision == "float32"


def test_embeddings_of_bfloat16_are_near_and_of_unit_length_in_float32(model_of, caplog):
    cfg, model, data = model_of("TEST.AMP", "off")
    plain = embed_test(cfg, model, data)
    caplog.set_level("INFO")
    cfg, _, _ = model_of("TEST.AMP", "bf16")
    embedded = embed_test(cfg, model, data)
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
        def __init__(self) -> None:
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))  # tells the device

        def embed_batch(self, batch: dict) -> torch.Tensor:
            return batch["images"][:, :, 0, 0].bfloat16()

    images = torch.randint(256, (3, 3, 4, 5), dtype=torch.uint8)
    pixels = BatchTransform([0.5] * 3, [0.5] * 3)(images)
    how = make_embedding(get_cfg_defaults(), torch.device("cpu"))._replace(flip=flip, unit=False, amp=torch.bfloat16)
    feat = embed_batch(Model(), {"images": pixels}, how)
    expected = sum(pixels[:, :, 0, column].bfloat16().float() for column in (0, -1)[: 1 + flip]) / (1 + flip)
    assert feat.dtype == torch.float32 and torch.equal(feat, expected)


def test_the_precision_of_training_does_not_reach_the_embeddings(model_of):
    plain, trained_in_bf16 = (
        embed_test(cfg, model, data).feat
        for cfg, model, data in (model_of("TEST.AMP", "off"), model_of("TEST.AMP", "off", "SOLVER.AMP", "bf16"))
    )
    assert torch.equal(plain, trained_in_bf16)


def test_fp16_is_refused_where_the_device_has_none(model_of):
    cfg, model, data = model_of("TEST.AMP", "fp16")
    with pytest.raises(ConfigError, match="TEST.AMP fp16 needs a CUDA device, this run is on cpu"):
        embed_test(cfg, model, data)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_features_move_to_the_cpu_where_a_gpu_has_no_room(model_of, monkeypatch):
    cfg, model, data = model_of("TEST.AMP", "off")
    model = model.cuda()
    there = embed_test(cfg, model, data).feat
    assert there.is_cuda
    monkeypatch.setattr("processor.evaluation.store.COPIES", 10**12)
    here = embed_test(cfg, model, data).feat
    assert not here.is_cuda and torch.equal(there.cpu(), here)


class TwoTowers(torch.nn.Module):
    """Images and captions (here numbers) to embeddings, by one matrix each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = torch.nn.Linear(12, 5), torch.nn.Linear(4, 5)


def encode_either(model: TwoTowers, batch: dict) -> torch.Tensor:
    return model.image(batch["images"].flatten(1)) if "images" in batch else model.text(batch["features"])


HOW = Embedding(encode_either, lambda batch: batch, flip=True, unit=True, amp=None, fuse=mean_direction)


def loaders_of(rank: int = 0, world_size: int = 1) -> list[DataLoader]:
    """Return a loader of 5 images and one of 7 captions, of which a process gets its shard."""
    generator = torch.Generator().manual_seed(1)
    images, captions = torch.randn(5, 3, 2, 2, generator=generator), torch.randn(7, 4, generator=generator)
    rows = [{"images": image, "brightness": image.mean()} for image in images], [{"features": row} for row in captions]
    return [
        DataLoader(part, batch_size=2, sampler=ShardSampler(len(part), rank, world_size), generator=generator)
        for part in rows
    ]


def test_rows_of_two_loaders_count_on_and_captions_have_neither_mirror_nor_brightness():
    images, captions = loaders_of()
    model = TwoTowers()
    embedded = embed(model, [images, captions], HOW)
    pixels = torch.stack([row["images"] for row in images.dataset])
    words = torch.stack([row["features"] for row in captions.dataset])
    with torch.no_grad():
        towers = [model.image(pixels.flatten(1)) / 2 + model.image(pixels.flip(3).flatten(1)) / 2, model.text(words)]
    torch.testing.assert_close(embedded.feat, F.normalize(torch.cat(towers)))
    np.testing.assert_allclose(embedded.luma[:5], pixels.mean((1, 2, 3)), atol=1e-6)
    assert np.isnan(embedded.luma[5:]).all() and embedded.fuse is mean_direction


def embed_a_shard(folder: str) -> None:
    """Embed this process's share of both loaders and keep what it has in the end."""
    embedded = embed(TwoTowers(), loaders_of(own_rank(), num_processes()), HOW)
    torch.save({"feat": embedded.feat, "luma": torch.from_numpy(embedded.luma)}, f"{folder}/{own_rank()}.pth")


def test_processes_that_share_two_loaders_each_get_all_rows_in_order(tmp_path: Path):
    run_in_group(embed_a_shard, str(tmp_path))
    alone = embed(TwoTowers(), loaders_of(), HOW)
    for rank in range(2):
        got = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        torch.testing.assert_close(got["feat"], alone.feat)
        np.testing.assert_array_equal(got["luma"], alone.luma)


def test_several_items_become_the_direction_of_the_mean_of_the_valid_ones():
    feat = torch.randn(4, 3, 6)
    valid = torch.tensor([[True, True, True], [True, False, True], [False, True, False], [True, False, False]])
    feat[1, 1] = torch.nan  # what is not valid does not count
    expected = []
    for items, given in zip(feat, valid, strict=True):
        mean = sum(item for item, is_given in zip(items, given, strict=True) if is_given) / int(given.sum())
        expected.append(mean / mean.norm())
    torch.testing.assert_close(mean_direction(feat, valid), torch.stack(expected))


def test_float32_can_be_asked_for_where_the_precision_of_tests_is_not_possible():
    cfg = get_cfg_defaults()
    cfg.TEST.AMP = "fp16"
    with pytest.raises(ConfigError, match="TEST.AMP fp16 needs a CUDA device"):
        make_embedding(cfg, torch.device("cpu"))
    assert make_embedding(cfg, torch.device("cpu"), exact=True).amp is None
