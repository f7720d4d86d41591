"""The two views against torchvision, hand-computed geometry and colour, and the distributions that the keys promise."""

import colorsys
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as reference

from datasets.colour import change_colour, draw_jitter, scale_brightness, scale_contrast
from datasets.two_views import TwoViews, draw_crops, resized_crop

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALE, RATIO, JITTER = (0.3, 1.0), (0.75, 1.3333), (0.4, 0.4, 0.4, 0.1)


def make_views(
    flip_prob: float = 0.0,
    crop_scale: Sequence[float] = (1, 1),
    crop_ratio: Sequence[float] = (1, 1),
    jitter: Sequence[float] = (0, 0, 0, 0),
    jitter_prob: float = 0.0,
    grey_prob: float = 0.0,
) -> TwoViews:
    return TwoViews(MEAN, STD, flip_prob, crop_scale, crop_ratio, jitter, jitter_prob, grey_prob)


def denormalise(views: torch.Tensor) -> torch.Tensor:
    return views * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)


def smooth_images(count: int, height: int, width: int) -> torch.Tensor:
    """Return images [N, 3, H, W] in 0..1 whose neighbouring pixels differ by a few hundredths."""
    y, x = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)
    waves = [torch.sin(2 * x + 3 * y + n) * torch.cos(3 * x - 2 * y + 2 * n) for n in range(3 * count)]
    return torch.stack(waves).view(count, 3, height, width) * 0.5 + 0.5


@pytest.mark.parametrize("flip_prob", [0.0, 1.0])
def test_without_random_parts_both_views_are_the_normalised_images_in_order(flip_prob):
    images = torch.randint(0, 256, (3, 3, 9, 7), dtype=torch.uint8)
    views = make_views(flip_prob)(images)
    assert views.shape == (6, 3, 9, 7) and views.dtype == torch.float32
    expected = (images.double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    expected = expected.flip(3) if flip_prob else expected
    torch.testing.assert_close(views.double(), torch.cat([expected, expected]), atol=1e-4, rtol=0)


def test_a_crop_reads_the_coordinates_that_geometry_says_and_none_outside():
    """Images hold their own pixel coordinates, so each view shows where every pixel was read."""
    height, width, count = 10, 14, 200
    y, x = torch.arange(height).float(), torch.arange(width).float()
    ramps = torch.stack([x.expand(height, width), y[:, None].expand(height, width), torch.ones(height, width)])
    torch.manual_seed(0)
    boxes = draw_crops(count, SCALE, RATIO)
    boxes[:4] = torch.tensor([[0, 0, 1, 1], [0, 0, 0.5, 0.4], [0.5, 0.6, 0.5, 0.4], [0.25, 0.1, 0.5, 0.5]])
    mirrored = torch.rand(count) < 0.5
    got = resized_crop(ramps.expand(count, 3, height, width), boxes, mirrored)
    for n in range(count):
        left, top, wide, high = boxes[n].tolist()
        columns = (left * width + (x.double() + 0.5) * wide - 0.5).clamp(0, width - 1)
        rows = (top * height + (y.double() + 0.5) * high - 0.5).clamp(0, height - 1)
        columns = columns.flip(0) if mirrored[n] else columns
        for channel, expected in enumerate((columns.expand(height, width), rows[:, None].expand(height, width))):
            torch.testing.assert_close(got[n, channel].double(), expected, atol=2e-4, rtol=0)
    torch.testing.assert_close(got[:, 2], torch.ones(count, height, width), atol=1e-4, rtol=0)


def test_a_crop_is_torchvisions_resized_crop():
    images = smooth_images(4, 48, 32)
    places = [(0, 0, 48, 32), (4, 6, 20, 24), (28, 12, 20, 20), (10, 0, 30, 17)]  # top, left, height, width in pixels
    boxes = torch.tensor([[left / 32, top / 48, wide / 32, high / 48] for top, left, high, wide in places])
    got = resized_crop(images, boxes, torch.zeros(4, dtype=torch.bool))
    for view, image, place in zip(got, images, places, strict=True):
        expected = reference.resized_crop(image, *place, [48, 32], antialias=False)
        inside = (view - expected)[:, 2:-2, 2:-2]  # torchvision does not blend across the edge of the crop
        assert inside.abs().max() < 1e-4 and (view - expected).abs().max() < 0.06


@pytest.mark.parametrize("ratio", [RATIO, (0.5, 3.0)])
def test_crops_have_torchvisions_distribution_of_area_and_shape(ratio):
    torch.manual_seed(1)
    image = torch.empty(3, 2000, 2000)
    places = torch.tensor([RandomResizedCrop.get_params(image, SCALE, ratio) for _ in range(4000)]) / 2000
    theirs = {"area": places[:, 2] * places[:, 3], "shape": (places[:, 3] / places[:, 2]).log()}
    _, _, wide, high = draw_crops(4000, SCALE, ratio).unbind(1)
    ours = {"area": wide * high, "shape": (wide / high).log()}
    for name, spread in (("area", 0.7), ("shape", math.log(ratio[1] / ratio[0]))):
        for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
            difference = ours[name].quantile(quantile) - theirs[name].quantile(quantile)
            assert abs(difference) < 0.06 * spread, (name, quantile, difference)
    assert ours["area"].min() >= 0.3 - 1e-5
    assert math.log(ratio[0]) - 1e-4 <= ours["shape"].min() <= ours["shape"].max() <= math.log(ratio[1]) + 1e-4


def test_crops_lie_inside_the_image_and_anywhere_in_it():
    torch.manual_seed(2)
    boxes = draw_crops(4000, SCALE, RATIO)
    start, sides = boxes[:, :2], boxes[:, 2:]
    assert boxes.min() >= 0 and (start + sides).max() <= 1 + 1e-6 and sides.max() <= 1
    room = 1 - sides
    place = (start / room)[(room > 0.01).all(1)]
    for axis in (0, 1):
        torch.testing.assert_close(
            place[:, axis].quantile(torch.tensor([0.1, 0.5, 0.9])), torch.tensor([0.1, 0.5, 0.9]), atol=0.03, rtol=0
        )
    assert abs(torch.corrcoef(place.T)[0, 1]) < 0.06


def test_a_crop_that_never_fits_is_the_whole_image():
    boxes = draw_crops(5, (0.9, 1.0), (4.0, 4.0))  # width share 2 * sqrt(area)
    assert torch.equal(boxes, torch.tensor([[0.0, 0, 1, 1]]).expand(5, 4))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (scale_brightness, reference.adjust_brightness),
        (scale_contrast, reference.adjust_contrast),
        (lambda images, factor: change_colour(images, factor, factor * 0), reference.adjust_saturation),
    ],
    ids=["brightness", "contrast", "saturation"],
)
def test_jitter_is_torchvisions_for_each_samples_own_factor(ours, theirs):
    images = torch.rand(6, 3, 8, 9, generator=torch.Generator().manual_seed(3))
    factors = torch.tensor([0.0, 0.6, 0.9, 1.0, 1.4, 2.0])
    expected = torch.stack([theirs(image, factor.item()) for image, factor in zip(images, factors, strict=True)])
    torch.testing.assert_close(ours(images, factors), expected, atol=5e-4, rtol=0)


def test_no_saturation_is_torchvisions_greyscale_in_all_three_channels():
    images = torch.rand(3, 3, 8, 8)
    got = change_colour(images, torch.zeros(3), torch.tensor([0.0, 0.1, 0.4]))
    torch.testing.assert_close(got, reference.rgb_to_grayscale(images, 3), atol=5e-4, rtol=0)
    assert torch.equal(got[:, 0], got[:, 1]) and torch.equal(got[:, 0], got[:, 2])


@pytest.mark.parametrize("turns", [0.0, 1.0, -1.0])
def test_a_full_turn_of_the_hue_changes_nothing(turns):
    images = torch.rand(2, 3, 6, 6)
    torch.testing.assert_close(change_colour(images, torch.ones(2), torch.full((2,), turns)), images)


def test_grey_images_have_no_hue_to_turn():
    images = torch.rand(5, 1, 6, 6).expand(5, 3, 6, 6)
    turns = torch.tensor([-0.5, -0.2, 0.1, 0.3, 0.5])
    torch.testing.assert_close(change_colour(images, torch.ones(5), turns), images)


@pytest.mark.parametrize(("turn", "largest"), [(1 / 3, 1), (-1 / 3, 2), (0.1, 0), (-0.1, 0)])
def test_red_moves_towards_green_and_the_other_way_towards_blue(turn, largest):
    red = torch.tensor([0.6, 0.3, 0.3]).view(1, 3, 1, 1)
    turned = change_colour(red, torch.ones(1), torch.tensor([turn])).flatten()
    assert turned.argmax() == largest
    assert (turned[1] > turned[2]) == (turn > 0)
    assert abs((turned * torch.tensor([0.299, 0.587, 0.114])).sum() - 0.3897) < 1e-5  # 0.3 + 0.299 * 0.3: luma stays


@pytest.mark.parametrize("turn", [-0.3, -0.1, 0.05, 0.25])
@pytest.mark.parametrize("colour", [(0.6, 0.5, 0.4), (0.4, 0.45, 0.55), (0.5, 0.6, 0.45)])
def test_the_hue_turns_in_yiq_space(turn, colour):
    y, i, q = colorsys.rgb_to_yiq(*colour)  # weights rounded to two digits
    cos, sin = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    expected = torch.tensor(colorsys.yiq_to_rgb(y, cos * i + sin * q, cos * q - sin * i))
    got = change_colour(torch.tensor(colour).view(1, 3, 1, 1), torch.ones(1), torch.tensor([turn])).flatten()
    torch.testing.assert_close(got, expected, atol=0.006, rtol=0)


def test_jitter_draws_all_four_or_none_uniformly_within_the_strengths():
    torch.manual_seed(4)
    drawn = torch.stack(draw_jitter(8000, (0.4, 0.3, 0.2, 0.1), 0.8))
    change = drawn - torch.tensor([1.0, 1, 1, 0])[:, None]
    changed = change != 0
    assert (changed.all(0) == changed.any(0)).all()
    assert abs(changed[0].float().mean() - 0.8) < 0.02
    for row, strength in zip(change[:, changed[0]], (0.4, 0.3, 0.2, 0.1), strict=True):
        assert row.abs().max() <= strength + 1e-6
        expected = strength * torch.tensor([-0.8, 0.0, 0.8])
        torch.testing.assert_close(row.quantile(torch.tensor([0.1, 0.5, 0.9])), expected, atol=0.05 * strength, rtol=0)
    assert torch.corrcoef(change[:, changed[0]]).sub(torch.eye(4)).abs().max() < 0.06


def test_flips_and_greyscale_follow_their_probabilities_sample_by_sample():
    torch.manual_seed(5)
    image = torch.zeros(3, 1, 4, dtype=torch.uint8)
    image[0] = torch.tensor([0, 80, 160, 240])
    views = denormalise(make_views(flip_prob=0.3, grey_prob=0.2)(image.expand(2000, 3, 1, 4)))
    flipped = views[:, 0, 0, 0] > views[:, 0, 0, 3]
    grey = (views[:, 0] - views[:, 1]).abs().amax((1, 2)) < 1e-4
    for happened, probability in ((flipped, 0.3), (grey, 0.2)):
        for half in happened.split(2000):
            assert abs(half.float().mean() - probability) < 0.045
        first, second = happened.split(2000)
        assert abs((first & second).float().mean() - probability**2) < 0.03  # the two views draw by themselves
    assert abs((flipped & grey).float().mean() - 0.06) < 0.02


def test_all_views_of_equal_images_differ_and_stay_in_range():
    torch.manual_seed(6)
    image = torch.randint(0, 256, (3, 12, 12), dtype=torch.uint8)
    views = make_views(0.5, SCALE, RATIO, JITTER, 0.8, 0.2)(image.expand(16, 3, 12, 12))
    distance = torch.cdist(views.flatten(1), views.flatten(1)) + torch.eye(32) * 99
    assert distance.min() > 1
    values = denormalise(views)
    assert values.min() >= -1e-5 and values.max() <= 1 + 1e-5


def test_only_torchs_generator_decides_the_views():
    images = torch.randint(0, 256, (4, 3, 16, 12), dtype=torch.uint8)
    transform = make_views(0.5, SCALE, RATIO, JITTER, 0.8, 0.2)
    torch.manual_seed(7)
    first = transform(images)
    state = torch.get_rng_state()
    second = transform(images)
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(7)
    assert torch.equal(first, make_views(0.5, SCALE, RATIO, JITTER, 0.8, 0.2)(images))
    torch.set_rng_state(state)
    assert torch.equal(second, transform(images)) and not torch.equal(first, second)


def test_no_value_is_read_back_from_the_device():
    """On the meta device there are no values, so reading one raises."""
    images = torch.empty(4, 3, 16, 12, dtype=torch.uint8, device="meta")
    views = make_views(0.5, SCALE, RATIO, JITTER, 0.8, 0.2)(images)
    assert views.shape == (8, 3, 16, 12) and views.device.type == "meta"
