"""INPUT.RE_AREA and INPUT.RE_VALUE: which rectangle is erased, and what it then holds."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from configs import load_cfg
from configs.keys import KEYS
from datasets.make_transforms import make_transforms
from datasets.transforms import BatchTransform, Erasing, fill_of, normalise, random_erase
from utils.errors import ConfigError

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SURPRISING = 1e-4  # a smaller probability of such a result, were the distributions equal, fails
RECIPE = "configs/VeRi/vit_base.yml"


def slow_erase(
    images: torch.Tensor, probability: float, area: tuple[float, float], fill: tuple | None, aspect: float = 0.3
) -> torch.Tensor:
    """One image, one pixel at a time, from the same random numbers in the same order."""
    count, channels, height, width = images.shape
    areas = torch.empty(10, count).uniform_(*area)
    aspects = torch.empty(10, count).uniform_(-math.log(1 / aspect), math.log(1 / aspect)).exp()
    hits, tops, lefts = torch.rand(count), torch.rand(count), torch.rand(count)
    noise = torch.randn(images.shape) if fill is None else None
    result = images.clone()
    for b in range(count):
        for share, stretch in zip(areas[:, b], aspects[:, b], strict=True):
            pixels = share * (height * width)
            rows, columns = int((pixels * stretch).sqrt().round()), int((pixels / stretch).sqrt().round())
            if rows < height and columns < width:
                break
        else:
            continue
        if not hits[b] < probability:
            continue
        top, left = int((tops[b] * (height - rows + 1)).floor()), int((lefts[b] * (width - columns + 1)).floor())
        for c in range(channels):
            for y in range(top, top + rows):
                for x in range(left, left + columns):
                    result[b, c, y, x] = noise[b, c, y, x] if fill is None else fill[c]
    return result


@pytest.mark.parametrize("area", [(0.02, 1 / 3), (0.02, 0.4), (0.3, 0.95), (0.1, 0.1)])
@pytest.mark.parametrize("value", KEYS["INPUT.RE_VALUE"].choices)
def test_a_batch_is_bit_for_bit_what_a_loop_over_its_pixels_gives(area, value):
    pixels = torch.randint(0, 256, (7, 3, 16, 10), dtype=torch.uint8)
    torch.manual_seed(5)
    got = BatchTransform(MEAN, STD, erase_prob=0.7, erasing=Erasing(area, value))(pixels)
    fill = {"noise": None, "mean": (0.0,) * 3, "raw_mean": MEAN}
    fill["black"] = tuple(-low / spread for low, spread in zip(MEAN, STD, strict=True))
    torch.manual_seed(5)
    expected = slow_erase(normalise(pixels.float(), MEAN, STD, 255), 0.7, area, fill[value])
    assert torch.equal(got, expected)
    assert not torch.equal(got, normalise(pixels.float(), MEAN, STD, 255))


def test_the_default_is_noise_on_two_percent_to_a_third():
    images = torch.randn(9, 3, 20, 12)
    torch.manual_seed(6)
    plain = random_erase(images, 0.5)
    torch.manual_seed(6)
    assert torch.equal(plain, random_erase(images, 0.5, (0.02, 1 / 3), None))
    assert KEYS["INPUT.RE_AREA"].default == [0.02, 1 / 3] and KEYS["INPUT.RE_VALUE"].default == "noise"
    assert list(Erasing().area) == KEYS["INPUT.RE_AREA"].default and Erasing().value == KEYS["INPUT.RE_VALUE"].default
    assert Erasing().aspect == KEYS["INPUT.RE_ASPECT"].default == 0.3


@pytest.mark.parametrize(("value", "colour"), [("black", (0, 0, 0)), ("mean", (51, 102, 153))])
def test_black_and_mean_are_what_pixels_of_that_colour_become(value, colour):
    mean, std = (0.2, 0.4, 0.6), (0.5, 0.25, 0.125)
    image = torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1)
    expected = BatchTransform(mean, std)(image).flatten()
    torch.testing.assert_close(torch.tensor(fill_of(value, mean, std)), expected, rtol=0, atol=1e-6)


def test_raw_mean_is_light_grey_in_normalised_units():
    got = torch.tensor(fill_of("raw_mean", MEAN, STD))
    torch.testing.assert_close(got, torch.tensor([0.48145466, 0.4578275, 0.40821073]))
    colour = got * torch.tensor(STD) + torch.tensor(MEAN)  # back to [0, 1]
    assert ((colour > 0.5) & (colour < 0.65)).all()


def test_an_unknown_value_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="noise, mean, black, raw_mean, got 'grey'"):
        fill_of("grey", MEAN, STD)


def test_the_share_of_the_image_that_is_erased_is_uniform_within_the_area():
    torch.manual_seed(7)
    images = torch.zeros(4000, 1, 100, 100)
    shares = random_erase(images, 1.0, (0.05, 0.2), (1.0,)).mean((1, 2, 3)).numpy()
    assert stats.kstest(shares, stats.uniform(0.05, 0.15).cdf).pvalue > SURPRISING
    assert np.all(shares > 0.045) and np.all(shares < 0.21)


@pytest.mark.parametrize("aspect", [0.05, 0.6, 1.0])
def test_a_rectangle_is_at_most_as_thin_as_the_aspect_says_and_all_of_them_occur(aspect):
    torch.manual_seed(8)
    erased = random_erase(torch.zeros(3000, 1, 100, 100), 1.0, (0.05, 0.05), (1.0,), aspect)[:, 0] > 0
    height, width = erased.any(2).sum(1).double(), erased.any(1).sum(1).double()
    stretch = (height / width).log().numpy()
    reach = math.log(1 / aspect)
    rounding = 0.5 / height + 0.5 / width  # both sides are whole pixels: the error of the logarithm, to first order
    assert np.all(np.abs(stretch) <= reach + 1.1 * rounding.numpy())
    if reach:
        even = stretch + np.random.default_rng(0).uniform(-1, 1, len(stretch)) * rounding.numpy()
        assert stats.kstest(even, stats.uniform(-reach, 2 * reach).cdf).statistic < 0.05


def test_a_batch_with_an_aspect_of_its_own_is_what_a_loop_over_its_pixels_gives():
    images = torch.randn(12, 3, 20, 12, generator=torch.Generator().manual_seed(9))
    torch.manual_seed(10)
    got = random_erase(images, 0.7, (0.02, 0.4), MEAN, 0.7)
    torch.manual_seed(10)
    assert torch.equal(got, slow_erase(images, 0.7, (0.02, 0.4), MEAN, 0.7))


def test_what_is_given_stays_as_it_was_and_half_precision_stays_half():
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        images = torch.randn(4, 3, 12, 8).to(dtype)
        before = images.clone()
        got = random_erase(images, 1.0, (0.1, 0.2), MEAN)
        assert got.dtype == dtype and torch.equal(images, before) and not torch.equal(got, before)


def test_keys_reach_the_transform_of_training_alone():
    opts = ("INPUT.RE_AREA", [0.02, 0.4], "INPUT.RE_VALUE", "raw_mean", "INPUT.RE_PROB", 1.0, "INPUT.RE_ASPECT", 0.5)
    cfg = load_cfg(RECIPE, opts)
    train, test = make_transforms(cfg)
    assert train.erasing == Erasing((0.02, 0.4), "raw_mean", 0.5) and test.erase_prob == 0
    images = torch.zeros(4, 3, 32, 16, dtype=torch.uint8)
    mean = torch.tensor(list(cfg.INPUT.PIXEL_MEAN)).view(1, 3, 1, 1)
    hit = (train(images) == mean).all(1).flatten(1).float().mean(1)  # black elsewhere, which is no PIXEL_MEAN
    assert ((hit > 0.01) & (hit < 0.45)).all()


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("INPUT.RE_AREA", [0.4, 0.02]), r"INPUT.RE_AREA got \[0.4, 0.02\], expected \[lowest, highest\]"),
        (("INPUT.RE_AREA", [1.0, 1.0]), "a lowest below 1"),
        (("INPUT.RE_AREA", [0.02, 1.5]), "INPUT.RE_AREA got .*allowed: 0 to 1"),
        (("INPUT.RE_AREA", [0.4]), "INPUT.RE_AREA got .*expected 2 numbers"),
        (("INPUT.RE_VALUE", "white"), "INPUT.RE_VALUE got 'white', allowed: noise, mean, black, raw_mean"),
    ],
)
def test_a_mistake_is_one_error_that_names_the_key(opts, words):
    with pytest.raises(ConfigError, match=words) as caught:
        load_cfg(RECIPE, opts)
    assert "\n" not in str(caught.value)
