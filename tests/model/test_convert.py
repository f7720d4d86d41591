"""Weights of other files: position embeddings of another grid, names of ImageNet files, the report."""

import math

import pytest
import torch
from torch import nn

from model.convert import describe, guess_grid, imagenet_trunk, load_weights, reid_trunk, resize_pos_embed
from utils.errors import DataError


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


def distilled_deit(width: int = 8, depth: int = 2, side: int = 3) -> dict[str, torch.Tensor]:
    """Return random weights under the names of a distilled DeiT."""
    state = {
        "cls_token": torch.randn(1, 1, width),
        "dist_token": torch.randn(1, 1, width),
        "pos_embed": torch.randn(1, 2 + side * side, width),
        "patch_embed.proj.weight": torch.randn(width, 3 * 16),
        "norm.weight": torch.randn(width),
        "head.weight": torch.randn(10, width),
        "head_dist.bias": torch.randn(10),
        "pre_logits.fc.weight": torch.randn(width, width),
        "fc.weight": torch.randn(10, width),
    }
    for block in range(depth):
        state[f"blocks.{block}.mlp.fc1.weight"] = torch.randn(4 * width, width)
    return state


def test_distilled_file_loses_its_second_token_and_its_heads():
    state = distilled_deit()
    target = {"patch_embed.proj.weight": torch.empty(8, 3, 4, 4)}
    trunk = imagenet_trunk(state, target)
    assert set(trunk) == {
        *("cls_token", "pos_embed", "patch_embed.proj.weight", "norm.weight"),
        *("blocks.0.mlp.fc1.weight", "blocks.1.mlp.fc1.weight"),
    }
    assert torch.equal(trunk["pos_embed"], state["pos_embed"][:, [0, *range(2, 11)]])
    assert torch.equal(trunk["patch_embed.proj.weight"], state["patch_embed.proj.weight"].reshape(8, 3, 4, 4))


def test_distillation_is_recognised_by_the_number_of_positions_alone():
    state = {"pos_embed": torch.randn(1, 198, 4)}
    assert torch.equal(imagenet_trunk(state, {})["pos_embed"], state["pos_embed"][:, [0, *range(2, 198)]])


@pytest.mark.parametrize("count", [197, 129, 2])
def test_other_numbers_of_positions_stay(count):
    state = {"pos_embed": torch.randn(1, count, 4)}
    assert torch.equal(imagenet_trunk(state, {})["pos_embed"], state["pos_embed"])


def test_trained_global_block_of_a_jigsaw_checkpoint_becomes_the_last_block():
    state = {
        "base.blocks.0.norm1.weight": torch.tensor([0.0]),
        "base.blocks.1.norm1.weight": torch.tensor([1.0]),
        "base.norm.weight": torch.tensor([2.0]),
        "b1.0.norm1.weight": torch.tensor([3.0]),
        "b1.1.weight": torch.tensor([4.0]),
        "b2.1.weight": torch.tensor([5.0]),
        "classifier.weight": torch.tensor([6.0]),
    }
    trunk = {name: value.item() for name, value in reid_trunk(state).items()}
    assert trunk == {"blocks.0.norm1.weight": 0.0, "blocks.1.norm1.weight": 3.0, "norm.weight": 4.0}


def test_report_counts_and_names_every_kind():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    weights = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(3), "1.weight": torch.ones(9, 3), "x": torch.ones(1)}
    report = load_weights(module, weights, "FILE", lambda name: "")
    assert report.matched == ("0.weight", "0.bias")
    assert report.missing == ("1.bias",)
    assert report.surplus == ("x",)
    assert report.misshaped == {"1.weight": ((9, 3), (4, 3))}
    text = str(report)
    assert text.startswith("FILE: 2 weights matched; 1 missing (1.bias); 1 surplus (x)")
    assert "1.weight [9, 3] for [4, 3]" in text and "\n" not in text
    assert torch.equal(module[0].weight, torch.ones(3, 2))


def test_long_lists_are_cut_in_the_report():
    module = nn.ParameterDict({f"w{number}": torch.zeros(1) for number in range(9)})
    report = load_weights(module, {"w0": torch.ones(1)}, "FILE", lambda name: "")
    assert "8 missing (w1, w2, w3, w4, ... 4 more)" in str(report)


def test_nothing_is_loaded_when_something_that_matters_does_not_fit():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    weights = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(3), "1.weight": torch.ones(9, 3)}
    expected = r"FILE: 1.weight is \[9, 3\] in the file, but \[4, 3\] in this model; KEY decides it \(1 more weights"
    with pytest.raises(DataError, match=expected):
        load_weights(module, weights, "FILE", lambda name: "KEY decides it")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("visual.conv1.weight", "a CLIP model"),
        ("dist_token", "a distilled DeiT"),
        ("cls_token", "a plain ViT"),
        ("layer1.0.conv1.weight", "a plain ResNet"),
        ("base.conv1.weight", "a ResNet ReID checkpoint"),
        ("base.cls_token", "a TransReID checkpoint"),
        ("b1.0.norm1.weight", "with JPM"),
        ("encoder.something", "an unknown model (its weights are called encoder.something"),
    ],
)
def test_files_are_described_by_their_names(name, words):
    assert words in describe({name: torch.zeros(1)})
