"""MODEL.PATCHES product: patches as rows of a matrix product are those of the convolution, by the same weights."""

import pytest
import torch
from torch import nn

from model import make_model
from model.layers.patches import PatchProduct, multiply_patches
from tests.model.builds import TINY_VIT, images, make_cfg, make_tiny
from tests.model.clip_reids import make_clip_reid
from tests.tolerance import rounding
from utils.errors import ConfigError

PRODUCT = ("MODEL.PATCHES", "product")


def patches_of(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, PatchProduct)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("size", "patch", "stride"), [((12, 8), (4, 4), (4, 4)), ((13, 10), (5, 3), (3, 2)), ((9, 9), (9, 9), (2, 2))]
)
def test_values_and_gradients_are_those_of_the_convolution(size, patch, stride, bias):
    conv = nn.Conv2d(3, 7, patch, stride, bias=bias, dtype=torch.float64)
    product, batch = PatchProduct(conv), images(3, size).double()
    weights = list(conv.parameters())
    found = []
    for layer in (conv, product):
        maps = layer(batch)
        found.append((maps, *torch.autograd.grad(maps.square().sum(), weights)))
    bound = rounding(1000, torch.float64)
    for plain, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=bound, atol=bound)


def test_tokens_of_the_maps_are_no_copy():
    maps = PatchProduct(nn.Conv2d(3, 7, 8, 4))(images(2, (32, 24)))
    tokens = maps.flatten(2).transpose(1, 2)
    assert tokens.is_contiguous() and tokens.data_ptr() == maps.data_ptr()


def test_a_trunk_shares_its_weights_by_their_names():
    plain, ours = make_tiny("MODEL.STRIDE_SIZE", [4, 6]), make_tiny("MODEL.STRIDE_SIZE", [4, 6], *PRODUCT)
    assert patches_of(ours) == ["base.patch_embed.proj"] and not patches_of(plain)
    assert list(ours.state_dict()) == list(plain.state_dict())
    ours.load_state_dict(plain.state_dict())
    outputs = [model.eval()(images()) for model in (plain, ours)]
    torch.testing.assert_close(
        outputs[1], outputs[0], rtol=0, atol=rounding(1000) * float(outputs[0].detach().abs().max())
    )


def test_a_tower_of_clip_makes_its_patches_the_same_way(tmp_path):
    from tests.model.clip_reids import VIT, clip_reid_cfg, write_clip

    cfg = clip_reid_cfg(write_clip(tmp_path, VIT))
    plain = make_clip_reid(cfg, 0).eval()
    expected = plain(images(2, tuple(cfg.INPUT.SIZE_TRAIN)))
    multiply_patches(plain)
    assert patches_of(plain) == ["image_encoder.conv1"]
    found = plain(images(2, tuple(cfg.INPUT.SIZE_TRAIN)))
    torch.testing.assert_close(found, expected, rtol=0, atol=rounding(1000) * float(expected.detach().abs().max()))


def test_products_are_in_the_type_of_autocast():
    layer = PatchProduct(nn.Conv2d(3, 7, 8, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(images(2, (32, 24))).dtype == torch.bfloat16


def test_models_without_patches_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="MODEL.PATCHES product: MODEL.NAME resnet50 has no patches"):
        from configs import load_cfg

        path = tmp_path / "x.yml"
        path.write_text("MODEL: {NAME: resnet50, PATCHES: product}\n")
        load_cfg(path)
    with pytest.raises(ConfigError, match="this model has no patches"):
        multiply_patches(nn.Sequential(nn.Conv2d(3, 8, 7, 2, padding=3), nn.Conv2d(8, 8, 2, 2), nn.Linear(8, 2)))


def test_an_outline_without_memory_is_built_too():
    with torch.device("meta"):
        model = make_model(make_cfg(*TINY_VIT, *PRODUCT), 5, 0, 0)
    assert model(torch.empty(2, 3, 32, 24, device="meta")).logits[0].shape == (2, 5)
