"""What processes exchange, and the mistakes of starting them."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from datasets.sampler import ShardSampler
from tests.ranks import run_in_group, run_on_ranks
from utils import distributed
from utils.distributed import Ranks, find_ranks, gather_shards, joined, whole_batch
from utils.errors import ConfigError, RunError

ROWS, WIDTH, WORLD = 5, 4, 2  # rows in all; 5 do not divide by 2


def make_batch() -> dict[str, torch.Tensor]:
    """Return a batch of four rows in several types and shapes."""
    generator = torch.Generator().manual_seed(0)
    return {
        "feat": torch.randn(4, WIDTH, generator=generator),
        "half": torch.randn(4, 2, 3, generator=generator).bfloat16(),
        "pids": torch.tensor([7, 7, -1, 2**40]),
        "luma": torch.rand(4, generator=generator),
        "dark": torch.tensor([True, False, False, True]),
    }


def weighted(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Return a loss that couples every row with every other."""
    feat, half = tensors[0], tensors[1].flatten(1).float()
    return (feat @ feat.T).tanh().sum() + (half @ half.T).square().mean()


def exchange(folder: str) -> None:
    rank = distributed.own_rank()
    batch = make_batch()
    own = {name: value[2 * rank : 2 * rank + 2] for name, value in batch.items()}
    feat, half = own["feat"].clone().requires_grad_(), own["half"].clone().requires_grad_()
    whole = whole_batch([feat, half, own["pids"], own["luma"], own["dark"]])
    weighted(whole).backward()
    rows = torch.arange(ROWS * WIDTH).view(ROWS, WIDTH)
    buffers = torch.nn.BatchNorm1d(1)
    buffers.running_mean.fill_(rank + 5)
    distributed.share_buffers(buffers)
    result = {
        "whole": [tensor.detach() for tensor in whole],
        "grads": [feat.grad, half.grad],
        "shards": gather_shards(rows[list(ShardSampler(ROWS, rank, WORLD))], ROWS),
        "sum": distributed.sum_over_ranks(torch.tensor([1.0, rank])),
        "mean": distributed.mean_over_ranks(torch.tensor(float(rank))),
        "buffer": buffers.running_mean,
    }
    torch.save(result, f"{folder}/{rank}.pth")


@pytest.fixture(scope="module")
def exchanged(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of two processes got."""
    folder = tmp_path_factory.mktemp("ranks")
    run_in_group(exchange, str(folder))
    return [torch.load(folder / f"{rank}.pth", weights_only=True) for rank in range(WORLD)]


def test_every_process_sees_the_batch_of_all_in_rank_order(exchanged):
    for result in exchanged:
        for expected, got in zip(make_batch().values(), result["whole"], strict=True):
            assert got.dtype == (torch.float32 if expected.is_floating_point() else expected.dtype)
            assert torch.equal(got, expected.to(got.dtype))


def test_the_mean_of_the_processes_gradients_is_the_gradient_of_one_process(exchanged):
    batch = make_batch()
    feat, half = batch["feat"].requires_grad_(), batch["half"].requires_grad_()
    weighted([feat, half.float()]).backward()
    for place, expected in enumerate((feat.grad, half.grad)):
        # DistributedDataParallel divides by the number of processes what each adds
        got = torch.cat([result["grads"][place] for result in exchanged]) / WORLD
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got, expected)


def test_shards_come_back_in_order_without_their_padding(exchanged):
    for result in exchanged:
        assert torch.equal(result["shards"], torch.arange(ROWS * WIDTH).view(ROWS, WIDTH))


def test_sums_and_means_are_those_of_all_processes(exchanged):
    for result in exchanged:
        assert result["sum"].tolist() == [2, 1]
        assert result["mean"].item() == 0.5


def test_buffers_become_those_of_the_first_process(exchanged):
    assert [result["buffer"].item() for result in exchanged] == [5, 5]


def test_one_process_keeps_its_own_tensors():
    batch = list(make_batch().values())
    assert all(got is given for got, given in zip(whole_batch(batch), batch, strict=True))
    assert gather_shards(batch[0], len(batch[0])) is batch[0]


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """torchrun(processes) gives this process the environment of torchrun's first one; None of them: no torchrun."""

    def start(processes: int | None) -> None:
        for name, value in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", processes), ("LOCAL_WORLD_SIZE", processes)):
            monkeypatch.delenv(name, raising=False)
            if processes is not None:
                monkeypatch.setenv(name, str(value))

    start(None)
    return start


@pytest.mark.parametrize(("devices", "processes"), [(0, 2), (4, 4)])
def test_a_distributed_run_without_torchrun_is_told_its_own_command(torchrun, monkeypatch, devices, processes):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    command = ["train.py", "--config_file", "my configs/a.yml", "SOLVER.STEPS", "[40, 70]"]
    with pytest.raises(ConfigError) as caught:
        find_ranks(True, command)
    told = str(caught.value).split("the command is: ")[1]
    assert shlex.split(told) == ["torchrun", f"--nproc_per_node={processes}", *command]


def test_torchrun_without_dist_train_is_refused(torchrun):
    torchrun(2)
    with pytest.raises(ConfigError, match="started 2 processes, but MODEL.DIST_TRAIN is False.*start one process"):
        find_ranks(False)
    torchrun(1)
    assert find_ranks(False) == Ranks()


def test_the_world_size_of_another_launcher_is_not_torchruns(torchrun, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert find_ranks(False) == Ranks()


def test_more_processes_than_gpus_are_refused_with_both_numbers(torchrun, monkeypatch):
    torchrun(4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with (
        pytest.raises(ConfigError, match="started 4 processes on this machine, which has 2 CUDA devices"),
        joined(find_ranks(True), torch.device("cuda", 0)),
    ):
        pass


def test_several_processes_on_mps_are_refused(torchrun):
    torchrun(2)
    with pytest.raises(ConfigError, match="mps trains in one process"), joined(find_ranks(True), torch.device("mps")):
        pass


def leave(folder: Path, failing: int | None) -> None:
    """Train nothing; process `failing` ends by an error, and each one writes how it left."""
    ranks, outcome = find_ranks(True), "whole"
    try:
        with joined(ranks, torch.device("cpu")):
            if ranks.rank == failing:
                raise ZeroDivisionError
    except (ZeroDivisionError, RunError) as error:
        outcome = type(error).__name__
    (folder / str(ranks.rank)).write_text(f"{outcome} {torch.distributed.is_initialized()}")


@pytest.mark.parametrize(
    ("failing", "outcomes"), [(None, ["whole False"] * 2), (1, ["RunError True", "ZeroDivisionError True"])]
)
def test_processes_leave_together_and_none_waits_for_one_that_failed(tmp_path, failing, outcomes):
    run_on_ranks(leave, tmp_path, failing)
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == outcomes
