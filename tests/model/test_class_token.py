"""The last block for the class token alone, against the whole block in float64."""

import copy
import warnings
from collections.abc import Sequence

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import nn

from model import make_model
from model.layers.class_token import asks_alone, class_token_rows
from model.layers.jigsaw import seen_bias
from model.layers.lora import add_lora
from model.layers.pooling import Branch, Pooling, end, ends_in_groups, run_block
from tests.model.builds import images, make_tiny
from tests.model.trunks import KINDS, kind_cfg

TOKEN_KINDS = [name for name, kind in KINDS.items() if kind.pooling == "token"]
GROUPS = [[0, 3, 5, 1], [0, 2, 2, 4], [0, 6, 7, 8]]  # of a class token and patches; the second sees one twice


class Stranger(Block):
    """A block whose forward may be anything."""


def last_block(kind: str, *opts: object) -> tuple[nn.Module, torch.Tensor, torch.Tensor | None]:
    """Return (block, tokens, rotation) of a tiny trunk, weights stirred, float64."""
    torch.manual_seed(0)
    model = make_model(kind_cfg(kind, *opts), 5, 0, 0).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    base = model.base
    tokens = torch.randn(3, base.num_prefix + base.num_patches, base.feat_dim, dtype=torch.float64)
    rotation = base.rotations()[-1]
    rotation = None if rotation is None else rotation.detach()
    return base.blocks[-1], tokens.requires_grad_(), rotation


def gradients(value: torch.Tensor, tokens: torch.Tensor, block: nn.Module) -> tuple[torch.Tensor, ...]:
    """Return the gradients of sum(value^2) in the tokens and in every weight of the block."""
    return torch.autograd.grad(value.square().sum(), [tokens, *block.parameters()])


def by_kind_of_weight(block: nn.Module, grads: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(zip(["tokens", *(name for name, _ in block.named_parameters())], grads, strict=True))


@pytest.mark.parametrize("kind", TOKEN_KINDS)
def test_value_and_gradients_are_those_of_the_whole_block(kind):
    block, tokens, rotation = last_block(kind)
    assert asks_alone(block)
    whole = run_block(block, tokens, rotation)[:, 0]
    alone = class_token_rows(block, tokens, rotation)
    assert alone.shape == (3, 1, tokens.shape[2])
    torch.testing.assert_close(alone[:, 0], whole, rtol=1e-10, atol=1e-12)
    expected = by_kind_of_weight(block, gradients(whole, tokens, block))
    for name, grad in by_kind_of_weight(block, gradients(alone, tokens, block)).items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-8, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("kind", TOKEN_KINDS)
def test_each_group_is_served_as_if_the_other_tokens_were_not_there(kind):
    block, tokens, rotation = last_block(kind)
    prefix = KINDS[kind].prefix
    groups = [[*range(prefix), *(token + prefix - 1 for token in group[1:])] for group in GROUPS]
    branch = Branch(Pooling("token"), block, torch.nn.Identity())
    bias = torch.tensor(seen_bias(groups, tokens.shape[1]), dtype=torch.float64)
    together = ends_in_groups(branch, tokens, torch.tensor(groups), bias, rotation)
    for number, group in enumerate(groups):
        own = None if rotation is None else rotation[..., [token - prefix for token in group[prefix:]], :]
        alone = run_block(block, tokens[:, group], own)[:, 0]
        torch.testing.assert_close(together[:, number], alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["vit", "eva02_clip", "dinov3"])
def test_adapters_take_part(kind):
    block, tokens, rotation = last_block(kind)
    add_lora([block], 3, 6.0, ("attn",))
    with torch.no_grad():
        for name, weight in block.named_parameters():
            if "lora_b" in name:
                weight.normal_()
    whole = run_block(block, tokens, rotation)[:, 0]
    torch.testing.assert_close(class_token_rows(block, tokens, rotation)[:, 0], whole, rtol=1e-10, atol=1e-12)


def test_stochastic_depth_draws_for_each_image_as_the_whole_block_does():
    block, tokens, _ = last_block("vit", "MODEL.DROP_PATH", 0.6)
    block.train()
    torch.manual_seed(4)
    whole = block(tokens)[:, 0]
    torch.manual_seed(4)
    alone = class_token_rows(block, tokens)[:, 0]
    torch.testing.assert_close(alone, whole, rtol=1e-10, atol=1e-12)
    block.eval()
    assert not torch.allclose(class_token_rows(block, tokens)[:, 0], whole)


def test_the_groups_of_one_image_are_dropped_apart():
    block, tokens, _ = last_block("vit", "MODEL.DROP_PATH", 0.5)
    block.train()
    torch.manual_seed(0)
    rows = class_token_rows(block, tokens, bias=torch.zeros(40, tokens.shape[1], dtype=torch.float64))
    untouched = (rows == tokens[:, :1]).all(2)  # neither attention nor MLP was added
    assert 10 < untouched.sum() < 60  # a quarter of 120
    assert (untouched.sum(1) < 40).all() and (untouched.sum(1) > 0).all()


def test_a_block_of_another_kind_is_run_whole():
    block, tokens, _ = last_block("vit")
    strange = copy.deepcopy(block)
    strange.__class__ = Stranger
    assert asks_alone(block) and not asks_alone(strange)
    tail = [torch.nn.Identity()]
    both = [end([layer, *tail], Pooling("token"), tokens) for layer in (block, strange)]
    torch.testing.assert_close(both[0], both[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["vit", "dinov3"])
@pytest.mark.parametrize("watched", ["", "attn", "attn.qkv"])
def test_hooks_of_the_last_block_see_all_its_tokens(kind, watched):
    model = make_model(kind_cfg(kind, "MODEL.JPM", True), 5, 0, 0).eval()
    batch = images(2, model.base.image_size)
    expected, seen = model(batch), []
    for branch in (model.b1, model.b2):
        module = branch[0].get_submodule(watched)
        module.register_forward_hook(lambda _, args, out: seen.append((len(args[0]), len(out), args[0].shape[1])))
    torch.testing.assert_close(model(batch), expected)
    base, local = model.base, 2 * model.jigsaw.branches
    part = base.num_prefix + base.num_patches // model.jigsaw.branches
    assert sorted(seen) == [(2, 2, base.num_prefix + base.num_patches), (local, local, part)]


def test_a_block_with_hooks_is_run_whole():
    block, tokens, _ = last_block("vit")
    hooks = [
        block.register_forward_pre_hook(lambda *_: None),
        block.attn.register_full_backward_pre_hook(lambda *_: None),
        block.attn.qkv.register_full_backward_hook(lambda *_: None),
    ]
    for hook in hooks:
        assert not asks_alone(block)
        hook.remove()
    assert asks_alone(block)


@pytest.mark.parametrize("kind", ["vit", "dinov3", "eva02", "siglip"])
def test_a_trace_of_two_images_serves_any_number(kind):
    model = make_model(kind_cfg(kind, "MODEL.JPM", True), 5, 0, 0).eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, (images(2, model.base.image_size),), check_trace=False)
    for count in (1, 3):
        batch = images(count, model.base.image_size)
        torch.testing.assert_close(traced(batch), model(batch))


def test_the_last_blocks_compute_no_other_token():
    model = make_tiny("MODEL.JPM", True, "MODEL.DEVIDE_LENGTH", 3).eval()
    rows = []
    for layer in (model.b1[0].mlp, model.b2[0].mlp):
        layer.register_forward_pre_hook(lambda _, args: rows.append(args[0].numel() // args[0].shape[-1]))
    model(images(2))
    assert sorted(rows) == [2, 2 * 3]
