"""Names of ImageNet files become those of our trunks."""

import pytest
import torch

from model.weights.imagenet import imagenet_trunk


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
