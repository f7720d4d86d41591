"""Batch normalisation of some rows against torch's own on these rows alone, also over two processes."""

import pytest
import torch
from torch import nn

from model.layers.heads import make_neck
from model.layers.masked_norm import MaskedNorm
from model.layers.synced_norm import sync_norms
from tests.ranks import results_of_ranks
from tests.tolerance import assert_rounded, jittered

ROWS, WIDTH = 9, 5
SPLIT = (6, 3)
MASKS = {
    "some": [1, 0, 1, 1, 0, 1, 0, 0, 1],
    "all": [1] * ROWS,
    "two": [0, 0, 1, 0, 0, 0, 0, 1, 0],
    "of_one_process": [1, 1, 0, 1, 0, 0, 0, 0, 0],
}


def make_norm() -> MaskedNorm:
    torch.manual_seed(0)
    neck = make_neck(WIDTH, MaskedNorm)
    nn.init.normal_(neck.weight, mean=1.0)
    nn.init.normal_(neck.bias)
    return neck


def mask_of(kind: str) -> torch.Tensor:
    return torch.tensor(MASKS[kind], dtype=torch.bool)


def rows() -> torch.Tensor:
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1)) + 30


def results_of(norm: nn.Module, x: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output, gradients, statistics and evaluation after two steps with the loss sum(output cos(rows))."""
    norm.train()
    factors = torch.nan_to_num(x).cos()
    for _ in range(2):
        leaf = x.clone().requires_grad_()
        norm.weight.grad = None
        output = norm(leaf, mask)
        (output * factors).sum().backward()
    found = {"output": output.detach(), "input": leaf.grad, "weight": norm.weight.grad}
    evaluated = norm.eval()(x, mask).detach()
    return found | {"eval": evaluated, "mean": norm.running_mean, "variance": norm.running_var}


def plain_results(mask: torch.Tensor, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same of torch's BatchNorm1d, which sees the chosen rows alone."""
    norm, own = make_norm(), nn.BatchNorm1d(WIDTH)
    own.load_state_dict(norm.state_dict())
    own = own.to(x.dtype)

    class Chosen(nn.Module):
        weight, running_mean, running_var = own.weight, own.running_mean, own.running_var

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            whole = torch.zeros_like(x)
            whole[mask] = own.train(self.training)(x[mask])
            return whole

    return results_of(Chosen(), x, mask)


@pytest.mark.parametrize("kind", MASKS)
def test_it_is_torchs_on_the_chosen_rows(kind):
    mask = mask_of(kind)
    exact = plain_results(mask, rows().double())
    slow = [plain_results(mask, jittered(rows(), draw)) for draw in range(1, 4)]
    for name, got in results_of(make_norm(), rows(), mask).items():
        assert_rounded(got, exact[name], [run[name] for run in slow], name=name)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_other_rows_change_nothing(value):
    mask = mask_of("some")
    spoilt = torch.where(mask[:, None], rows(), value)
    clean, other = results_of(make_norm(), rows(), mask), results_of(make_norm(), spoilt, mask)
    for name in clean:
        assert torch.equal(clean[name], other[name]), name
    assert not clean["output"][~mask].any() and not clean["input"][~mask].any() and not clean["eval"][~mask].any()


@pytest.mark.parametrize("count", [0, 1])
def test_statistics_stay_where_too_few_rows_are_chosen(count):
    norm, mask = make_norm().train(), torch.arange(ROWS) < count
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    output = norm(rows(), mask)
    output.sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    expected = torch.zeros(ROWS, WIDTH)
    expected[mask] = norm.bias.detach()
    assert torch.equal(output.detach(), expected) and norm.weight.grad.isfinite().all()


def test_names_are_those_of_batch_normalisation():
    assert list(make_norm().state_dict()) == list(nn.BatchNorm1d(WIDTH).state_dict())
    assert not make_norm().bias.requires_grad


def train_share(rank: int) -> dict[str, dict]:
    results = {}
    for kind in MASKS:
        norm = make_norm()
        sync_norms(norm, torch.device("cpu"))
        results[kind] = results_of(norm, rows().split(SPLIT)[rank], mask_of(kind).split(SPLIT)[rank])
    return results


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return results_of_ranks(train_share, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("kind", MASKS)
def test_two_processes_normalise_as_one_on_all_chosen_rows(shares, kind):
    mask = mask_of(kind)
    exact = plain_results(mask, rows().double())
    slow = [plain_results(mask, jittered(rows(), draw)) for draw in range(1, 4)]
    one, other = (share[kind] for share in shares)
    for name, value in exact.items():
        others = [run[name] for run in slow]
        if name in ("output", "input", "eval"):
            assert_rounded(torch.cat([one[name], other[name]]), value, others, name=name)
        elif name == "weight":
            assert_rounded(one[name] + other[name], value, others, name=name)
        else:
            assert torch.equal(one[name], other[name])
            assert_rounded(one[name], value, others, name=name)
