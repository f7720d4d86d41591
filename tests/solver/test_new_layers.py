"""SOLVER.NEW_LR_FACTOR, BETAS and ADAM_EPS: IRRA's rules by names, one parameter at a time."""

import inspect
import logging

import pytest
import torch
from torch import nn

from configs.keys import KEYS
from configs.keys.solver import ADAMS
from losses import make_loss
from model.parts import Part
from solver import create_scheduler, make_optimizer
from solver.make_optimizer import GroupRule, group_parameters
from tests.cfgs import cfg_with
from tests.solver.models import OneLayer

LR, DECAY, FACTOR = 1e-5, 4e-5, 5.0
IRRA = (
    *("SOLVER.BASE_LR", LR, "SOLVER.WEIGHT_DECAY", DECAY, "SOLVER.WEIGHT_DECAY_BIAS", 0.0),
    *("SOLVER.BIAS_LR_FACTOR", 2.0, "SOLVER.NEW_LR_FACTOR", FACTOR, "SOLVER.ADAM_EPS", 1e-3),
)


class Irra(nn.Module):
    """The names of IRRA's parameters, few numbers in each."""

    def __init__(self) -> None:
        super().__init__()
        tower = {"conv1": nn.Conv2d(3, 4, 2, bias=False), "ln_pre": nn.LayerNorm(4), "transformer": blocks()}
        self.base_model = nn.ModuleDict({"visual": nn.ModuleDict(tower), "transformer": blocks()})
        self.base_model.register_parameter("text_projection", nn.Parameter(torch.ones(4, 4)))
        self.base_model["token_embedding"] = nn.Embedding(9, 4)
        self.classifier = nn.Linear(4, 5)
        self.cross_attn = nn.MultiheadAttention(4, 1)
        self.cross_modal_transformer = blocks()
        self.ln_pre_t, self.ln_pre_i, self.ln_post = (nn.LayerNorm(4) for _ in range(3))
        head = {"dense": nn.Linear(4, 4), "ln": nn.LayerNorm(4), "fc": nn.Linear(4, 9)}
        self.mlm_head = nn.ModuleDict(head)

    def part_of(self, name: str) -> Part:
        if name.startswith(("classifier.", "mlm_head.")):
            return Part("head", 1)
        return Part("new" if name.startswith("cross") else "trunk", 1)


def blocks() -> nn.ModuleDict:
    block = nn.ModuleDict({"attn": nn.MultiheadAttention(4, 1), "ln_1": nn.LayerNorm(4), "c_fc": nn.Linear(4, 8)})
    return nn.ModuleDict({"resblocks": nn.ModuleList([block])})


def published_rule(name: str, factor: float = FACTOR) -> tuple[float, float]:
    """(learning rate, weight decay) of a parameter: by what its name contains, later lines win."""
    lr, decay = LR, DECAY
    if "cross" in name:
        lr = LR * factor
    if "bias" in name:
        lr, decay = LR * 2, 0.0
    if "classifier" in name or "mlm_head" in name:
        lr = LR * factor
    return lr, decay


def optimizer_of(model: nn.Module, *opts: object) -> torch.optim.Optimizer:
    cfg = cfg_with(*IRRA, *opts)
    return make_optimizer(cfg, model, make_loss(cfg, 5, 4))[0]


def settings_by_name(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("factor", [FACTOR, 0.5, 0.0])
def test_rate_and_decay_of_every_parameter_are_those_of_the_published_rule(factor):
    model = Irra()
    settings = settings_by_name(model, optimizer_of(model, "SOLVER.NEW_LR_FACTOR", factor))
    names = [name for name, _ in model.named_parameters()]
    assert settings == {name: published_rule(name, factor) for name in names}


def test_by_hand():
    model = Irra()
    settings = settings_by_name(model, optimizer_of(model))
    for name, lr, decay in (
        ("base_model.visual.conv1.weight", 1e-5, 4e-5),
        ("base_model.token_embedding.weight", 1e-5, 4e-5),
        ("base_model.transformer.resblocks.0.attn.in_proj_bias", 2e-5, 0),
        ("ln_pre_t.weight", 1e-5, 4e-5),
        ("ln_post.bias", 2e-5, 0),
        ("cross_attn.in_proj_weight", 5e-5, 4e-5),
        ("cross_attn.in_proj_bias", 2e-5, 0),
        ("cross_modal_transformer.resblocks.0.ln_1.weight", 5e-5, 4e-5),
        ("mlm_head.ln.weight", 5e-5, 4e-5),
        ("mlm_head.fc.bias", 5e-5, 0),
        ("classifier.bias", 5e-5, 0),
    ):
        assert settings[name] == pytest.approx((lr, decay), rel=1e-12, abs=0), name


def test_every_parameter_keeps_its_share_of_the_rate_in_every_epoch():
    model = Irra()
    opts = ("SOLVER.SCHEDULER", "after_warmup_cosine", "SOLVER.MAX_EPOCHS", 60, "SOLVER.WARMUP_FACTOR", 0.1)
    optimizer = optimizer_of(model, *opts)
    scheduler = create_scheduler(cfg_with(*IRRA, *opts), optimizer)
    trunk = [name == "trunk weight" for name in (group["name"] for group in optimizer.param_groups)]
    assert trunk == [True, False, False, False]  # the first is the one whose rate the log shows
    for epoch in range(1, 61):
        scheduler.step(epoch)
        now = scheduler.last_lr[0] / LR
        for name, (lr, _) in settings_by_name(model, optimizer).items():
            assert lr == pytest.approx(published_rule(name)[0] * now, rel=1e-12, abs=0), (name, epoch)


def test_log_names_trunk_new_layers_and_classifiers(caplog):
    with caplog.at_level(logging.INFO):
        optimizer_of(Irra())
    names = [record.getMessage().split("'")[1] for record in caplog.records if "optimizer group" in record.getMessage()]
    assert names == [
        *("trunk weight", "trunk bias + new layers bias", "new layers weight + classifier weight", "classifier bias"),
    ]


def test_without_the_factor_nothing_but_the_bias_tells_parameters_apart():
    model = Irra()
    optimizer = optimizer_of(model, "SOLVER.NEW_LR_FACTOR", 1.0)
    for name, (lr, decay) in settings_by_name(model, optimizer).items():
        assert (lr, decay) == ((LR * 2.0, 0.0) if "bias" in name else (LR, DECAY)), name
    assert [group["name"] for group in optimizer.param_groups] == ["weight", "bias"]


def test_the_factor_of_new_layers_wins_over_that_of_classifiers_alone():
    model = Irra()
    large = ("SOLVER.LARGE_FC_LR", True, "SOLVER.FC_LR_FACTOR", 3.0)
    assert settings_by_name(model, optimizer_of(model, *large)) == settings_by_name(model, optimizer_of(model))
    alone = settings_by_name(model, optimizer_of(model, *large, "SOLVER.NEW_LR_FACTOR", 1.0))
    assert alone["classifier.weight"] == (LR * 3.0, DECAY) and alone["cross_attn.in_proj_weight"] == (LR, DECAY)


def test_a_clip_tower_keeps_its_own_rate_beside_the_factor():
    rule = GroupRule(LR, DECAY, bias_lr_factor=2.0, new_lr_factor=FACTOR, clip_lr_scale=0.5)
    groups = group_parameters(OneLayer().named_parameters(), lambda name: Part("trunk", 1, tower=True), rule)
    assert [(group["name"], group["lr"]) for group in groups] == [("CLIP weight", LR / 2), ("CLIP bias", LR / 2)]


def test_layer_decay_and_factor_multiply():
    rule = GroupRule(LR, DECAY, new_lr_factor=FACTOR, layer_decay=0.5)
    parts = {"trunk": Part("trunk", 0), "late": Part("trunk", 2), "adapter": Part("new", 1), "head": Part("head", 2)}
    named = [(name, nn.Parameter(torch.zeros(1))) for name in parts]
    groups = group_parameters(named, parts.get, rule)
    rates = {name: group["lr"] for group in groups for name, tensor in named if tensor is group["params"][0]}
    assert rates == {"trunk": LR / 4, "late": LR, "adapter": LR * FACTOR / 2, "head": LR * FACTOR}
    assert groups[0]["name"] == "trunk weight" and groups[0]["lr_scale"] == 1


@pytest.mark.parametrize("name", ADAMS)
def test_steps_are_those_of_torch_with_these_betas_and_this_eps(name):
    torch.manual_seed(0)
    ours, theirs, plain = OneLayer().double(), OneLayer().double(), OneLayer().double()
    for other in (theirs, plain):
        other.load_state_dict(ours.state_dict())
    opts = ("SOLVER.OPTIMIZER_NAME", name, "SOLVER.BETAS", [0.8, 0.95], "SOLVER.BASE_LR", 0.1)
    groups = [
        {"params": [theirs.weight], "lr": 0.1, "weight_decay": DECAY},
        {"params": [theirs.bias], "lr": 0.2, "weight_decay": 0.0},
    ]
    reference = getattr(torch.optim, name)(groups, betas=(0.8, 0.95), eps=1e-3, foreach=False)
    default = optimizer_of(plain, *opts[:2], *opts[-2:], "SOLVER.ADAM_EPS", 1e-8)
    runs = ((ours, optimizer_of(ours, *opts)), (theirs, reference), (plain, default))
    for _ in range(4):
        x = torch.randn(6, 2, dtype=torch.float64) / 30  # small gradients, which eps damps
        for model, optimizer in runs:
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(ours.bias, theirs.bias, rtol=1e-12, atol=1e-15)
    assert (ours.weight - plain.weight).abs().max() > 1e-6  # little for RAdam, which starts without the squares


def test_a_large_eps_damps_the_first_step_of_a_small_gradient():
    """Adam's first step is lr g / (|g| + eps): with g = eps half of lr."""
    model = OneLayer()
    before = model.weight.detach().clone()
    optimizer = optimizer_of(model, "SOLVER.WEIGHT_DECAY", 0.0, "SOLVER.BASE_LR", 0.1)
    (model.weight * 1e-3).sum().backward()
    optimizer.step()
    torch.testing.assert_close(before - model.weight, torch.full((2, 2), 0.05), rtol=1e-5, atol=0)


def test_the_defaults_are_torchs_own():
    model = OneLayer()
    cfg = cfg_with()
    group = make_optimizer(cfg, model, make_loss(cfg, 5, 4))[0].param_groups[0]
    own = torch.optim.Adam([nn.Parameter(torch.zeros(1))]).param_groups[0]
    assert (group["betas"], group["eps"]) == (own["betas"], own["eps"]) == ((0.9, 0.999), 1e-8)


def test_the_optimizers_with_betas_and_eps_are_those_that_torch_gives_them():
    choices = KEYS["SOLVER.OPTIMIZER_NAME"].choices
    parameters = {name: inspect.signature(getattr(torch.optim, name)).parameters for name in choices}
    assert {name for name in choices if "betas" in parameters[name]} == set(ADAMS)
    assert all("eps" in parameters[name] for name in ADAMS)
