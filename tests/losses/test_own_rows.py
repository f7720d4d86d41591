"""The mean over rows of which each process has another number."""

import pytest
import torch
import torch.distributed as dist

from losses.own_rows import mean_of_own_rows
from tests.ranks import run_in_group

ROWS = {0: [3.0, -1.0, 4.0], 1: [10.0], 2: []}  # of each process


def test_one_process_takes_the_mean_and_without_a_row_a_differentiable_zero():
    assert mean_of_own_rows(torch.tensor(ROWS[0])).item() == pytest.approx(2.0)
    empty = torch.zeros(0, requires_grad=True)
    value = mean_of_own_rows(empty)
    value.backward()
    assert value.item() == 0 and empty.grad.shape == (0,)


def test_half_rows_give_a_float32_mean():
    value = mean_of_own_rows(torch.full((3,), 2.0, dtype=torch.bfloat16))
    assert value.dtype == torch.float32 and value.item() == 2.0


def check_processes() -> None:
    rows = torch.tensor(ROWS[dist.get_rank()], requires_grad=True)
    value = mean_of_own_rows(rows)
    value.backward()
    total = value.detach().clone()
    dist.all_reduce(total)
    everyone = [number for own in ROWS.values() for number in own]
    assert total.item() / 3 == pytest.approx(sum(everyone) / len(everyone))  # what a meter reads
    # averaged over three processes, each row's gradient is 1 / (rows of all)
    torch.testing.assert_close(rows.grad / 3, torch.full_like(rows, 1 / len(everyone)))


def test_the_mean_over_processes_is_that_of_all_rows():
    run_in_group(check_processes, world_size=3)


def test_no_value_leaves_the_device_of_the_rows():
    # "meta" holds shapes alone, so a value that is read, or made elsewhere, fails here
    value = mean_of_own_rows(torch.zeros(4, device="meta"))
    assert value.device.type == "meta" and value.shape == ()


def test_rows_of_double_precision_stay_so():
    value = mean_of_own_rows(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    assert value.dtype == torch.float64 and value.item() == pytest.approx(7 / 3, abs=1e-15)
