"""The batched transforms draw as the per-image chain of torchvision and timm does: distributions, with fixed seeds."""

import random

import numpy as np
import torch
from scipy import stats
from timm.data.random_erasing import RandomErasing
from torchvision import transforms

from datasets.transforms import BatchTransform, flip_pad_crop, random_erase

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEIGHT, WIDTH, PADDING = 12, 8, 2
SURPRISING = 1e-4  # a smaller probability of such a result, were the distributions equal, fails
DRAWS = 4000


def map_of_positions() -> torch.Tensor:
    """Return an image uint8 [3, H, W] whose pixels say where they are: row + 1, column + 1, white."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return torch.stack([rows + 1, columns + 1, torch.full_like(rows, 255)]).to(torch.uint8)


def read_positions(images: torch.Tensor) -> np.ndarray:
    """Return (flipped, top, left) of each augmented map of positions; left as seen in the mirrored image."""
    row, column = images[:, 0, HEIGHT // 2, WIDTH // 2].int(), images[:, 1, HEIGHT // 2, WIDTH // 2].int()
    flipped = (images[:, 1, HEIGHT // 2, WIDTH // 2 - 1].int() > column).int()
    column = torch.where(flipped == 1, WIDTH + 1 - column, column)
    return torch.stack([flipped, row - 1 - HEIGHT // 2 + PADDING, column - 1 - WIDTH // 2 + PADDING], 1).numpy()


def counts(positions: np.ndarray) -> np.ndarray:
    """Return how often each (flipped, top, left) occurs, all as one vector."""
    steps = 2 * PADDING + 1
    return np.bincount(np.ravel_multi_index(positions.T, (2, steps, steps)), minlength=2 * steps**2)


def test_flips_and_crops_are_those_of_torchvision_and_all_alike_where_they_should_be():
    torch.manual_seed(0)
    image = map_of_positions()
    chain = transforms.Compose(
        [transforms.RandomHorizontalFlip(0.5), transforms.Pad(PADDING), transforms.RandomCrop((HEIGHT, WIDTH))]
    )
    ours = counts(read_positions(flip_pad_crop(image.expand(DRAWS, -1, -1, -1), 0.5, PADDING)))
    theirs = counts(read_positions(torch.stack([chain(image) for _ in range(DRAWS)])))
    assert stats.chisquare(ours).pvalue > SURPRISING  # also: flip, row and column are independent
    assert stats.chi2_contingency([ours, theirs]).pvalue > SURPRISING


def boxes(images: torch.Tensor) -> dict[str, np.ndarray]:
    """Return area, log aspect and place (0 = top or left end, 1 = bottom or right end) of the erased rectangles."""
    mask = (images != 9).any(1).numpy()
    found = {name: [] for name in ("area", "aspect", "top", "left")}
    for sample in mask[mask.any((1, 2))]:
        rows, columns = np.nonzero(sample.any(1))[0], np.nonzero(sample.any(0))[0]
        height, width = len(rows), len(columns)
        for name, value in (
            ("area", height * width),
            ("aspect", np.log(height / width)),
            ("top", rows[0] / (mask.shape[1] - height)),
            ("left", columns[0] / (mask.shape[2] - width)),
        ):
            found[name].append(value)
    return {name: np.array(values) for name, values in found.items()}


def test_erased_rectangles_are_as_large_as_oblong_and_where_timms_are():
    torch.manual_seed(1)
    random.seed(1)  # timm draws from Python's generator
    images = torch.full((3 * DRAWS, 1, 24, 16), 9.0)
    reference = RandomErasing(1.0, mode="pixel", max_count=1, device="cpu")
    ours, theirs = boxes(random_erase(images, 1.0)), boxes(torch.stack([reference(image.clone()) for image in images]))
    for name in ours:
        assert stats.ks_2samp(ours[name], theirs[name]).pvalue > SURPRISING, name


def test_erasing_hits_with_its_probability_and_fills_with_independent_standard_normals():
    torch.manual_seed(3)
    images = random_erase(torch.full((DRAWS, 3, 40, 24), 9.0), 0.3)
    hit = (images != 9).flatten(1).any(1)
    assert stats.binomtest(int(hit.sum()), DRAWS, 0.3).pvalue > SURPRISING
    noise = images.permute(0, 2, 3, 1)[(images != 9).all(1)].numpy()  # [n, 3]
    assert stats.kstest(noise[:20000, 0], "norm").pvalue > SURPRISING
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.01  # of the channels
    assert abs(np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1]) < 0.01  # of neighbours


def test_the_whole_chain_has_the_mean_and_the_spread_of_the_lineages_in_every_pixel():
    torch.manual_seed(2)
    random.seed(2)
    image = torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8)
    chain = transforms.Compose(
        [
            *(transforms.RandomHorizontalFlip(0.5), transforms.Pad(PADDING), transforms.RandomCrop((HEIGHT, WIDTH))),
            *(transforms.ConvertImageDtype(torch.float32), transforms.Normalize(MEAN, STD)),
            RandomErasing(0.5, mode="pixel", max_count=1, device="cpu"),
        ]
    )
    ours = BatchTransform(MEAN, STD, 0.5, PADDING, 0.5)(image.expand(DRAWS, -1, -1, -1))
    theirs = torch.stack([chain(image) for _ in range(DRAWS)])
    for statistic in (lambda x: x, lambda x: x.square()):
        a, b = statistic(ours), statistic(theirs)
        error = ((a.var(0) + b.var(0)) / DRAWS).sqrt()  # of the difference of the means, [3, H, W]
        assert ((a.mean(0) - b.mean(0)).abs() / error).max() < 5
