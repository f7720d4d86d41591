"""Batch normalisation over two processes against torch's own on the whole batch."""

import pytest
import torch
from torch import nn

from model.layers.heads import make_neck
from model.layers.synced_norm import SyncedNorm, sync_norms
from tests.ranks import results_of_ranks
from tests.tolerance import assert_rounded, jittered

CPU = torch.device("cpu")
SPLIT = (5, 3)  # rows of each process: also unequal shares make the statistics of the whole batch
SHAPES = {"neck": (8, 6), "maps": (8, 6, 3, 2), "no_affine": (8, 6, 4), "mean_of_all": (8, 6)}


def make_norm(kind: str) -> nn.Module:
    torch.manual_seed(1)
    if kind == "neck":
        norm = make_neck(6)
    elif kind == "maps":
        norm = nn.BatchNorm2d(6, momentum=0.3, eps=1e-3)
    else:
        norm = nn.BatchNorm1d(6, affine=kind != "no_affine", momentum=None)
    for name, weight in norm.named_parameters():
        nn.init.normal_(weight, mean=float(name == "weight"))
    return nn.Sequential(norm)


def make_inputs(kind: str) -> torch.Tensor:
    """Return inputs whose mean is far from 0: the variance must not drown in it."""
    return torch.randn(SHAPES[kind], generator=torch.Generator().manual_seed(2)) + 300


def train_twice(model: nn.Module, inputs: torch.Tensor) -> dict:
    """Return output, gradients and state after two steps on `inputs` with the loss sum(output * cos(inputs))."""
    model.train()
    for _ in range(2):
        model.zero_grad()
        leaf = inputs.clone().requires_grad_()
        output = model(leaf)
        (output * inputs.cos()).sum().backward()
    grads = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    evaluated = model.eval()(inputs).detach()
    return {"output": output.detach(), "input": leaf.grad, "weights": grads, "eval": evaluated, **model.state_dict()}


def train_share(rank: int) -> dict[str, dict]:
    results = {}
    for kind in SHAPES:
        model = make_norm(kind)
        sync_norms(model, CPU)
        results[kind] = train_twice(model, make_inputs(kind).split(SPLIT)[rank])
    return results


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return results_of_ranks(train_share, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("kind", SHAPES)
def test_two_processes_normalise_as_one_on_the_whole_batch(shares, kind):
    inputs = make_inputs(kind)
    exact = train_twice(make_norm(kind).double(), inputs.double())
    slow = [train_twice(make_norm(kind), jittered(inputs, draw)) for draw in range(1, 4)]
    one, other = (share[kind] for share in shares)
    for name, value in exact.items():
        others = [run[name] for run in slow]
        if name in ("output", "input", "eval"):
            assert_rounded(torch.cat([one[name], other[name]]), value, others, name=name)
        elif name == "weights":
            assert value.keys() == one[name].keys() == other[name].keys()
            for weight, grad in value.items():
                total = one[name][weight] + other[name][weight]
                assert_rounded(total, grad, [run[weight] for run in others], name=weight)
        elif value.is_floating_point():
            for got in (one[name], other[name]):
                assert_rounded(got, value, others, name=name)
        else:
            assert one[name] == other[name] == value


def test_conversion_keeps_names_objects_and_switches():
    model = nn.ModuleDict({"neck": make_neck(4), "maps": nn.Sequential(nn.BatchNorm2d(4).double().eval())})
    before, state = dict(model.named_parameters()), list(model.state_dict())
    frozen = [name for name, weight in before.items() if not weight.requires_grad]
    sync_norms(model, CPU)
    assert isinstance(model["neck"], SyncedNorm) and isinstance(model["maps"][0], SyncedNorm)
    assert all(weight is before[name] for name, weight in model.named_parameters())
    assert list(model.state_dict()) == state
    assert [name for name, weight in model.named_parameters() if not weight.requires_grad] == frozen == ["neck.bias"]
    assert model["neck"].training and not model["maps"][0].training
    assert model["maps"][0].running_var.dtype == torch.float64


def test_alone_it_is_torchs_batch_normalisation():
    plain, synced = make_norm("maps"), make_norm("maps")
    sync_norms(synced, CPU)
    one, other = train_twice(plain, make_inputs("maps")), train_twice(synced, make_inputs("maps"))
    assert torch.equal(one["output"], other["output"]) and torch.equal(one["0.running_var"], other["0.running_var"])


def test_on_gpus_it_is_torchs_own():
    model = make_norm("maps")
    sync_norms(model, torch.device("cuda"))
    assert type(model[0]) is nn.SyncBatchNorm and model[0].momentum == 0.3 and model[0].eps == 1e-3


def test_an_input_without_channels_is_refused():
    model = make_norm("no_affine")
    sync_norms(model, CPU)
    with pytest.raises(ValueError, match=r"needs \[B, C, ...\], got \[6\]"):
        model(torch.zeros(6))
