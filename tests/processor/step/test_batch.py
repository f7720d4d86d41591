"""What a training batch carries to model and criterion: brightness of the right pixels, labels of two views."""

import pytest
import torch

from datasets.transforms import BatchTransform
from datasets.two_views import TwoViews
from processor.step.batch import BatchSettings, prepare_batch
from tests.tolerance import rounding

CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
PIXELS = 12 * 10


def make_batch() -> dict:
    pixels = torch.randint(
        0, 256, (4, 3, 12, PIXELS // 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    pixels[1] //= 4
    return {
        "images": pixels,
        "pids": torch.tensor([7, 7, 9, 9]),
        "camids": torch.tensor([0, 1, 2, 3]),
        "viewids": torch.tensor([3, 2, 1, 0]),
        "paths": ["a", "b", "c", "d"],
    }


def luma(image: torch.Tensor) -> float:
    red, green, blue = image.double().mean((1, 2))
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue).item()


def test_plain_batch_is_transformed_and_has_no_brightness():
    batch = make_batch()
    prepared = prepare_batch(batch, CPU, BatchTransform(MEAN, STD), BatchSettings())
    assert set(prepared) == set(batch)
    expected = (batch["images"].double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(prepared["images"].double(), expected, rtol=0, atol=rounding(9))
    assert prepared["pids"].tolist() == [7, 7, 9, 9]
    assert batch["images"].dtype == torch.uint8


def test_clean_brightness_is_that_of_the_image_before_augmentation():
    batch = make_batch()
    transform = BatchTransform(MEAN, STD, flip_prob=0.5, padding=6, erase_prob=1.0)
    prepared = prepare_batch(batch, CPU, transform, BatchSettings("clean"))
    expected = [luma(image) / 255 for image in batch["images"]]
    assert prepared["brightness"].tolist() == pytest.approx(expected, abs=rounding(PIXELS))


def test_augmented_brightness_is_that_of_what_the_model_sees():
    batch = make_batch()
    transform = BatchTransform(MEAN, STD, flip_prob=0.5, padding=6, erase_prob=1.0)
    prepared = prepare_batch(batch, CPU, transform, BatchSettings("augmented"))
    seen = prepared["images"] * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    assert prepared["brightness"].tolist() == pytest.approx(
        [luma(image) for image in seen.clamp(0, 1)], abs=rounding(PIXELS)
    )
    clean = [luma(image) / 255 for image in batch["images"]]
    assert prepared["brightness"].tolist() != pytest.approx(clean, abs=1e-2)


def test_two_views_make_each_image_a_class_of_its_own():
    batch = make_batch()
    views = TwoViews(MEAN, STD, 0.5, (0.3, 1.0), (0.75, 1.33), (0.4, 0.4, 0.4, 0.1), 0.8, 0.2)
    prepared = prepare_batch(batch, CPU, views, BatchSettings(two_views=True))
    assert prepared["images"].shape == (8, 3, 12, 10)
    assert prepared["pids"].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert prepared["camids"].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert prepared["viewids"].tolist() == [3, 2, 1, 0, 3, 2, 1, 0]
    assert prepared["paths"] == ["a", "b", "c", "d"] * 2


def test_two_views_number_the_images_of_all_processes(monkeypatch):
    monkeypatch.setattr("processor.step.batch.own_rank", lambda: 3)
    views = TwoViews(MEAN, STD, 0.0, (1.0, 1.0), (1.0, 1.0), (0.0,) * 4, 0.0, 0.0)
    prepared = prepare_batch(make_batch(), CPU, views, BatchSettings(two_views=True))
    assert prepared["pids"].tolist() == [12, 13, 14, 15] * 2  # ranks 0 to 2 have 0 to 11
