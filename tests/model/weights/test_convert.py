"""Position embeddings for another grid of patches."""

import math

import pytest
import torch

from model.weights.convert import guess_grid, resize_pos_embed


def bilinear_by_hand(grid: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return grid [h, w, D] at the centres of rows x columns cells, edges repeated."""
    height, width, depth = grid.shape
    result = torch.empty(rows, columns, depth, dtype=grid.dtype)
    for row in range(rows):
        for column in range(columns):
            y = min(max((row + 0.5) * height / rows - 0.5, 0), height - 1)
            x = min(max((column + 0.5) * width / columns - 0.5, 0), width - 1)
            top, left = math.floor(y), math.floor(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = (1 - (x - left)) * grid[top, left] + (x - left) * grid[top, right]
            lower = (1 - (x - left)) * grid[bottom, left] + (x - left) * grid[bottom, right]
            result[row, column] = (1 - (y - top)) * upper + (y - top) * lower
    return result


@pytest.mark.parametrize(("source", "target"), [((14, 14), (21, 10)), ((14, 14), (16, 8)), ((3, 5), (6, 2))])
def test_position_embedding_is_resized_bilinearly(source, target):
    pos_embed = torch.randn(1, 1 + source[0] * source[1], 3, dtype=torch.float64)
    resized = resize_pos_embed(pos_embed, target, source)
    expected = bilinear_by_hand(pos_embed[0, 1:].reshape(*source, 3), *target)
    torch.testing.assert_close(resized[0, 1:].reshape(*target, 3), expected)
    assert torch.equal(resized[:, 0], pos_embed[:, 0])


def test_resizing_keeps_half_precision():
    assert resize_pos_embed(torch.randn(1, 5, 3).half(), (3, 3)).dtype == torch.float16


@pytest.mark.parametrize(
    ("count", "like", "expected"),
    [
        (196, (21, 10), (14, 14)),
        (128, (21, 10), (16, 8)),
        (210, (16, 8), (21, 10)),
        (210, (8, 16), (10, 21)),
        (7, (4, 2), (7, 1)),
        (128, (16, 16), (16, 8)),
    ],
)
def test_grid_is_square_or_of_the_nearest_shape(count, like, expected):
    guessed = guess_grid(count, like)
    if like[0] == like[1]:  # both ways round are equally near
        assert sorted(guessed) == sorted(expected)
    else:
        assert guessed == expected
