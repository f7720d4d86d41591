"""Several processes of one test, joined by gloo as torchrun would join them."""

import multiprocessing
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

LOCAL = "127.0.0.1"
START = "forkserver"  # imports PRELOADED once for all processes of all tests
PRELOADED = ["processor.train"]


def run_on_ranks(function: Callable[..., None], *args: Any, world_size: int = 2) -> None:
    """Call the module-level `function(*args)` in `world_size` new processes with torchrun's environment each.

    A failure of one ends the others and raises here.
    """
    multiprocessing.get_context(START).set_forkserver_preload(PRELOADED)
    torch.multiprocessing.start_processes(
        _enter, (world_size, free_port(), function, args), nprocs=world_size, start_method=START
    )


def run_in_group(function: Callable[..., None], *args: Any, world_size: int = 2) -> None:
    """As `run_on_ranks`, within a gloo process group."""
    run_on_ranks(_join, function, args, world_size=world_size)


def results_of_ranks(function: Callable[..., Any], folder: Path, *args: Any) -> list[Any]:
    """Return what `function(rank, *args)`, tensors in dicts or lists, gives in each process of a group of two.

    `folder` is empty.
    """
    run_in_group(_keep, function, folder, args)
    return [torch.load(folder / f"{rank}.pth", weights_only=True) for rank in range(2)]


def free_port() -> int:
    """Return a port of this machine that nobody listens on, none of those that systems give to outgoing connections."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe:
            if probe.connect_ex((LOCAL, port)):
                return port


def _enter(rank: int, world_size: int, port: int, function: Callable[..., None], args: tuple) -> None:
    torch.set_num_threads(1)
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    os.environ.update({name: str(value) for name, value in variables.items()})
    os.environ.update({"MASTER_ADDR": LOCAL, "MASTER_PORT": str(port)})
    function(*args)


def _join(function: Callable[..., None], args: tuple) -> None:
    dist.init_process_group("gloo")
    function(*args)
    dist.barrier()  # gloo's threads may still drop tensors, for which they need the lock that destroying holds
    dist.destroy_process_group()


def _keep(function: Callable[..., Any], folder: Path, args: tuple) -> None:
    rank = dist.get_rank()
    torch.save(function(rank, *args), folder / f"{rank}.pth")
