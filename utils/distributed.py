"""One process per GPU, started by torchrun; a single process needs none of it."""

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from utils.errors import ConfigError, RunError
from utils.interrupts import bounded
from utils.precision import at_least_float32

COLLECTIVE_TIMEOUT = timedelta(hours=3)  # the other processes wait while rank 0 ranks, or fills the image cache
TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
OUTSIDE_INFERENCE = torch.inference_mode(False)  # gloo of torch 2.5 refuses inference tensors


class Ranks(NamedTuple):
    """This process among all: global rank, number of processes, rank on this machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0


def find_ranks(dist_train: bool, command: Sequence[str] = ("train.py", "--config_file", "F")) -> Ranks:
    """Return this process's ranks; with MODEL.DIST_TRAIN they come from torchrun's environment.

    Raises ConfigError where DIST_TRAIN is on without torchrun, with the right form of `command`, this program's own
    words, and where torchrun started several processes of a run that is not distributed.
    """
    started_by_torchrun = all(name in os.environ for name in TORCHRUN_VARIABLES)
    if dist_train and not started_by_torchrun:
        words = ["torchrun", f"--nproc_per_node={torch.cuda.device_count() or 2}", *command]
        raise ConfigError(
            "MODEL.DIST_TRAIN True needs one process per GPU, started by torchrun (a single process: MODEL.DIST_TRAIN "
            f"False); the command is: {shlex.join(words)}"
        )
    if not dist_train:
        if started_by_torchrun and int(os.environ["WORLD_SIZE"]) > 1:
            raise ConfigError(
                f"torchrun started {os.environ['WORLD_SIZE']} processes, but MODEL.DIST_TRAIN is False, so each would "
                "work alone in the same OUTPUT_DIR; start one process without torchrun (train.py alone works in "
                "several, with MODEL.DIST_TRAIN True)"
            )
        return Ranks()
    return Ranks(*(int(os.environ[name]) for name in TORCHRUN_VARIABLES))


@contextmanager
def joined(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Be part of torchrun's process group (NCCL on CUDA, gloo on CPUs); nothing to do for a single process.

    Raises ConfigError where this machine has fewer GPUs than processes. After an exception the group is not taken down:
    the others may wait in it for this process, whose end tells torchrun to stop them. Those that are through already
    raise RunError.
    """
    if ranks.world_size == 1:
        yield
        return
    _check_device(ranks, device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    with bounded():  # the others may wait here for one that Ctrl-C has ended
        dist.init_process_group(backend, init_method="env://", timeout=COLLECTIVE_TIMEOUT)
        yield
        _leave(device)


def _leave(device: torch.device) -> None:
    """Take the group down when all processes have come here: before that, gloo's threads may still drop tensors, for
    which they need the lock that destroying holds. RunError where another process has ended instead.
    """
    try:
        dist.barrier(device_ids=[torch.cuda.current_device()] if device.type == "cuda" else None)
    except RuntimeError as error:
        raise RunError("another process of this training ended before this one; its own error says why") from error
    dist.destroy_process_group()


def _check_device(ranks: Ranks, device: torch.device) -> None:
    here = int(os.environ.get("LOCAL_WORLD_SIZE", ranks.local_rank + 1))
    if device.type == "cuda" and here > torch.cuda.device_count():
        raise ConfigError(
            f"torchrun started {here} processes on this machine, which has {torch.cuda.device_count()} CUDA devices "
            f"for them; use --nproc_per_node={torch.cuda.device_count()}"
        )
    if device.type == "mps":
        raise ConfigError("MODEL.DEVICE mps trains in one process; set MODEL.DIST_TRAIN False, or MODEL.DEVICE cpu")


def num_processes() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own_rank() -> int:
    """Return the number, from 0, of this process among those that train together."""
    return dist.get_rank() if dist.is_initialized() else 0


@OUTSIDE_INFERENCE
def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Return the sum of `tensor` over all processes, which all have it in the same shape."""
    if not dist.is_initialized():
        return tensor
    result = tensor.detach().to(_group_device(tensor), copy=True)
    dist.all_reduce(result)
    return result.to(tensor.device)


def mean_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Return the mean of `tensor` over all processes, which all have it in the same shape."""
    return sum_over_ranks(tensor) / num_processes()


def share_buffers(module: nn.Module) -> None:
    """Give every process the buffers that rank 0's `module` has: running statistics that each made of its own share."""
    if dist.is_initialized():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


@OUTSIDE_INFERENCE
def gather_objects(value: Any) -> list[Any]:
    """Return the values of all processes in rank order."""
    if not dist.is_initialized():
        return [value]
    values = [None] * num_processes()
    dist.all_gather_object(values, value)
    return values


def gather_shards(values: torch.Tensor, total: int) -> torch.Tensor:
    """Return on every process the `total` rows whose shards (datasets.sampler.ShardSampler) the processes hold.

    `values` is [n, ...] with equal n everywhere; the rows that pad the last shards are left out. The result [total,
    ...] is on the device of `values`.
    """
    if not dist.is_initialized():
        return values
    return _all_rows(values)[:total]


def whole_batch(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return each tensor [b, ...] of this process as that of all processes [world_size * b, ...], in rank order.

    b is equal for all tensors and all processes. Tensors of floating point become at least float32 and share one
    collective, through which gradients flow to those that need them; all others share another, and become int64 unless
    they are bool. One process gets its own back.
    """
    if not dist.is_initialized():
        return list(tensors)
    gathered = list(tensors)
    places = [place for place, tensor in enumerate(tensors) if tensor.is_floating_point()]
    others = [place for place, tensor in enumerate(tensors) if not tensor.is_floating_point()]
    for chosen, convert in ((places, at_least_float32), (others, torch.Tensor.long)):
        for place, whole in zip(chosen, _gather_packed([convert(tensors[place]) for place in chosen]), strict=True):
            whole = whole.bool() if tensors[place].dtype == torch.bool else whole
            gathered[place] = whole if tensors[place].requires_grad else whole.detach()
    return gathered


def _gather_packed(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Gather tensors of one kind in one collective."""
    if not tensors:
        return []
    rows = [tensor.reshape(len(tensor), -1) for tensor in tensors]
    parts = _WholeBatch.apply(torch.cat(rows, 1)).split([row.shape[1] for row in rows], 1)
    return [part.reshape(-1, *tensor.shape[1:]) for part, tensor in zip(parts, tensors, strict=True)]


def shared_rows(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows [b, ...] of this process with those of all [world_size * b, ...], in rank order.

    b is equal on all processes. What each of them makes of the rows adds to the gradient of all, in a collective of the
    backward pass; for a loss that all compute alike, `whole_batch` needs none. At least float32; one process gets its
    own back.
    """
    return _SharedRows.apply(at_least_float32(rows)) if dist.is_initialized() else rows


class _SharedRows(torch.autograd.Function):
    """All processes' rows; backward, the own rows of the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        ctx.count = len(rows)
        return _all_rows(rows)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        start = own_rank() * ctx.count
        return sum_over_ranks(grad)[start : start + ctx.count]


def shared_sum(tensor: torch.Tensor) -> torch.Tensor:
    """Return the sum over all processes; what each of them does with it adds to the gradient of all."""
    return _SharedSum.apply(tensor)


class _SharedSum(torch.autograd.Function):
    """The sum over all processes, forward and backward."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        return sum_over_ranks(tensor)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return sum_over_ranks(grad)


class _WholeBatch(torch.autograd.Function):
    """All processes' rows; backward, the own rows of the gradient times the number of processes, no collective.

    Every process computes the same loss of the whole batch, so it has d loss / d own rows already. Over the processes
    what follows from it sums up to the gradient of one process; DistributedDataParallel takes the mean, hence the
    factor.
    """

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        ctx.count = len(rows)
        return _all_rows(rows)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        start = own_rank() * ctx.count
        return grad[start : start + ctx.count] * num_processes()


@OUTSIDE_INFERENCE
def _all_rows(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows [n, ...] of all processes in rank order, on the device of `rows`."""
    own = rows.detach().to(_group_device(rows)).contiguous()
    everyone = torch.empty(num_processes() * len(own), *own.shape[1:], dtype=own.dtype, device=own.device)
    dist.all_gather_into_tensor(everyone, own)
    return everyone.to(rows.device)


def _group_device(tensor: torch.Tensor) -> torch.device:
    """Return where the process group wants `tensor`: NCCL knows CUDA alone."""
    if dist.get_backend() == "nccl" and not tensor.is_cuda:
        return torch.device("cuda", torch.cuda.current_device())
    return tensor.device
