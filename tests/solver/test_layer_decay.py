"""Layer-wise learning-rate decay: which parameter is in which layer, and what the schedule makes of it."""

import logging
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay
from torch import nn

from losses import make_loss
from model.backbones import vit
from model.layers.lora import add_lora
from model.parts import Part
from model.transreid import TransReID
from solver import EpochScheduler, create_scheduler, make_optimizer
from solver.layer_decay import layer_scale
from solver.make_optimizer import GroupRule, group_parameters
from tests.cfgs import cfg_with
from utils.errors import ConfigError

HALF = ("SOLVER.LAYER_DECAY", 0.5)
DIFFERENT = ("SOLVER.BIAS_LR_FACTOR", 2.0, "SOLVER.WEIGHT_DECAY", 1e-4, "SOLVER.WEIGHT_DECAY_BIAS", 5e-4)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(4)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(4, 12)})
        self.gamma_1 = nn.Parameter(torch.ones(4))


class Base(nn.Module):
    depth = 3
    part_of = vit.VisionTransformer.part_of


class Reid(nn.Module):
    """The names of a jigsaw model of 3 blocks with side information, a projection head and a CLIP tower."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Base()
        for name in ("cls_token", "reg_token", "pos_embed", "sie_embed"):
            self.base.register_parameter(name, nn.Parameter(torch.zeros(1, 1, 4)))
        self.base.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, 4, 2)})
        self.base.rope = nn.Module()
        self.base.rope.freqs = nn.Parameter(torch.zeros(2))
        self.base.norm_pre = nn.LayerNorm(4)
        self.base.blocks = nn.ModuleList(Block() for _ in range(3))
        self.base.norm = nn.LayerNorm(4)
        self.b1 = nn.Sequential(Block(), nn.LayerNorm(4))
        self.b2 = nn.Sequential(Block(), nn.LayerNorm(4))
        self.base.blocks[2].requires_grad_(False)
        self.base.norm.requires_grad_(False)
        self.classifier = nn.Linear(4, 5, bias=False)
        self.bottleneck_1 = nn.BatchNorm1d(4)
        self.supcon_head = nn.Sequential(nn.Linear(4, 4))
        self.clip_model = nn.ModuleDict({"visual": nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(4, 4)])})})
        self.fuse = nn.Linear(8, 4)

    def part_of(self, name: str) -> Part:
        return Part("trunk", 4, tower=True) if name.startswith("clip_model.") else TransReID.part_of(self, name)


# depth 3, decay 1/2: 2^-(4 - layer) with the input as layer 0, block i as layer i + 1, the copies of the last as 3
BY_HAND = {
    "base.cls_token": 1 / 16,
    "base.reg_token": 1 / 16,
    "base.pos_embed": 1 / 16,
    "base.patch_embed.proj.weight": 1 / 16,
    "base.patch_embed.proj.bias": 1 / 16,
    "base.rope.freqs": 1 / 16,
    "base.norm_pre.weight": 1 / 16,
    "base.norm_pre.bias": 1 / 16,
    "base.blocks.0.norm1.weight": 1 / 8,
    "base.blocks.0.norm1.bias": 1 / 8,
    "base.blocks.0.attn.qkv.weight": 1 / 8,
    "base.blocks.0.attn.qkv.bias": 1 / 8,
    "base.blocks.0.gamma_1": 1 / 8,
    "base.blocks.1.norm1.weight": 1 / 4,
    "base.blocks.1.norm1.bias": 1 / 4,
    "base.blocks.1.attn.qkv.weight": 1 / 4,
    "base.blocks.1.attn.qkv.bias": 1 / 4,
    "base.blocks.1.gamma_1": 1 / 4,
    "b1.0.norm1.weight": 1 / 2,
    "b1.0.norm1.bias": 1 / 2,
    "b1.0.attn.qkv.weight": 1 / 2,
    "b1.0.attn.qkv.bias": 1 / 2,
    "b1.0.gamma_1": 1 / 2,
    "b2.0.norm1.weight": 1 / 2,
    "b2.0.norm1.bias": 1 / 2,
    "b2.0.attn.qkv.weight": 1 / 2,
    "b2.0.attn.qkv.bias": 1 / 2,
    "b2.0.gamma_1": 1 / 2,
    "b1.1.weight": 1,
    "b1.1.bias": 1,
    "b2.1.weight": 1,
    "b2.1.bias": 1,
    "base.sie_embed": 1,
    "classifier.weight": 1,
    "bottleneck_1.weight": 1,
    "bottleneck_1.bias": 1,
    "supcon_head.0.weight": 1,
    "supcon_head.0.bias": 1,
    "clip_model.visual.blocks.0.weight": 1,
    "clip_model.visual.blocks.0.bias": 1,
    "fuse.weight": 1,
    "fuse.bias": 1,
}


def build(*opts: object, model: nn.Module | None = None) -> tuple[nn.Module, torch.optim.Optimizer, EpochScheduler]:
    cfg = cfg_with("SOLVER.OPTIMIZER_NAME", "SGD", "SOLVER.BASE_LR", 0.008, *opts)
    model = model or Reid()
    optimizer, _ = make_optimizer(cfg, model, make_loss(cfg, 5, 4))
    return model, optimizer, create_scheduler(cfg, optimizer)


def group_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    pairs = [(names[id(parameter)], group) for group in optimizer.param_groups for parameter in group["params"]]
    assert len(pairs) == len(dict(pairs))  # none is in two groups
    return dict(pairs)


def test_scale_of_every_trained_parameter_is_the_one_computed_by_hand():
    model, optimizer, _ = build(*HALF, *DIFFERENT)
    groups = group_of(model, optimizer)
    assert {name: group["lr_scale"] for name, group in groups.items()} == BY_HAND
    assert groups.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, group in groups.items():
        is_bias = "bias" in name
        plain = 0.008 if name.startswith("clip_model") or not is_bias else 0.016
        assert group["initial_lr"] == plain, name
        assert group["weight_decay"] == (5e-4 if is_bias else 1e-4), name


def test_frozen_blocks_count_towards_the_depth_and_are_in_no_group():
    model = Reid()
    model.base.blocks[:1].requires_grad_(False)
    for name, parameter in model.base.named_parameters():
        if name.startswith("patch_embed"):
            parameter.requires_grad_(False)
    _, optimizer, _ = build(*HALF, model=model)
    scales = {name: group["lr_scale"] for name, group in group_of(model, optimizer).items()}
    frozen = ("base.blocks.0.", "base.patch_embed.")
    assert scales == {name: scale for name, scale in BY_HAND.items() if not name.startswith(frozen)}


def test_adapters_belong_to_their_block():
    model = Reid()
    model.base.requires_grad_(False)
    add_lora(model.base.blocks, 2, 4.0, ("attn",))
    _, optimizer, _ = build(*HALF, model=model)
    scales = {name: group["lr_scale"] for name, group in group_of(model, optimizer).items() if "lora" in name}
    by_block = enumerate((1 / 8, 1 / 4, 1 / 2))
    assert scales == {
        f"base.blocks.{block}.attn.qkv.lora_{part}": scale for block, scale in by_block for part in ("a", "b")
    }


@pytest.mark.parametrize("opts", [(), DIFFERENT, (*DIFFERENT, "SOLVER.LARGE_FC_LR", True)])
def test_decay_one_leaves_at_most_a_group_a_kind_all_of_scale_one(opts):
    _, optimizer, _ = build(*opts)
    settings = [(group["initial_lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert len(settings) == len(set(settings))
    assert all(group["lr_scale"] == 1 for group in optimizer.param_groups)


def test_first_group_has_the_rate_of_the_heads():
    model, optimizer, scheduler = build(*HALF, *DIFFERENT)
    first = optimizer.param_groups[0]
    assert first is group_of(model, optimizer)["classifier.weight"]
    assert scheduler.lr_at(20)[0] == max(
        rate
        for rate, group in zip(scheduler.lr_at(20), optimizer.param_groups, strict=True)
        if "bias" not in group["name"]
    )


@pytest.mark.parametrize("kind", ["cosine", "multistep"])
def test_a_layer_follows_the_schedule_of_the_heads_times_its_factor(kind):
    opts = (*DIFFERENT, "SOLVER.SCHEDULER", kind, "SOLVER.MAX_EPOCHS", 40, "SOLVER.STEPS", (10, 30))
    model, optimizer, scheduler = build(*HALF, *opts)
    plain_model, plain_optimizer, plain_scheduler = build(*opts)
    decayed, plain = group_of(model, optimizer), group_of(plain_model, plain_optimizer)
    for name in decayed:
        assert decayed[name]["lr"] == pytest.approx(BY_HAND[name] * plain[name]["lr"])
    for epoch in range(1, 45):
        scheduler.step(epoch)
        plain_scheduler.step(epoch)
        for name, group in decayed.items():
            assert group["lr"] == pytest.approx(BY_HAND[name] * plain[name]["lr"], rel=1e-12), (epoch, name)


def test_state_of_a_decayed_run_continues_where_it_was(tmp_path):
    model, optimizer, scheduler = build(*HALF, *DIFFERENT)
    scheduler.step(7)
    sum(p.square().sum() for p in model.parameters() if p.requires_grad).backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "state.pth")
    _, other, resumed = build(*HALF, *DIFFERENT)
    other.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    assert resumed.last_lr == scheduler.last_lr
    scheduler.step(8)
    resumed.step(8)
    assert resumed.last_lr == scheduler.last_lr
    with pytest.raises(ValueError, match="group"):  # which a resumed run reports as a state that does not fit
        build()[1].load_state_dict(optimizer.state_dict())


def test_log_is_one_line_a_kind_with_the_range_of_its_rates(caplog):
    with caplog.at_level(logging.INFO):
        build(*HALF, *DIFFERENT)
    lines = [record.getMessage() for record in caplog.records if "optimizer group" in record.getMessage()]
    assert lines == [
        "optimizer group 'weight + CLIP weight': 8 tensors, lr 0.008, weight decay 0.0001",
        "optimizer group 'bias': 15 tensors, lr 0.001 to 0.016 in 5 layers, weight decay 0.0005",
        "optimizer group 'CLIP bias': 1 tensors, lr 0.008, weight decay 0.0005",
        "optimizer group 'weight': 18 tensors, lr 0.0005 to 0.004 in 4 layers, weight decay 0.0001",
    ]


def test_the_last_layer_has_factor_one_however_many_layers_there_are():
    assert [layer_scale(layer, 3, 0.5) for layer in range(4)] == [1 / 8, 1 / 4, 1 / 2, 1]
    assert layer_scale(1, 1, 0.5) == 1 and layer_scale(0, 12, 1.0) == 1


@pytest.mark.parametrize("architecture", [VisionTransformer, partial(VisionTransformer, pre_norm=True), Eva])
def test_factors_of_a_trunk_are_those_of_timm(architecture):
    trunk = architecture(img_size=8, patch_size=4, embed_dim=8, depth=5, num_heads=2, num_classes=3)
    groups = param_groups_layer_decay(trunk, layer_decay=0.65)
    expected = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    assert len(set(expected.values())) == 7  # input, 5 blocks, head
    for name, parameter in trunk.named_parameters():
        part = vit.VisionTransformer.part_of(SimpleNamespace(depth=5), name)
        if name.startswith("norm_pre."):  # timm before 1.0.31 counts it to the last block
            assert part.layer == 0
        elif not name.startswith("norm."):  # timm counts it to the last block, BEiT and this to the head
            assert layer_scale(part.layer, 6, 0.65) == pytest.approx(expected[id(parameter)], rel=1e-12), name


def test_decay_without_blocks_is_refused_by_key():
    named = [("base.conv1.weight", nn.Parameter(torch.zeros(2)))]
    with pytest.raises(ConfigError, match="SOLVER.LAYER_DECAY got 0.75, but the model has no transformer blocks"):
        group_parameters(named, lambda name: Part("trunk", 1), GroupRule(0.01, 0.0, layer_decay=0.75))
