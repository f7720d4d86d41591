"""Stochastic depth that skips what it drops, against timm's masks."""

from collections.abc import Sequence

import pytest
import torch
from timm.layers import DropPath
from torch import nn

from model import make_model
from model.layers.depth import run_kept, skips_dropped
from model.layers.pooling import run_block
from tests.model.trunks import KINDS, kind_cfg

RATE = 0.4


def dropping_block(kind: str, rate: float = RATE) -> tuple[nn.Module, torch.Tensor, torch.Tensor | None]:
    """Return (block in training mode, tokens of 6 images, rotation), float64; the block drops with `rate`."""
    torch.manual_seed(0)
    model = make_model(kind_cfg(kind, "MODEL.DROP_PATH", rate), 5, 0, 0).double()
    base = model.base
    tokens = torch.randn(6, base.num_prefix + base.num_patches, base.feat_dim, dtype=torch.float64)
    rotation = base.rotations()[-1]
    return base.blocks[-1].train(), tokens, None if rotation is None else rotation.detach()


class Mask(torch.nn.Module):
    """DropPath with a mask that is given."""

    def __init__(self, kept: torch.Tensor, rate: float) -> None:
        super().__init__()
        self.mask = (kept / (1 - rate)).view(-1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask


def by_masks(
    block: nn.Module, tokens: torch.Tensor, rotation: torch.Tensor | None, draws: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Return what timm's own forward gives for masks that keep the images whose draw is below 1 - RATE."""
    drops = block.drop_path1, block.drop_path2
    rate = drops[0].drop_prob  # RATE, rounded
    block.drop_path1, block.drop_path2 = (Mask((draw < 1 - rate).double(), rate) for draw in draws)
    out = block(tokens) if rotation is None else block(tokens, rope=rotation)
    block.drop_path1, block.drop_path2 = drops
    return out


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["vit", "deit3", "dinov3", "eva02_clip", "siglip"])
def test_value_and_gradients_are_those_of_masks(kind, seed):
    block, tokens, rotation = dropping_block(kind)
    torch.manual_seed(seed)
    draws = [torch.rand(6), torch.rand(6)]
    assert any((draw >= 1 - RATE).any() for draw in draws)
    leaves = [tokens.requires_grad_(), *block.parameters()]
    results = []
    for masked in (False, True):
        torch.manual_seed(seed)
        out = by_masks(block, tokens, rotation, draws) if masked else run_block(block, tokens, rotation)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-10)


def test_dropped_images_are_not_computed():
    block, tokens, _ = dropping_block("vit")
    seen = []
    block.mlp.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    for _ in range(300):
        run_kept(block, tokens)
    assert 0.55 < sum(seen) / (300 * 6) < 0.65  # 1 - RATE, four standard errors


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_whose_images_are_all_dropped_still_gives_its_weights_a_gradient(kind):
    block, tokens, rotation = dropping_block(kind)
    block.drop_path1, block.drop_path2 = DropPath(1 - 1e-9), DropPath(1 - 1e-9)
    out = run_kept(block, tokens.requires_grad_(), rotation)
    out.sum().backward()
    assert torch.equal(out, tokens)
    assert all(weight.grad is not None and not weight.grad.any() for weight in block.parameters())


def test_nothing_is_skipped_in_evaluation_without_dropping_or_elsewhere_than_on_a_cpu():
    block, tokens, _ = dropping_block("vit")
    assert skips_dropped(block, tokens, None)
    assert not skips_dropped(block, tokens.to("meta"), None)
    assert not skips_dropped(block.eval(), tokens, None)
    calm, tokens, _ = dropping_block("vit", rate=0.0)
    assert not skips_dropped(calm, tokens, None)


def test_a_hook_on_a_block_sees_all_images():
    block, tokens, rotation = dropping_block("vit")
    seen = []
    block.register_forward_hook(lambda _, args, out: seen.append((len(args[0]), len(out))))
    assert not skips_dropped(block, tokens, rotation)
    run_block(block, tokens, rotation)
    assert seen == [(6, 6)]
