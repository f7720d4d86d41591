"""MODEL.RESIDUAL amp: between blocks the tokens have the type of autocast; without autocast nothing changes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.model.builds import images, make_tiny

AMP = ("MODEL.RESIDUAL", "amp", "MODEL.DROP_PATH", 0.0)
BF16 = torch.finfo(torch.bfloat16).eps


def between_blocks(model: nn.Module, autocast: bool) -> set[torch.dtype]:
    seen = set()
    hooks = [
        block.register_forward_pre_hook(lambda _, inputs: seen.add(inputs[0].dtype)) for block in model.base.blocks[:-1]
    ]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        model(images())
    for hook in hooks:
        hook.remove()
    return seen


def embedding(model: nn.Module, autocast: bool) -> torch.Tensor:
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        return model.eval()(images())


@pytest.mark.parametrize("training", [False, True])
def test_tokens_have_the_type_of_autocast_where_that_is_on(training):
    narrow, plain = make_tiny(*AMP).train(training), make_tiny().train(training)
    assert between_blocks(narrow, autocast=True) == {torch.bfloat16}
    assert between_blocks(narrow, autocast=False) == between_blocks(plain, autocast=True) == {torch.float32}


def test_without_autocast_no_bit_changes():
    assert torch.equal(embedding(make_tiny(*AMP), False), embedding(make_tiny("MODEL.DROP_PATH", 0.0), False))


@pytest.mark.parametrize("jigsaw", [(), ("MODEL.JPM", True, "MODEL.DEVIDE_LENGTH", 3)])
def test_embeddings_differ_by_the_rounding_of_bf16(jigsaw):
    narrow, plain = (embedding(make_tiny(*opts, *jigsaw), True).float() for opts in (AMP, ()))
    exact = embedding(make_tiny(*jigsaw), False)
    gap, usual = ((values - exact).norm() / exact.norm() for values in (narrow, plain))
    assert 0 < gap < max(4 * usual, 8 * BF16)
    assert F.cosine_similarity(narrow, exact).min() > 0.999


def test_gradients_reach_every_weight_that_they_reach_otherwise():
    names = []
    for opts in (AMP, ("MODEL.DROP_PATH", 0.0)):
        model = make_tiny(*opts)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(images())
        torch.stack([logits.float().square().sum() for logits in output.logits]).sum().backward()
        grads = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        assert all(grad.dtype == torch.float32 and grad.isfinite().all() for grad in grads.values())
        names.append(set(grads))
    assert names[0] == names[1]


def test_training_compiles_to_one_graph():
    torch.compiler.reset()
    model = make_tiny(*AMP, "MODEL.VIT.DEPTH", 2)
    compiled = torch.compile(model.forward, backend="eager", fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(compiled(images()).pre_bn[0], model(images()).pre_bn[0])
