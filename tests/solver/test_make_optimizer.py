"""Parameter groups and optimizers."""

import logging

import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from losses import make_loss
from model.parts import Part
from solver import create_scheduler, make_optimizer
from tests.cfgs import cfg_with
from utils.errors import ConfigError


class Net(nn.Module):
    """The kinds of names that the rules look at."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 4))
        self.bottleneck = nn.BatchNorm1d(4)
        self.bottleneck.bias.requires_grad_(False)
        self.classifier = nn.Linear(4, 5)
        self.classifier_1 = nn.Linear(4, 5, bias=False)
        self.relative_bias_table = nn.Parameter(torch.zeros(2))

    def part_of(self, name: str) -> Part:
        kinds = {"base": "trunk", "classifier": "head", "classifier_1": "head"}
        return Part(kinds.get(name.split(".")[0], "new"), layer=1)


def sgd_cfg(*opts: object) -> CfgNode:
    return cfg_with("SOLVER.OPTIMIZER_NAME", "SGD", "SOLVER.BASE_LR", 0.01, *opts)


def build(
    *opts: object, model: nn.Module | None = None
) -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.Optimizer | None]:
    cfg = sgd_cfg(*opts)
    model = model or Net()
    return model, *make_optimizer(cfg, model, make_loss(cfg, 5, 4))


def settings_by_name(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


DIFFERENT = ("SOLVER.BIAS_LR_FACTOR", 2.0, "SOLVER.WEIGHT_DECAY", 1e-4, "SOLVER.WEIGHT_DECAY_BIAS", 5e-4)


@pytest.mark.parametrize("large_fc", [False, True])
@pytest.mark.parametrize("opts", [(), DIFFERENT])
def test_every_trainable_parameter_is_in_exactly_one_of_at_most_four_groups(large_fc, opts):
    model, optimizer, _ = build("SOLVER.LARGE_FC_LR", large_fc, *opts)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)
    assert len(optimizer.param_groups) <= 4
    assert len({(group["lr"], group["weight_decay"]) for group in optimizer.param_groups}) == len(
        optimizer.param_groups
    )


def test_bias_rule_goes_by_the_substring():
    model, optimizer, _ = build(*DIFFERENT)
    settings = settings_by_name(model, optimizer)
    assert len(optimizer.param_groups) == 2
    for name, (lr, weight_decay) in settings.items():
        assert (lr, weight_decay) == ((0.02, 5e-4) if "bias" in name else (0.01, 1e-4)), name
    assert settings["relative_bias_table"] == (0.02, 5e-4)
    assert "bottleneck.bias" not in settings and "bottleneck.weight" in settings


def test_large_fc_lr_overrides_the_bias_factor_but_not_its_decay():
    model, optimizer, _ = build(*DIFFERENT, "SOLVER.LARGE_FC_LR", True, "SOLVER.FC_LR_FACTOR", 3.0)
    settings = settings_by_name(model, optimizer)
    assert settings["classifier.weight"] == settings["classifier_1.weight"] == (pytest.approx(0.03), 1e-4)
    assert settings["classifier.bias"] == (pytest.approx(0.03), 5e-4)
    assert settings["base.0.weight"] == (0.01, 1e-4) and settings["base.0.bias"] == (0.02, 5e-4)
    assert len(optimizer.param_groups) == 4


class Fused(Net):
    """A model with a CLIP tower and layers that fuse it."""

    def __init__(self) -> None:
        super().__init__()
        self.clip_model = nn.ModuleDict({"visual": nn.Linear(3, 4), "classifier": nn.Linear(4, 4)})
        self.clip_fuse = nn.Linear(8, 4)

    def part_of(self, name: str) -> Part:
        return Part("trunk", layer=1, tower=True) if name.startswith("clip_model.") else super().part_of(name)


def test_clip_tower_has_its_own_rate_for_weights_and_biases_and_the_usual_decay():
    opts = (*DIFFERENT, "SOLVER.LARGE_FC_LR", True, "SOLVER.FC_LR_FACTOR", 3.0, "MODEL.CLIP_LR_SCALE", 0.2)
    model, optimizer, _ = build(*opts, model=Fused())
    settings = settings_by_name(model, optimizer)
    for part in ("visual", "classifier"):
        assert settings[f"clip_model.{part}.weight"] == (pytest.approx(0.002), 1e-4)
        assert settings[f"clip_model.{part}.bias"] == (pytest.approx(0.002), 5e-4)
    assert settings["clip_fuse.weight"] == (0.01, 1e-4) and settings["clip_fuse.bias"] == (0.02, 5e-4)
    kinds = ["weight", "bias", "classifier weight", "classifier bias", "CLIP weight", "CLIP bias"]
    assert [group["name"] for group in optimizer.param_groups] == kinds


def test_clip_tower_keeps_its_share_of_the_rate_in_every_epoch():
    opts = (*DIFFERENT, "MODEL.CLIP_LR_SCALE", 0.001, "SOLVER.MAX_EPOCHS", 30, "SOLVER.WARMUP_EPOCHS", 5)
    _, optimizer, _ = build(*opts, model=Fused())
    scheduler = create_scheduler(sgd_cfg(*opts), optimizer)
    assert optimizer.param_groups[0]["name"] == "weight"  # whose rate the log shows
    names = [group["name"] for group in optimizer.param_groups]
    for epoch in range(1, 32):
        rates = dict(zip(names, scheduler.lr_at(epoch), strict=True))
        assert rates["CLIP weight"] == rates["CLIP bias"] == pytest.approx(0.001 * rates["weight"], rel=1e-12)


def test_a_clip_tower_that_learns_faster_is_not_the_rate_that_is_logged():
    _, optimizer, _ = build(*DIFFERENT, "MODEL.CLIP_LR_SCALE", 5.0, model=Fused())
    assert optimizer.param_groups[0]["name"] == "weight"


def test_without_a_separate_rate_the_clip_tower_is_like_the_rest():
    model, optimizer, _ = build(*DIFFERENT, "MODEL.CLIP_LR_SCALE", 0.2, "MODEL.CLIP_SEPARATE_LR", False, model=Fused())
    settings = settings_by_name(model, optimizer)
    assert settings["clip_model.visual.weight"] == settings["clip_fuse.weight"] == (0.01, 1e-4)
    assert settings["clip_model.visual.bias"] == settings["clip_fuse.bias"] == (0.02, 5e-4)


def test_a_clip_scale_of_one_changes_the_bias_factor_only():
    model, optimizer, _ = build(*DIFFERENT, model=Fused())
    settings = settings_by_name(model, optimizer)
    assert settings["clip_model.visual.weight"] == settings["clip_fuse.weight"] == (0.01, 1e-4)
    assert settings["clip_model.visual.bias"] == (0.01, 5e-4)
    assert [group["name"] for group in optimizer.param_groups] == ["weight + CLIP weight", "bias", "CLIP bias"]


def test_log_says_tensors_rate_and_decay_of_each_group(caplog):
    with caplog.at_level(logging.INFO):
        build(*DIFFERENT)
    assert [record.getMessage() for record in caplog.records if "optimizer group" in record.getMessage()] == [
        "optimizer group 'weight': 6 tensors, lr 0.01, weight decay 0.0001",
        "optimizer group 'bias': 5 tensors, lr 0.02, weight decay 0.0005",
    ]


def test_groups_with_equal_settings_are_merged_and_named():
    _, optimizer, _ = build("SOLVER.WEIGHT_DECAY", 1e-4, "SOLVER.WEIGHT_DECAY_BIAS", 1e-4)
    assert [group["name"] for group in optimizer.param_groups] == ["weight + bias"]
    assert optimizer.param_groups[0]["initial_lr"] == 0.01
    assert optimizer.param_groups[0]["lr_scale"] == 1
    _, optimizer, _ = build(*DIFFERENT, "SOLVER.LARGE_FC_LR", True, "SOLVER.FC_LR_FACTOR", 3.0)
    rates = [(group["name"], group["initial_lr"]) for group in optimizer.param_groups]
    assert rates[:2] == [("weight", 0.01), ("bias", 0.02)]  # plain weights first: theirs is the rate that is logged
    assert rates[2:] == [("classifier weight", pytest.approx(0.03)), ("classifier bias", pytest.approx(0.03))]


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "NAdam"])
def test_optimizer_steps_like_torch_with_one_group_per_tensor(name):
    torch.manual_seed(0)
    fast, slow = Net().double(), Net().double()
    slow.load_state_dict(fast.state_dict())
    _, optimizer, center_optimizer = build(*DIFFERENT, "SOLVER.OPTIMIZER_NAME", name, model=fast)
    groups = [
        {"params": [p], "lr": 0.02 if "bias" in n else 0.01, "weight_decay": 5e-4 if "bias" in n else 1e-4}
        for n, p in slow.named_parameters()
        if p.requires_grad
    ]
    options = {"momentum": 0.9} if name == "SGD" else {}
    reference = getattr(torch.optim, name)(groups, lr=0.01, foreach=False, **options)
    for _ in range(3):
        images = torch.randn(6, 3, dtype=torch.float64)
        for model, steps in ((fast, optimizer), (slow, reference)):
            steps.zero_grad()
            feat = model.bottleneck(model.base(images))
            (model.classifier(feat) + model.classifier_1(feat)).square().mean().backward()
            steps.step()
    assert center_optimizer is None
    for expected, value in zip(slow.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(("name", "fused"), [("SGD", True), ("Adam", True), ("AdamW", True), ("RMSprop", None)])
def test_cpu_runs_fused_where_the_class_can_and_never_foreach(name, fused):
    _, optimizer, _ = build("SOLVER.OPTIMIZER_NAME", name)
    for group in optimizer.param_groups:
        assert group.get("fused") == fused
        assert not group["foreach"]


def test_state_survives_a_weights_only_round_trip(tmp_path):
    model, optimizer, _ = build(*DIFFERENT)
    sum(p.square().sum() for p in model.parameters() if p.requires_grad).backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "state.pth")
    _, other, _ = build(*DIFFERENT, model=model)
    other.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    assert [group["name"] for group in other.param_groups] == ["weight", "bias"]
    for key, state in optimizer.state_dict()["state"].items():
        assert torch.equal(other.state_dict()["state"][key]["momentum_buffer"], state["momentum_buffer"])


@pytest.mark.parametrize("name", ["AdamWW", "LBFGS", "Optimizer", "SparseAdam", "Muon", "lr_scheduler"])
def test_unknown_or_unsuitable_optimizer_is_refused_with_the_choices(name):
    with pytest.raises(ConfigError, match=f"SOLVER.OPTIMIZER_NAME got '{name}', allowed: .*AdamW.*SGD"):
        build("SOLVER.OPTIMIZER_NAME", name)


def test_optimizer_without_weight_decay_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        build("SOLVER.OPTIMIZER_NAME", "Rprop")
    assert "Rprop has no weight decay" in caplog.text


def test_model_without_a_trainable_parameter_is_refused():
    with pytest.raises(ConfigError, match="no trainable parameter"):
        build(model=Net().requires_grad_(False))
