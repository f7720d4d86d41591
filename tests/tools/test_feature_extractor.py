"""Own images get the embeddings that a naive loop over them gives, and that the tests would give them."""

import copy
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from yacs.config import CfgNode

from configs import load_cfg
from datasets import make_dataloader
from model import make_model
from processor.evaluation.embed import embed, make_embedding
from processor.trained import Trained
from tests.tolerance import bounds
from tests.tools.photos import write_photos
from tools.feature_extractor import BrokenImageError, FeatureExtractor
from utils.checkpoint import load_file
from utils.errors import ConfigError, DataError

TOLERANCE = bounds(1000, 0.1)  # 350 numbers added up in each of two blocks, 192 pixels; 160 values of length 1


@pytest.fixture(scope="module")
def extractor(trained_run: Path) -> FeatureExtractor:
    return FeatureExtractor.from_run(trained_run)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_photos(tmp_path_factory.mktemp("photos"))


def naive_pixels(path: str, cfg: CfgNode) -> torch.Tensor:
    """Return one image as the model wants it, [1, 3, H, W], in float64 until the end."""
    height, width = cfg.INPUT.SIZE_TEST
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    if cfg.INPUT.DECODER == "pillow":
        rgb = np.asarray(rgb.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float64)
    else:
        rgb = torch.tensor(np.asarray(rgb)).permute(2, 0, 1)[None]
        rgb = torch.nn.functional.interpolate(rgb, (height, width), mode="bilinear", antialias=True)
        rgb = rgb[0].permute(1, 2, 0).double().numpy()
    pixels = (rgb / 255 - np.array(cfg.INPUT.PIXEL_MEAN)) / np.array(cfg.INPUT.PIXEL_STD)
    return torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32)


@torch.no_grad()
def naive_features(
    model: nn.Module, cfg: CfgNode, paths: Sequence[str], flip: bool = False, **labels: torch.Tensor
) -> torch.Tensor:
    rows = []
    for path in paths:
        pixels = naive_pixels(path, cfg)
        feat = model(pixels, **labels).double()[0]
        if flip:
            feat = (feat + model(torch.from_numpy(pixels.numpy()[..., ::-1].copy()), **labels).double()[0]) / 2
        rows.append(feat / feat.square().sum().sqrt())
    return torch.stack(rows).float()


@pytest.mark.parametrize("decoder", ["torchvision", "pillow"])
def test_embeddings_equal_those_of_a_naive_loop(trained_run, photos, decoder):
    extractor = FeatureExtractor.from_run(trained_run, opts=["INPUT.DECODER", decoder])
    feat = extractor(photos)
    assert feat.dtype == torch.float32 and feat.device.type == "cpu" and not feat.is_inference()
    assert feat.shape == (len(photos), extractor.feat_dim) == (len(photos), 5 * 32)  # the global and 4 local branches
    torch.testing.assert_close(feat, naive_features(extractor.model, extractor.cfg, photos), **TOLERANCE)


def test_embeddings_equal_those_of_a_test_on_the_same_files(extractor):
    data = make_dataloader(extractor.cfg)
    _, camids, viewids, paths, _ = data.test.labels
    tested = embed(extractor.model, data.test.loaders, make_embedding(extractor.cfg, extractor.device)).feat
    torch.testing.assert_close(extractor(paths, camids.tolist(), viewids), tested, **TOLERANCE)


def test_a_batch_equals_its_images_one_by_one(extractor, photos, trained_run):
    one_by_one = torch.cat([extractor(path) for path in photos])
    torch.testing.assert_close(extractor(photos), one_by_one, **TOLERANCE)
    small = FeatureExtractor.from_run(trained_run, opts=["TEST.IMS_PER_BATCH", "4", "DATALOADER.NUM_WORKERS", "2"])
    torch.testing.assert_close(small(photos), one_by_one, **TOLERANCE)


def test_paths_pictures_arrays_and_tensors_mix(extractor, photos, tmp_path):
    with Image.open(photos[0]) as image:
        image.load()
    array = np.asarray(image)
    tensor = torch.from_numpy(array.transpose(2, 0, 1).copy())
    feat = extractor([photos[0], tmp_path / photos[0], image, array, tensor, photos[1]])
    torch.testing.assert_close(feat[:5], feat[:1].expand(5, -1), **TOLERANCE)
    assert not torch.allclose(feat[5], feat[0], **TOLERANCE)
    for one in (image, array, tensor):
        torch.testing.assert_close(extractor(one), feat[:1], **TOLERANCE)
    torch.testing.assert_close(extractor(np.stack([array, array])), feat[:2], **TOLERANCE)
    assert extractor([]).shape == (0, extractor.feat_dim)


def test_unknown_cameras_get_the_mean_of_the_trained_rows_and_this_is_said_once(trained_run, photos, caplog):
    extractor = FeatureExtractor.from_run(trained_run)
    neutral = copy.deepcopy(extractor.model)
    table = neutral.base.sie_embed.data
    table.copy_(table.mean(0, keepdim=True).expand_as(table))
    zero = torch.zeros(1, dtype=torch.int64)
    expected = naive_features(neutral, extractor.cfg, photos, cam_label=zero, view_label=zero)
    caplog.set_level("INFO")
    for camids, viewids in ((None, None), ([-1] * 6, [None] * 6), ([3, 4, 99, -7, None, 3], torch.full((6,), 2))):
        torch.testing.assert_close(extractor(photos, camids, viewids), expected, **TOLERANCE)
    said = [record.getMessage() for record in caplog.records if "neutral side information" in record.getMessage()]
    assert len(said) == 2 and "no camera id that training knew (0 to 2)" in said[0] and "view id" in said[1]


def test_known_cameras_count_and_may_mix_with_unknown_ones(extractor, photos):
    label = torch.ones(1, dtype=torch.int64)
    told = naive_features(extractor.model, extractor.cfg, photos, cam_label=label, view_label=label)
    untold = extractor(photos)
    assert (told - untold).abs().max() > 1e-4
    feat = extractor(photos, [1, None, 1, None, 1, None], [1, -1, 1, -1, 1, -1])
    torch.testing.assert_close(feat[::2], told[::2], **TOLERANCE)
    torch.testing.assert_close(feat[1::2], untold[1::2], **TOLERANCE)
    torch.testing.assert_close(extractor(photos[0], 1, 1), told[:1], **TOLERANCE)


def test_a_table_of_cameras_and_views_of_unknown_shape_serves_images_without_labels_only(
    trained_run, extractor, photos, tmp_path
):
    shutil.copy(trained_run / "config.yaml", tmp_path)
    torch.save(dict(load_file(trained_run / "transformer_2.pth", "test")), tmp_path / "foreign.pth")
    foreign = FeatureExtractor.from_checkpoint(tmp_path / "foreign.pth")
    torch.testing.assert_close(foreign(photos), extractor(photos), **TOLERANCE)
    with pytest.raises(DataError, match="does not tell how the rows .* divide into cameras and views, so camera ids"):
        foreign(photos, camids=[0] * 6)


def test_a_model_without_side_information_ignores_labels(extractor, photos, trained_run):
    opts = ["MODEL.NAME", "resnet50", "MODEL.JPM", "False", "MODEL.SIE_CAMERA", "False", "MODEL.SIE_VIEW", "False"]
    cfg = load_cfg(trained_run.parent / "tiny.yml", opts)
    model = make_model(cfg, 2, 0, 0, pretrained=False).eval()
    resnet = FeatureExtractor(Trained(cfg, model, torch.device("cpu"), extractor.weight, None))
    assert torch.equal(resnet(photos[:2], camids=[0, 99]), resnet(photos[:2]))


def test_the_mirror_image_counts_with_test_flip_and_the_norm_is_always_one(trained_run, photos):
    opts = ["TEST.FLIP", "True", "TEST.FEAT_NORM", "no"]
    flipped = FeatureExtractor.from_checkpoint(trained_run / "transformer_2.pth", opts=opts)
    feat = flipped(photos)
    torch.testing.assert_close(feat, naive_features(flipped.model, flipped.cfg, photos, flip=True), **TOLERANCE)
    torch.testing.assert_close(feat.norm(dim=1), torch.ones(len(photos)))


def test_images_are_embedded_in_the_precision_of_test_amp(trained_run, extractor, photos):
    narrow = FeatureExtractor.from_run(trained_run, opts=["TEST.AMP", "bf16"])
    feat, plain = narrow(photos), extractor(photos)
    assert (narrow.precision, extractor.precision) == ("bfloat16", "float32")
    assert feat.dtype == torch.float32 and not torch.equal(feat, plain)
    assert torch.nn.functional.cosine_similarity(feat, plain).min() > 0.999
    assert narrow.fingerprint == extractor.fingerprint  # one index serves both, see tools.search.index
    with pytest.raises(ConfigError, match="TEST.AMP fp16 needs a CUDA device"):
        FeatureExtractor.from_run(trained_run, opts=["TEST.AMP", "fp16", "MODEL.DEVICE", "cpu"])


def test_another_precision_is_adopted_only_where_test_amp_leaves_it_open(trained_run, photos):
    opts = ["MODEL.DEVICE", "cpu"]
    fixed = {
        mode: FeatureExtractor.from_run(trained_run, opts=["TEST.AMP", mode, *opts]) for mode in ("off", "bf16", "auto")
    }
    for name, mode in (("bfloat16", "bf16"), ("float32", "off")):
        assert fixed["auto"].adopt_precision(name) and fixed["auto"].precision == name
        assert torch.equal(fixed["auto"](photos), fixed[mode](photos))
    assert fixed["off"].adopt_precision("float32") and not fixed["off"].adopt_precision("bfloat16")
    assert not fixed["auto"].adopt_precision("float16") and not fixed["auto"].adopt_precision("int3")
    assert [one.precision for one in fixed.values()] == ["float32", "bfloat16", "float32"]


def test_the_fingerprint_follows_weights_and_settings_and_nothing_else(trained_run, extractor, tmp_path):
    copied = shutil.copy(trained_run / "transformer_2.pth", tmp_path / "w.pth")
    same = FeatureExtractor.from_checkpoint(copied, opts=["TEST.IMS_PER_BATCH", "7", "TEST.FEAT_NORM", "no"])
    assert same.fingerprint == extractor.fingerprint and len(same.fingerprint) == 64
    others = [
        FeatureExtractor.from_run(trained_run, epoch=1),
        *(
            FeatureExtractor.from_run(trained_run, opts=opts)
            for opts in (["TEST.FLIP", "True"], ["INPUT.FILTER_TEST", "bicubic"], ["TEST.NECK_FEAT", "after"])
        ),
    ]
    prints = {other.fingerprint for other in others}
    assert len(prints) == 4 and extractor.fingerprint not in prints


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("nowhere.jpg", "image 'nowhere.jpg' is missing"),
        (__file__, "test_feature_extractor.py' does not decode"),
        (
            np.zeros((4, 4, 3)),
            r"image 1 \(from 0\) cannot be used: it is float64 \[4, 4, 3\]; an array must be",
        ),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), r"it is uint8 \[4, 4, 3\]; a tensor must be uint8 \[3, H, W\]"),
        (Image.new("F", (4, 4)), "floating-point pixels"),
        ({"path": "a.jpg"}, "it is of type dict; give a path"),
    ],
)
def test_a_broken_image_is_named_and_can_be_left_out(extractor, photos, caplog, image, words):
    images = [photos[0], image, photos[1]]
    with pytest.raises(BrokenImageError, match=words):
        extractor(images)
    [(rows, feat)] = extractor.stream(images, skip_broken=True)
    assert rows == [0, 2] and caplog.text.count("left out: image") == 1
    torch.testing.assert_close(feat, extractor(photos[:2]), **TOLERANCE)


def test_labels_of_another_number_and_damaged_weights_are_refused(extractor, photos):
    with pytest.raises(DataError, match="got 2 camera ids for 6 images"):
        extractor(photos, camids=[0, 1])
    model = copy.deepcopy(extractor.model)
    next(model.parameters()).data.fill_(float("nan"))
    damaged = FeatureExtractor(Trained(extractor.cfg, model, extractor.device, extractor.weight, None))
    with pytest.raises(DataError, match="transformer_2.pth' gives embeddings with NaN"):
        damaged(photos)


def test_the_callers_random_state_is_left_alone(extractor, photos):
    before = torch.get_rng_state()
    extractor(photos)
    assert torch.equal(before, torch.get_rng_state())
