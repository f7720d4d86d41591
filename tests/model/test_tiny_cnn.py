"""The small trunk, and the order of its images in memory."""

import pytest
import torch

from model.backbones.tiny_cnn import TinyCNN
from model.layers.memory import in_fast_layout
from tests.model.builds import images


@pytest.mark.parametrize(("stride", "size"), [(1, (8, 4)), (2, (4, 2))])
def test_the_map_is_an_eighth_of_the_image_and_less_where_the_last_stage_strides(stride, size):
    trunk = TinyCNN(stride).eval()
    with torch.no_grad():
        maps = trunk.forward_map(images(2, (64, 32)))
        assert maps.shape == (2, 128, *size) and trunk.feat_dim == 128
        torch.testing.assert_close(trunk(images(2, (64, 32))), maps.flatten(2).mean(2))


def test_it_has_half_a_million_weights():
    assert sum(weight.numel() for weight in TinyCNN().parameters()) == 444_408


def test_the_order_in_memory_changes_no_number_but_for_roundings():
    torch.manual_seed(0)
    trunk, shown = TinyCNN().double().eval(), images(2, (64, 32)).double()
    with torch.no_grad():
        apart = trunk.forward_map(shown.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(apart, trunk.forward_map(shown))


def test_images_on_the_cpu_keep_their_order():
    shown = images(2, (8, 8))
    assert in_fast_layout(shown) is shown


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_images_on_a_gpu_have_the_channels_of_a_pixel_side_by_side():
    maps = TinyCNN().cuda().forward_map(images(2, (64, 32)).cuda())
    assert maps.is_contiguous(memory_format=torch.channels_last)
