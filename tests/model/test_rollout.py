"""The attention roll-out against an independent one, and what must hold for every roll-out."""

from collections.abc import Iterable, Sequence

import pytest
import torch
from torch import nn

from model import make_model
from model.rollout import HEAD_FUSIONS, captured, patches_of, rollout
from tests.model.builds import images, make_cfg, make_tiny
from tests.model.clip_reids import VIT, clip_reid_cfg, make_clip_reid, write_clip
from tests.model.trunks import KINDS, kind_cfg
from tests.reference import slow_rollout
from tests.tolerance import bounds, rounding
from utils.errors import ConfigError

OVERLAPPING = ("MODEL.STRIDE_SIZE", [5, 6])  # patches of 8 x 8 pixels: 5 x 3 of them, and a margin at the right
JPM = ("MODEL.JPM", True, "MODEL.DEVIDE_LENGTH", 3, "MODEL.SHIFT_NUM", 4)
TERMS = 1000  # numbers added up one after the other: up to 300 in each block, 16 to multiply two maps


def stirred(model: nn.Module, seed: int = 3) -> nn.Module:
    """Return the model in evaluation mode with weights so large that attention is far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return model.eval()


def make_kind(kind: str, *opts: object) -> tuple[nn.Module, torch.Tensor]:
    model = make_model(kind_cfg(kind, *opts), 5, 0, 0)
    return stirred(model), images(2, model.base.image_size)


def inputs_of(
    model: nn.Module, blocks: Iterable[nn.Module], batch: torch.Tensor, **labels: torch.Tensor
) -> list[torch.Tensor]:
    """Return the tokens [B, T, D] that enter each block."""
    seen = {}
    hooks = [block.norm1.register_forward_pre_hook(lambda m, args: seen.setdefault(m, args[0])) for block in blocks]
    with torch.no_grad():
        model(batch, **labels)
    for hook in hooks:
        hook.remove()
    return [seen[block.norm1] for block in blocks]


def slow_maps(
    model: nn.Module,
    batch: torch.Tensor,
    pooling: str,
    prefix: int,
    fusion: str = "mean",
    first: int | None = None,
    **labels: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Return {"global": [B, N], "local 1": ...} by the slow reference."""
    base = model.base
    last = base.blocks[-1] if model.jigsaw is None else model.b1[0]
    tail = [base.get_submodule(name) for name in base.tail_names] if model.jigsaw is None else [*model.b1][1:]
    blocks = [*base.blocks[:-1], last]
    entering = inputs_of(model, blocks, batch, **labels)
    rotations = list(base.rotations())
    maps = {}
    for number in range(len(batch)):
        tokens = [layer[number] for layer in entering]
        whole = slow_rollout.rollout(blocks, tokens, rotations, fusion)
        with torch.no_grad():
            output = last(tokens[-1][None], **({} if rotations[-1] is None else {"rope": rotations[-1]}))[0]
        start = start_row(len(whole), pooling, prefix if first is None else first, tail, output)
        maps.setdefault("global", []).append((start @ whole)[prefix:])
        if model.jigsaw is None:
            continue
        shared = slow_rollout.rollout(blocks[:-1], tokens[:-1], rotations[:-1], fusion)
        for branch, part in enumerate(slow_parts(model, prefix)):
            rotation = rotations[-1]
            if rotation is not None:
                rotation = rotation[..., [token - prefix for token in part[prefix:]], :]
            own = slow_rollout.rollout([model.b2[0]], [tokens[-1][part]], [rotation], fusion)
            with torch.no_grad():
                options = {} if rotation is None else {"rope": rotation}
                output = model.b2[0](tokens[-1][part][None], **options)[0]
            start = start_row(len(part), pooling, prefix if first is None else first, [*model.b2][1:], output) @ own
            total = torch.zeros(len(shared), dtype=torch.float64)
            for share, token in zip(start, part, strict=True):
                total += share * shared[token]
            maps.setdefault(f"local {branch + 1}", []).append(total[prefix:])
    return {name: torch.stack(rows) for name, rows in maps.items()}


def start_row(count: int, pooling: str, first: int, tail: Sequence[nn.Module], output: torch.Tensor) -> torch.Tensor:
    start = torch.zeros(count, dtype=torch.float64)
    if pooling == "token":
        start[0] = 1
    elif pooling == "avg":
        start[first:] = 1 / (count - first)
    else:
        start[first:] = slow_rollout.latent_attention(tail[1], slow_rollout.norm(tail[0], output)[first:])
    return start


def slow_parts(model: nn.Module, prefix: int) -> list[list[int]]:
    """Return the token numbers of each local branch: shifted, dealt to 2 groups, cut (TransReID, section 3.2)."""
    how, count = model.jigsaw, model.base.num_patches
    order = list(range(count))
    order = order[how.shift - 1 :] + order[: how.shift - 1]
    if count % 2:
        order.append(order[-2])
    half = len(order) // 2
    dealt = [patch for pair in zip(order[:half], order[half:], strict=True) for patch in pair]
    length = count // how.branches
    return [
        [*range(prefix), *(prefix + patch for patch in dealt[i * length : (i + 1) * length])]
        for i in range(how.branches)
    ]


def assert_same(maps: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], grid: tuple[int, int]) -> None:
    assert list(maps) == list(expected)
    for name, rows in expected.items():
        assert maps[name].shape == (len(rows), *grid)
        torch.testing.assert_close(maps[name].flatten(1).double(), rows, **bounds(TERMS, 1 / len(rows[0])))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_trunk_gives_the_roll_out_of_the_slow_reference(kind):
    model, batch = make_kind(kind)
    _, _, pooling, prefix = KINDS[kind]
    first = 0 if kind == "perception_encoder" else None  # its attention pooling also reads the class token
    assert_same(rollout(model, batch), slow_maps(model, batch, pooling, prefix, first=first), (4, 3))


@pytest.mark.parametrize("kind", ["vit", "dinov3", "eva02", "siglip", "rope_mixed"])
def test_local_branches_of_every_kind_start_from_their_own_patches(kind):
    model, batch = make_kind(kind, *JPM)
    _, _, pooling, prefix = KINDS[kind]
    assert_same(rollout(model, batch), slow_maps(model, batch, pooling, prefix), (4, 3))


@pytest.mark.parametrize("fusion", HEAD_FUSIONS)
@pytest.mark.parametrize("opts", [(), JPM])
def test_overlapping_patches_and_side_information_give_the_roll_out_of_the_slow_reference(opts, fusion):
    model = stirred(make_tiny(*OVERLAPPING, *opts, "MODEL.SIE_CAMERA", True, cameras=3))
    labels = {"cam_label": torch.tensor([2, -1])}
    maps = rollout(model, images(2), **labels, head_fusion=fusion)
    assert_same(maps, slow_maps(model, images(2), "token", 1, fusion, **labels), (5, 3))


def test_the_camera_changes_the_roll_out_of_a_model_with_side_information():
    model = stirred(make_tiny("MODEL.SIE_CAMERA", True, cameras=3))
    one, other = (rollout(model, images(1), torch.tensor([camera]))["global"] for camera in (0, 1))
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("size", [[32, 24], [24, 48], [64, 8]])
def test_the_map_has_the_shape_of_the_token_grid(size):
    model = make_tiny("INPUT.SIZE_TRAIN", size, "INPUT.SIZE_TEST", size).eval()
    maps = rollout(model, images(2, size))
    assert maps["global"].shape == (2, size[0] // 8, size[1] // 8)


def test_uniform_attention_gives_a_uniform_map():
    model = make_tiny(*OVERLAPPING, *JPM).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".qkv." in name or (name.startswith(("b1.0", "b2.0")) and "qkv" in name):
                weight.zero_()
    maps = rollout(model, images(2))
    flat = maps["global"].flatten(1)
    torch.testing.assert_close(flat, flat[:, :1].expand_as(flat), **bounds(TERMS, 0))
    depth, tokens = 3, 16  # the class token keeps 2^-3 of itself and spreads the rest over all 16 tokens
    torch.testing.assert_close(flat[:, 0], torch.full((2,), (1 - 0.5**depth) / tokens), **bounds(TERMS, 0))
    local = maps["local 1"].flatten(1)
    own = [token - 1 for token in model.local_tokens[0].tolist()[1:]]
    other = [patch for patch in range(15) if patch not in own]
    assert max(local[:, own].std(), local[:, other].std()) < rounding(TERMS) * local.max()
    assert local[:, own].min() > local[:, other].max() > 0


def test_shares_of_all_tokens_sum_to_one_when_nothing_is_a_prefix():
    model, batch = make_kind("siglip", *JPM)
    for values in rollout(model, batch).values():
        torch.testing.assert_close(values.sum((1, 2)), torch.ones(2), **bounds(TERMS))
        assert values.min() >= 0


@pytest.mark.parametrize("fusion", HEAD_FUSIONS)
def test_rows_of_captured_attention_sum_to_one(fusion):
    model, batch = make_kind("eva02")
    layers = [block.attn for block in model.base.blocks]
    with captured(layers, HEAD_FUSIONS[fusion]) as weights:
        model(batch)
    assert list(weights) == layers
    for rows in weights.values():
        torch.testing.assert_close(rows.sum(-1), torch.ones(2, 13), **bounds(2 * 13))


@pytest.mark.parametrize("kind", ["vit", "dinov3", "eva02", "siglip"])
def test_capturing_changes_no_embedding_and_leaves_the_model_as_it_was(kind):
    model, batch = make_kind(kind, *JPM)
    layers = [module for module in model.modules() if hasattr(module, "fused_attn")]
    layers[0].fused_attn = False
    before = [layer.fused_attn for layer in layers]
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    with torch.no_grad():
        plain = model(batch)
        with captured(layers, HEAD_FUSIONS["mean"]):
            inside = model(batch)
        rollout(model, batch)
        after = model(batch)
    torch.testing.assert_close(inside, plain, **bounds(TERMS))
    assert torch.equal(after, plain)
    assert [layer.fused_attn for layer in layers] == before
    assert hooks == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]


def test_a_failing_forward_leaves_the_model_as_it_was():
    model = make_tiny().eval()
    with pytest.raises(ValueError, match="pixels"):
        rollout(model, images(1, (40, 24)))
    attention = model.base.blocks[0].attn
    assert attention.fused_attn and not attention.attn_drop._forward_pre_hooks


@pytest.mark.parametrize("name", ["ResNet50", "ClipReID"])
def test_models_without_attention_that_can_be_rolled_out_are_named(name, tmp_path):
    if name == "ClipReID":
        model = make_clip_reid(clip_reid_cfg(write_clip(tmp_path, VIT), "SOLVER.STAGES", ["main"]))
    else:
        model = make_model(make_cfg("MODEL.NAME", "resnet50"), 5, 0, 0).eval()
    said = f"the attention of {name} cannot be rolled out; use a model with MODEL.NAME transformer"
    for refused in (lambda: rollout(model, images(1)), lambda: patches_of(model)):
        with pytest.raises(ConfigError, match=said):
            refused()


def test_an_unknown_head_fusion_is_named():
    with pytest.raises(ConfigError, match="--head-fusion got 'median', allowed: mean, max, min"):
        rollout(make_tiny().eval(), images(1), head_fusion="median")


def test_attention_of_another_kind_is_named():
    class Other(torch.nn.Module):
        pass

    model = make_tiny().eval()
    model.base.blocks[1].attn = Other()
    with pytest.raises(ConfigError, match="MODEL.TRANSFORMER_TYPE: the roll-out cannot read Other"):
        rollout(model, images(1))
