"""The batched device transforms against per-image references: exact geometry, equal distribution."""

import math
import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.random_erasing import RandomErasing

from datasets.torch_datasets import ImageDataset
from datasets.transforms import BatchTransform, brightness, flip_pad_crop, random_erase
from tests.datasets.windows import windows_of

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_without_random_parts_the_result_is_the_textbook_normalisation():
    images = torch.randint(0, 256, (3, 3, 5, 4), dtype=torch.uint8)
    got = BatchTransform(MEAN, STD)(images)
    for b in range(3):
        for c in range(3):
            expected = (images[b, c].double() / 255 - MEAN[c]) / STD[c]
            torch.testing.assert_close(got[b, c].double(), expected, atol=1e-6, rtol=0)
    assert got.dtype == torch.float32


@pytest.mark.parametrize("flip_prob", [0.0, 1.0])
def test_every_result_is_a_window_of_the_padded_image(flip_prob):
    torch.manual_seed(0)
    images = torch.randint(1, 256, (40, 3, 6, 5), dtype=torch.uint8)
    results = flip_pad_crop(images, flip_prob, 2)
    offsets = set()
    for image, result in zip(images, results, strict=True):
        source = image.flip(2) if flip_prob else image
        matches = [offset for offset, window in windows_of(source, 2) if torch.equal(window, result)]
        assert len(matches) == 1
        offsets.add(matches[0])
    assert {y for y, _ in offsets} == {x for _, x in offsets} == set(range(5))  # the first and last offset occur


def test_flips_follow_their_probability_and_samples_are_independent():
    torch.manual_seed(1)
    images = torch.arange(4, dtype=torch.uint8).view(1, 1, 1, 4).expand(4000, 3, 1, 4)
    flipped = flip_pad_crop(images, 0.3, 0)[:, 0, 0, 0] == 3
    assert abs(flipped.float().mean().item() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 4000)
    assert torch.equal(flip_pad_crop(images, 0.0, 0), images)


def erased_boxes(mask: torch.Tensor) -> np.ndarray:
    """Return (area share, height / width) of each erased rectangle and check that it is one."""
    boxes = []
    for sample in mask:
        rows, columns = torch.nonzero(sample.any(1)).flatten(), torch.nonzero(sample.any(0)).flatten()
        if not len(rows):
            continue
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        assert sample[top:bottom, left:right].all() and sample.sum() == (bottom - top) * (right - left)
        boxes.append((sample.float().mean().item(), ((bottom - top) / (right - left)).item()))
    return np.array(boxes)


def test_erasing_has_the_distribution_of_timms_pixel_mode():
    torch.manual_seed(2)
    random.seed(2)  # timm draws from Python's generator
    images = torch.full((4000, 3, 40, 24), 9.0)
    ours = random_erase(images, 0.5)
    reference = RandomErasing(0.5, mode="pixel", max_count=1, device="cpu")
    theirs = torch.stack([reference(image.clone()) for image in images])
    mine, other = (erased_boxes((batch != 9).any(1)) for batch in (ours, theirs))
    assert abs(len(mine) / 4000 - 0.5) < 0.04
    for column in (0, 1):
        for quantile in (0.1, 0.5, 0.9):
            a, b = np.quantile(mine[:, column], quantile), np.quantile(other[:, column], quantile)
            assert abs(a - b) < 0.15 * max(a, b), (column, quantile, a, b)
    noise = ours[(ours != 9)]
    assert abs(noise.mean().item()) < 0.02 and abs(noise.std().item() - 1) < 0.02


def test_last_row_and_last_column_can_be_erased_and_all_pixels_differ():
    torch.manual_seed(3)
    erased = (random_erase(torch.full((800, 3, 12, 12), 9.0), 1.0) != 9).any(1)
    assert erased[:, -1].any() and erased[:, :, -1].any() and erased[:, 0].any() and erased[:, :, 0].any()
    one = random_erase(torch.full((1, 3, 12, 12), 9.0), 1.0)
    noise = one[one != 9]
    assert len(noise) > 3 and len(noise.unique()) == len(noise)


def test_probability_zero_erases_nothing():
    images = torch.randn(4, 3, 8, 8)
    assert torch.equal(random_erase(images, 0.0), images)


def test_the_same_seed_gives_the_same_batch():
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    transform = BatchTransform(MEAN, STD, 0.5, 2, 0.5)
    torch.manual_seed(4)
    first = transform(images)
    torch.manual_seed(4)
    assert torch.equal(first, transform(images))
    assert not torch.equal(first, transform(images))


def test_brightness_is_the_mean_luma():
    images = torch.zeros(3, 3, 2, 2, dtype=torch.uint8)
    images[1] = 255
    images[2, 1] = 255
    torch.testing.assert_close(brightness(images), torch.tensor([0.0, 1.0, 0.7152]))


def test_luma_is_the_brightness_of_the_pixels_that_the_model_sees():
    images = torch.randint(0, 256, (3, 3, 5, 4), dtype=torch.uint8)
    transform = BatchTransform(MEAN, STD)
    seen = transform(images)
    seen[0] = random_erase(seen[:1], 1.0)[0]
    seen[1] = torch.randn(3, 5, 4) * 9  # far outside what pixels can be
    before = seen.clone()
    got = transform.luma(seen)
    for b in range(3):
        total = 0.0
        for y in range(5):
            for x in range(4):
                rgb = [min(max(seen[b, c, y, x].item() * STD[c] + MEAN[c], 0.0), 1.0) for c in range(3)]
                total += 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]
        assert abs(got[b].item() - total / 20) < 1e-6
    assert torch.equal(seen, before) and got.dtype == torch.float32 and not got.requires_grad


def test_luma_without_augmentation_is_the_brightness_of_the_image():
    images = torch.randint(0, 256, (6, 3, 9, 7), dtype=torch.uint8)
    images[0], images[1] = 0, 255
    transform = BatchTransform(MEAN, STD)
    torch.testing.assert_close(transform.luma(transform(images)), brightness(images), atol=1e-6, rtol=0)


def test_the_black_padding_of_a_crop_darkens_the_luma():
    torch.manual_seed(5)
    images = torch.full((50, 3, 8, 8), 255, dtype=torch.uint8)
    transform = BatchTransform(MEAN, STD, padding=2)
    luma = transform.luma(transform(images))
    shares = {round(rows * columns / 64, 4) for rows in (6, 7, 8) for columns in (6, 7, 8)}
    assert {round(value, 4) for value in luma.tolist()} <= shares and luma.min() < 1


def test_luma_stays_in_float32_within_autocast():
    images = torch.randint(0, 256, (2, 3, 9, 7), dtype=torch.uint8)
    transform = BatchTransform(MEAN, STD)
    seen = transform(images).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        luma = transform.luma(seen)
    assert luma.dtype == torch.float32 and not luma.requires_grad
    torch.testing.assert_close(luma, brightness(images), atol=1e-6, rtol=0)


def test_batches_keep_labels_and_paths(tmp_path):
    from datasets.bases import Sample

    for name in "ab":
        Image.new("RGB", (6, 6), (10, 20, 30)).save(tmp_path / f"{name}.png")
    samples = [Sample(str(tmp_path / "a.png"), 3, 1, -1), Sample(str(tmp_path / "b.png"), 5, 0, 7)]
    data = ImageDataset(samples, (4, 4), "bilinear", "torchvision")
    batch = data.__getitems__([0, 1])
    assert batch["images"].shape == (2, 3, 4, 4) and batch["images"].dtype == torch.uint8
    assert batch["pids"].tolist() == [3, 5] and batch["camids"].tolist() == [1, 0]
    assert batch["viewids"].tolist() == [-1, 7] and batch["viewids"].dtype == torch.int64
    assert batch["paths"] == [sample.path for sample in samples]
