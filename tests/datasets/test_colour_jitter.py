"""INPUT.JITTER: what it does to an image is torchvision's, at its place in the chain, and off it changes nothing."""

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from configs import find_notices, load_cfg
from configs.keys import KEYS
from datasets.colour import draw_jitter
from datasets.make_transforms import make_transforms
from datasets.transforms import BatchTransform, Erasing
from utils.errors import ConfigError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RECIPE = "configs/VeRi/vit_base.yml"


def make_images(count: int = 6, height: int = 12, width: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def test_an_image_is_what_torchvision_makes_of_it_with_the_factors_drawn():
    images, strength = make_images(), (0.4, 0.3, 0.5, 0.0)
    torch.manual_seed(2)
    got = BatchTransform(MEAN, STD, jitter=strength)(images)
    torch.manual_seed(2)
    brightness, contrast, saturation, _ = draw_jitter(len(images), strength, 1.0)
    expected = []
    for row, image in enumerate(images.float() / 255):
        image = reference.adjust_brightness(image, brightness[row].item())
        image = reference.adjust_contrast(image, contrast[row].item())
        expected.append(reference.normalize(reference.adjust_saturation(image, saturation[row].item()), MEAN, STD))
    # torchvision rounds its luma weights to four digits, and dividing by the sd enlarges that about fivefold
    torch.testing.assert_close(got, torch.stack(expected), atol=3e-3, rtol=0)


def test_every_image_is_changed_and_each_by_a_draw_of_its_own():
    image = make_images(1)
    got = BatchTransform(MEAN, STD, jitter=(0.2, 0.2, 0.2, 0.1))(image.expand(50, 3, 12, 8))
    plain = BatchTransform(MEAN, STD)(image)[0]
    changed = [row for row in got if not torch.allclose(row, plain, atol=1e-3)]
    assert len(changed) == 50 and len({row.sum().item() for row in got}) == 50


def test_without_strength_no_bit_and_no_random_number_differs():
    images = make_images()
    results = []
    for more in ({}, {"jitter": (0.0, 0.0, 0.0, 0.0)}):
        torch.manual_seed(3)
        results += [BatchTransform(MEAN, STD, 0.5, 2, 0.5, **more)(images), torch.rand(1)]
    assert torch.equal(results[0], results[2]) and torch.equal(results[1], results[3])


def test_what_is_erased_is_erased_after_the_jitter():
    torch.manual_seed(4)
    transform = BatchTransform(MEAN, STD, 0.0, 0, 1.0, Erasing((0.2, 0.2), "mean"), (0.3, 0.3, 0.3, 0.0))
    assert ((transform(make_images()) == 0).all(1).flatten(1).float().mean(1) > 0.1).all()


def test_the_key_reaches_the_transform_of_training_alone():
    train, test = make_transforms(load_cfg(RECIPE, ("INPUT.JITTER", [0.1, 0.1, 0.1, 0.0])))
    assert train.jitter == (0.1, 0.1, 0.1, 0.0) and not any(test.jitter)
    assert KEYS["INPUT.JITTER"].default == [0.0] * 4


@pytest.mark.parametrize("key", ["INPUT.JITTER", "INPUT.SSL.JITTER"])
def test_more_than_half_a_turn_of_the_hue_is_refused(key):
    with pytest.raises(ConfigError, match=f"{key} got hue 0.6, expected 0 to 0.5 turns"):
        load_cfg(RECIPE, (key, [0.1, 0.1, 0.1, 0.6]))


def test_self_supervised_training_says_that_it_has_a_jitter_of_its_own():
    opts = ("MODEL.TRAINING_MODE", "self_supervised", "DATALOADER.SAMPLER", "random", "LOSS.SUPCON.ENABLE", True)
    notices = find_notices(load_cfg(RECIPE, (*opts, "INPUT.JITTER", [0.1] * 4)))
    assert len([notice for notice in notices if "INPUT.JITTER" in notice and "INPUT.SSL.JITTER" in notice]) == 1


def test_rectangles_of_a_shape_that_nothing_erases_are_said():
    notices = find_notices(load_cfg(RECIPE, ("INPUT.RE_PROB", 0.0, "INPUT.RE_ASPECT", 0.5)))
    assert [notice for notice in notices if notice.startswith("INPUT.RE_ASPECT 0.5 is not used")] != []
