"""Low-rank adapters against naive loops, on the kinds of blocks that timm's trunks have."""

import math
from copy import deepcopy
from functools import partial

import pytest
import torch
from timm.layers import SwiGLUPacked
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from torch import nn

from model.layers.lora import LoRALinear, add_lora, fold_lora, merge_lora
from tests.tolerance import bounds, rounding
from utils.errors import ConfigError, DataError

SIZE = {"img_size": 8, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 0}
ROPE = {"use_rot_pos_emb": True, "use_abs_pos_emb": False}
BLOCK = ("attn", "mlp")
TERMS = 600  # numbers added up one after the other: about 300 in each block
TRUNKS = {  # timm's trunk and the layers that its blocks adapt
    "plain": (VisionTransformer, BLOCK, 4),
    "qk norm and packed SwiGLU": (partial(VisionTransformer, qk_norm=True, mlp_layer=SwiGLUPacked), BLOCK, 4),
    "parallel": (
        partial(VisionTransformer, block_fn=ParallelScalingBlock),
        ("in_proj", "attn_out_proj", "mlp_out_proj"),
        3,
    ),
    "EVA-02: split qkv, SwiGLU, rope": (
        partial(Eva, qkv_fused=False, swiglu_mlp=True, scale_mlp=True, **ROPE),
        BLOCK,
        7,
    ),
    "EVA: fused qkv, biases aside, GluMlp": (partial(Eva, qkv_bias=True, qkv_fused=True, swiglu_mlp=True), BLOCK, 4),
    "rope attention, LayerScale": (partial(Eva, attn_type="rope", init_values=0.1, **ROPE), BLOCK, 4),
    "BEiT": (Beit, BLOCK, 4),
}


def make_trunk(kind: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    trunk = TRUNKS[kind][0](**SIZE)
    with torch.no_grad():
        for name, parameter in trunk.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(parameter, std=0.1)  # timm's start is 0, which would hide a lost bias
    return trunk.to(dtype).requires_grad_(False)


def adapt(trunk: nn.Module, kind: str, rank: int = 3, alpha: float = 4.0) -> int:
    return add_lora(trunk.blocks, rank, alpha, TRUNKS[kind][1])


def images(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).to(dtype)


def train(model: nn.Module, dtype: torch.dtype, steps: int = 3) -> None:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        model(images(dtype)).sin().mean().backward()
        optimizer.step()


def gap(first: torch.Tensor, second: torch.Tensor) -> float:
    return (first - second).abs().max().item()


@pytest.mark.parametrize("bias", [True, False])
def test_layer_matches_a_naive_loop_in_float64(bias):
    torch.manual_seed(0)
    layer = LoRALinear(nn.Linear(5, 4, bias=bias, dtype=torch.float64), rank=2, alpha=3.0)
    nn.init.normal_(layer.lora_b)
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    y = layer(x)
    weight, a, b = layer.weight.tolist(), layer.lora_a.tolist(), layer.lora_b.tolist()
    shift = layer.bias.tolist() if bias else [0.0] * 4
    for i in range(2):
        for j in range(3):
            row = x[i, j].tolist()
            for out in range(4):
                expected = shift[out] + sum(weight[out][k] * row[k] for k in range(5))
                for r in range(2):
                    expected += 3.0 / 2 * b[out][r] * sum(a[r][k] * row[k] for k in range(5))
                assert y[i, j, out].item() == pytest.approx(expected, abs=1e-12)


def test_fresh_adapter_is_exactly_the_layer_and_draws_like_torch():
    linear = nn.Linear(30, 20)
    layer = LoRALinear(linear, rank=4, alpha=16.0)
    x = torch.randn(7, 30)
    assert torch.equal(layer(x), linear(x))
    assert layer.weight is linear.weight and layer.bias is linear.bias
    assert [name for name, parameter in layer.named_parameters() if parameter.requires_grad] == ["lora_a", "lora_b"]
    bound = 1 / math.sqrt(30)  # kaiming with a = sqrt(5), as in nn.Linear
    assert 0.8 * bound < layer.lora_a.abs().max() <= bound
    assert not layer.lora_b.any() and layer.lora_scale.item() == 4.0
    names = ["weight", "bias", "lora_a", "lora_b", "lora_scale"]
    assert list(layer.state_dict()) == names


@pytest.mark.parametrize("kind", TRUNKS)
def test_fresh_adapters_leave_the_trunk_as_it_was_and_each_reaches_its_output(kind):
    trunk = make_trunk(kind, torch.float64)
    before = trunk(images(torch.float64))
    assert adapt(trunk, kind) == TRUNKS[kind][2] * 2
    after = trunk(images(torch.float64))
    assert gap(before, after) < 1e-12
    after.sin().sum().backward()
    for name, parameter in trunk.named_parameters():
        assert parameter.requires_grad == name.endswith(("lora_a", "lora_b")), name
        if name.endswith("lora_b"):  # with B = 0 the gradient of A is 0
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", TRUNKS)
def test_trained_adapters_change_the_trunk_and_merge_into_it(kind, dtype):
    trunk = make_trunk(kind, dtype)
    base, frozen = trunk(images(dtype)), {name: value.clone() for name, value in trunk.state_dict().items()}
    count = adapt(trunk, kind)
    train(trunk, dtype)
    adapted = trunk(images(dtype))
    assert gap(adapted, base) > 1e-3
    assert all(torch.equal(trunk.state_dict()[name], value) for name, value in frozen.items())
    folded = fold_lora(trunk.state_dict())
    assert merge_lora(trunk) == count and merge_lora(trunk) == 0
    assert gap(trunk(images(dtype)), adapted) < rounding(TERMS, dtype) * max(1, float(adapted.detach().abs().max()))
    assert not any(parameter.requires_grad for parameter in trunk.parameters())
    assert {type(module) for module in trunk.modules()}.isdisjoint({LoRALinear})
    merged = trunk.state_dict()
    assert folded.keys() == merged.keys() == frozen.keys()
    assert all(torch.equal(folded[name], merged[name]) for name in merged)


def test_number_of_trained_weights_is_r_times_the_sides():
    trunk = make_trunk("plain")
    add_lora(trunk.blocks[1:], 3, 16.0, ("attn.qkv", "mlp"))
    trained = sum(parameter.numel() for parameter in trunk.parameters() if parameter.requires_grad)
    assert trained == 3 * ((24 + 72) + (24 + 96) + (96 + 24))
    assert not any("lora" in name for name in trunk.blocks[0].state_dict())
    assert isinstance(trunk.blocks[1].attn.qkv, LoRALinear) and type(trunk.blocks[1].attn.proj) is nn.Linear


def test_overlapping_targets_adapt_a_layer_once():
    trunk = make_trunk("plain")
    assert add_lora(trunk.blocks, 2, 1.0, ("attn", "attn.qkv", "attn")) == 4


def test_copies_learn_apart_from_the_original():
    trunk = make_trunk("plain")
    adapt(trunk, "plain")
    block = trunk.blocks[1]
    copy = deepcopy(block)
    x = torch.randn(2, 5, 24)
    assert torch.equal(copy(x), block(x))
    nn.init.normal_(copy.attn.qkv.lora_b)
    assert not torch.equal(copy(x), block(x)) and not block.attn.qkv.lora_b.any()
    block.requires_grad_(False)
    assert copy.attn.qkv.lora_a.requires_grad and not copy.attn.qkv.weight.requires_grad


def test_adapters_follow_the_mode_of_their_layer_and_keep_random_numbers_of_others():
    linear = nn.Linear(4, 4).eval()
    torch.manual_seed(3)
    layer = LoRALinear(linear, 2, 1.0)
    after = torch.rand(1)
    torch.manual_seed(3)
    nn.init.kaiming_uniform_(torch.empty(2, 4), a=math.sqrt(5))  # A alone is drawn
    assert torch.equal(torch.rand(1), after)
    assert not layer.training and not layer.merged().training


def test_half_precision_of_autocast_and_of_the_weights_works():
    layer = LoRALinear(nn.Linear(8, 6), 2, 3.0)
    nn.init.normal_(layer.lora_b)
    x = torch.randn(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), atol=0.1, rtol=0.05)
    half = deepcopy(layer).bfloat16()
    assert half(x.bfloat16()).dtype == half.merged().weight.dtype == torch.bfloat16


def test_meta_device_holds_no_memory_and_takes_saved_adapters():
    trained = make_trunk("plain")
    adapt(trained, "plain")
    train(trained, torch.float32, steps=1)
    with torch.device("meta"):
        outline = VisionTransformer(**SIZE)
        adapt(outline, "plain")
    assert all(value.is_meta for value in outline.state_dict().values())
    outline.load_state_dict(trained.state_dict(), assign=True)
    assert torch.equal(outline(images()), trained(images()))


def test_folding_touches_nothing_but_the_adapters():
    plain = make_trunk("plain").state_dict()
    folded = fold_lora(plain)
    assert list(folded) == list(plain) and all(folded[name] is plain[name] for name in plain)
    layer = LoRALinear(nn.Linear(4, 3), 2, 5.0)
    nn.init.normal_(layer.lora_b)
    weights = {"x.counter": torch.tensor(7), **{f"x.{name}": value for name, value in layer.state_dict().items()}}
    kept = {name: value.clone() for name, value in weights.items()}
    folded = fold_lora(weights)
    assert list(folded) == ["x.counter", "x.weight", "x.bias"]
    delta = torch.einsum("or,ri->oi", kept["x.lora_b"].double(), kept["x.lora_a"].double()) * 2.5
    torch.testing.assert_close(folded["x.weight"].double(), kept["x.weight"].double() + delta, **bounds(2 + 3, 2.5))
    assert all(torch.equal(weights[name], kept[name]) for name in kept)  # the file's weights stay as they were


@pytest.mark.parametrize("lost", ["weight", "lora_a", "lora_b", "lora_scale"])
def test_an_incomplete_adapter_is_refused_by_name(lost):
    weights = {f"base.x.{name}": value for name, value in LoRALinear(nn.Linear(4, 3), 2, 5.0).state_dict().items()}
    del weights[f"base.x.{lost}"]
    with pytest.raises(DataError, match=rf"adapter of base.x.weight is incomplete: base.x.{lost} is not"):
        fold_lora(weights)


@pytest.mark.parametrize(
    ("part", "shape"),
    [("lora_a", (3, 4)), ("lora_a", (2, 5)), ("lora_b", (1, 2)), ("lora_scale", (1,)), ("lora_a", ())],
)
def test_an_adapter_of_another_shape_is_refused_with_the_shapes(part, shape):
    weights = {f"x.{name}": value for name, value in LoRALinear(nn.Linear(4, 3), 2, 5.0).state_dict().items()}
    weights[f"x.{part}"] = torch.zeros(shape)
    with pytest.raises(DataError, match=r"adapter of x.weight \[3, 4\] does not fit it"):
        fold_lora(weights)


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (("attn.qvk",), r"got 'attn.qvk'.* of a Block: attn.qkv, attn.proj, mlp.fc1, mlp.fc2; did you mean attn.qkv\?"),
        (("attn", "mpl"), r"got 'mpl'.*did you mean mlp\?"),
        (("qkv",), "got 'qkv'"),
        (("attn.q",), "got 'attn.q'"),
        (("",), "got ''"),
        (("norm1",), "got 'norm1'"),
    ],
)
def test_a_target_that_is_no_linear_layer_is_refused_with_the_choices(targets, words):
    with pytest.raises(ConfigError, match=f"MODEL.LORA.TARGETS {words}"):
        add_lora(make_trunk("plain").blocks, 2, 1.0, targets)


def test_layers_with_a_forward_of_their_own_are_not_adapted():
    attention = nn.TransformerEncoderLayer(8, 2, 16)  # torch reads the weight of its out_proj past forward
    with pytest.raises(ConfigError, match="got 'self_attn'.*: linear1, linear2$"):
        add_lora([attention], 2, 1.0, ("self_attn",))
    trunk = make_trunk("plain")
    adapt(trunk, "plain")
    with pytest.raises(ConfigError, match="got 'attn'.*: none"):
        adapt(trunk, "plain")


@pytest.mark.parametrize("rank", [0, -1, 25])
def test_a_rank_that_the_layer_cannot_have_is_refused(rank):
    with pytest.raises(ConfigError, match=f"MODEL.LORA.RANK got {rank}, allowed: 1 to 24 for a layer from 24 to 72"):
        add_lora(make_trunk("plain").blocks, rank, 1.0, ("attn.qkv",))
